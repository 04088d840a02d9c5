"""The records that travel between the steps."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from inventory.sources.types import Controller, Nic, Removable, Source

if TYPE_CHECKING:
    from conversions.pipeline.early_copy import EarlyCopy


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlay:
    """The qcow2 layer over one source disk that all changes go into.

    `sd` is sda, sdb, ... in source order, which is also the device in the appliance.  A disk that
    is converted directly stands for its own overlay: `path` and `format` are then the disk's.
    With `early`, what lies below the layer is being copied already.
    """

    sd: str
    path: str
    virtual_size_bytes: int
    source_uri: str
    source_format: str
    source_controller: Controller | None
    source_label: str
    format: str = "qcow2"
    early: EarlyCopy | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Application:
    """An installed package of the guest; `epoch` 0 when it has none."""

    name: str
    version: str
    release: str = ""
    epoch: int = 0
    arch: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What the chosen root is; field names without i_ as in the report of spec 0, step 7."""

    root: str
    type: str
    distro: str
    arch: str
    major_version: int
    minor_version: int
    package_format: str
    package_management: str
    product_name: str
    product_variant: str
    osinfo: str
    hostname: str
    uefi_esps: tuple[str, ...]
    mountpoints: tuple[tuple[str, str], ...]
    filesystems: tuple[tuple[str, str], ...]
    applications: tuple[Application, ...]
    windows_systemroot: str = ""
    windows_software_hive: str = ""
    windows_system_hive: str = ""
    windows_current_control_set: str = ""
    windows_ntfs_state: str = ""

    @property
    def is_uefi(self) -> bool:
        """Tell whether the disks say UEFI."""
        return bool(self.uefi_esps)


@dataclass(frozen=True, slots=True, kw_only=True)
class MountpointStats:
    """statvfs of one mounted filesystem of the guest; counts of blocks and inodes."""

    device: str
    mountpoint: str
    vfs: str
    bsize: int
    blocks: int
    bfree: int
    bavail: int
    files: int
    ffree: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelInfo:
    """One kernel that the bootloader offers."""

    name: str
    version: str
    package_version: str
    arch: str
    vmlinuz: str
    initrd: str | None
    config_file: str | None
    modpath: str
    modules: tuple[str, ...]
    builtin: tuple[str, ...]
    supports_virtio_blk: bool
    supports_virtio_scsi: bool
    supports_virtio_net: bool
    supports_virtio_rng: bool
    supports_virtio_balloon: bool
    supports_isa_pvpanic: bool
    supports_virtio_socket: bool
    is_xen_pv_only: bool
    is_debug: bool


class BlockBus(StrEnum):
    """The bus the converted guest finds its disks on."""

    VIRTIO_BLK = "virtio-blk"
    VIRTIO_SCSI = "virtio-scsi"
    IDE = "ide"


class NetBus(StrEnum):
    """The NIC the converted guest has a driver for."""

    VIRTIO_NET = "virtio-net"
    E1000 = "e1000"
    RTL8139 = "rtl8139"


class Machine(StrEnum):
    """Target machine type."""

    I440FX = "i440fx"
    Q35 = "q35"
    VIRT = "virt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Guestcaps:
    """What the guest can do after conversion; `reasons` says for each field what decided it."""

    block_bus: BlockBus
    net_bus: NetBus
    virtio_rng: bool
    virtio_balloon: bool
    isa_pvpanic: bool
    virtio_socket: bool
    machine: Machine
    arch: str
    arch_min_version: int
    virtio_1_0: bool
    rtc_utc: bool
    video: str
    acpi: bool
    reasons: dict[str, str]


class ConcernLevel(StrEnum):
    """blocks stops the start, warning needs a look, note is for information."""

    BLOCKS = "blocks"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True, kw_only=True)
class Concern:
    """Something a person should know before converting.

    `code` is stable (C-VMWARE-TOOLS); `found` is the evidence, `meaning` what will happen,
    `remedy` what to do ("" for nothing).
    """

    level: ConcernLevel
    code: str
    title: str
    found: str
    meaning: str
    remedy: str = ""


class Place(StrEnum):
    """What a target disk is.

    A file that the copy makes; a device that exists, or a file that is treated as one: only its
    content is replaced; a disk that is sent elsewhere; or nothing.
    """

    FILE = "file"
    DEVICE = "device"
    REMOTE = "remote"
    NULL = "null"


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetDisk:
    """One disk to be written.

    `part_path` is what the copy writes to, `final_path` what the metadata names.  A `staged` copy
    lies on this host until it is uploaded.
    """

    overlay: Overlay
    final_path: str
    part_path: str
    format: str
    estimated_bytes: int | None = None
    place: Place = Place.FILE
    staged: bool = False


Slot = TargetDisk | Removable | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetBuses:
    """Slots per bus; None is an empty slot."""

    virtio_blk: tuple[Slot, ...] = ()
    ide: tuple[Slot, ...] = ()
    scsi: tuple[Slot, ...] = ()
    floppy: tuple[Slot, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetMeta:
    """All that an output needs to describe the converted VM.

    `guest` is None in a preview of a machine that was never looked into.  `keep_display` keeps
    the address and the password of the source's screen; without it both are left out.
    """

    source: Source
    name: str
    guestcaps: Guestcaps
    buses: TargetBuses
    nics: tuple[Nic, ...]
    uefi: bool
    boot_disk: int | None
    guest: Inspection | None
    keep_display: bool = False
