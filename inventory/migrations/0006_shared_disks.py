"""Whether the disks of a KVM host are on this server too."""

from typing import Any

from django.db import migrations, models


def keep_as_it_was(apps: Any, _editor: Any) -> None:
    """Let hosts that are known be read as before: so far their disks had to be here."""
    hosts = apps.get_model("inventory", "LibvirtHost").objects
    hosts.filter(uri__regex=r"^qemu\+(ssh|libssh2?)://").update(shares_disks=True)


class Migration(migrations.Migration):
    """New hosts are read over ssh."""

    dependencies = [("inventory", "0005_host_passwords")]

    operations = [
        migrations.AddField(
            model_name="libvirthost",
            name="shares_disks",
            field=models.BooleanField(default=False),
        ),
        migrations.RunPython(keep_as_it_was, migrations.RunPython.noop),
    ]
