"""The X server's driver where a configuration names the old graphics card."""

from __future__ import annotations

import re

from conversions.pipeline.context import Context
from conversions.pipeline.linux.files import GuestFiles
from conversions.pipeline.report import Level

DRIVER = "modesetting"
_SECTION = re.compile(r"(?msi)^[ \t]*Section[ \t]+\"Device\".*?^[ \t]*EndSection")
_OF_THE_CARD = re.compile(r"(?mi)^[ \t]*(?:VendorName|BoardName|BusID)[ \t].*\n")
_DRIVER = re.compile(r"(?mi)^([ \t]*Driver[ \t]+)\"([^\"]*)\"")
_FOREIGN = ("vmware", "vboxvideo", "cirrus", "qxl")


def adapt_x_driver(c: Context, files: GuestFiles) -> None:
    """Name the driver for any graphics card in a configuration of the X server, if there is one."""
    changed = False
    main = files.first_file("/etc/X11/xorg.conf", "/etc/X11/XF86Config")
    if main:
        changed = files.edit(main, with_driver, f"X driver is now {DRIVER}")
    for path in files.paths("/etc/X11/xorg.conf.d", ".conf"):
        names = {m[2].lower() for m in _DRIVER.finditer(files.read(path) or "")}
        if names & set(_FOREIGN):
            changed |= files.edit(path, with_driver, f"X driver is now {DRIVER}")
    if changed and files.first_file("/usr/bin/X", "/usr/bin/X11/X", "/usr/bin/Xorg") is None:
        c.report.log(
            Level.WARNING, "The X server's driver was changed, but the guest has no X server."
        )


def with_driver(text: str) -> str:
    """Return a configuration whose Device sections use the driver for any card."""

    def section(match: re.Match[str]) -> str:
        return _DRIVER.sub(rf'\1"{DRIVER}"', _OF_THE_CARD.sub("", match[0]))

    return _SECTION.sub(section, text)
