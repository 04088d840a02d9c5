"""Start-up of the conversions: roles, audit, uploads, and the worker's sign of life."""

from django.apps import AppConfig
from django.db.models.signals import post_migrate, pre_migrate
from django.utils.translation import gettext_lazy as _


class ConversionsConfig(AppConfig):
    """Runs of the engine and what they left."""

    name = "conversions"
    verbose_name = _("Conversions")

    def ready(self) -> None:
        """Connect what has to be there before the first request or task."""
        from auditlog.registry import auditlog

        from conversions import (
            checks,  # noqa: F401  registers the start-up checks
            health,  # noqa: F401  a worker reports from its start on
        )
        from conversions.driver_uploads import DriverUploads
        from conversions.models import Conversion, KeptWork, OutputTarget, SavedMap
        from inventory import incoming
        from inventory.access import create_roles, note_permissions

        incoming.register(DriverUploads())
        pre_migrate.connect(note_permissions, sender=self, dispatch_uid="note_permissions")
        # This app comes last, so the permissions of all others exist by then.
        post_migrate.connect(create_roles, sender=self, dispatch_uid="create_roles")
        # Who asked for it, who stopped it, who purged it; the run itself is in its own rows.
        auditlog.register(
            Conversion, include_fields=["vm_name", "name", "mode", "created_by", "force_stop"]
        )
        # What a check finds, and of a password all but the time, which tells that it is another.
        untold = ["checked_at", "problem", "is_locked_out", "free_bytes", "pool_path", "networks",
                  "bridges", "sealed_secrets"]  # fmt: skip
        auditlog.register(OutputTarget, exclude_fields=untold)
        auditlog.register(SavedMap)
        auditlog.register(KeptWork)
