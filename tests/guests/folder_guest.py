"""A stand-in for the appliance that keeps a guest's filesystems in folders of this host.

Registry calls go to hivex itself, as in the appliance; names of files keep their case, as NTFS does
there.  It answers what the conversion of Windows asks, in milliseconds; the same tests run in a
real appliance too.
"""

from __future__ import annotations

import filecmp
import hashlib
import shutil
from pathlib import Path
from typing import Any

import hivex

DISK_BYTES = 1 << 30
FREE_BLOCKS = 200_000


class FolderGuest:
    """One disk, /dev/sda, with two partitions; folders stand for their filesystems."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mounted: dict[str, str] = {}
        self.kinds: dict[str, str] = {}
        self.types: dict[int, str] = {}
        self.active: set[int] = set()
        self.sectors: dict[str, bytearray] = {}
        self.protected: set[str] = set()
        self.immutable: set[str] = set()
        self._hive: Any = None
        self._path = ""

    # --- where a path is

    def _device(self, device: str) -> Path:
        return self.folder / device.strip("/").replace("/", "-")

    def _at(self, path: str) -> Path:
        """Return the host's path; the longest mountpoint that begins the path counts."""
        point = max(
            (p for p in self.mounted if path == p or path.startswith(p.rstrip("/") + "/")),
            key=len,
            default=None,
        )
        if point is None:
            raise RuntimeError(f"{path}: nothing is mounted")
        inside = path.removeprefix(point).strip("/")
        root = self._device(self.mounted[point])
        if self.kinds[self.mounted[point]] == "vfat":  # case does not matter there
            return self._ignoring_case(root, inside)
        return root / inside

    def _ignoring_case(self, root: Path, inside: str) -> Path:
        at = root
        for part in filter(None, inside.split("/")):
            names = _names(at) if at.is_dir() else []
            at = at / next((n for n in names if n.lower() == part.lower()), part)
        return at

    def case_sensitive_path(self, path: str) -> str:
        """Return a path as it is spelled on disk; only its last part may be missing."""
        real = ""
        parts = [p for p in path.split("/") if p]
        for number, part in enumerate(parts):
            folder = self._at(real or "/")
            if not folder.is_dir():
                raise RuntimeError(f"case_sensitive_path: {path}: No such file or directory")
            names = _names(folder)
            found = part if part in names else next(
                (n for n in sorted(names) if n.lower() == part.lower()), None
            )  # fmt: skip
            if found is None and number < len(parts) - 1:
                raise RuntimeError(f"case_sensitive_path: {path}: No such file or directory")
            real += f"/{found or part}"
        return real or "/"

    # --- disks and filesystems

    def get_backend_settings(self) -> list[str]:
        """It is not emulated."""
        return []

    def part_init(self, disk: str, kind: str) -> None:
        """Forget what is there."""
        self.mounted.clear()
        self.kinds.clear()
        self.protected.clear()

    def part_add(self, *_: Any) -> None:
        """Both partitions are always there."""

    def part_set_gpt_type(self, disk: str, number: int, guid: str) -> None:
        """Keep the type."""
        self.types[number] = guid

    def part_get_gpt_type(self, disk: str, number: int) -> str:
        """Return the type, Microsoft's basic data for Windows."""
        return self.types.get(number, "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7")

    def part_get_mbr_id(self, disk: str, number: int) -> int:
        """Return the type on an MBR disk, that of Linux if not said."""
        return 0xEF if self.types.get(number) == "ef" else 0x83

    def part_get_bootable(self, disk: str, number: int) -> bool:
        """Tell whether it is marked active."""
        return number in self.active

    def part_get_parttype(self, disk: str) -> str:
        """Return the partition table's kind."""
        return "gpt"

    def part_get_gpt_guid(self, disk: str, number: int) -> str:
        """Return the partition's own GUID."""
        return f"0000000{number}-1111-2222-3333-444444444444"

    def part_list(self, disk: str) -> list[dict[str, int]]:
        """Return numbers and starts in bytes."""
        return [{"part_num": 1, "part_start": 64 << 9}, {"part_num": 2, "part_start": 32768 << 9}]

    def part_to_dev(self, partition: str) -> str:
        """Return the disk."""
        return partition.rstrip("0123456789")

    def part_to_partnum(self, partition: str) -> int:
        """Return the number."""
        return int(partition[-1])

    def is_whole_device(self, device: str) -> bool:
        """Tell whether it is no partition."""
        return not device[-1].isdigit()

    def list_partitions(self) -> list[str]:
        """Return both."""
        return ["/dev/sda1", "/dev/sda2"]

    def list_filesystems(self) -> list[tuple[str, str]]:
        """Return what was made."""
        return sorted(self.kinds.items())

    def blockdev_getsize64(self, disk: str) -> int:
        """Return the disk's size."""
        return DISK_BYTES

    def mkfs(self, kind: str, device: str, **_: Any) -> None:
        """Make an empty folder."""
        shutil.rmtree(self._device(device), ignore_errors=True)
        self._device(device).mkdir(parents=True)
        self.kinds[device] = kind
        self.sectors[device] = bytearray(512)
        if kind == "ntfs":
            self.sectors[device][3:11] = b"NTFS    "

    def mount(self, device: str, path: str) -> None:
        """Mount it."""
        self.mounted[path] = device

    mount_ro = mount

    def umount(self, path: str) -> None:
        """Unmount it."""
        del self.mounted[path]

    def umount_all(self) -> None:
        """Unmount all."""
        self.mounted.clear()

    def zero(self, device: str) -> None:
        """The second disk is not there at all."""

    def sync(self) -> None:
        """Nothing is held back."""

    def ntfs_3g_probe(self, rw: bool, device: str) -> int:
        """Return what ntfs-3g would say: hibernated or not."""
        return 14 if (self._device(device) / "hiberfil.sys").exists() and rw else 0

    def statvfs(self, path: str) -> dict[str, int]:
        """Return figures of an almost empty filesystem."""
        return {"bsize": 4096, "bfree": FREE_BLOCKS}

    def pread_device(self, device: str, count: int, offset: int) -> bytes:
        """Read the boot sector."""
        return bytes(self.sectors.get(device, bytearray(512))[offset : offset + count])

    def pwrite_device(self, device: str, data: bytes, offset: int) -> None:
        """Write the boot sector."""
        self.sectors[device][offset : offset + len(data)] = data

    def debug(self, command: str, arguments: list[str]) -> str:
        """Answer ntfssecaudit."""
        text = arguments[0]
        if " 755 " in text:
            self.protected.add("/Program Files/Guestfs")
        return (" 0755 " if self.protected else " 0777 ") + "\nstatus=0"

    # --- files

    def is_file(self, path: str, **_: Any) -> bool:
        """Tell whether it is a file."""
        return self._at(path).is_file()

    def is_dir(self, path: str) -> bool:
        """Tell whether it is a folder."""
        return self._at(path).is_dir()

    def exists(self, path: str) -> bool:
        """Tell whether it is there."""
        return self._at(path).exists()

    def ls(self, path: str) -> list[str]:
        """Return the names."""
        return sorted(_names(self._at(path)))

    def filesize(self, path: str) -> int:
        """Return the size."""
        return self._at(path).stat().st_size

    def read_file(self, path: str) -> bytes:
        """Return the content."""
        return self._at(path).read_bytes()

    def pread(self, path: str, count: int, offset: int) -> bytes:
        """Return part of the content."""
        return self._at(path).read_bytes()[offset : offset + count]

    def write(self, path: str, data: bytes) -> None:
        """Write a file; its folder must be there."""
        try:
            if path in self.immutable:  # as by chattr +i
                raise PermissionError("Operation not permitted")
            self._at(path).write_bytes(data)
        except OSError as error:
            raise RuntimeError(f"write: {path}: {error}") from error

    def upload(self, source: str, path: str) -> None:
        """Write a file from one of the host."""
        self.write(path, Path(source).read_bytes())

    def download(self, path: str, target: str) -> None:
        """Copy a file to the host."""
        shutil.copyfile(self._at(path), target)

    def mkdir_p(self, path: str) -> None:
        """Make a folder with those above it."""
        try:
            self._at(path).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RuntimeError(f"mkdir_p: {path}: {error}") from error

    def mkdtemp(self, template: str) -> str:
        """Make a folder of a new name."""
        path = template.replace("XXXXXX", "abc123")
        self._at(path).mkdir()
        return path

    def rm(self, path: str) -> None:
        """Delete a file."""
        self._at(path).unlink()

    def rm_f(self, path: str) -> None:
        """Delete a file if it is there."""
        self._at(path).unlink(missing_ok=True)

    def rm_rf(self, path: str) -> None:
        """Delete a folder with all in it."""
        shutil.rmtree(self._at(path), ignore_errors=True)

    def rmdir(self, path: str) -> None:
        """Delete an empty folder."""
        self._at(path).rmdir()

    def cp(self, source: str, target: str) -> None:
        """Copy a file."""
        shutil.copyfile(self._at(source), self._at(target))

    def equal(self, one: str, other: str) -> bool:
        """Tell whether two files hold the same."""
        return filecmp.cmp(self._at(one), self._at(other), shallow=False)

    def tar_out(self, path: str, target: str) -> None:
        """Write what a folder holds; good enough to compare."""
        Path(target).write_text(repr(tree(self._at(path))))

    # --- the registry; a second open hive would drop the first, so it is refused

    def hivex_open(self, path: str, *, write: bool = False, unsafe: bool = False) -> None:
        """Open a hive."""
        assert self._hive is None, f"{path} opened while {self._path} is open"
        self._hive, self._path = hivex.Hivex(str(self._at(path)), write=write, unsafe=unsafe), path

    def hivex_close(self) -> None:
        """Close it."""
        self._hive = None

    def hivex_commit(self, target: None) -> None:
        """Write it back."""
        self._hive.commit(target)

    def hivex_root(self) -> int:
        """Return the root."""
        return int(self._hive.root())

    def hivex_node_get_child(self, node: int, name: str) -> int:
        """Return a child or 0."""
        return self._hive.node_get_child(node, name) or 0

    def hivex_node_children(self, node: int) -> list[dict[str, int]]:
        """Return the children."""
        return [{"hivex_node_h": n} for n in self._hive.node_children(node)]

    def hivex_node_name(self, node: int) -> str:
        """Return a name."""
        return str(self._hive.node_name(node))

    def hivex_node_add_child(self, node: int, name: str) -> int:
        """Make a child."""
        return int(self._hive.node_add_child(node, name))

    def hivex_node_delete_child(self, node: int) -> None:
        """Delete a key."""
        self._hive.node_delete_child(node)

    def hivex_node_get_value(self, node: int, name: str) -> int:
        """Return a value's handle or 0.

        hivex' own search fails with the error of an earlier call when there is no such value.
        """
        values = self._hive.node_values(node)
        return next((v for v in values if self._hive.value_key(v).lower() == name.lower()), 0)

    def hivex_value_type(self, value: int) -> int:
        """Return the type."""
        return int(self._hive.value_type(value)[0])

    def hivex_value_value(self, value: int) -> bytes:
        """Return the bytes."""
        return bytes(self._hive.value_value(value)[1])

    def hivex_node_set_value(self, node: int, name: str, kind: int, data: bytes) -> None:
        """Set a value."""
        self._hive.node_set_value(node, {"key": name, "t": kind, "value": data})


def _names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def tree(root: Path) -> list[tuple[str, str]]:
    """Return every file below a folder with its digest, and every folder."""
    return [
        (
            str(p.relative_to(root)),
            hashlib.sha256(p.read_bytes()).hexdigest() if p.is_file() else "",
        )
        for p in sorted(root.rglob("*"))
    ]
