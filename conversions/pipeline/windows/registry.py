r"""The registry of a guest: typed values, keys by path, one hive open at a time.

libguestfs has room for one open hive a handle.  Opening a second drops the first with its edits,
without an error, so Registry refuses it.  Values of string types are UTF-16LE with a NUL at the
end.  Paths are written as in Windows, below the hive: Microsoft\Windows\CurrentVersion.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from conversions.pipeline.appliance import GuestFS
from conversions.pipeline.errors import GuestError

NONE, SZ, EXPAND_SZ, BINARY, DWORD, MULTI_SZ, QWORD = 0, 1, 2, 3, 4, 7, 11
_NAMES = {NONE: "NONE", SZ: "SZ", EXPAND_SZ: "EXPAND_SZ", BINARY: "BINARY", DWORD: "DWORD",
          MULTI_SZ: "MULTI_SZ", QWORD: "QWORD"}  # fmt: skip
SYSTEM, SOFTWARE = "SYSTEM", "SOFTWARE"


class HiveError(GuestError):
    """A registry file of the guest is missing, damaged or cannot be written."""

    code = "E-HIVE"


@dataclass(frozen=True, slots=True)
class Value:
    """A registry value as it is stored."""

    type: int
    data: bytes

    def text(self) -> str | None:
        """Return a string value without its NUL; None for another type."""
        if self.type not in (SZ, EXPAND_SZ):
            return None
        return self.data.decode("utf-16-le", "replace").partition("\0")[0]

    def members(self) -> list[bytes]:
        """Return the non-empty members of a MULTI_SZ as stored, each without its NUL."""
        units = [self.data[i : i + 2] for i in range(0, len(self.data) - 1, 2)]
        found, current = [], b""
        for unit in [*units, b"\0\0"]:
            if unit != b"\0\0":
                current += unit
            elif current:
                found.append(current)
                current = b""
        return found

    def number(self) -> int | None:
        """Return a DWORD or QWORD; None for another type or a wrong length."""
        if self.type == DWORD and len(self.data) == 4:
            return int(struct.unpack("<I", self.data)[0])
        if self.type == QWORD and len(self.data) == 8:
            return int(struct.unpack("<Q", self.data)[0])
        return None

    def __str__(self) -> str:
        """Return type and content for a person, cut when long."""
        if self.type in (SZ, EXPAND_SZ):
            shown = repr(self.text())
        elif self.type == MULTI_SZ:
            shown = repr([m.decode("utf-16-le", "replace") for m in self.members()])
        elif (number := self.number()) is not None:
            shown = str(number)
        else:
            shown = self.data.hex(" ")
        kind = _NAMES.get(self.type, f"type {self.type}")
        return f"{kind} {shown[:200]}"


def sz(text: str) -> Value:
    """Return a string value."""
    return Value(SZ, _utf16(text))


def expand_sz(text: str) -> Value:
    """Return a string value with variables such as %SystemRoot%."""
    return Value(EXPAND_SZ, _utf16(text))


def dword(number: int) -> Value:
    """Return a 32-bit number."""
    return Value(DWORD, struct.pack("<I", number))


def binary(data: bytes) -> Value:
    """Return raw bytes."""
    return Value(BINARY, data)


def multi_sz(*members: str | bytes) -> Value:
    """Return a list of strings; members that are bytes are UTF-16LE already."""
    raw = [m if isinstance(m, bytes) else m.encode("utf-16-le") for m in members]
    return Value(MULTI_SZ, b"".join(m + b"\0\0" for m in raw if m) + b"\0\0")


def _utf16(text: str) -> bytes:
    return (text + "\0").encode("utf-16-le", "surrogatepass")


@dataclass
class Changes:
    """What was changed in the guest, for the report."""

    rows: list[dict[str, str]] = field(default_factory=list)

    def record(self, what: str, path: str) -> None:
        """Note a change that was made."""
        self.rows.append({"what": what, "path": path})


class Key:
    """One key of the open hive; with a node of 0 one that would be made."""

    def __init__(self, hive: Hive, node: int, path: str) -> None:
        self._hive = hive
        self._node = node
        self.path = path

    @property
    def name(self) -> str:
        """Return the last part of the path."""
        return self.path.rsplit("\\", 1)[-1]

    def child(self, name: str) -> Key | None:
        """Return a key below this one, None without it; spelling of case does not matter."""
        node = self._hive.g.hivex_node_get_child(self._node, name) if self._node else 0
        return Key(self._hive, node, f"{self.path}\\{name}".lstrip("\\")) if node else None

    def children(self) -> list[Key]:
        """Return the keys below this one, but for those whose name is no text.

        hivex cannot read a name with half a surrogate pair; nothing that we look for has one.
        """
        g, found = self._hive.g, []
        for row in g.hivex_node_children(self._node):
            with suppress(RuntimeError):
                name = g.hivex_node_name(row["hivex_node_h"])
                path = f"{self.path}\\{name}".lstrip("\\")
                found.append(Key(self._hive, row["hivex_node_h"], path))
        return found

    def get(self, name: str) -> Value | None:
        """Return a value, None without it."""
        g = self._hive.g
        handle = g.hivex_node_get_value(self._node, name) if self._node else 0
        if not handle:
            return None
        return Value(g.hivex_value_type(handle), bytes(g.hivex_value_value(handle)))

    def text(self, name: str) -> str | None:
        """Return a string value; None without it or when it is of another type."""
        value = self.get(name)
        return value.text() if value else None

    def number(self, name: str) -> int | None:
        """Return a number; None without it or when it is of another type."""
        value = self.get(name)
        return value.number() if value else None

    def set(self, name: str, value: Value) -> None:
        """Set a value and record it, unless it is that already."""
        old = self.get(name)
        if old == value:
            return
        if self._hive.write:
            self._hive.g.hivex_node_set_value(self._node, name, value.type, value.data)
        was = f" (was {old})" if old else ""
        self._hive.record(f"{name or '(default)'} = {value}{was}", self.path)

    def make(self, name: str) -> Key:
        """Return the key of that name below this one, made when it is not there."""
        found = self.child(name)
        if found:
            return found
        g, path = self._hive.g, f"{self.path}\\{name}".lstrip("\\")
        node = g.hivex_node_add_child(self._node, name) if self._hive.write else 0
        self._hive.edited = True
        return Key(self._hive, node, path)

    def delete(self) -> None:
        """Delete this key with all below it, and record it."""
        if self._hive.write:
            self._hive.g.hivex_node_delete_child(self._node)
        self._hive.record("key deleted", self.path)


class Hive:
    """The open hive."""

    def __init__(self, g: GuestFS, name: str, changes: Changes, *, write: bool) -> None:
        self.g = g
        self.write = write
        self.edited = False
        self._name = name
        self._changes = changes
        self.root = Key(self, g.hivex_root(), "")

    def key(self, path: str) -> Key | None:
        """Return a key, None when it or one above it is missing."""
        key: Key | None = self.root
        for name in path.split("\\"):
            if key is None:
                break
            key = key.child(name)
        return key

    def make(self, path: str) -> Key:
        """Return a key, made with all above it when missing."""
        key = self.root
        for name in path.split("\\"):
            key = key.make(name)
        return key

    def record(self, what: str, path: str) -> None:
        """Note an edit."""
        self.edited = True
        self._changes.record(f"registry: {what}", f"{self._name}\\{path}")


class Registry:
    """The hives of a guest, by name; edits are recorded in `changes`.

    With `change` false nothing is written: edits are only recorded.
    """

    def __init__(
        self, g: GuestFS, hives: Mapping[str, str], changes: Changes, *, change: bool
    ) -> None:
        self._g = g
        self._hives = hives
        self._changes = changes
        self._change = change
        self._open = ""

    @contextmanager
    def reading(self, name: str) -> Iterator[Hive]:
        """Open a hive to read; minor damage is tolerated.  Raises HiveError."""
        with self._opened(name, write=False) as hive:
            yield hive

    @contextmanager
    def editing(self, name: str) -> Iterator[Hive]:
        """Open a hive, write it back at the end unless something fails.  Raises HiveError."""
        with self._opened(name, write=self._change) as hive:
            yield hive

    @contextmanager
    def _opened(self, name: str, *, write: bool) -> Iterator[Hive]:
        if self._open:
            raise AssertionError(f"{name} was opened while {self._open} is open")
        g, path = self._g, self._hives[name]
        try:
            if not g.is_file(path, followsymlinks=True):
                raise HiveError(
                    f"The registry file {name} of the guest, {path}, is missing.",
                    remedy="Windows cannot start without it either: repair the machine on its "
                    "source, shut it down and export it again.",
                )
            g.hivex_open(path, write=write, unsafe=not write)
            self._open = name
            hive = Hive(g, name, self._changes, write=write)
            yield hive
            if write and hive.edited:  # writing back changes the file in any case
                g.hivex_commit(None)
        except RuntimeError as error:
            raise hive_error(g, name, path, error, write=write) from error
        finally:
            if self._open:
                self._open = ""
                g.hivex_close()


def hive_error(g: GuestFS, name: str, path: str, error: RuntimeError, *, write: bool) -> HiveError:
    """Return what to say when hivex fails: why is told by size, beginning and the error."""
    size = g.filesize(path)
    head = bytes(g.pread(path, 4, 0)) if size >= 4 else b""
    if "Read-only" in str(error):
        cause = "it cannot be written: its filesystem is read-only"
    elif size == 0:
        cause = "it is empty"
    elif head != b"regf":
        cause = "it does not begin like a registry file"
    else:
        cause = "it is damaged or cut off"
    return HiveError(
        f"The registry file {name} of the guest, {path} of {size} bytes, could not be "
        f"{'changed' if write else 'read'}; {cause}: {error}.",
        remedy="Start the machine on its source, let Windows repair itself, shut it down without "
        "hibernating and export it again.",
    )
