"""The one model of a source VM, whatever it was read from.

Every reader fills a `Source`; the pipeline, the inventory and `--print-source` work from it alone.
`to_dict()`/`from_dict()` give the JSON form stored in the inventory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from inventory.sources.display import Display


class Controller(StrEnum):
    """The bus a disk or removable was attached to on the source."""

    IDE = "ide"
    SATA = "sata"
    SCSI = "scsi"
    NVME = "nvme"
    VIRTIO_BLK = "virtio-blk"
    VIRTIO_SCSI = "virtio-scsi"


class Firmware(StrEnum):
    """What boots the VM; unknown means: decide from the disks."""

    BIOS = "bios"
    UEFI = "uefi"
    UNKNOWN = "unknown"


class RemovableType(StrEnum):
    """Kinds of drives with removable media."""

    CDROM = "CD-ROM"
    FLOPPY = "Floppy"


class VnetType(StrEnum):
    """Whether a NIC names a libvirt network or a bridge."""

    BRIDGE = "Bridge"
    NETWORK = "Network"


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuTopology:
    """Counts; sockets x cores x threads is the number of vCPUs."""

    sockets: int
    cores: int
    threads: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceDisk:
    """One fixed disk and where its bytes are.

    `path` is the file on this host that holds the bytes.  For a disk read in place inside an
    uncompressed tar, `member` names it and `offset_bytes`/`length_bytes` say where it lies (the
    length rounded up to 512, as qemu wants it).  `format` is stated by us, never probed later.
    A `remote` disk lies on another host: `path` is its address there, for people, and `node` the
    block node that qemu opens instead, None until a server of ours serves the disk.
    `virtual_size_bytes` is what the guest sees; None until the image has been looked at.
    `other_files` also hold bytes of it: a VMDK's extents, and the layers below a snapshot.
    """

    id: int
    controller: Controller | None
    path: str
    format: str
    member: str | None = None
    offset_bytes: int | None = None
    length_bytes: int | None = None
    virtual_size_bytes: int | None = None
    declared_capacity_bytes: int | None = None
    other_files: tuple[str, ...] = ()
    remote: bool = False
    node: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Removable:
    """A CD-ROM or floppy drive; `slot` is its position on its own controller, None if unknown."""

    type: RemovableType
    controller: Controller | None = None
    slot: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Nic:
    """A network card; `vnet` is the source's network or bridge name, `model` None if unknown."""

    vnet: str
    vnet_type: VnetType
    mac: str | None = None
    model: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A virtual machine as it was found; only ever read."""

    name: str
    original_name: str
    hypervisor: str
    memory_bytes: int
    vcpus: int
    disks: tuple[SourceDisk, ...]
    removables: tuple[Removable, ...] = ()
    nics: tuple[Nic, ...] = ()
    firmware: Firmware = Firmware.UNKNOWN
    uefi_secureboot: bool = False
    genid: str | None = None
    cpu_vendor: str | None = None
    cpu_model: str | None = None
    cpu_topology: CpuTopology | None = None
    features: tuple[str, ...] = ()
    display: Display | None = None
    sound: str | None = None
    os_hint: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form: plain dicts, lists, strings and numbers, keys as the fields."""
        return asdict(self) | {"display": self.display.to_dict() if self.display else None}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Source:
        """Build a Source from `to_dict()`'s form.  Raises KeyError, TypeError or ValueError."""
        values = dict(data)
        topology = values.get("cpu_topology")
        values["disks"] = tuple(
            SourceDisk(
                **{
                    **d,
                    "controller": _controller(d["controller"]),
                    "other_files": tuple(d.get("other_files", ())),
                }
            )
            for d in data["disks"]
        )
        values["removables"] = tuple(
            Removable(
                type=RemovableType(r["type"]),
                controller=_controller(r["controller"]),
                slot=r["slot"],
            )
            for r in data.get("removables", ())
        )
        values["nics"] = tuple(
            Nic(**{**n, "vnet_type": VnetType(n["vnet_type"])}) for n in data.get("nics", ())
        )
        values["firmware"] = Firmware(data.get("firmware", "unknown"))
        values["cpu_topology"] = CpuTopology(**topology) if topology else None
        values["features"] = tuple(data.get("features", ()))
        display = values.get("display")
        values["display"] = Display.from_dict(display) if display else None
        return cls(**values)


def _controller(value: str | None) -> Controller | None:
    return Controller(value) if value else None


def disk_letters(index: int) -> str:
    """Return the letters of disk number `index` from 0: a, b, ... z, aa, ab, ... zz, aaa."""
    letters = ""
    index += 1
    while index:
        index, rest = divmod(index - 1, 26)
        letters = chr(ord("a") + rest) + letters
    return letters
