"""The text of a VMX file: lines KEY = "VALUE" in any encoding, as VMware's products write them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from inventory.sources.base import Warn
from inventory.sources.errors import DescriptorError
from inventory.sources.tar import printable

MAX_BYTES = 1 << 20
_MAX_KEY_BYTES = 200
_VMDK_HEADS = (b"VMDK", b"KDMV", b"COWD", b"# Disk DescriptorFile\n", b"# Disk DescriptorFile\r\n")
_LINE = re.compile(rb'([^ \t=]+)[ \t]*=[ \t]*"(.*)"')
_ESCAPE = re.compile(rb"\|([0-9A-Fa-f]{2})")
# What VMware writes as .encoding; Python knows codecs that are no encodings of text besides.
_ENCODINGS = re.compile(
    r"utf-?8|us-ascii|(windows-|cp)\d{3,4}|iso-?8859-\d{1,2}|gbk|gb2312|gb18030|big5|shift_jis|"
    r"euc-(jp|kr|cn)"
)
_BOM = b"\xef\xbb\xbf"


class VmxText:
    """The keys of a VMX file, in lower case, with their values as bytes.

    What belongs to a device that is not present is left out; `absent` has the names of those.
    """

    def __init__(self, values: Mapping[str, bytes]) -> None:
        self.absent = {
            key.rpartition(".")[0]
            for key, value in values.items()
            if key.endswith(".present") and value.strip().lower() == b"false"
        }
        self._values = {k: v for k, v in values.items() if not self.absent & set(_owners(k))}
        stated = self._values.get(".encoding", b"utf-8").decode("ascii", "replace").lower()
        self._encoding = stated if _ENCODINGS.fullmatch(stated) else "utf-8"

    def raw(self, key: str) -> bytes | None:
        """Return a value as it stands in the file."""
        return self._values.get(key)

    def decoded(self, value: bytes) -> str:
        """Return a value as text: in the file's encoding, else in UTF-8 with replacements."""
        try:
            return value.decode(self._encoding)
        except (UnicodeDecodeError, LookupError):
            return value.decode("utf-8", "replace")

    def text(self, key: str) -> str | None:
        """Return a value as text on one line; None when it is absent or empty."""
        value = self._values.get(key)
        if value is None:
            return None
        plain = "".join(c if c.isprintable() else " " for c in self.decoded(value))
        return plain if plain.strip() else None

    def integer(self, key: str, default: int, *, least: int, most: int) -> int:
        """Return a whole number.  Raises DescriptorError E-VMX-INT."""
        value = self._values.get(key)
        if value is None:
            return default
        plain = value.strip()
        if not re.fullmatch(rb"[+-]?\d{1,20}", plain) or not least <= int(plain) <= most:
            raise DescriptorError(
                "E-VMX-INT",
                f"{key} in the VMX file is {printable(self.decoded(value))}; it must be a whole "
                f"number from {least} to {most}.",
                remedy="Correct the file; the machine's settings on the source show the number.",
            )
        return int(plain)

    def boolean(self, key: str) -> bool:
        """Return true or false; absent is false.  Raises DescriptorError E-VMX-BOOL."""
        value = self._values.get(key, b"false").strip().lower()
        if value not in (b"true", b"false"):
            raise DescriptorError(
                "E-VMX-BOOL",
                f"{key} in the VMX file is {printable(self.decoded(value))}; it must be TRUE or "
                "FALSE.",
                remedy="Correct the file.",
            )
        return value == b"true"

    def units(self, pattern: re.Pattern[str]) -> Iterator[re.Match[str]]:
        """Yield the match of each device at the top whose whole name fits, in the file's order."""
        names = dict.fromkeys(key.split(".")[0] for key in self._values if "." in key)
        for name in names:
            if match := pattern.fullmatch(name):
                yield match


def parse_vmx(data: bytes, label: str, warn: Warn) -> VmxText:
    """Read a VMX file's lines; of a key that is there twice the first counts.

    Raises DescriptorError: E-VMX-IS-VMDK, E-VMX-SIZE, E-VMX-EMPTY.
    """
    if data.startswith(_VMDK_HEADS):
        raise DescriptorError(
            "E-VMX-IS-VMDK",
            f"{label} is a disk (VMDK), not the description of a machine.",
            remedy="Name the machine's .vmx file; the disks are found through it.",
        )
    if len(data) > MAX_BYTES:
        raise DescriptorError(
            "E-VMX-SIZE",
            f"{label} has more than {MAX_BYTES} bytes; VMX files have some thousand.",
        )
    values: dict[str, bytes] = {}
    owners: set[str] = set()
    odd: list[str] = []
    double: list[str] = []
    for number, line in enumerate(data.removeprefix(_BOM).split(b"\n"), 1):
        plain = line.rstrip(b"\r").strip(b" \t")
        if not plain or plain.startswith(b"#"):
            continue
        match = _LINE.fullmatch(plain)
        if match is None or len(match[1]) > _MAX_KEY_BYTES:
            odd.append(f"line {number}, {printable(plain.decode(errors='replace'))}")
            continue
        key = match[1].decode("utf-8", "replace").lower()
        if key in values or key in owners:
            double.append(printable(key))
            continue
        owners.update(_owners(key))
        values[key] = _ESCAPE.sub(lambda m: bytes([int(m[1], 16)]), match[2])
    if not values:
        raise DescriptorError(
            "E-VMX-EMPTY",
            f'{label} has not one line of the form KEY = "VALUE", so it is no VMX file.',
            remedy="Name the machine's .vmx file.",
        )
    if odd:
        warn(f"{label}: lines that are not understood are passed over: {_some(odd)}.")
    if double:
        warn(f"{label}: keys that are there more than once, of which the first counts: "
             f"{_some(double)}.")  # fmt: skip
    return VmxText(values)


def _some(items: list[str]) -> str:
    """Name a few of many."""
    rest = f" and {len(items) - 5} more" if len(items) > 5 else ""
    return "; ".join(items[:5]) + rest


def _owners(key: str) -> Iterator[str]:
    """Yield a.b and a for a.b.c."""
    while "." in key:
        key = key.rpartition(".")[0]
        yield key
