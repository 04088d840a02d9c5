"""Phony Windows guests: enough files and registry to be recognised and converted.

A guest is described by a WindowsGuest; `fill` writes it to partitions of a running appliance,
`build_image` makes a disk of its own.  As a command:

    python -m tests.guests.windows NAME DISK.qcow2
"""

from __future__ import annotations

import argparse
import struct
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.guests.common import appliance
from tests.guests.hives import Data, Description, expand, make_hive

DISK_GIB = 1
SYSTEM32 = "/Windows/System32"
CURRENT = "Microsoft\\Windows\\CurrentVersion"
NT_CURRENT = "Microsoft\\Windows NT\\CurrentVersion"
UNINSTALL = f"{CURRENT}\\Uninstall"
WOW_UNINSTALL = "WOW6432Node\\Microsoft\\Windows\\CurrentVersion\\Uninstall"
ESP_GUID = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
BIOS_BOOT_GUID = "21686148-6449-6E6F-744E-656564454649"
BOOT_MANAGER = "Objects\\{9dea862c-5cdd-4e70-acc1-f32b344d4795}\\Elements"
BOOT_ENTRY = "{11111111-2222-3333-4444-555555555555}"


@dataclass(frozen=True, kw_only=True)
class WindowsGuest:
    """What a phony guest holds.

    `software` and `system` are merged over the base of every guest; None as a hive's bytes in
    `hives` leaves the file out, other bytes replace it.
    """

    bits: int = 64
    name: str = "Windows 10 Pro"
    version: str = "6.3"
    variant: str | None = "Client"
    ten: bool = False
    build: str | None = None
    software: Description = field(default_factory=dict)
    system: Description = field(default_factory=dict)
    hives: Mapping[str, bytes | None] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)
    folders: tuple[str, ...] = ("/Windows/TEMP",)
    uefi: bool = False
    esp_files: Mapping[str, bytes] = field(default_factory=dict)
    bcd: Description | None = None

    def but(self, **values: Any) -> WindowsGuest:
        """Return a variant."""
        return replace(self, **values)

    def software_hive(self) -> dict[str, Mapping[str, Data]]:
        """Return the description of SOFTWARE."""
        version: dict[str, Data] = {"ProductName": self.name, "CurrentVersion": self.version}
        if self.variant is not None:
            version["InstallationType"] = self.variant
        if self.build is not None:
            version["CurrentBuildNumber"] = self.build
        if self.ten:
            version |= {"CurrentMajorVersionNumber": 10, "CurrentMinorVersionNumber": 0}
        products = {
            f"{UNINSTALL}\\Test{n}": {
                "DisplayName": f"Test{n}", "DisplayVersion": f"1.{n}", "Publisher": "Test Works",
            }
            for n in (1, 2, 3)
        }  # fmt: skip
        base: dict[str, Mapping[str, Data]] = {
            NT_CURRENT: version,
            CURRENT: {"DevicePath": expand("%SystemRoot%\\inf")},
            **products,
            f"{WOW_UNINSTALL}\\Test4": {"DisplayName": "Test4", "DisplayVersion": "1.4"},
        }
        return merge(base, self.software)

    def system_hive(self) -> dict[str, Mapping[str, Data]]:
        """Return the description of SYSTEM."""
        base: dict[str, Mapping[str, Data]] = {
            "Select": {"Current": 1, "Default": 1, "Failed": 0, "LastKnownGood": 2},
            "ControlSet001\\Control": {},
            "ControlSet001\\Services\\Tcpip\\Parameters": {"Hostname": "PHONY-PC"},
        }
        return merge(base, self.system)

    def cmd_exe(self) -> bytes:
        """Return the least that is an executable of the guest's architecture."""
        return pe_stub(0x014C if self.bits == 32 else 0x8664)


def merge(base: Description, over: Description) -> dict[str, Mapping[str, Data]]:
    """Return both descriptions as one; where they meet, `over` holds."""
    return {key: {**base.get(key, {}), **over.get(key, {})} for key in [*base, *over]}


def pe_stub(machine: int) -> bytes:
    """Return 512 bytes that are an executable for that machine to whoever looks at headers."""
    stub = bytearray(512)
    wide = machine != 0x014C
    stub[0:2] = b"MZ"
    struct.pack_into("<I", stub, 0x3C, 0x80)
    stub[0x80:0x84] = b"PE\0\0"
    struct.pack_into("<H", stub, 0x84, machine)
    struct.pack_into("<HH", stub, 0x94, 0xF0 if wide else 0xE0, 0x0102)
    struct.pack_into("<H", stub, 0x98, 0x020B if wide else 0x010B)
    struct.pack_into("<H", stub, 0xDC, 3)
    return bytes(stub)


def boot_configuration(*, graphics: bool = True, default: bool = True) -> Description:
    """Return a BCD: the boot manager's default entry, and the element that darkens the screen."""
    entry = f"Objects\\{BOOT_ENTRY}\\Elements"
    keys: dict[str, Mapping[str, Data]] = {f"{entry}\\12000004": {"Element": "Windows"}}
    if default:
        keys[f"{BOOT_MANAGER}\\23000003"] = {"Element": BOOT_ENTRY}
    if graphics:
        keys[f"{entry}\\16000046"] = {"Element": b"\1"}
    return keys


XP32 = WindowsGuest(bits=32, name="Microsoft Windows XP", version="5.1")
K3R2 = WindowsGuest(name="Microsoft Windows Server 2003 R2", version="5.2", variant=None)
K8 = WindowsGuest(name="Windows Server 2008", version="6.0", variant="Server Core")
W7_32 = WindowsGuest(bits=32, name="Windows 7 Ultimate", version="6.1", build="7601")
K12R2 = WindowsGuest(name="Windows Server 2012 R2 Standard", variant="Server", build="9600")
W10 = WindowsGuest(name="Windows 10 Pro", ten=True, build="17763")
W11 = WindowsGuest(name="Windows 10 Home", ten=True, build="22631")
K22 = WindowsGuest(name="Windows Server 2022 Standard", variant="Server", ten=True, build="20348")
K25 = WindowsGuest(name="Windows Server 2025 Datacenter", variant="Server", ten=True, build="26100")
GUESTS = {"xp32": XP32, "2k3r2": K3R2, "2k8": K8, "w7-32": W7_32, "2k12r2": K12R2, "w10": W10,
          "w11": W11, "2k22": K22, "2k25": K25}  # fmt: skip
# A system since Windows 8 has this key; what it holds comes from installed drivers.
WITH_DATABASE: Description = {"DriverDatabase": {}}


def partition(g: Any, disk: str = "/dev/sda", *, uefi: bool = False) -> tuple[str, str]:
    """Partition a disk as setup does; return the first partition and the one for Windows."""
    g.part_init(disk, "gpt")
    g.part_add(disk, "p", 64, 32767)
    g.part_add(disk, "p", 32768, -64)
    g.part_set_gpt_type(disk, 1, ESP_GUID if uefi else BIOS_BOOT_GUID)
    return f"{disk}1", f"{disk}2"


def fill(g: Any, guest: WindowsGuest, *, esp: str, root: str, folder: Path) -> None:
    """Write a guest to two partitions; nothing stays mounted.  `folder` takes the hives."""
    g.mkfs("vfat", esp)
    if guest.uefi:
        g.mount(esp, "/")
        for path, data in guest.esp_files.items():
            g.mkdir_p(str(Path(path).parent))
            g.write(path, data)
        if guest.bcd is not None:
            g.mkdir_p("/EFI/Microsoft/Boot")
            g.upload(str(make_hive(folder / "BCD", guest.bcd)), "/EFI/Microsoft/Boot/BCD")
        g.umount("/")
    g.mkfs("ntfs", root)
    g.mount(root, "/")
    for path in (f"{SYSTEM32}/Config", f"{SYSTEM32}/Drivers", "/Program Files", *guest.folders):
        g.mkdir_p(path)
    g.write(f"{SYSTEM32}/cmd.exe", guest.cmd_exe())
    descriptions = {"SOFTWARE": guest.software_hive(), "SYSTEM": guest.system_hive()}
    for name, description in descriptions.items():
        path = f"{SYSTEM32}/Config/{name}"
        if name not in guest.hives:
            g.upload(str(make_hive(folder / name, description)), path)
        elif (data := guest.hives[name]) is not None:
            g.write(path, data)
    for path, data in guest.files.items():
        g.mkdir_p(str(Path(path).parent))
        g.write(path, data)
    g.umount("/")


def build_image(guest: WindowsGuest, target: Path, *, size_gib: int = DISK_GIB) -> None:
    """Make a compressed qcow2 disk of a guest."""
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "disk.raw"
        with appliance(raw, size_gib) as g:
            esp, root = partition(g, uefi=guest.uefi)
            fill(g, guest, esp=esp, root=root, folder=Path(folder))
        unfinished = target.with_name(f".{target.name}.part")
        convert = ["qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2"]
        subprocess.run([*convert, str(raw), str(unfinished)], check=True)
        unfinished.rename(target)


def main() -> None:
    """Build one of the guests."""
    parser = argparse.ArgumentParser(description="Build a phony Windows guest.")
    parser.add_argument("name", choices=GUESTS)
    parser.add_argument("target", type=Path)
    parser.add_argument("--uefi", action="store_true", help="with an EFI system partition")
    options = parser.parse_args()
    guest = GUESTS[options.name]
    if options.uefi:
        guest = guest.but(uefi=True, bcd=boot_configuration(), esp_files={
            "/EFI/Microsoft/Boot/bootmgfw.efi": b"the boot manager",
        })  # fmt: skip
    build_image(guest, options.target)


if __name__ == "__main__":
    main()
