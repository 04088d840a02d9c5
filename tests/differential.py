"""What two conversions of the same guest did to its files, side by side.

Both results and the source are read through libguestfs, every file is hashed, and each path that
either conversion changed is compared.  A difference between the two is explained here, or reported.
"""

from __future__ import annotations

import difflib
import hashlib
import re
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import guestfs

from conversions.pipeline.accelerator import choose_accelerator
from conversions.pipeline.decrypt import find_encrypted

_MAX_TEXT = 64 << 10
_MAX_DIFF_LINES = 30

Reason = Callable[[str, str, str], str]
"""Why ours differs from the peer: a name and what became of it in ours and in the peer's; "" when
nobody has said."""

# Path -> why ours differs from virt-v2v 2.2.0 there.  The first that matches the whole path counts.
EXPLAINED: list[tuple[str, str]] = [
    (r".*\.(augsave|pre-v2v)", "copies of changed files that virt-v2v leaves behind in the guest"),
    (r"/boot/(initrd|initramfs).*", "ours rebuilds only what lacks virtio; a rebuild is never "
     "equal to the byte, for it holds times and is built by another run of the guest's tool"),
    (r"/boot/grub2?/grub\.cfg", "ours edits the names in place; the peer leaves them, or runs the "
     "guest's grub-mkconfig, which names the appliance's disks"),
    (r"/boot/grub2?/(grubenv|device\.map|menu\.lst|grub\.conf)", "disk names and the default kernel"
     " are brought in line with the new bus"),
    (r"/boot/grub2?/(fonts|locale|i386-pc|x86_64-efi)(/.*)?", "the peer's run of grub-mkconfig or "
     "grub-install touches them"),
    (r"/boot/loader/entries/.*", "ours renames the disks in resume= and root= of BLS entries; the "
     "peer leaves names that no longer exist"),
    (r"/etc/kernel/cmdline", "the same names, for the entries of kernels to come"),
    (r"/etc/(fstab|crypttab|mdadm\.conf|default/grub|sysconfig/grub)", "ours keeps comments and "
     "spacing and changes only the names"),
    (r"/etc/lvm/.*", "names of devices in LVM's own files, and its archive of changes"),
    (r"/etc/initramfs-tools/modules|/etc/dracut\.conf\.d.*", "asked for only where an initramfs is "
     "rebuilt"),
    (r"/etc/(modprobe\.d.*|modprobe\.conf|modules(\.conf)?)", "aliases of devices that are gone"),
    (r".*firstboot.*|.*/v2vweb.*|.*/virt-sysprep.*", "each has its own first-start program, with "
     "names of its own"),
    (r"/etc/rc\.d(/rc\d\.d)?", "folders of links of System V, which a guest with systemd ignores"),
    (r"/etc/init\.d/rc\d\.d", "ours links the first start in the run levels that the guest has, "
     "the peer makes folders for others"),
    (r"/run/blkid/.*", "times of probes by the guest's tools; the folder is empty at a start"),
    (r"/etc/systemd/system/.*", "the unit of the first-start program, and links of removed tools"),
    (r"/etc/(systemd/network|udev/rules\.d)/.*", "ours pins the names of network cards to their "
     "MAC addresses; the peer lets them change"),
    (r"/etc/(machine-id|random-seed)|/var/lib/(systemd/)?random-seed|/var/lib/dbus/machine-id",
     "ours gives a copy that runs beside its source a seed of its own"),
    (r"/var/lib/(rpm|dnf|yum|dpkg|apt)(/.*)?|/usr/lib/sysimage/rpm(/.*)?", "the packages that are "
     "removed, and the times of the package manager's own files"),
    (r"/var/(log|cache|tmp|backups)(/.*)?|/tmp(/.*)?|/root/(\..*|virt-sysprep.*)", "logs and"
     " caches of the guest's tools that ran"),
    (r".*(open-vm-tools|vmware|vmtoolsd|vgauth|VGAuth|xmlsec|libmspack|libdnet|fuse).*",
     "VMware's tools and what came only with them"),
    (r"/usr/share/(info|man|mime|icons).*|/etc/ld\.so\.cache|/etc/(dconf|alternatives).*",
     "indexes that package managers write anew"),
    (r"/lib/modules/.*|/usr/lib/modules/.*", "indexes of modules that depmod writes anew"),
    (r"/\.autorelabel", "SELinux relabelling at the first start, asked for the same way"),
    (r"/usr/sbin/(grub-.*|update-initramfs.*)|/v2v-calls\.log", "calls of the phony guest's tools"),
    (r"/boot/efi/.*", "ours installs the fallback loader, without which no new machine would find "
     "one"),
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Entry:
    """One file: its kind, permissions and owner, and its content or link target, hashed."""

    kind: str
    mode: int
    owner: tuple[int, int]
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A path that the conversions left unlike; `reason` is "" when nothing explains it."""

    path: str
    ours: str
    peer: str
    reason: str
    text: str = ""


class State:
    """What is compared, by name, and its text where it has one."""

    def __init__(self) -> None:
        self.entries: dict[str, object] = {}
        self.texts: dict[str, str] = {}

    def what_became(self, name: str, source: State) -> str:
        """Return "same", "added", "removed" or "changed", seen from the source."""
        before, after = source.entries.get(name), self.entries.get(name)
        if before == after:
            return "same"
        return "added" if before is None else "removed" if after is None else "changed"


class Files(State):
    """All files of a guest's disks, by path."""

    def __init__(self, disks: Sequence[Path], key: str = "") -> None:
        super().__init__()
        with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="differential.") as scratch:
            archive = Path(scratch) / "files.tar"
            _unload(disks, archive, key)
            with tarfile.open(archive) as tar:
                for member in tar:
                    self._add(tar, member)

    def _add(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        path = "/" + member.name.removeprefix("./").rstrip("/")
        digest = member.linkname
        if member.isreg() and (stream := tar.extractfile(member)) is not None:
            head = stream.read(_MAX_TEXT)
            hasher = hashlib.sha256(head)
            while chunk := stream.read(1 << 20):
                hasher.update(chunk)
            digest = hasher.hexdigest()
            if member.size <= _MAX_TEXT and b"\0" not in head:
                self.texts[path] = head.decode(errors="replace")
        self.entries[path] = Entry(
            member.type.decode(), member.mode, (member.uid, member.gid), digest
        )


def _unload(disks: Sequence[Path], archive: Path, key: str) -> None:
    """Write every file of the first system on the disks into a tar archive; `key` opens LUKS."""
    g = guestfs.GuestFS(python_return_dict=True, close_on_exit=False)
    g.set_backend("direct")
    g.set_backend_settings([] if choose_accelerator().kvm else ["force_tcg"])
    for disk in disks:
        g.add_drive_opts(str(disk), readonly=True)
    g.launch()
    if key:
        for number, device in enumerate(find_encrypted(g)):
            g.cryptsetup_open(device.device, key, f"opened{number}", readonly=True)
        g.lvm_scan(True)
    root = g.inspect_os()[0]
    points = g.inspect_get_mountpoints(root)
    for path in sorted(points, key=len):
        g.mount_ro(points[path], path)
    g.tar_out("/", str(archive))
    g.close()


def reason_for(path: str, _ours: str, _peer: str) -> str:
    """Return why a path of a Linux guest may differ, "" when nobody has said."""
    return next((why for pattern, why in EXPLAINED if re.fullmatch(pattern, path)), "")


def compare(
    source: State, ours: State, peer: State, *, reason: Reason = reason_for
) -> tuple[int, list[Difference]]:
    """Return how many changed names ended alike, and the differences in order of their names."""
    names = sorted({*source.entries, *ours.entries, *peer.entries})
    touched = [n for n in names if not source.entries.get(n)
               == ours.entries.get(n) == peer.entries.get(n)]  # fmt: skip
    alike = [n for n in touched if ours.entries.get(n) == peer.entries.get(n)]
    return len(alike), [
        Difference(
            path=name,
            ours=(became := ours.what_became(name, source)),
            peer=(peers := peer.what_became(name, source)),
            reason=reason(name, became, peers),
            text="\n".join(_text_diff(name, ours.texts, peer.texts)),
        )
        for name in touched
        if ours.entries.get(name) != peer.entries.get(name)
    ]


def _text_diff(path: str, ours: Mapping[str, str], peer: Mapping[str, str]) -> Iterator[str]:
    if path in ours and path in peer:
        lines = difflib.unified_diff(
            peer[path].splitlines(), ours[path].splitlines(), "virt-v2v", "ours", lineterm="", n=0
        )
        for number, line in enumerate(lines):
            if number >= _MAX_DIFF_LINES:
                yield "..."
                return
            yield line[:200]


def show(name: str, alike: int, differences: Sequence[Difference], *, verbose: bool) -> int:
    """Print the table of one guest; return how many differences nothing explains."""
    open_ = [d for d in differences if not d.reason]
    print(f"\n{name}: {alike} changes are alike, {len(differences)} differ, "
          f"{len(open_)} of them unexplained")  # fmt: skip
    groups: dict[str, list[Difference]] = {}
    for difference in differences:
        groups.setdefault(difference.reason, []).append(difference)
    for reason, members in groups.items():
        print(f"  {reason or 'UNEXPLAINED'}")
        shown = members if verbose or not reason else members[:4]
        for d in shown:
            print(f"    {d.path}  (ours {d.ours}, virt-v2v {d.peer})")
            if d.text and (verbose or not reason):
                print("\n".join(f"        {line}" for line in d.text.split("\n")))
        if len(shown) < len(members):
            print(f"    and {len(members) - len(shown)} more")
    return len(open_)
