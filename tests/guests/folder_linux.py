"""A stand-in for the appliance that keeps a Linux guest's files in a folder of this host.

It does in milliseconds what the conversion of a phony guest asks.  Programs of the guest run with
the folder as their root, in a user namespace; they are the tests' own scripts with static tools.
"""

from __future__ import annotations

import shutil
import subprocess
import tarfile
from pathlib import Path

from tests.guests.folder_guest import FolderGuest

_CHROOT = ("unshare", "--user", "--map-root-user", "chroot")
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_MAX_LINKS = 20


def can_run_programs() -> bool:
    """Tell whether this host lets a program have another root folder."""
    return subprocess.run([*_CHROOT, "/", "/bin/true"], capture_output=True).returncode == 0


class FolderLinux(FolderGuest):
    """One disk whose first partition is the root filesystem.

    `uuids` are those of devices, `features` what the appliance can do; `reads` and `relabelled`
    tell what the conversion did.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.uuids: dict[str, str] = {}
        self.features: set[str] = set()
        self.relabelled: list[str] = []
        self.reads: list[str] = []

    def _at(self, path: str, *, follow: bool = True) -> Path:
        """Return the host's path; links are followed inside the guest."""
        root = self._device(self.mounted["/"])
        todo, at, links = [p for p in path.split("/") if p], root, 0
        while todo:
            part = todo.pop(0)
            if part == "..":
                at = at.parent if at != root else root
                continue
            if (at / part).is_symlink() and (todo or follow) and links < _MAX_LINKS:
                links += 1
                target = str((at / part).readlink())
                at = root if target.startswith("/") else at
                todo = [p for p in target.split("/") if p and p != "."] + todo
                continue
            at = at / part
        return at

    # --- disks and what the appliance itself tells

    def tar_in(self, source: str, path: str) -> None:
        """Unpack an archive."""
        with tarfile.open(source) as archive:
            archive.extractall(self._at(path))  # noqa: S202  the test's own archive

    def vfs_uuid(self, device: str) -> str:
        """Return the UUID of a device."""
        if device not in self.uuids:
            raise RuntimeError(f"vfs_uuid: {device}: No such file or directory")
        return self.uuids[device]

    def debug(self, command: str, arguments: list[str]) -> str:
        """Answer lsblk: the root is on a plain partition; run what looks for the guest's root."""
        if "/sysroot" in arguments[0]:
            line = arguments[0].replace("/sysroot", str(self._device(self.mounted["/"])))
            return subprocess.run(["sh", "-c", line], stdout=subprocess.PIPE, text=True).stdout
        return "part\ndisk\n\nstatus=0" if "lsblk" in arguments[0] else "\nstatus=0"

    def feature_available(self, names: list[str]) -> bool:
        """Tell whether the appliance has all of them."""
        return set(names) <= self.features

    def selinux_relabel(self, specification: str, path: str) -> None:
        """Note what is relabelled."""
        assert self._at(specification).is_file()
        self.relabelled.append(path)

    def statvfs(self, path: str) -> dict[str, int]:
        """Return figures of an almost empty filesystem."""
        return {"bsize": 4096, "bfree": 200_000}

    # --- programs

    def sh(self, command: str) -> str:
        """Run a line of shell in the guest."""
        words = [*_CHROOT, str(self._at("/")), "/bin/sh", "-c", command]
        done = subprocess.run(words, capture_output=True, text=True, env={"PATH": _PATH})
        if done.returncode:
            raise RuntimeError(f"sh: {done.stdout}{done.stderr}")
        return done.stdout

    # --- files

    def exists(self, path: str) -> bool:
        """Tell whether it is there."""
        return self._at(path).exists()

    def is_file(self, path: str, followsymlinks: bool = False) -> bool:
        """Tell whether it is a file."""
        at = self._at(path, follow=followsymlinks)
        return at.is_file() and not at.is_symlink()

    def is_dir(self, path: str, followsymlinks: bool = False) -> bool:
        """Tell whether it is a folder."""
        at = self._at(path, follow=followsymlinks)
        return at.is_dir() and not at.is_symlink()

    def is_symlink(self, path: str) -> bool:
        """Tell whether it is a link."""
        return self._at(path, follow=False).is_symlink()

    def readlink(self, path: str) -> str:
        """Return where a link leads."""
        return str(self._at(path, follow=False).readlink())

    def realpath(self, path: str) -> str:
        """Return a path without links.  Raises RuntimeError when nothing is there."""
        at = self._at(path)
        if not at.exists():
            raise RuntimeError(f"realpath: {path}: No such file or directory")
        return "/" + str(at.relative_to(self._at("/"))).removeprefix(".")

    def find(self, folder: str) -> list[str]:
        """Return the paths of everything below a folder, relative to it."""
        at = self._at(folder)
        return sorted(str(path.relative_to(at)) for path in at.rglob("*"))

    def read_file(self, path: str) -> bytes:
        """Return the content."""
        self.reads.append(path)
        return self._at(path).read_bytes()

    def touch(self, path: str) -> None:
        """Make an empty file."""
        self.write(path, b"")

    def truncate(self, path: str) -> None:
        """Empty a file."""
        self._at(path).write_bytes(b"")

    def write_append(self, path: str, data: bytes) -> None:
        """Add to a file."""
        with self._at(path).open("ab") as stream:
            stream.write(data)

    def mv(self, source: str, target: str) -> None:
        """Rename a file."""
        self._at(source, follow=False).rename(self._at(target, follow=False))

    def rm_f(self, path: str) -> None:
        """Delete a file or a link if it is there."""
        self._at(path, follow=False).unlink(missing_ok=True)

    def ln_sf(self, target: str, path: str) -> None:
        """Make a link in place of what is there."""
        self.rm_f(path)
        self._at(path, follow=False).symlink_to(target)

    def chmod(self, mode: int, path: str) -> None:
        """Set the permissions."""
        self._at(path).chmod(mode)

    def statns(self, path: str) -> dict[str, int]:
        """Return what is known of a file."""
        return {"st_mode": self._at(path).stat().st_mode}

    def cp(self, source: str, target: str) -> None:
        """Copy a file with its permissions."""
        shutil.copy(self._at(source), self._at(target))
