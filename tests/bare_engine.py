"""The engine, but no appliance: all that its guest gets is one write into each overlay.

So that everything around a conversion can be tried in seconds, on disks that hold no system.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import asdict
from unittest.mock import MagicMock, patch

from conversions.pipeline import cli, run
from conversions.pipeline.context import Context
from conversions.pipeline.guestcaps import expected_guestcaps
from conversions.pipeline.types import Guestcaps, Inspection
from tests.unit.pipeline.samples import GUEST

PATTERN = 0x62


class OneWrite:
    """Stands for a converter."""

    def convert(self, c: Context) -> Guestcaps:
        """Write the pattern over the first sector of every disk."""
        for overlay in c.work.glob("v2vovl-*.qcow2"):
            command = ["qemu-io", "-f", "qcow2", "-c", f"write -P {PATTERN} 0 512"]
            subprocess.run([*command, str(overlay)], check=True, stdout=subprocess.DEVNULL)
        caps = expected_guestcaps()
        c.report.report("guestcaps", asdict(caps))
        return caps


def found(*_arguments: object, **_options: object) -> Inspection:
    """Return the guest that every disk is said to hold."""
    return GUEST


if __name__ == "__main__":
    with patch.multiple(
        run,
        Appliance=MagicMock(),
        inspect_guest=found,
        collect_concerns=MagicMock(),
        pick_converter=lambda _guest: OneWrite(),
        detect_boot_disk=lambda *_: 0,
    ):
        sys.exit(cli.main(sys.argv[1:]))
