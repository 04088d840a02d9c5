"""Registry hives from small descriptions, and back."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import hivex

NONE, SZ, EXPAND_SZ, BINARY, DWORD, MULTI_SZ, QWORD = 0, 1, 2, 3, 4, 7, 11
Data = str | int | bytes | list[str] | tuple[int, bytes]
"""A value: SZ, DWORD, BINARY, MULTI_SZ, or (type, bytes) for any other."""
Description = Mapping[str, Mapping[str, Data]]
"""Key paths below the hive's root and their values by name; "" is the default value."""


def text(value: str) -> bytes:
    """Return UTF-16LE with its terminating NUL."""
    return (value + "\0").encode("utf-16-le")


def expand(value: str) -> tuple[int, bytes]:
    """Return an EXPAND_SZ value."""
    return EXPAND_SZ, text(value)


def typed(value: Data) -> tuple[int, bytes]:
    """Return a value as type and bytes."""
    if isinstance(value, tuple):
        return value
    if isinstance(value, str):
        return SZ, text(value)
    if isinstance(value, int):
        return DWORD, struct.pack("<I", value)
    if isinstance(value, list):
        return MULTI_SZ, b"".join(text(member) for member in value) + b"\0\0"
    return BINARY, value


def empty_hive() -> bytes:
    """Return the smallest hive that hivex takes: a header and one bin with a root key.

    hivex refuses to add children to a root without a security descriptor, so it has one.
    """
    head = bytearray(4096)
    head[0:4] = b"regf"
    struct.pack_into("<IIQIIIIIII", head, 4, 1, 1, 1 << 56, 1, 5, 0, 1, 0x20, 4096, 1)
    checksum = 0
    for (word,) in struct.iter_unpack("<I", bytes(head[:0x1FC])):
        checksum ^= word
    struct.pack_into("<I", head, 0x1FC, checksum)
    none = 0xFFFFFFFF
    body = bytearray(4096)
    body[0:4] = b"hbin"
    struct.pack_into("<II", body, 4, 0, 4096)
    struct.pack_into("<i2sHQ", body, 0x20, -0x58, b"nk", 0x2C, 1 << 56)
    struct.pack_into(
        "<IIIIIIIIII", body, 0x30, 0, none, 0, 0, none, none, 0, none, 0x78, none
    )  # parent, subkeys and values: none of them
    struct.pack_into("<HH4s", body, 0x20 + 0x4C, 4, 0, b"ROOT")
    struct.pack_into("<i2sHIIII", body, 0x78, -0x30, b"sk", 0, 0x78, 0x78, 1, 20)
    struct.pack_into("<BBH16x", body, 0x78 + 0x18, 1, 0, 0x8000)
    struct.pack_into("<i", body, 0xA8, 4096 - 0xA8)
    return bytes(head + body)


def make_hive(path: Path, description: Description) -> Path:
    """Write a hive of these keys and values."""
    path.write_bytes(empty_hive())
    hive = hivex.Hivex(str(path), write=True)
    for key, values in description.items():
        node = hive.root()
        for name in filter(None, key.split("\\")):
            node = hive.node_get_child(node, name) or hive.node_add_child(node, name)
        for name, value in values.items():
            kind, data = typed(value)
            hive.node_set_value(node, {"key": name, "t": kind, "value": data})
    hive.commit(None)
    return path


@dataclass
class Dump:
    """What a hive holds: keys, and values by (key, name)."""

    keys: set[str]
    values: dict[tuple[str, str], tuple[int, bytes]]

    def of(self, key: str) -> dict[str, tuple[int, bytes]]:
        """Return the values of one key; raises KeyError without it."""
        if key not in self.keys:
            raise KeyError(key)
        return {name: value for (at, name), value in self.values.items() if at == key}


def dump_hive(path: Path) -> Dump:
    """Read everything in a hive; the root key is ""."""
    hive = hivex.Hivex(str(path))
    keys: set[str] = set()
    values: dict[tuple[str, str], tuple[int, bytes]] = {}
    for key, node in _walk(hive, hive.root(), ""):
        keys.add(key)
        for value in hive.node_values(node):
            kind, data = hive.value_value(value)
            values[key, hive.value_key(value)] = kind, data
    return Dump(keys, values)


def _walk(hive: hivex.Hivex, node: int, path: str) -> Iterator[tuple[str, int]]:
    yield path, node
    for child in hive.node_children(node):
        name = hive.node_name(child)
        yield from _walk(hive, child, f"{path}\\{name}" if path else name)
