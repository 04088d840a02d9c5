"""Create the first administrator with a random password."""

from __future__ import annotations

import secrets
from typing import Any

from django.contrib.auth.models import Group, User
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import transaction


class Command(BaseCommand):
    """Called by script/setup; does nothing once there is an administrator."""

    help = "Create the first administrator; the random password is shown once."

    def add_arguments(self, parser: CommandParser) -> None:
        """Take the name, and whether to make a new password for one who is there."""
        parser.add_argument("--username", default="admin", help="name to sign in with")
        parser.add_argument(
            "--reset", action="store_true", help="give that administrator a new password"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Create or reset, and print what to sign in with."""
        username: str = options["username"]
        password = secrets.token_urlsafe(12)
        with transaction.atomic():
            if options["reset"]:
                user = User.objects.filter(username=username).first()
                if user is None:
                    raise CommandError(f"There is no user {username}.")
                user.set_password(password)
                user.save(update_fields=["password"])
            elif User.objects.filter(is_superuser=True).exists():
                return
            elif User.objects.filter(username=username).exists():
                raise CommandError(
                    f"The user {username} exists and is no administrator. "
                    "Choose another name with --username."
                )
            else:
                user = User.objects.create_superuser(username, password=password)
                user.groups.add(*Group.objects.filter(name="Administrators"))
        self.stdout.write(f"Sign in as {username} with the password {password}")
        self.stdout.write("It is not shown again; change it after signing in.")
