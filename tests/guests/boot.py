"""Boot a converted guest on virtio hardware and see whether it comes up.

Boots a throw-away overlay of each disk (the disk is not changed) with a virtio NIC on an isolated
user-mode network, waits for the line "GUEST-UP ..." that the sample guests print on their serial
console, prints it and exits 0.  --bus pvscsi --nic vmxnet3 is VMware's hardware, on which a guest
with these drivers comes up unconverted.  Exits 1 with the console's last lines when none comes.
"""

from __future__ import annotations

import argparse
import os
import re
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

QCOW2_MAGIC = b"QFI\xfb"


class GuestDidNotBootError(Exception):
    """The guest's line did not come in time; the message ends with what its console said."""


def boot_guest(
    disks: Sequence[Path],
    *,
    bus: str = "virtio",
    nic: str = "virtio-net-pci",
    machine: str = "q35",
    is_uefi: bool = False,
    use_kvm: bool = False,
    timeout_seconds: float = 300,
    console: Path | None = None,
) -> dict[str, str]:
    """Boot the disks and return what the guest says: {"root": ..., "nic": ..., "ip": ...}.

    The console's output is kept in `console` if given.  Raises GuestDidNotBootError.
    """
    with tempfile.TemporaryDirectory(dir="/var/tmp") as tmp:
        command = qemu_command(machine, nic, is_uefi, use_kvm)
        for index, disk in enumerate(disks):
            overlay = create_overlay(disk, Path(tmp) / f"{index}.qcow2")
            command += drive_options(index, overlay, bus)
        qemu = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        output = bytearray()
        try:
            return wait_for_guest(qemu, output, timeout_seconds)
        finally:
            qemu.kill()
            qemu.wait()
            if qemu.stdout:
                qemu.stdout.close()
            if console:
                console.write_bytes(output)


def qemu_command(machine: str, nic: str, is_uefi: bool, use_kvm: bool) -> list[str]:
    """Return qemu's command line without disks."""
    command = ["qemu-system-x86_64", "-m", "1024", "-display", "none", "-no-reboot"]
    command += ["-machine", f"{machine},accel={'kvm' if use_kvm else 'tcg'}"]
    command += ["-cpu", "host" if use_kvm else "max", "-serial", "stdio", "-monitor", "none"]
    command += ["-netdev", "user,id=n0,restrict=on", "-device", f"{nic},netdev=n0"]
    return [*command, "-bios", "/usr/share/ovmf/OVMF.fd"] if is_uefi else command


def create_overlay(disk: Path, overlay: Path) -> Path:
    """Put a throw-away layer over a disk of our own making, qcow2 or raw."""
    with disk.open("rb") as file:
        backing_format = "qcow2" if file.read(4) == QCOW2_MAGIC else "raw"
    create = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", backing_format]
    subprocess.run([*create, "-b", str(disk.resolve()), str(overlay)], check=True)
    return overlay


def drive_options(index: int, overlay: Path, bus: str) -> list[str]:
    """Return the options that attach a disk to a bus."""
    if bus in ("virtio", "ide"):
        return ["-drive", f"file={overlay},if={bus},format=qcow2"]
    controller = "pvscsi" if bus == "pvscsi" else "virtio-scsi-pci"
    return [
        *("-device", f"{controller},id=s{index}"),
        *("-drive", f"file={overlay},if=none,id=d{index},format=qcow2"),
        *("-device", f"scsi-hd,drive=d{index},bus=s{index}.0"),
    ]


def wait_for_guest(
    qemu: subprocess.Popen[bytes], output: bytearray, timeout_seconds: float
) -> dict[str, str]:
    """Read the console into `output` until the guest's line comes; return its fields."""
    assert qemu.stdout
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        if not select.select([qemu.stdout], [], [], 1)[0]:
            continue
        chunk = os.read(qemu.stdout.fileno(), 65536)
        if not chunk:
            break
        output += chunk
        if match := re.search(rb"GUEST-UP ([^\r\n]*)[\r\n]", output):
            fields = match.group(1).decode(errors="replace").split()
            return dict(field.split("=", 1) for field in fields)
    ended = "qemu ended" if qemu.poll() is not None else f"waited {timeout_seconds:.0f} s"
    tail = output[-3000:].decode(errors="replace")
    raise GuestDidNotBootError(f"the guest did not come up ({ended}); its console ends:\n{tail}")


def main() -> int:
    """Boot what the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("disks", nargs="+", type=Path)
    add("--bus", choices=("virtio", "scsi", "ide", "pvscsi"), default="virtio")
    add("--nic", default="virtio-net-pci")
    add("--machine", default="q35")
    add("--uefi", action="store_true")
    add("--kvm", action="store_true", help="use KVM; software emulation works everywhere")
    add("--timeout", type=float, default=300, help="seconds (%(default)s)")
    add("--console", type=Path, help="keep the whole console output in this file")
    options = parser.parse_args()
    started = time.monotonic()
    try:
        guest = boot_guest(
            options.disks,
            bus=options.bus,
            nic=options.nic,
            machine=options.machine,
            is_uefi=options.uefi,
            use_kvm=options.kvm,
            timeout_seconds=options.timeout,
            console=options.console,
        )
    except GuestDidNotBootError as error:
        print(error)
        return 1
    fields = " ".join(f"{name}={value}" for name, value in guest.items())
    print(f"GUEST-UP {fields} after {time.monotonic() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
