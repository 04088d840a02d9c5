"""Sizes for people: binary units in sentences, the short form in the text log."""

from __future__ import annotations

_UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB")


def human(size_bytes: float) -> str:
    """Return a size with one decimal and its binary unit: 31.0 MiB, 512 bytes."""
    if abs(size_bytes) < 1024:
        return f"{int(size_bytes)} bytes"
    value = float(size_bytes)
    unit = ""
    for unit in _UNITS:  # noqa: B007  the last one is kept
        value /= 1024
        if abs(value) < 1024:
            break
    return f"{value:.1f} {unit}"


def short(size_bytes: float) -> str:
    """Return the text log's form: 512, 1.5K, 18.0G; never a larger unit than G."""
    if size_bytes < 1024:
        return str(int(size_bytes))
    value = float(size_bytes)
    for suffix in "KMG":
        value /= 1024
        if value < 1024 or suffix == "G":
            return f"{value:.1f}{suffix}"
    raise AssertionError("unreachable")


def whole(size_bytes: float) -> str:
    """Return the form of fstrim(8): a whole number and its unit, 16 GiB."""
    if size_bytes < 1024:
        return f"{int(size_bytes)} B"
    value = float(size_bytes)
    for unit in _UNITS:
        value /= 1024
        if value < 1024 or unit == _UNITS[-1]:
            return f"{value:.1f} {unit}".replace(".0 ", " ")
    raise AssertionError("unreachable")
