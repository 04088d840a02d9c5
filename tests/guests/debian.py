"""Build a real, bootable Debian guest the way VMware would have exported it.

What comes out is an OVA (ustar: .ovf first, .mf, streamOptimized .vmdk) whose guest is a complete
Debian installed from Debian's own packages: kernel, initramfs, GRUB 2 in the MBR, systemd,
open-vm-tools.  It is laid out for a SCSI controller: /etc/fstab names /dev/sda1, GRUB's device.map
names /dev/sda, and the initramfs holds VMware's mptspi and IDE only, so that an unconverted copy
does not find its root on a virtio disk.  --initramfs default keeps Debian's own, which has virtio
inside already: only /etc/fstab then keeps an unconverted copy from coming up.

On its serial console (ttyS0) a guest that has booted prints one line, which boot.py waits for:
    GUEST-UP root=<device of /> nic=<kernel driver of the first NIC> ip=<address>

Needs (Debian package names): python3-guestfs, a linux-image for the libguestfs appliance,
mmdebstrap, qemu-utils.  Takes two to three minutes under software emulation.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import guestfs

from tests.guests import common

PACKAGES = (
    "linux-image-amd64,grub-pc,systemd-sysv,udev,ifupdown,isc-dhcp-client,"
    "initramfs-tools,iproute2,kmod,lvm2,open-vm-tools,login,passwd,dbus,grub-efi-amd64-bin"
)
BOOT_START = 2048  # sectors of 512 bytes; room for GRUB's core image before it
BOOT_SECTORS = 2 * 1024 * 512
ESP_TYPE = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
GRUB_DEFAULTS = """GRUB_DEFAULT=0
GRUB_TIMEOUT=0
GRUB_CMDLINE_LINUX_DEFAULT=""
GRUB_CMDLINE_LINUX="net.ifnames=0 console=tty0 console=ttyS0"
GRUB_TERMINAL="console"
GRUB_DISABLE_OS_PROBER=true
"""
INTERFACES = """auto lo
iface lo inet loopback
allow-hotplug eth0
iface eth0 inet dhcp
"""


def main(argv: list[str] | None = None) -> int:
    """Build the OVA that the command line asks for."""
    options = parse_options(argv)
    ova = options.ova.resolve()
    if not ova.parent.is_dir():
        sys.exit(f"the folder {ova.parent} does not exist")
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR", "/var/tmp")) as name:
        tmp = Path(name)
        rootfs = options.rootfs or tmp / "rootfs.tar"
        if not rootfs.exists():
            build_rootfs(rootfs)
        raw = options.keep_disk or tmp / "disk.raw"
        with common.appliance(raw, options.size_gib) as g:
            partition(g, options.layout)
            install(g, rootfs, options.layout, options.initramfs)
            common.add_payload(g, options.payload_mib)
        vm = common.ExportedVm(
            name=options.name,
            size_gib=options.size_gib,
            os_id=96,
            os_type="debian11_64Guest",
            nic="E1000",
            firmware="efi" if options.layout == "uefi" else "bios",
        )
        common.pack_ova(raw, ova, vm, tmp)
    print(f"{ova} ({ova.stat().st_size} bytes)")
    return 0


def parse_options(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="script/sample-ova",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("ova", nargs="?", type=Path, default=Path("debian12.ova"), help="default: %(default)s")
    add("--name", default="debian12", help="the machine's name (%(default)s)")
    add("--size-gib", type=int, default=4, help="capacity of its disk (%(default)s)")
    add("--layout", choices=("lvm", "plain", "uefi"), default="lvm", help="(%(default)s)")
    add("--initramfs", choices=("vmware", "default"), default="vmware", help="(%(default)s)")
    add("--payload-mib", type=int, default=0, help="random data to copy (none)")
    add("--rootfs", type=Path, help="take the unpacked Debian from this tar; made if absent")
    add("--keep-disk", type=Path, help="also keep the raw disk as this file")
    return parser.parse_args(argv)


def build_rootfs(tar: Path) -> None:
    """Unpack a Debian of its own packages into a tar file."""
    unfinished = tar.with_name(f"{tar.stem}.part.tar")
    command = ["mmdebstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm"]
    subprocess.run([*command, str(unfinished)], check=True)
    unfinished.rename(tar)


def partition(g: guestfs.GuestFS, layout: str) -> None:
    """Partition the disk, make the file systems and mount them."""
    if layout == "uefi":
        partition_for_uefi(g)
        return
    g.part_init("/dev/sda", "mbr")
    g.part_add("/dev/sda", "p", BOOT_START, BOOT_START + BOOT_SECTORS - 1)
    g.part_add("/dev/sda", "p", BOOT_START + BOOT_SECTORS, -1)
    g.part_set_bootable("/dev/sda", 1, True)
    g.mkfs("ext4", "/dev/sda1", label="BOOT")
    if layout == "lvm":
        g.pvcreate("/dev/sda2")
        g.vgcreate("vg0", ["/dev/sda2"])
        g.lvcreate_free("root", "vg0", 100)
    g.mkfs("ext4", root_device(layout), label="ROOT")
    g.mount(root_device(layout), "/")
    g.mkdir("/boot")
    g.mount("/dev/sda1", "/boot")


def partition_for_uefi(g: guestfs.GuestFS) -> None:
    """Make an EFI system partition and one for /, which holds /boot."""
    g.part_init("/dev/sda", "gpt")
    g.part_add("/dev/sda", "p", BOOT_START, BOOT_START + BOOT_SECTORS // 4 - 1)
    g.part_add("/dev/sda", "p", BOOT_START + BOOT_SECTORS // 4, -BOOT_START)
    g.part_set_gpt_type("/dev/sda", 1, ESP_TYPE)
    g.mkfs("vfat", "/dev/sda1")
    g.mkfs("ext4", "/dev/sda2", label="ROOT")
    g.mount("/dev/sda2", "/")
    g.mkdir_p("/boot/efi")
    g.mount("/dev/sda1", "/boot/efi")


def root_device(layout: str) -> str:
    """Name the device of / in the guest."""
    return "/dev/vg0/root" if layout == "lvm" else "/dev/sda2"


def install(g: guestfs.GuestFS, rootfs: Path, layout: str, initramfs: str) -> None:
    """Put Debian on the mounted file systems and make it boot from a SCSI disk."""
    g.tar_in(str(rootfs), "/", xattrs=True)
    boot = "/boot/efi vfat umask=0077" if layout == "uefi" else "/boot ext4 defaults"
    g.write(
        "/etc/fstab",
        f"{root_device(layout)} / ext4 errors=remount-ro 0 1\n/dev/sda1 {boot} 0 2\n",
    )
    g.write("/etc/hostname", "vmware-debian\n")
    g.write("/etc/network/interfaces", INTERFACES)
    g.write("/etc/default/grub", GRUB_DEFAULTS)
    g.mkdir_p("/boot/grub")
    g.write("/boot/grub/device.map", "(hd0)\t/dev/sda\n")
    common.report_boot(g)
    if initramfs == "vmware":
        g.write("/etc/initramfs-tools/conf.d/driver-policy", "MODULES=list\n")
        g.write("/etc/initramfs-tools/modules", "mptspi\nsd_mod\next4\nata_piix\ndm_mod\n")
        g.sh("update-initramfs -u -k all")
    if layout == "uefi":
        g.sh("grub-install --target=x86_64-efi --no-nvram")
    else:
        # The appliance's kernel may call the disk something else.
        g.sh('grub-install --target=i386-pc --recheck "$(grub-probe --target=disk /boot)"')
    g.sh("update-grub")


if __name__ == "__main__":
    sys.exit(main())
