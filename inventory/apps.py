"""Start-up of the inventory: what is audited, and what may be uploaded."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class InventoryConfig(AppConfig):
    """The source VMs and where they came from."""

    name = "inventory"
    verbose_name = _("Inventory")

    def ready(self) -> None:
        """Keep a trail of who changed uploads, machines and users."""
        from auditlog.registry import auditlog
        from django.contrib.auth.models import Group, User

        from inventory import (
            checks,  # noqa: F401  registers the start-up checks
            incoming,
        )
        from inventory.models import LibvirtHost, OvaUpload, SourceVM
        from inventory.ova_uploads import OvaUploads

        incoming.register(OvaUploads())
        # Progress fields change all the time and are no decision of anyone.
        auditlog.register(
            OvaUpload,
            exclude_fields=["received_bytes", "checked_bytes", "updated_at", "digests"],
        )
        auditlog.register(SourceVM, exclude_fields=["record", "changes", "seen_at"])
        # Of a password only the time, which tells that it became another.
        auditlog.register(
            LibvirtHost,
            include_fields=[
                "name", "uri", "password_set_at", "thumbprint", "transport", "vddk_folder",
                "shares_disks",
            ],
        )  # fmt: skip
        auditlog.register(
            User, mask_fields=["password"], exclude_fields=["last_login"], m2m_fields={"groups"}
        )
        auditlog.register(Group, m2m_fields={"permissions"})
