"""Output `ovirt`: an export storage domain, from which oVirt imports the machine.

Source: the layout that VDSM keeps on file storage; the domain is a folder, or an NFS share.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
import time
from contextlib import ExitStack
from os import geteuid
from pathlib import Path
from uuid import uuid4

from conversions.pipeline.commands import run
from conversions.pipeline.errors import CommandError, TargetError
from conversions.pipeline.job import Target
from conversions.pipeline.outputs.ovirt_files import Layout, VolumeOutput
from conversions.pipeline.outputs.ovirt_owner import VDSM_GID, VDSM_UID, as_vdsm
from conversions.pipeline.outputs.ovirt_xml import NO_UUID, random_uuid
from conversions.pipeline.report import Level, Reporter

_DOMAIN = re.compile(r".{8}-.{4}-.{4}-.{4}-.{12}", re.DOTALL)
_SHARE = re.compile(r"(?P<host>\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9][A-Za-z0-9.-]*):(?P<path>/.*)")
_UNMOUNTS = 20
_UNMOUNT_PAUSE_SECONDS = 0.25


class OvirtOutput(VolumeOutput):
    """Writes images/IMAGE/VOLUME, their .meta, and master/vms/VM/VM.ovf, last.

    The machine is not imported: somebody does that in oVirt.
    """

    title = "the export storage domain of"
    ours = True
    measured = True

    def __init__(self, target: Target, name: str | None, report: Reporter) -> None:
        super().__init__(target, name, report)
        self._vm_uuid = random_uuid()
        self._uuids: list[tuple[str, str]] = []

    def assumed_layout(self, count: int) -> Layout:
        """Return the layout below a domain that nobody has looked for."""
        return self._layout_in(Path("/") / NO_UUID, count)

    def _layout_in(self, domain: Path, count: int) -> Layout:
        while len(self._uuids) < count:
            self._uuids.append((random_uuid(), random_uuid()))
        return Layout(
            domain=domain,
            ovf=domain / "master" / "vms" / self._vm_uuid / f"{self._vm_uuid}.ovf",
            vm=self._vm_uuid,
            volumes=tuple(self._uuids[:count]),
        )

    def enter(self, stack: ExitStack, count: int) -> Layout:
        """Mount the share where it is one, find the domain in it and try to write there."""
        place = self.target.directory
        root = Path(place).absolute()
        if ":/" in place:
            root = mount(place, stack, self._report)
        domain = find_domain(root, place)
        self._probe(domain)
        return self._layout_in(domain, count)

    def _probe(self, domain: Path) -> None:
        """Write an empty file into the domain and delete it.  Raises TargetError."""
        probe = domain / f"v2vweb-{uuid4()}"
        try:
            with as_vdsm():
                probe.touch(mode=0o600, exist_ok=False)
                found = probe.stat()
                probe.unlink()
        except OSError as error:
            raise TargetError(
                f"Nothing can be written into the storage domain {domain}: {error.strerror}.",
                remedy=f"Give it to user and group {VDSM_UID}:{VDSM_GID}, and see that the share "
                "may be written.",
            ) from error
        if geteuid() == 0 and (found.st_uid, found.st_gid) != (VDSM_UID, VDSM_GID):
            self._report.log(
                Level.WARNING,
                f"What is written into {domain} belongs to {found.st_uid}:{found.st_gid} there, "
                f"not to {VDSM_UID}:{VDSM_GID}; oVirt may not be able to read it (ignored).",
            )


def find_domain(root: Path, place: str) -> Path:
    """Return the folder of the one storage domain there is.  Raises TargetError."""
    try:
        with as_vdsm():
            found = sorted(p for p in root.iterdir() if _DOMAIN.fullmatch(p.name))
            is_attached = [(p / "master" / "vms").is_dir() for p in found]
    except OSError as error:
        raise TargetError(
            f"The target {place} cannot be read: {error.strerror}.",
            remedy="Name the folder where the export storage domain is mounted, or HOST:/PATH.",
        ) from error
    if not found:
        raise TargetError(
            f"There is no storage domain in {place}: no folder there is named by a UUID.",
            remedy="Create it in oVirt as an export domain, or name the folder above it.",
        )
    if len(found) > 1:
        raise TargetError(
            f"There are {len(found)} storage domains in {place}: "
            f"{', '.join(p.name for p in found)}. There must be one.",
            remedy="Move the others elsewhere.",
        )
    if not is_attached[0]:
        raise TargetError(
            f"{found[0]} has no folder master/vms: it is no export domain, or is not attached to "
            "a data centre.",
            remedy="Attach it to a data centre in oVirt.",
        )
    return found[0]


def mount(share: str, stack: ExitStack, report: Reporter) -> Path:
    """Mount an NFS share until the stack ends and return where.  Raises TargetError."""
    if not _SHARE.fullmatch(share) or not share.isprintable():
        raise TargetError(
            f"{share!r} is no NFS share.", remedy="Write it as HOST:/PATH, or name a folder."
        )
    if geteuid() != 0:
        raise TargetError(
            f"Only root can mount {share}.",
            remedy="Mount it yourself and name the folder, or run the conversion as root.",
        )
    # Not in the work folder, which is deleted with everything in it.
    point = Path(tempfile.mkdtemp(prefix="v2v.export."))
    point.chmod(0o755)
    stack.callback(unmount, point, report)
    try:
        run(mount_command(share, point), report)
    except CommandError as error:
        raise TargetError(
            f"{share} cannot be mounted: {error.message}",
            remedy="See that the share is exported to this host, and that nfs-common is installed.",
        ) from error
    return point


def mount_command(share: str, point: Path) -> list[str]:
    """Return the command that mounts a share."""
    return ["mount", "-t", "nfs", "--", share, str(point)]


def unmount(point: Path, report: Reporter) -> None:
    """Undo a mount, if there is one, and remove its folder, never with anything in it.

    Programs that were killed may hold it a moment longer; a stop may kill umount itself.
    """
    words = ""
    for _attempt in range(_UNMOUNTS):
        if not point.is_mount():
            point.rmdir()
            return
        report.log(Level.DEBUG, f"umount -- {point}")
        done = subprocess.run(["umount", "--", str(point)], capture_output=True, text=True)
        words = done.stderr.strip()
        if done.returncode:
            time.sleep(_UNMOUNT_PAUSE_SECONDS)
    report.log(Level.WARNING, f"{point} could not be unmounted: {words} (ignored).")
