"""Guests of a few files: enough for the converter to work on, built in a second.

Their shell and its tools are static; the programs the converter runs are scripts that note how they
were called in /v2v-calls.log, and write what the real ones would.
"""

from __future__ import annotations

import io
import stat
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import guestfs

from conversions.pipeline.context import Context
from conversions.pipeline.job import Input, Job, Mode
from conversions.pipeline.linux.convert import LinuxConverter
from conversions.pipeline.report import RecordingReporter
from conversions.pipeline.types import Application, Guestcaps, Inspection
from inventory.sources.types import Source
from tests.unit.pipeline.samples import GUEST, make_source

DEVICE = "/dev/sda1"
CALLS = "/v2v-calls.log"
BUSYBOX = Path("/bin/busybox")
# Busybox as a shell would run its own rpm and dpkg in place of the scripts.
SHELL = Path("/bin/bash-static")
KV = "6.1.0-1-test"


@dataclass(frozen=True)
class Link:
    """A symbolic link."""

    target: str


@dataclass(frozen=True)
class Program:
    """An executable file: shell that follows the note of the call."""

    script: str = ""

    def text(self, path: str) -> str:
        """Return the whole script."""
        name = path.rsplit("/", 1)[-1]
        return f'#!/bin/sh\necho "{name} $*" >> {CALLS}\n{self.script}\n'


Tree = Mapping[str, str | bytes | Link | Program | None]
"""Paths and what is there: text, bytes, a link, a program; None for an empty folder."""


def newc(names: Sequence[str]) -> bytes:
    """Return an uncompressed cpio archive that holds empty files of these names."""
    out = bytearray()
    for number, name in enumerate([*names, "TRAILER!!!"], 1):
        raw = name.encode() + b"\0"
        values = (number, 0o100644, 0, 0, 1, 0, 0, 0, 0, 0, 0, len(raw), 0)
        out += b"070701" + b"".join(b"%08X" % v for v in values)
        out += raw
        out += bytes(-len(out) % 4)
    return bytes(out)


def initramfs(*modules: str, version: str = KV) -> bytes:
    """Return an initramfs that holds these modules."""
    return newc([f"usr/lib/modules/{version}/kernel/{module}.ko" for module in modules])


VIRTIO = ("virtio", "virtio_ring", "virtio_pci", "virtio_blk", "virtio_net", "virtio_scsi",
          "virtio-rng", "virtio_balloon", "ext4")  # fmt: skip


def kernel(
    version: str = KV, *, modules: Sequence[str] = VIRTIO, held: Sequence[str] = ("ext4",),
    initrd: str = "initrd.img-{}",
) -> dict[str, str | bytes]:  # fmt: skip
    """Return the files of an installed kernel whose initramfs holds the modules `held`."""
    listed = "".join(f"kernel/drivers/{module}.ko:\n" for module in modules)
    return {
        f"/boot/vmlinuz-{version}": "kernel",
        f"/boot/{initrd.format(version)}": initramfs(*held, version=version),
        f"/lib/modules/{version}/modules.dep": listed,
    }


# What a tool of the guest builds; the scripts below put it in place.
BUILT = "/phony/built"

BASE: Tree = {
    "/bin/busybox": BUSYBOX.read_bytes() if BUSYBOX.exists() else b"",
    "/bin/sh": SHELL.read_bytes() if SHELL.exists() else b"",
    **{f"/bin/{name}": Link("busybox") for name in ("cp", "cat", "echo", "rm", "mv")},
    BUILT: initramfs("virtio_pci", "virtio_blk", "ext4"),
    "/etc/fstab": "LABEL=root / ext2 defaults 0 1\n",
    "/etc/hostname": "phony\n",
    "/proc": None, "/sys": None, "/dev": None, "/tmp": None, "/var/tmp": None, "/root": None,
}  # fmt: skip


def grub_cfg(*versions: str, initrd: str = "initrd.img-{}", arguments: str = "ro quiet") -> str:
    """Return a GRUB 2 menu that offers these kernels."""
    entries = "".join(
        f"menuentry 'Linux {v}' $menuentry_id_option 'id-{v}' {{\n"
        f"\tlinux\t/boot/vmlinuz-{v} root=/dev/sda1 {arguments}\n"
        f"\tinitrd\t/boot/{initrd.format(v)}\n}}\n"
        for v in versions
    )
    return 'set default="0"\n' + entries


DEBIAN: Tree = {
    **BASE,
    **kernel(),
    "/etc/debian_version": "12.5\n",
    "/etc/os-release": 'ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian GNU/Linux 12"\n',
    "/var/lib/dpkg/status": "Package: bash\nStatus: install ok installed\n"
    "Architecture: amd64\nVersion: 5.2-1\n\n",
    "/boot/grub/grub.cfg": grub_cfg(KV),
    "/etc/default/grub": 'GRUB_DEFAULT=0\nGRUB_CMDLINE_LINUX="quiet resume=/dev/sda3 x"\n',
    "/etc/initramfs-tools/modules": "# modules\n",
    "/usr/sbin/update-initramfs": Program(f"cp {BUILT} /boot/initrd.img-$3"),
    "/usr/bin/dpkg": Program(),
    "/etc/systemd/system": None,
}

RHEL: Tree = {
    **BASE,
    **kernel(initrd="initramfs-{}.img"),
    "/etc/redhat-release": "CentOS Linux release 9.1\n",
    "/etc/os-release": 'ID="centos"\nVERSION_ID="9"\nPRETTY_NAME="CentOS Stream 9"\n',
    "/boot/grub2/grub.cfg": grub_cfg(KV, initrd="initramfs-{}.img"),
    "/usr/bin/dracut": Program(f'case "$1" in --add-drivers) shift 2;; esac\ncp {BUILT} "$1"'),
    "/bin/rpm": Program(),
    "/usr/bin/dnf": Program(),
    "/etc/systemd/system": None,
}

SUSE: Tree = {
    **BASE,
    **kernel(initrd="initrd-{}"),
    "/etc/os-release": 'ID="sles"\nVERSION_ID="11.4"\nPRETTY_NAME="SLES 11 SP4"\n',
    "/etc/SuSE-release": "SUSE Linux Enterprise Server 11 (x86_64)\nVERSION = 11\n"
    "PATCHLEVEL = 4\n",
    "/boot/grub/menu.lst": f"default 0\ntitle SLES\n    root (hd0,0)\n"
    f"    kernel (hd0,0)/boot/vmlinuz-{KV} root=/dev/sda2 resume=/dev/sda3\n"
    f"    initrd (hd0,0)/boot/initrd-{KV}\n",
    "/sbin/mkinitrd": Program(f'echo "rootdev=$rootdev" >> {CALLS}\ncp {BUILT} "$4"'),
    "/bin/rpm": Program(),
    "/etc/init.d": None, "/etc/init.d/rc3.d": None,
}  # fmt: skip


def _inspection(distro: str, version: str, package_format: str, management: str) -> Inspection:
    major, _, minor = version.partition(".")
    return replace(
        GUEST,
        distro=distro,
        major_version=int(major),
        minor_version=int(minor or 0),
        package_format=package_format,
        package_management=management,
        product_name=f"{distro} {version}",
    )


# What an inspection of these systems says, by the ID of their os-release.
INSPECTIONS = {
    "debian": _inspection("debian", "12.5", "deb", "apt"),
    "linuxmint": _inspection("linuxmint", "21.1", "deb", "apt"),
    "centos": _inspection("centos", "9.1", "rpm", "dnf"),
    "rhel": _inspection("rhel", "4.9", "rpm", "up2date"),
    "sles": _inspection("sles", "11.4", "rpm", "zypper"),
    "arch": _inspection("archlinux", "0", "pacman", "pacman"),
}


def write_tar(path: Path, tree: Tree) -> None:
    """Write the files of a tree into a tar archive."""
    with tarfile.open(path, "w") as archive:
        folders = {"."}
        for name, content in sorted(tree.items()):
            inside = "." + name
            parents = inside.split("/")[:-1]
            for depth in range(1, len(parents) + 1):
                folder = "/".join(parents[:depth])
                if folder not in folders:
                    folders.add(folder)
                    _add(archive, folder, tarfile.DIRTYPE, 0o755)
            if content is None:
                if inside not in folders:
                    folders.add(inside)
                    _add(archive, inside, tarfile.DIRTYPE, 0o755)
            elif isinstance(content, Link):
                _add(archive, inside, tarfile.SYMTYPE, 0o777, link=content.target)
            else:
                text = content.text(name) if isinstance(content, Program) else content
                data = text.encode() if isinstance(text, str) else text
                runs = isinstance(content, Program) or name in ("/bin/busybox", "/bin/sh")
                _add(archive, inside, tarfile.REGTYPE, 0o755 if runs else 0o644, data)


def _add(
    archive: tarfile.TarFile, name: str, kind: bytes, mode: int, data: bytes = b"", link: str = ""
) -> None:
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.size, info.linkname = kind, mode, len(data), link
    archive.addfile(info, io.BytesIO(data))


@dataclass
class PhonyGuest:
    """A mounted phony guest, and how it is converted."""

    g: guestfs.GuestFS
    guest: Inspection
    source: Source
    job: Job
    report: RecordingReporter
    work: Path

    @classmethod
    def make(
        cls, g: guestfs.GuestFS, folder: Path, tree: Tree, report: RecordingReporter, *,
        applications: Sequence[str] = ("bash",), source: Source | None = None, **guest: Any,
    ) -> PhonyGuest:  # fmt: skip
        """Fill the disk and mount it; `guest` replaces fields of what an inspection would say.

        Inspections are slow under emulation and tested by themselves.
        """
        g.umount_all()
        g.mkfs("ext2", DEVICE, label="root")
        g.mount(DEVICE, "/")
        write_tar(folder / "tree.tar", tree)
        g.tar_in(str(folder / "tree.tar"), "/")
        release = tree.get("/etc/os-release", "")
        assert isinstance(release, str)
        values = dict(line.replace('"', "").split("=", 1) for line in release.splitlines())
        found = INSPECTIONS[values.get("ID", "rhel")]
        apps = tuple(Application(name=n, version="1", release="1") for n in applications)
        job = Job(mode=Mode.REHEARSE, source=Input(kind="ova", location="/x.ova"))
        return cls(
            g=g,
            guest=replace(found, applications=apps, **guest),
            source=source or make_source(),
            job=job,
            report=report,
            work=folder,
        )

    def convert(self, *, change: bool = True, **options: Any) -> Guestcaps:
        """Convert it; `options` are those of the job."""
        context = Context(
            g=self.g, guest=self.guest, source=self.source, job=replace(self.job, **options),
            report=self.report, work=self.work, change=change,
        )  # fmt: skip
        return LinuxConverter().convert(context)

    def read(self, path: str) -> str:
        """Return a file's text."""
        return bytes(self.g.read_file(path)).decode()

    def exists(self, path: str) -> bool:
        """Tell whether something is there, a dangling link too."""
        return bool(self.g.exists(path) or self.g.is_symlink(path))

    def mode(self, path: str) -> int:
        """Return a file's permissions."""
        return stat.S_IMODE(dict(self.g.statns(path))["st_mode"])

    def calls(self) -> list[str]:
        """Return how the programs of the guest were called, in order."""
        return self.read(CALLS).splitlines() if self.exists(CALLS) else []

    def warnings(self) -> list[str]:
        """Return the warnings of the log."""
        return [e["text"] for e in self.report.of("log") if e["level"] == "warning"]
