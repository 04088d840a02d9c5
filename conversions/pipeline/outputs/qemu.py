"""Output `qemu`: disk files and a shell script that starts them."""

from __future__ import annotations

import subprocess
from pathlib import Path

from conversions.pipeline.outputs.files import FileTargets
from conversions.pipeline.outputs.folder import FolderOutput
from conversions.pipeline.outputs.qemu_script import qemu_script
from conversions.pipeline.report import Level
from conversions.pipeline.types import TargetMeta


class QemuOutput(FolderOutput):
    """Writes NAME-sda, NAME-sdb, ... and an executable NAME.sh into a folder that exists."""

    suffix = ".sh"
    title = "qemu start script"
    report_name = "qemu_script"
    metadata_mode = 0o750

    def metadata(self, meta: TargetMeta, *, quiet: bool = False) -> str:
        """Return the script."""
        return qemu_script(meta, self.warner(quiet=quiet))

    def on_committed(self, targets: FileTargets) -> None:
        """Start the machine in the background when that was asked for.

        It stays when this process ends; its output is dropped.
        """
        if not self.target.flag("qemu-boot"):
            return
        script = next(p for p in targets.parts.values() if p.suffix == self.suffix)
        start(script)
        self._report.log(Level.INFO, f"Started: {script}")


def start(script: Path) -> None:
    """Start the script in a session of its own, as nobody's child."""
    subprocess.run(
        ["setsid", "--fork", str(script)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=True,
    )
