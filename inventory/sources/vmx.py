"""A VMX file on this host as a source: the machine as VMware keeps it, with its disks beside it."""

from __future__ import annotations

from collections.abc import Callable
from os import fsdecode
from pathlib import Path

from inventory.sources.base import Warn
from inventory.sources.errors import DescriptorError, ImageError
from inventory.sources.local_image import local_disk
from inventory.sources.ova import name_from_file
from inventory.sources.power import BUSY
from inventory.sources.tar import printable
from inventory.sources.types import CpuTopology, Firmware, Source, SourceDisk
from inventory.sources.vmx_beside import power_beside
from inventory.sources.vmx_devices import VmxDisk, disks, nics, removables
from inventory.sources.vmx_text import MAX_BYTES, VmxText, parse_vmx

# What VMware gives a machine whose file does not say.
_DEFAULT_MEMORY_MIB = 32
_MAX_MEMORY_MIB = (1 << 30) - 1
_MAX_VCPUS = 4096
_SOUND = {"sb16": "sb16", "es1371": "es1370", "hdaudio": "ich6"}


class VmxReader:
    """Reads a VMX file; its disks lie in its folder unless they may lie `anywhere`."""

    def __init__(self, path: Path, *, warn: Warn, anywhere: bool = False) -> None:
        self._path = path.absolute()
        self._warn = warn
        self._anywhere = anywhere

    def describe(self) -> str:
        """Return one line for messages."""
        return f"VMX {self._path}"

    def read(self) -> Source:
        """Return the machine.  Raises SourceError."""
        try:
            with self._path.open("rb") as stream:
                data = stream.read(MAX_BYTES + 1)
        except OSError as error:
            raise DescriptorError(
                "E-VMX-READ",
                f"{self._path} cannot be read: {error.strerror}.",
                remedy="Check the path and who may read it.",
            ) from error
        source = machine_of(data, self._path.name, self._disk, self._warn)
        self._warn_of_use()
        return source

    def _disk(self, number: int, disk: VmxDisk, vmx: VmxText) -> SourceDisk:
        """Return where a disk lies.  Raises ImageError."""
        path = self._found(disk, vmx)
        folder = None if self._anywhere else self._path.parent
        if folder is not None and not path.resolve().is_relative_to(folder.resolve()):
            raise ImageError(
                "E-VMX-OUTSIDE",
                f"The disk {disk.unit} is {printable(str(path))}, outside of the folder of "
                f"{self._path.name}.",
                remedy="Copy the disk into that folder and correct the file.  On the command line, "
                "--disks-anywhere takes it as it is.",
            )
        return local_disk(
            number,
            path,
            format="vmdk",
            warn=self._warn,
            controller=disk.controller,
            folder=folder,
        )

    def _found(self, disk: VmxDisk, vmx: VmxText) -> Path:
        """Return the path of a disk, whose name is in the file's encoding.  Raises ImageError."""
        folder = self._path.parent
        path = folder / vmx.decoded(disk.file_name)
        if not path.exists() and (folder / fsdecode(disk.file_name)).exists():
            raise ImageError(
                "E-VMX-NAME",
                f"The name of the disk {disk.unit}, {printable(fsdecode(disk.file_name))}, is not "
                "in UTF-8 on this host; such names cannot be stored.",
                remedy="Rename the file, here and in the VMX file.",
            )
        return path

    def _warn_of_use(self) -> None:
        """Warn of what VMware leaves beside a machine that runs or is suspended."""
        try:
            sizes = {e.name: e.lstat().st_size for e in self._path.parent.iterdir()}
        except OSError:
            return  # the folder may be closed, and its files open
        power, trace = power_beside(self._path.name, sizes)
        if power in BUSY:
            self._warn(
                f"{printable(trace)} lies beside {self._path.name}: the machine seems to "
                "be running or suspended, and its disks in the middle of what it was doing. "
                "Shut it down from inside, then copy its files again."
            )

    def verify(self, progress: Callable[[int, int], None]) -> list[dict[str, str]]:
        """Return nothing: a VMX file carries no digests."""
        del progress
        return []


def machine_of(
    data: bytes,
    file_name: str,
    locate: Callable[[int, VmxDisk, VmxText], SourceDisk],
    warn: Warn,
) -> Source:
    """Return the machine that a VMX file's bytes describe.

    `locate` says where a disk lies, given its number from 0.  Raises SourceError.
    """
    vmx = parse_vmx(data, file_name, warn)
    name = vmx.text("displayname")
    if name is None:
        name = name_from_file(file_name)
        warn(f"{file_name} gives the machine no name; it is called {name} after the file.")
    vcpus = vmx.integer("numvcpus", 1, least=1, most=_MAX_VCPUS)
    mib = vmx.integer("memsize", _DEFAULT_MEMORY_MIB, least=1, most=_MAX_MEMORY_MIB)
    return Source(
        name=name,
        original_name=name,
        hypervisor="vmware",
        memory_bytes=mib << 20,
        vcpus=vcpus,
        disks=tuple(locate(number, disk, vmx) for number, disk in enumerate(disks(vmx, warn))),
        removables=tuple(removables(vmx)),
        nics=tuple(nics(vmx, warn)),
        firmware=_firmware(vmx, warn),
        uefi_secureboot=vmx.boolean("uefi.secureboot.enabled"),
        genid=_genid(vmx),
        cpu_topology=_topology(vmx, vcpus, warn),
        sound=_sound(vmx, warn),
        os_hint=(vmx.text("guestos") or "")[:200] or None,
    )


def _firmware(vmx: VmxText, warn: Warn) -> Firmware:
    stated = vmx.text("firmware") or "bios"
    if stated not in ("bios", "efi"):
        warn(f"The firmware {printable(stated)} is not known; BIOS is taken.")
    return Firmware.UEFI if stated == "efi" else Firmware.BIOS


def _topology(vmx: VmxText, vcpus: int, warn: Warn) -> CpuTopology | None:
    cores = vmx.integer("cpuid.corespersocket", 0, least=-(1 << 31), most=1 << 31)
    if vmx.raw("cpuid.corespersocket") is None:
        return None
    if cores <= 0 or vcpus // cores <= 0:
        warn(f"{cores} cores per socket do not fit {vcpus} vCPUs; no topology is taken.")
        return None
    return CpuTopology(sockets=vcpus // cores, cores=cores, threads=1)


def _sound(vmx: VmxText, warn: Warn) -> str | None:
    stated = vmx.text("sound.virtualdev")
    if stated is not None and stated not in _SOUND:
        warn(f"The sound card {printable(stated)} has no counterpart; it is left out.")
    return _SOUND.get(stated or "")


def _genid(vmx: VmxText) -> str | None:
    """Return the generation id as libvirt writes it; None unless both halves are there.

    Source: Microsoft's Virtual Machine Generation ID; VMware stores its bytes as two numbers.
    """
    if vmx.raw("vm.genid") is None or vmx.raw("vm.genidx") is None:
        return None
    low, high = (
        vmx.integer(key, 0, least=-(1 << 63), most=(1 << 63) - 1).to_bytes(8, "big", signed=True)
        for key in ("vm.genid", "vm.genidx")
    )
    first, second, third = low[4:8].hex(), low[2:4].hex(), low[0:2].hex()
    last = high[::-1].hex()
    return f"{first}-{second}-{third}-{last[:4]}-{last[4:]}"
