"""Build a real, bootable guest of the RPM family the way VMware would have exported it.

The guest calls itself CentOS Stream 9 and is organised like one (see rpm_dress.py); its programs
and its kernel are Debian's, since they only need Debian packages to be had.  With --boot bls the
menu comes at boot time from /boot/loader/entries; --boot classic writes it into grub.cfg.  /boot is
/dev/sda1 by that name; --layout plain has swap on /dev/sda2, with resume= on the kernel command
line, and / on /dev/sda3.  On its serial console a guest that has booted prints the line GUEST-UP.

Needs (Debian package names): python3-guestfs, libguestfs-xfs, a linux-image for the libguestfs
appliance, mmdebstrap, qemu-utils; root, for mmdebstrap and the chroot in it.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path

import guestfs

from tests.guests import common

PACKAGES = (
    "linux-image-amd64,grub-pc,systemd-sysv,udev,network-manager,iproute2,kmod,lvm2,open-vm-tools,"
    "login,passwd,dbus,dracut,rpm,dnf,xfsprogs,e2fsprogs,procps,cpio,less"
)
_UNWANTED = ("man", "locale", "doc", "info", "bug", "lintian")
_MIB = 2048  # sectors
_KEYFILE = """[connection]
id=ens192
uuid={}
type=ethernet
interface-name=ens192

[ipv4]
method=auto

[ipv6]
method=auto
"""
_GRUB = """GRUB_TIMEOUT=0
GRUB_DISTRIBUTOR="$(sed 's, release .*$,,g' /etc/system-release)"
GRUB_DEFAULT=saved
GRUB_DISABLE_SUBMENU=true
GRUB_TERMINAL_OUTPUT="console"
GRUB_CMDLINE_LINUX="{}"
GRUB_DISABLE_RECOVERY="true"
"""
_ENTRY = """title CentOS Stream ({kv}) 9
version {kv}
linux /vmlinuz-{kv}
initrd /initramfs-{kv}.img
options {options}
grub_users $grub_users
grub_arg --unrestricted
grub_class centos
"""


def main(argv: list[str] | None = None) -> int:
    """Build the OVA that the command line asks for."""
    options = parse_options(argv)
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR", "/var/tmp")) as name:
        tmp = Path(name)
        rootfs = options.rootfs or tmp / "rootfs.tar"
        if not rootfs.exists():
            build_rootfs(rootfs)
        raw = tmp / "disk.raw"
        with common.appliance(raw, options.size_gib) as g:
            install(g, rootfs, options)
        vm = common.ExportedVm(
            name=options.name,
            size_gib=options.size_gib,
            os_id=101,
            os_type="centos9_64Guest",
            nic="VmxNet3",
        )
        common.pack_ova(raw, options.ova.resolve(), vm, tmp)
    print(f"{options.ova} ({options.ova.stat().st_size} bytes)")
    return 0


def parse_options(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.guests.rpm",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("ova", type=Path)
    add("--name", default="centos9", help="the machine's name (%(default)s)")
    add("--size-gib", type=int, default=6, help="capacity of its disk (%(default)s)")
    add("--layout", choices=("plain", "lvm"), default="lvm", help="where / is (%(default)s)")
    add("--fs", choices=("xfs", "ext4"), default="xfs", help="file system (%(default)s)")
    add("--boot", choices=("bls", "classic"), default="bls", help="the menu (%(default)s)")
    add("--payload-mib", type=int, default=0, help="random data to copy (none)")
    add("--rootfs", type=Path, help="take the dressed root from this tar; made if absent")
    return parser.parse_args(argv)


def build_rootfs(tar: Path) -> None:
    """Unpack a Debian and dress it, into a tar file."""
    unfinished = tar.with_name(f"{tar.stem}.part.tar")
    dress = Path(__file__).with_name("rpm_dress.py")
    hook = f'{sys.executable} {shlex.quote(str(dress))} "$1"'
    subprocess.run(
        [
            "mmdebstrap", "--variant=minbase", "--format=tar", f"--include={PACKAGES}",
            "--skip=cleanup/apt,cleanup/mmdebstrap",
            *(f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in _UNWANTED),
            f"--customize-hook={hook}", "bookworm", str(unfinished),
        ],
        check=True,
        env=os.environ | {"INITRD": "No"},
    )  # fmt: skip
    unfinished.rename(tar)


def partition(g: guestfs.GuestFS, layout: str, fs: str) -> tuple[str, str, str]:
    """Partition the disk and make the file systems; return (root, swap, kernel arguments)."""
    g.part_init("/dev/sda", "mbr")
    g.part_add("/dev/sda", "p", _MIB, 513 * _MIB - 1)
    if layout == "lvm":
        g.part_add("/dev/sda", "p", 513 * _MIB, -1)
        g.part_set_mbr_id("/dev/sda", 2, 0x8E)
        g.pvcreate("/dev/sda2")
        g.vgcreate("cl", ["/dev/sda2"])
        g.lvcreate("swap", "cl", 256)
        g.lvcreate_free("root", "cl", 100)
        swap, root = "/dev/mapper/cl-swap", "/dev/mapper/cl-root"
        arguments = f"resume={swap} rd.lvm.lv=cl/root rd.lvm.lv=cl/swap"
    else:
        g.part_add("/dev/sda", "p", 513 * _MIB, 769 * _MIB - 1)
        g.part_add("/dev/sda", "p", 769 * _MIB, -1)
        g.part_set_mbr_id("/dev/sda", 2, 0x82)
        swap, root = "/dev/sda2", "/dev/sda3"
        arguments = f"resume={swap}"
    g.part_set_bootable("/dev/sda", 1, True)
    g.mkfs(fs, "/dev/sda1", label="boot")
    g.mkfs(fs, root, label="root")
    g.mkswap(swap)
    g.mount(root, "/")
    g.mkdir("/boot")
    g.mount("/dev/sda1", "/boot")
    if layout == "plain":
        root = "UUID=" + g.vfs_uuid(root)
    return root, swap, arguments


def install(g: guestfs.GuestFS, rootfs: Path, options: argparse.Namespace) -> None:
    """Put the system on the disk and make it boot from a SCSI disk."""
    root, swap, arguments = partition(g, options.layout, options.fs)
    g.tar_in(str(rootfs), "/", xattrs=True)
    [kv] = g.ls("/lib/modules")
    machine_id = uuid.uuid4().hex
    arguments += " console=tty0 console=ttyS0"
    g.write("/etc/machine-id", f"{machine_id}\n")
    g.write(
        "/etc/fstab",
        f"{root} / {options.fs} defaults 0 0\n"
        f"/dev/sda1 /boot {options.fs} defaults 0 0\n"
        f"{swap} none swap defaults 0 0\n",
    )
    g.write("/etc/hostname", "vmware-centos\n")
    keyfile = "/etc/NetworkManager/system-connections/ens192.nmconnection"
    g.write(keyfile, _KEYFILE.format(uuid.uuid4()))
    g.chmod(0o600, keyfile)
    bls = "GRUB_ENABLE_BLSCFG=true\n" if options.boot == "bls" else ""
    g.write("/etc/default/grub", _GRUB.format(arguments) + bls)
    g.mkdir_p("/etc/sysconfig")
    g.ln_s("/etc/default/grub", "/etc/sysconfig/grub")
    g.write("/etc/sysconfig/kernel", "UPDATEDEFAULT=yes\nDEFAULTKERNEL=kernel-core\n")
    g.write("/boot/grub2/device.map", "# generated by anaconda\n(hd0)      /dev/sda\n")
    if options.layout == "lvm":
        [pv] = g.pvs_full()
        pvid = pv["pv_uuid"].replace("-", "")
        g.mkdir_p("/etc/lvm/devices")
        g.write(
            "/etc/lvm/devices/system.devices",
            "VERSION=1.1.1\nIDTYPE=devname IDNAME=/dev/sda2 DEVNAME=/dev/sda2 "
            f"PVID={pvid} PART=2\n",
        )
    if options.boot == "bls":
        line = f"root={root} ro {arguments}"
        path = f"/boot/loader/entries/{machine_id}-{kv}.conf"
        g.write(path, _ENTRY.format(kv=kv, options=line))
        g.write("/etc/kernel/cmdline", f"{line}\n")
    else:
        g.rm_rf("/boot/loader")
    common.report_boot(g)
    # The appliance's kernel may call the disk something else.
    g.sh('grub2-install "$(grub2-probe --target=disk /boot)"')
    g.sh("grub2-mkconfig -o /boot/grub2/grub.cfg")
    g.sh(f"grubby --set-default /boot/vmlinuz-{kv}")
    common.add_payload(g, options.payload_mib)


if __name__ == "__main__":
    sys.exit(main())
