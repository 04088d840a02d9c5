"""What this engine and virt-v2v do to the same Windows guest: registry, files, machine.

    python -m tests.differential_windows [NAME...] [--keep FOLDER] [--verbose]

Makes phony guests with leftovers of other hypervisors, converts each with both from the same driver
folder, and compares registry values by key, files by content, and the machine that is described.
A difference is explained below or counts; the status is 1 when any is left.  A guest takes about
four minutes without KVM.  What --keep holds from an earlier run is not made again.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import guestfs
from lxml import etree

from conversions.pipeline.accelerator import choose_accelerator
from tests.differential import State, compare, show
from tests.guests import hives
from tests.guests.virtio_win import driver_tree, put, tools_folder
from tests.guests.windows import (
    GUESTS,
    UNINSTALL,
    WITH_DATABASE,
    WOW_UNINSTALL,
    WindowsGuest,
    boot_configuration,
    fill,
    merge,
    partition,
)

DISK_BYTES = 512 << 20
SERVICES = "ControlSet001\\Services"
CONTROL = "ControlSet001\\Control"
FILTERS = f"{CONTROL}\\Class\\{{4d36e967-e325-11ce-bfc1-08002be10318}}"
_OLD_FOLDERS = (("xp", "i386"), ("2k3", "amd64"), ("2k8", "amd64"))
_HIVES = ("SYSTEM", "SOFTWARE")
_ESP = "ESP"

_BOTH, _OURS, _PEER = ("added", "added"), ("added", "same"), ("same", "added")
_QUEUE = ".*/Firstboot/scripts/"
_CRITICAL = r"SYSTEM\\controlset001\\control\\criticaldevicedatabase\\pci#"
_DATABASE = r"SYSTEM\\driverdatabase\\"
_PCI = r"ven_1af4&dev_10.."
_SERVICE = r"SYSTEM\\controlset001\\services\\firstboot"
_ONE_ID = "the peer enters one subsystem id, ours none, which matches those of every vendor: ours"
_LABEL = "the peer names its package unlike Windows does, at which pnputil and upgrades stop: ours"
_YOUNG = "the peer does not know Windows 11 and Server 2025 and takes what is for 10 and 2016: ours"
# A name and what became of it in ours and in the peer's -> why; each ends with who is better.
# The peer is virt-v2v 2.2.0.  The first whose pattern matches the whole name counts.
EXPLAINED: list[tuple[str, tuple[str, str], str]] = [
    (r".*/Firstboot/firstboot\.bat", _BOTH, "ours restarts after each script and repeats one at "
     "most three times; the peer runs all at one start, where an installer's locks break the "
     "next: ours"),
    (_QUEUE + r"2000 pnputil-install-drivers\.bat", _OURS, "ours hands all drivers to pnputil; the "
     "peer relies on DevicePath, which several servers do not search: ours"),
    (_QUEUE + r"5000 install-blnsvr\.bat", _OURS, "the peer copies the balloon's service and does "
     "not install it: ours"),
    (_QUEUE + r"5000 uninstall-Parallels-tools\.bat \(2\)", _OURS, "the peer does not look among "
     "programs of 32 bits: ours"),
    (_QUEUE + r"5000 uninstall-Xen-PV\.bat", _BOTH, "the peer starts uninst.exe, which asks, and "
     "has a NUL behind its name; ours _uninst.exe, which does not: ours"),
    (_QUEUE + r"5000 (wait-pnp|configure-vmdp|finish-vmdp-setup|uninstall-[\w-]+)\.bat", _BOTH,
     "the same commands, said and logged in another way: alike"),
    (r"C:/Program Files/Guestfs/Firstboot/Temp", _OURS, "ours makes the folder of installers also "
     "when there are none: alike"),
    (r"C:/Windows/Drivers/VirtIO/[\w.]+\.pdb", _PEER, "debug files, which nothing in the guest "
     "reads: ours"),
    (r"C:/Windows/Drivers/VirtIO/vioprot\..*", _PEER, "a protocol driver for pairs of cards that "
     "keeps netkvm from working alone: ours"),
    (_CRITICAL + _PCI + "&rev_0[01] : .*", _OURS, _ONE_ID),
    (_CRITICAL + _PCI + "&subsys_.{8}&rev_0[01] : .*", _PEER, _ONE_ID),
    (_DATABASE + r"deviceids\\pci\\" + _PCI + "&rev_0[01] : .*", _OURS, _ONE_ID),
    (_DATABASE + r"deviceids\\pci\\" + _PCI + "&subsys_.{8}&rev_0[01] : .*", _PEER, _ONE_ID),
    (_DATABASE + r"driverinffiles\\guestor\.inf : (\(default\)|active)", _BOTH, _LABEL),
    (_DATABASE + r"driverpackages\\guestor\.inf_(amd64|x86)_0{16}.*", _OURS, _LABEL),
    (_DATABASE + r"driverpackages\\guestor\.inf_tmp.*", _PEER, _LABEL),
    (r"C:/Windows/Drivers/VirtIO/qxldod\..*", _PEER, _YOUNG),
    (r"C:/Windows/Drivers/VirtIO/smbus\..*", _OURS, _YOUNG),
    ("domain system", _BOTH, "the peer takes Server 2008 for Vista, and does not know Windows 11"
     " and Server 2025: ours"),
    ("domain machine", _BOTH, "the peer gives q35 to all from Vista on; osinfo's database has it"
     " for those from 7 on: ours"),
    ("domain (firmware|loader)", _BOTH, "ours lets libvirt choose UEFI; the peer names a loader of "
     "the host that converts: ours"),
    (_SERVICE + " : displayname", _BOTH, "names of their own: alike"),
    (_SERVICE + " : imagepath", _BOTH, "ours quotes the path, which has a space: ours"),
    ("domain clock", _BOTH, "the peer says nothing of the clock, so libvirt takes UTC even for a "
     "Windows that keeps local time: ours"),
]  # fmt: skip


def reason_for(name: str, ours: str, peer: str) -> str:
    """Return why something may differ, "" when nobody has said."""
    return next(
        (
            why
            for pattern, became, why in EXPLAINED
            if became == (ours, peer) and re.fullmatch(pattern, name)
        ),
        "",
    )


# What other hypervisors leave in a guest, and what must stay as it is.
SOFTWARE: hives.Description = {
    f"{UNINSTALL}\\{{1}}": {"DisplayName": "VMware Tools", "UninstallString": "MsiExec.exe /I{1}"},
    f"{UNINSTALL}\\{{2}}": {"DisplayName": "Parallels Tools", "UninstallString": "msiexec /X{2}"},
    f"{WOW_UNINSTALL}\\{{3}}": {
        "DisplayName": "Virtuozzo Tools", "UninstallString": "msiexec /X{3}"},
    f"{UNINSTALL}\\Red Hat Paravirtualized Xen Drivers for Windows(R)": {
        "UninstallString": "C:\\Program Files\\Xen\\uninst.exe"},
}  # fmt: skip
SYSTEM: hives.Description = {
    f"{SERVICES}\\rhelscsi": {"Start": 0},
    f"{SERVICES}\\prl_strg": {"Start": 0, "Type": 1},
    f"{SERVICES}\\prl_tg": {"Start": 2},
    f"{SERVICES}\\VMTools": {"Start": 2},
    f"{SERVICES}\\Processor": {"Start": 1},
    f"{SERVICES}\\intelppm": {"Start": 1},
    f"{SERVICES}\\partmgr\\Parameters": {"SanPolicy": 1},
    f"{CONTROL}\\CrashControl": {"AutoReboot": 1},
    f"{CONTROL}\\CI\\Policy": {"UpgradedSystem": 1},
    f"{CONTROL}\\TimeZoneInformation": {"RealTimeIsUniversal": 1},
    FILTERS: {"LowerFilters": ["prl_strg", "partmgr"]},
}
_UEFI = ("w11", "2k22", "2k25")
_WITH_DATABASE = ("2k12r2", "w11", "2k22", "2k25")


def guest_for(name: str) -> WindowsGuest:
    """Return a phony guest with leftovers; the newer ones with UEFI and a driver database."""
    guest = GUESTS[name]
    database = WITH_DATABASE if name in _WITH_DATABASE else {}
    guest = guest.but(software=SOFTWARE, system=merge(SYSTEM, database))
    if name in _UEFI:
        guest = guest.but(
            uefi=True,
            # The peer ends at a guest with an ESP whose folder is spelled TEMP, as some are.
            folders=("/Windows/Temp",),
            bcd=boot_configuration(),
            esp_files={
                "/EFI/Microsoft/Boot/bootmgfw.efi": b"the boot manager",
                "/EFI/Boot/bootx64.efi": b"another loader",
            },
        )
    return guest


def make_sources(targets: Mapping[str, Path]) -> None:
    """Write guests to raw disks, all in one appliance."""
    g = _appliance()
    for disk in targets.values():
        g.disk_create(str(disk), "raw", DISK_BYTES)
        g.add_drive(str(disk), format="raw", cachemode="unsafe")
    g.launch()
    for name, device in zip(targets, g.list_devices(), strict=True):
        guest = guest_for(name)
        esp, root = partition(g, device, uefi=guest.uefi)
        with tempfile.TemporaryDirectory() as folder:
            fill(g, guest, esp=esp, root=root, folder=Path(folder))
    g.shutdown()
    g.close()


def _appliance() -> guestfs.GuestFS:
    g = guestfs.GuestFS(python_return_dict=True, close_on_exit=False)
    g.set_backend("direct")
    g.set_backend_settings([] if choose_accelerator().kvm else ["force_tcg"])
    g.set_network(False)
    return g


@dataclass(frozen=True, slots=True)
class Supplies:
    """What both conversions take drivers and tools from."""

    drivers: Path
    tools: Path

    @classmethod
    def make(cls, folder: Path) -> Supplies:
        """Write them, with drivers for the oldest systems too, which the collection has none of."""
        drivers = driver_tree(folder / "virtio-win")
        for version, arch in _OLD_FOLDERS:
            for stem in ("viostor", "netkvm", "balloon"):
                for end in ("sys", "inf", "cat"):
                    put(drivers / f"drivers/by-os/{arch}/{version}/{stem}.{end}")
        return cls(drivers, tools_folder(folder / "virt-tools"))


def convert_ours(source: Path, folder: Path, supplies: Supplies) -> None:
    """Convert with this engine.  Raises RuntimeError with the end of its log."""
    _run(
        [sys.executable, "-m", "conversions.pipeline", "-i", "disk", str(source), "-o", "local",
         "-os", str(folder), "-of", "qcow2", "--virtio-win", str(supplies.drivers),
         "--virt-tools", str(supplies.tools), "--emulated-devices", "--no-fsck", "--no-fstrim"],
        folder, {},
    )  # fmt: skip


def convert_peer(source: Path, folder: Path, supplies: Supplies) -> None:
    """Convert with virt-v2v.  Raises RuntimeError with the end of its log."""
    environ = {"LIBGUESTFS_BACKEND": "direct", "VIRTIO_WIN": str(supplies.drivers),
               "VIRT_TOOLS_DATA_DIR": str(supplies.tools), "LC_ALL": "C.UTF-8"}  # fmt: skip
    if not choose_accelerator().kvm:
        environ["LIBGUESTFS_BACKEND_SETTINGS"] = "force_tcg"
    _run(
        ["virt-v2v", "-i", "disk", str(source), "-if", "raw", "-o", "local", "-os", str(folder),
         "-of", "qcow2"],
        folder, environ,
    )  # fmt: skip


def _run(command: Sequence[str], folder: Path, environ: Mapping[str, str]) -> None:
    """Run a conversion into an empty folder, which is left empty when it fails."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    done = subprocess.run(
        command, env=os.environ | environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        shutil.rmtree(folder)
        raise RuntimeError(f"{command[0]} ended with {done.returncode}: {done.stdout[-2000:]}")
    folder.with_suffix(".log").write_text(done.stdout)


class Windows(State):
    r"""A guest's registry values, files and boot sector, and the machine described for it.

    Names are SYSTEM\key : value in lower case but for the hive, C:/path as spelled but for the
    number of scripts, ESP:/path in lower case, C: heads, and domain FACT.
    """

    def add_filesystem(self, label: str, archive: Path) -> None:
        """Add every file of an archive; registry hives by what they hold."""
        with tarfile.open(archive) as tar:
            for member in tar:
                path = self._unnumbered(f"{label}:/" + member.name.removeprefix("./").strip("/"))
                path = path.lower() if label == _ESP else path
                stream = tar.extractfile(member) if member.isreg() else None
                if stream is None:
                    self.entries[path] = "folder"
                    continue
                data = stream.read()
                name = path.rsplit("/", 1)[-1].upper()
                if data.startswith(b"regf") and name in (*_HIVES, "BCD"):
                    self._add_hive(name, data)
                    continue
                self.entries[path] = hashlib.sha256(data).hexdigest()
                if b"\0" not in data:
                    self.texts[path] = data.decode(errors="replace")

    def _unnumbered(self, path: str) -> str:
        """Return a script's path with its priority but not its place in the queue.

        A second script of the same name is (2), and so on.
        """
        plain = re.sub(r"(/Firstboot/scripts/\d{4})-\d{4}-", r"\1 ", path)
        again = sum(p == plain or p.startswith(f"{plain} (") for p in self.entries)
        return f"{plain} ({again + 1})" if plain != path and again else plain

    def _add_hive(self, label: str, data: bytes) -> None:
        with tempfile.NamedTemporaryFile() as stream:
            stream.write(data)
            stream.flush()
            dump = hives.dump_hive(Path(stream.name))
        filled = {key for key, _name in dump.values}
        for key in dump.keys - filled:
            self.entries[f"{label}\\{key.lower()}"] = "key without values"
        for (key, name), value in dump.values.items():
            path = f"{label}\\{key.lower()} : {name.lower() or '(default)'}"
            self.entries[path] = value
            self.texts[path] = _shown(*value)

    def add_domain(self, path: Path) -> None:
        """Add what a libvirt domain says about devices."""
        tree = etree.parse(str(path))
        for fact, where in _FACTS.items():
            found = tree.xpath(where)
            value = found if isinstance(found, str) else str(bool(found))
            self.entries[f"domain {fact}"] = self.texts[f"domain {fact}"] = value


_FACTS = {
    "system": "substring-after(string(//*[local-name()='os' and @id]/@id), '://')",
    "machine": "string(/domain/os/type/@machine)",
    "firmware": "string(/domain/os/@firmware)",
    "loader": "boolean(/domain/os/loader)",
    "clock": "string(/domain/clock/@offset)",
    "disk bus": "string(//disk[@device='disk']/target/@bus)",
    "network card": "string(//interface/model/@type)",
    "video": "string(//video/model/@type)",
    "balloon": "string(//memballoon/@model)",
    "random numbers": "boolean(//rng)",
    "panic": "string(//panic/@model)",
    "socket": "boolean(//vsock)",
}


def _shown(kind: int, data: bytes) -> str:
    if kind in (hives.SZ, hives.EXPAND_SZ, hives.MULTI_SZ):
        return f"type {kind} {data.decode('utf-16-le', 'replace')!r}"
    return f"type {kind} {data.hex(' ')}"


def read_guests(disks: Sequence[Path]) -> list[Windows]:
    """Return what is on each of the disks; they are opened read-only in one appliance."""
    g = _appliance()
    for disk in disks:
        g.add_drive(str(disk), readonly=True)
    g.launch()
    states = []
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="differential.") as scratch:
        archive = Path(scratch) / "files.tar"
        for device in g.list_devices():
            state = Windows()
            for partition_name in (f"{device}1", f"{device}2"):
                kind = g.vfs_type(partition_name)
                label = "C" if kind == "ntfs" else _ESP
                g.mount_ro(partition_name, "/")
                g.tar_out("/", str(archive))
                g.umount("/")
                state.add_filesystem(label, archive)
                if kind == "ntfs":
                    heads = bytes(g.pread_device(partition_name, 2, 0x1A))
                    state.entries["C: heads"] = state.texts["C: heads"] = heads.hex()
            states.append(state)
    g.close()
    return states


def only(folder: Path, pattern: str) -> Path:
    """Return the one file of that pattern."""
    (path,) = folder.glob(pattern)
    return path


def convert_both(name: str, folder: Path, supplies: Supplies) -> bool:
    """Convert a guest with both unless it was; print why one failed and return False then."""
    for convert, kind in ((convert_peer, "virt-v2v"), (convert_ours, "ours")):
        result = folder / f"{name}-{kind}"
        try:
            if not result.is_dir():
                convert(folder / f"{name}.raw", result, supplies)
        except RuntimeError as error:
            print(f"\n{name}: {error}")
            return False
    return True


def compare_guests(names: Sequence[str], folder: Path, *, verbose: bool) -> int:
    """Compare what both made of each guest; return how many differences nothing explains."""
    disks = [
        disk
        for name in names
        for disk in (
            folder / f"{name}.raw",
            only(folder / f"{name}-ours", "*-sda"),
            only(folder / f"{name}-virt-v2v", "*-sda"),
        )
    ]
    states = iter(read_guests(disks))
    unexplained = 0
    for name, source, ours, peer in zip(names, states, states, states, strict=True):
        ours.add_domain(only(folder / f"{name}-ours", "*.xml"))
        peer.add_domain(only(folder / f"{name}-virt-v2v", "*.xml"))
        alike, differences = compare(source, ours, peer, reason=reason_for)
        unexplained += show(name, alike, differences, verbose=verbose)
    return unexplained


def main() -> None:
    """Run the comparisons the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", nargs="*", help=f"{', '.join(GUESTS)}; all when not given")
    parser.add_argument("--keep", type=Path, help="keep guests and results in this folder")
    parser.add_argument("--verbose", action="store_true", help="print every difference")
    options = parser.parse_args()
    names = options.name or list(GUESTS)
    if unknown := set(names) - set(GUESTS):
        parser.error(f"no such guest: {', '.join(unknown)}")
    with tempfile.TemporaryDirectory(prefix="differential.", dir="/var/tmp") as scratch:
        folder = (options.keep or Path(scratch)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        supplies = Supplies.make(folder)
        sources = {name: folder / f"{name}.raw" for name in names}
        if missing := {name: disk for name, disk in sources.items() if not disk.exists()}:
            make_sources(missing)
        converted = [name for name in names if convert_both(name, folder, supplies)]
        unexplained = compare_guests(converted, folder, verbose=options.verbose)
    sys.exit(1 if unexplained or len(converted) < len(names) else 0)


if __name__ == "__main__":
    main()
