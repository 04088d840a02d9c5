"""What the Linux converter does to single texts, as tables."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard

from conversions.pipeline.cli_job import job_from
from conversions.pipeline.cli_options import options_parser
from conversions.pipeline.context import Context
from conversions.pipeline.errors import GuestError, JobError
from conversions.pipeline.job import MAX_FILE_BYTES, Customize, GuestFile, Input, Job, Mode
from conversions.pipeline.linux import console, hypervisors, selinux, x_driver
from conversions.pipeline.linux.bootloader import edit_env, env_values, set_env
from conversions.pipeline.linux.cpio import InitramfsError, list_initramfs
from conversions.pipeline.linux.customize import customize
from conversions.pipeline.linux.families import Family, family_of
from conversions.pipeline.linux.files import GuestFiles
from conversions.pipeline.linux.firstboot import script_name
from conversions.pipeline.linux.grub_legacy import parse_legacy_menu
from conversions.pipeline.linux.initramfs_tools import with_initramfs_option
from conversions.pipeline.linux.network_names import ConfiguredNic, link_file, match_nics
from conversions.pipeline.linux.packages import install_command, removal_commands
from conversions.pipeline.report import RecordingReporter
from conversions.pipeline.types import NetBus
from inventory.sources.types import Nic, VnetType
from tests.appliance.phony import newc
from tests.unit.pipeline.samples import GUEST, make_source

rows = pytest.mark.rows
PLAIN = newc(["etc/x", "lib/modules/1/virtio_blk.ko"])


def lz4(data: bytes) -> bytes:
    """Compress as the kernel wants it."""
    return subprocess.run(["lz4", "-l", "-c"], input=data, capture_output=True, check=True).stdout


@pytest.mark.parametrize(
    "pack",
    [
        bytes, gzip.compress, bz2.compress, lz4,
        lambda d: lzma.compress(d, check=lzma.CHECK_CRC32),
        lambda d: lzma.compress(d, format=lzma.FORMAT_ALONE),
        lambda d: zstandard.ZstdCompressor().compress(d),
    ],
)  # fmt: skip
@pytest.mark.parametrize("early", [b"", newc(["kernel/x86/microcode/GenuineIntel.bin"])])
def test_an_initramfs_is_listed(pack: Callable[[bytes], bytes], early: bytes) -> None:
    names = list_initramfs(io.BytesIO(early + bytes(-len(early) % 512) + pack(PLAIN)))
    assert names[-2:] == ["etc/x", "lib/modules/1/virtio_blk.ko"]
    assert len(names) == 2 + bool(early)


@pytest.mark.parametrize(
    "data",
    [
        b"text", b"\x1f\x8bnope", PLAIN[:-150], gzip.compress(PLAIN)[:40], gzip.compress(b"no"),
        b"070701" + b"F" * 104, b"\x02\x21\x4c\x18\xff\xff\xff\xff", b"070701" * 30,
    ],
    ids=range(8),
)  # fmt: skip
def test_a_damaged_initramfs_is_an_error(data: bytes) -> None:
    with pytest.raises(InitramfsError):
        list_initramfs(io.BytesIO(data))


@pytest.mark.parametrize(
    ("distro", "package_format", "management", "family"),
    [
        ("rocky", "rpm", "dnf", Family.RHEL),
        ("opensuse", "rpm", "zypper", Family.SUSE),
        ("linuxmint", "deb", "apt", Family.DEBIAN),
        ("altlinux", "rpm", "apt", Family.ALT),
        ("kylin", "deb", "apt", Family.DEBIAN),
        ("kylin", "rpm", "apt", Family.RHEL),
        ("openeuler", "rpm", "dnf", Family.RHEL),
        ("unknown", "deb", "apt", Family.DEBIAN),
        ("alpinelinux", "apk", "apk", None),
    ],
)
def test_families(distro: str, package_format: str, management: str, family: Family | None) -> None:
    """L-1 and its better way: by capability, not only by name."""
    from dataclasses import replace

    guest = replace(
        GUEST, distro=distro, package_format=package_format, package_management=management
    )
    assert family_of(guest) is family


LEGACY = """default=1
timeout 5
title Xen
    root (hd0,0)
    kernel /xen.gz
    module /vmlinuz-2.6.18-xen ro root=/dev/sda2
    module /initrd-2.6.18-xen.img
title Linux
    kernel (hd0,0)/vmlinuz-2.6.18 ro
    initrd (hd0,0)/initrd-2.6.18.img
title Other
    rootnoverify (hd0,1)
"""


def test_a_menu_of_grub_legacy() -> None:
    """T55 and the prefixes of 3.5.1."""
    entries = parse_legacy_menu(LEGACY, "/boot")
    assert [(e.id, e.vmlinuz, e.initrd) for e in entries] == [
        ("0", "/boot/vmlinuz-2.6.18-xen", "/boot/initrd-2.6.18-xen.img"),
        ("1", "/boot/vmlinuz-2.6.18", "/boot/initrd-2.6.18.img"),
    ]


def test_the_environment_of_grub_keeps_its_size() -> None:
    text = "# GRUB Environment Block\nsaved_entry=a\n".ljust(1024, "#")
    longer = set_env(text, "saved_entry", "b" * 50)
    assert len(longer) == 1024
    assert env_values(longer) == {"saved_entry": "b" * 50}
    assert len(edit_env(text, lambda t: t + "x" * 2000)) == 2048


@rows("2-T72")
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("# c\nroot UUID=1 none\n", "# c\nroot UUID=1 none luks,initramfs\n"),
        ("root UUID=1 none luks,discard\n", "root UUID=1 none luks,discard,initramfs\n"),
        ("root UUID=1\n", "root UUID=1 none luks,initramfs\n"),
        ("root UUID=1 none luks,initramfs\n", "root UUID=1 none luks,initramfs\n"),
    ],
)
def test_entries_of_crypttab_go_into_the_initramfs(old: str, new: str) -> None:
    """T72, L-68."""
    assert with_initramfs_option(old) == new


REPO = "[vm]\nname=x\nbaseurl=https://packages.vmware.com/tools\n{}[os]\nbaseurl=http://a.org\n"


@pytest.mark.parametrize(
    ("function", "old", "new"),
    [
        pytest.param(hypervisors.disable_vmware_repositories,
         REPO.format("enabled=1\n"), REPO.format("enabled=0\n"),
         marks=rows("2-T97")),
        pytest.param(hypervisors.disable_vmware_repositories,
         REPO.format(""), REPO.format("enabled=0\n"),
         marks=rows("2-T97")),
        pytest.param(hypervisors.disable_vmware_repositories,
         "[a]\nbaseurl=http://notvmware.com/\n", "[a]\nbaseurl=http://notvmware.com/\n",
         marks=rows("2-T97")),
        pytest.param(hypervisors.restore_gettys,
         "# plain words\n#1:2345:respawn:/sbin/mingetty tty1\n",
         "# plain words\n1:2345:respawn:/sbin/mingetty tty1\n",
         marks=rows("2-T103")),
        pytest.param(hypervisors.drop_xen_modules,
         'INITRD_MODULES="xennet ata_piix xenblk"\nX="xennet"\n',
         'INITRD_MODULES="ata_piix"\nX="xennet"\n',
         marks=rows("2-T106")),
        pytest.param(console.securetty, "hvc0\ntty1\nttyS0\n", "ttyS0\ntty1\n",
         marks=rows("2-T113")),
        pytest.param(console.without_logins,
         "1:23:respawn:/sbin/agetty tty1\nco:2345:respawn:/sbin/agetty hvc0 9600\n"
         "s0:2345:respawn:/sbin/agetty -L ttyS0\n# hvc0 here\nx:2:once:/bin/hvc00\n",
         "1:23:respawn:/sbin/agetty tty1\n# hvc0 here\nx:2:once:/bin/hvc00\n",
         marks=rows("2-T114")),
        pytest.param(console.without_terminals, "hvc0\ntty1\nxvc0\nttyS0\n", "tty1\nttyS0\n",
         marks=rows("2-T114")),
        pytest.param(console.without_console, "ro console=hvc0 quiet console=tty0\n",
         "ro quiet console=tty0\n", marks=rows("2-T114")),
        pytest.param(x_driver.with_driver,
         'Section "Device"\n Driver "vmware"\n VendorName "V"\n BusID "1"\nEndSection\n'
         'Section "Screen"\n Driver "x"\nEndSection\n',
         'Section "Device"\n Driver "modesetting"\nEndSection\n'
         'Section "Screen"\n Driver "x"\nEndSection\n',
         marks=rows("2-T116")),
    ],
)  # fmt: skip
def test_texts_are_rewritten(function: Callable[[str], str], old: str, new: str) -> None:
    """T97, T103, T106, T113, T116."""
    assert function(old) == new
    assert function(new) == new


@rows("2-T102")
@pytest.mark.parametrize(
    ("text", "folders"),
    [
        ("INSTALL_DIR='/opt/VBox A'\nUNINSTALLER='x'\n", ["/opt/VBox A"]),
        ('INSTALL_DIR="/opt/\\$x"\n', ["/opt/$x"]),
        ("INSTALL_DIR=relative\nINSTALL_DIR='broken\n", []),
    ],
)
def test_folders_of_virtualbox(text: str, folders: list[str]) -> None:
    """T102."""
    assert hypervisors.install_folders(text) == folders


def test_settings_of_selinux() -> None:
    assert selinux.setting("# SELINUX=x\nSELINUX=disabled\n", "SELINUX") == "disabled"
    assert selinux.setting("SELINUX=enforcing\n", "SELINUXTYPE") is None


def test_names_of_scripts() -> None:
    """L-73."""
    assert script_name(1, "wait online") == "5000-0001-wait-online"
    assert len(script_name(2, "x" * 99)) == len("5000-0002-") + 60


def test_names_of_packages_reach_the_shell_quoted() -> None:
    assert install_command(GUEST, ["a;b"]) == (
        "DEBIAN_FRONTEND=noninteractive apt-get -q -y -o Dpkg::Options::=--force-confold update; "
        "DEBIAN_FRONTEND=noninteractive apt-get -q -y -o Dpkg::Options::=--force-confold install "
        "'a;b'"
    )
    assert all("'a;b'" in line for line in removal_commands(GUEST, ["a;b"]))


class Starts:
    """Keeps what is left for the first start."""

    def __init__(self) -> None:
        self.scripts: list[tuple[str, str]] = []

    def add(self, name: str, text: str) -> None:
        """Keep a script."""
        self.scripts.append((name, text))


@pytest.mark.parametrize(
    ("manager", "first"),
    [("apt", "apt-get -q -y"), ("dnf", "dnf -y upgrade"), ("zypper", "zypper -n up"), ("odd", "")],
)
def test_all_packages_are_updated_before_others_are_installed(manager: str, first: str) -> None:
    starts, report = Starts(), RecordingReporter()
    wishes = Customize(update=True, install=("htop",))
    source = Input(kind="ova", location="/x.ova")
    job = Job(mode=Mode.REHEARSE, source=source, customize=wishes)
    guest = replace(GUEST, package_management=manager)
    c = Context(
        g=None, guest=guest, source=make_source(), job=job, report=report, work=Path("/w"),
        change=True,
    )  # fmt: skip
    if not first:
        with pytest.raises(GuestError, match="cannot be updated"):
            customize(c, GuestFiles(None, report, change=True), starts)  # type: ignore[arg-type]
        return
    customize(c, GuestFiles(None, report, change=True), starts)  # type: ignore[arg-type]
    assert [name for name, _text in starts.scripts] == ["update packages", "install packages"]
    assert first in starts.scripts[0][1]


def configured(name: str, mac: str | None = None) -> ConfiguredNic:
    return ConfiguredNic(name=name, path="/etc/network/interfaces", mac=mac, static=True)


def card(mac: str | None) -> Nic:
    return Nic(vnet="lan", vnet_type=VnetType.NETWORK, mac=mac)


def test_configured_cards_are_matched_by_mac_or_because_there_is_one() -> None:
    one, two = card("00:50:56:00:00:01"), card("00:50:56:00:00:02")
    by_mac = [configured("ens192", "00:50:56:00:00:02"), configured("ens224")]
    assert [m[1:] for m in match_nics(by_mac, [one, two])] == [
        ("00:50:56:00:00:02", True), (None, False),
    ]  # fmt: skip
    assert match_nics([configured("ens192")], [card(None)])[0][1:] == (None, True)
    assert "Driver=virtio_net" in link_file("ens192", None, NetBus.VIRTIO_NET)


@pytest.mark.parametrize(
    "wishes",
    [
        {"hostname": "a b"}, {"hostname": "-a"}, {"timezone": "../etc/passwd"},
        {"root_password_hash": "secret"}, {"root_password_hash": "$6$a:b"},
        {"ssh_keys": ("ssh-rsa AAAA\nssh-rsa BBBB",)}, {"install": ("a b",)},
        {"uninstall": ("-rf",)}, {"files": ({"path": "etc/motd", "content": ""},)},
        {"files": ({"path": "/etc/../motd", "content": ""},)},
        {"files": ({"path": "/etc/motd/", "content": ""},)},
        {"files": ({"path": "/m", "content": "", "mode": 0o10000},)},
        {"files": ({"path": "/m", "content": "x" * (MAX_FILE_BYTES + 1)},)},
        {"files": ({"path": "/m"},)}, {"files": ("/m",)}, {"files": 5},
    ],
)  # fmt: skip
def test_wishes_no_guest_could_have_are_refused(wishes: dict[str, object]) -> None:
    with pytest.raises(JobError):
        job_with(wishes)


def job_with(wishes: dict[str, object]) -> Job:
    """Return a job as it reaches the engine."""
    source = {"kind": "ova", "location": "/x.ova"}
    return Job.from_json(
        json.dumps({"mode": "rehearse", "source": source, "customize": wishes}, default=str)
    )


def test_files_of_the_command_line(tmp_path: Path) -> None:
    """With the permissions they have here; no file, no path of a guest: an error."""
    script = tmp_path / "run"
    script.write_bytes(b"\xff")
    script.chmod(0o750)

    def job(*words: str) -> Job:
        return job_from(options_parser().parse_args(["--rehearse", *words, "/x.ova"]))

    upload = job("--upload", f"{script}:/opt/run", "--no-selinux-relabel")
    assert upload.customize.files == (GuestFile(path="/opt/run", content="\udcff", mode=0o750),)
    assert not upload.selinux_relabel
    for word in (f"{script}", f"{tmp_path}/absent:/opt/run", f"{script}:opt"):
        with pytest.raises(JobError):
            job("--upload", word)


def test_a_file_of_any_bytes_reaches_the_engine() -> None:
    one = {"path": "/etc/motd", "content": b"\xff\x00".decode("utf-8", "surrogateescape")}
    job = job_with({"files": (one,)})
    assert job.customize.files == (GuestFile(**one),)
    assert Job.from_json(job.to_json()) == job
