"""SELinux labels of what the conversion wrote."""

from __future__ import annotations

import re

from conversions.pipeline.context import Context
from conversions.pipeline.linux.files import GuestFiles
from conversions.pipeline.report import Level

_CONFIG = "/etc/selinux/config"
_AUTORELABEL = "/.autorelabel"


def setting(text: str, name: str) -> str | None:
    """Return a setting of /etc/selinux/config, None without it."""
    match = re.search(rf"(?m)^\s*{name}\s*=\s*(\S+)", text)
    return match[1].strip("\"'") if match else None


def relabel(c: Context, files: GuestFiles) -> None:
    """Give the right labels to all files, now or at the first start; after the last write."""
    config = files.read(_CONFIG)
    if config is None or not files.is_file("/usr/sbin/load_policy"):
        return
    if not c.job.selinux_relabel:
        c.report.log(Level.INFO, "No file gets a new label (SELinux), as wished.")
        return
    if setting(config, "SELINUX") == "disabled":
        c.report.log(Level.INFO, "SELinux is disabled in the guest; nothing is relabelled.")
        return
    policy = setting(config, "SELINUXTYPE") or "targeted"
    specification = f"/etc/selinux/{policy}/contexts/files/file_contexts"
    if _relabel_now(c, files, specification):
        files.remove(_AUTORELABEL, "relabelled")
        return
    c.report.log(
        Level.INFO,
        "The guest relabels its files (SELinux) at its first start and then starts once more.",
    )
    files.write(_AUTORELABEL, "", "relabels itself at the first start")


def _relabel_now(c: Context, files: GuestFiles, specification: str) -> bool:
    if not c.change or not files.is_file(specification):
        return False
    try:
        if not c.g.feature_available(["selinuxrelabel"]):
            return False
        for mountpoint, _device in c.guest.mountpoints:
            c.g.selinux_relabel(specification, mountpoint)
    except RuntimeError as error:
        c.report.log(Level.DEBUG, f"The files could not be relabelled here: {error}")
        return False
    return True
