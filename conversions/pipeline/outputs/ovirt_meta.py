"""The file that lies beside every volume of a storage domain and describes it to VDSM."""

from __future__ import annotations

from datetime import datetime

from conversions.pipeline.errors import TargetError
from conversions.pipeline.outputs.ovirt_xml import GENERATOR, NO_UUID, Volume
from conversions.pipeline.types import Overlay

SECTOR = 512


def meta_text(volume: Volume, domain: str, allocation: str, now: datetime) -> str:
    """Return the lines KEY=value; VDSM stops reading at EOF.

    Raises TargetError for a disk whose size is no number of sectors.
    """
    seconds = int(now.timestamp())
    values = {
        "DOMAIN": domain,
        "VOLTYPE": "LEAF",
        "CTIME": seconds,
        "MTIME": seconds,
        "IMAGE": volume.image,
        "DISKTYPE": 2,
        "PUUID": NO_UUID,
        "LEGALITY": "LEGAL",
        "POOL_UUID": "",
        "SIZE": sectors(volume.disk.overlay),
        "FORMAT": volume.format,
        "TYPE": allocation.upper(),
        "DESCRIPTION": GENERATOR.replace("=", "_"),
    }
    return "".join(f"{key}={value}\n" for key, value in values.items()) + "EOF\n"


def sectors(overlay: Overlay) -> int:
    """Return the size of a disk in sectors.  Raises TargetError when that is no whole number."""
    count, rest = divmod(overlay.virtual_size_bytes, SECTOR)
    if rest:
        raise TargetError(
            f"Disk {overlay.sd} has {overlay.virtual_size_bytes} bytes, which is no multiple of "
            f"{SECTOR}: oVirt cannot have such a disk.",
            remedy="Enlarge the disk at its source to the next multiple.",
        )
    return count
