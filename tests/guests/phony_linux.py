"""Phony Linux guests as OVAs, complete enough for virt-v2v to convert them too.

Their trees are those of the appliance tests, with what virt-v2v asks for besides: modules that are
ELF files, a package database that holds the kernel, tools that list its files.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import guestfs

from conversions.pipeline.accelerator import choose_accelerator
from tests.appliance.phony import (
    BASE,
    DEBIAN,
    KV,
    RHEL,
    SUSE,
    VIRTIO,
    Program,
    Tree,
    kernel,
    write_tar,
)
from tests.guests.layouts import KEY, make_btrfs, make_luks, make_plain, make_raid
from tests.unit.sources.ova_builder import make_ova, make_ovf

DISK_BYTES = 700 << 20
# An empty relocatable x86_64 object, which is what tells the architecture of a module.
ELF = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack(
    "<HHIQQQIHHHHHH", 1, 62, 1, 0, 0, 0, 0, 64, 0, 0, 64, 0, 0
)  # fmt: skip
MODULES: dict[str, str | bytes] = {
    f"/lib/modules/{KV}/kernel/drivers/{name}.ko": ELF for name in VIRTIO
}
LIST = "/phony/kernel-files"
# The folder before what is in it: virt-v2v takes the first name below /lib/modules for it.
HEAD = f"/boot/vmlinuz-{KV}\n/lib/modules/{KV}\n"
FILES = HEAD + "".join(f"{name}\n" for name in sorted(MODULES))
_MKCONFIG = Program('echo "menuentry" > /dev/null')
FSTAB = "/dev/sda1 / ext4 defaults 0 0\n/dev/sda2 none swap sw 0 0\n"
# In the volume group of tests/guests/layouts.py.
LVM_FSTAB = "/dev/mapper/vg--a-root / ext4 defaults 0 0\n"
BTRFS_FSTAB = "/dev/sda1 / btrfs subvol=@ 0 0\n"
# What reads a package database in a guest looks for its place and kind here.
MACROS = "%_dbpath /var/lib/rpm\n%_db_backend sqlite\n"

DEBIAN_12: Tree = {
    **DEBIAN,
    "/etc/modprobe.d/blacklist.conf": "blacklist pcspkr\n",
    **MODULES,
    LIST: FILES,
    "/etc/fstab": FSTAB,
    "/var/lib/dpkg/status": "".join(
        f"Package: {name}\nStatus: install ok installed\nArchitecture: amd64\nVersion: 6.1-1\n\n"
        for name in ("bash", f"linux-image-{KV}")
    ),
    "/usr/bin/dpkg": Program(f"cat {LIST}"),
    "/usr/sbin/grub-mkconfig": _MKCONFIG,
    "/usr/sbin/update-grub": _MKCONFIG,
}
EL_9: Tree = {
    **RHEL,
    "/etc/modprobe.d/blacklist.conf": "blacklist pcspkr\n",
    **MODULES,
    LIST: FILES,
    "/etc/fstab": FSTAB,
    "/bin/rpm": Program(f"cat {LIST}"),
    "/sbin/dracut": RHEL["/usr/bin/dracut"],
    "/usr/sbin/grub2-mkconfig": _MKCONFIG,
    "/etc/default/grub": 'GRUB_CMDLINE_LINUX="resume=/dev/sda2 quiet"\nGRUB_ENABLE_BLSCFG=true\n',
    f"/boot/loader/entries/{'0' * 32}-{KV}.conf": f"title CentOS\nversion {KV}\n"
    f"linux /boot/vmlinuz-{KV}\ninitrd /boot/initramfs-{KV}.img\n"
    "options root=/dev/sda1 ro resume=/dev/sda2\n",
}
FEDORA_14: Tree = {
    **BASE,
    **kernel(initrd="initramfs-{}.img", modules=("virtio_blk",)),
    f"/lib/modules/{KV}/kernel/drivers/virtio_blk.ko": ELF,
    LIST: f"{HEAD}/lib/modules/{KV}/kernel/drivers/virtio_blk.ko\n",
    "/etc/fstab": FSTAB,
    "/etc/fedora-release": "Fedora release 14 (Laughlin)\n",
    "/etc/redhat-release": "Fedora release 14 (Laughlin)\n",
    "/etc/os-release": 'ID=fedora\nVERSION_ID=14\nPRETTY_NAME="Fedora release 14 (Laughlin)"\n',
    "/boot/grub/grub.conf": "default=0\ntimeout=5\ntitle Fedora\n\troot (hd0,0)\n"
    f"\tkernel /boot/vmlinuz-{KV} ro root=/dev/sda1 resume=/dev/sda2\n"
    f"\tinitrd /boot/initramfs-{KV}.img\n",
    "/boot/grub/device.map": "# made by anaconda\n(hd0) /dev/sda\n",
    "/etc/modprobe.conf": "alias eth0 pcnet32\nalias scsi_hostadapter mptspi\n",
    "/sbin/dracut": RHEL["/usr/bin/dracut"],
    "/bin/rpm": Program(f"cat {LIST}"),
}
SLES_11: Tree = {
    **SUSE,
    **MODULES,
    LIST: FILES,
    "/etc/fstab": FSTAB,
    "/bin/rpm": Program(f"cat {LIST}"),
    "/usr/bin/env": Program('while [ "${1#*=}" != "$1" ]; do shift; done; exec "$@"'),
    "/etc/sysconfig/kernel": 'INITRD_MODULES="mptspi"\n',
    "/etc/modprobe.conf": "alias scsi_hostadapter mptspi\n",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PhonyLinux:
    """A tree, how its disks are divided, and the kernel's package for rpm ("" for dpkg)."""

    tree: Tree
    layout: str = "plain"
    package: str = ""
    key: str = ""


GUESTS: Mapping[str, PhonyLinux] = {
    "debian-12": PhonyLinux(tree=DEBIAN_12),
    "debian-12-luks": PhonyLinux(
        tree={**DEBIAN_12, "/etc/fstab": LVM_FSTAB}, layout="luks", key=KEY
    ),
    "debian-12-btrfs": PhonyLinux(tree={**DEBIAN_12, "/etc/fstab": BTRFS_FSTAB}, layout="btrfs"),
    "debian-12-raid": PhonyLinux(tree=DEBIAN_12, layout="raid"),
    "el-9": PhonyLinux(tree=EL_9, package="kernel-core"),
    "fedora-14": PhonyLinux(tree=FEDORA_14, package="kernel"),
    "sles-11": PhonyLinux(tree=SLES_11, package="kernel-default"),
}


def build_ova(name: str, ova: Path) -> None:
    """Build one of the guests; needs rpmbuild for those of the RPM family."""
    guest = GUESTS[name]
    with tempfile.TemporaryDirectory(dir=ova.parent) as folder:
        scratch = Path(folder)
        tree = dict(guest.tree)
        if guest.package:
            tree["/usr/lib/rpm/macros"], tree["/usr/lib/rpm/rpmrc"] = MACROS, ""
            for file in rpm_database(guest.package, scratch / "rpm"):
                tree[f"/var/lib/rpm/{file.name}"] = file.read_bytes()
        write_tar(scratch / "tree.tar", tree)
        disks = [scratch / f"d{n}.raw" for n in range(2 if guest.layout == "raid" else 1)]
        fill(disks, guest.layout, scratch / "tree.tar")
        packed = {}
        for disk in disks:
            vmdk = disk.with_suffix(".vmdk")
            command = ["qemu-img", "convert", "-f", "raw", "-O", "vmdk"]
            subprocess.run([*command, "-o", "subformat=streamOptimized", disk, vmdk], check=True)
            packed[vmdk.name] = vmdk.read_bytes()
        ovf = make_ovf(name=f"<Name>{name}</Name>", hrefs=list(packed), firmware="")
        make_ova(ova, packed, ovf=ovf)


def fill(disks: list[Path], layout: str, tar: Path) -> None:
    """Divide the disks and unpack the system into them."""
    g: Any = guestfs.GuestFS(python_return_dict=False, close_on_exit=False)
    g.set_backend("direct")
    g.set_backend_settings([] if choose_accelerator().kvm else ["force_tcg"])
    for disk in disks:
        with disk.open("wb") as stream:
            stream.truncate(DISK_BYTES)
        g.add_drive_opts(str(disk), format="raw", cachemode="unsafe")
    g.launch()
    if layout == "raid":
        make_raid(g, g.list_devices(), tar)
    else:
        makers = {"luks": make_luks, "btrfs": make_btrfs, "plain": make_plain}
        makers[layout](g, "/dev/sda", tar)
    g.shutdown()
    g.close()


def rpm_database(package: str, folder: Path) -> list[Path]:
    """Return the files of a database that holds one package: the kernel's."""
    if not shutil.which("rpmbuild"):
        raise FileNotFoundError("rpmbuild is missing: apt-get install rpm")
    version, release = KV.split("-", 1)
    spec = folder / "kernel.spec"
    folder.mkdir()
    spec.write_text(
        f"Name: {package}\nVersion: {version}\nRelease: {release.replace('-', '.')}\n"
        "Summary: kernel\nLicense: GPL\nBuildArch: x86_64\n%description\nkernel\n"
        f"%install\nmkdir -p %{{buildroot}}/boot\necho > %{{buildroot}}/boot/vmlinuz-{KV}\n"
        f"%files\n/boot/vmlinuz-{KV}\n"
    )
    build = ["rpmbuild", "--quiet", "--define", f"_topdir {folder}", "-bb", str(spec)]
    subprocess.run(build, check=True, capture_output=True)
    database = folder / "root/var/lib/rpm"
    built = next(folder.glob("RPMS/*/*.rpm"))
    subprocess.run(
        ["rpm", "--define", "_db_backend sqlite", "--dbpath", str(database), "-i", "--justdb",
         "--nodeps", "--noscripts", "--ignorearch", "--ignoreos", str(built)],
        check=True, capture_output=True,
    )  # fmt: skip
    return sorted(f for f in database.iterdir() if f.is_file() and not f.name.startswith("."))
