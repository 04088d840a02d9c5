"""Purge what ended long ago."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from conversions.models import Conversion
from conversions.purging import belongings, purge


class Command(BaseCommand):
    """For a timer of the system, or by hand; each run leaves an entry in the audit record."""

    help = "Delete runs that ended some days ago, with their logs and reports."

    def add_arguments(self, parser: CommandParser) -> None:
        """Take the age, and whether only to count."""
        parser.add_argument("--days", type=int, required=True, help="how long ago they ended")
        parser.add_argument("--dry-run", action="store_true", help="count, and delete nothing")

    def handle(self, *args: Any, **options: Any) -> None:
        """Purge, and say how much that was."""
        days: int = options["days"]
        if not 0 < days < 100_000:
            raise CommandError("--days must be at least 1.")
        old = Conversion.objects.filter(finished_at__lt=timezone.now() - timedelta(days=days))
        old = old.exclude(status__in=Conversion.ACTIVE)
        counts = ", ".join(f"{count} {name}" for name, count in belongings(old).items() if count)
        verb = "Would purge" if options["dry_run"] else "Purged"
        if not options["dry_run"]:
            purge(old)
        self.stdout.write(f"{verb} {counts or 'nothing'}.")
