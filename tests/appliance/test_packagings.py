"""The same machine, packed in the ways an OVA may be, ends as the same converted guest."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.guests.phony_linux import build_ova
from tests.packagings import PACKAGINGS, convert_packed, digest_of

PLAIN = next(iter(PACKAGINGS))
# One of each way to the disk; `python -m tests.packagings` takes them all.
OTHERS = ("zip", "folder", "packed disks", "disks in pieces")


@pytest.fixture(scope="module")
def ova(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A phony guest as a plain OVA."""
    path = tmp_path_factory.mktemp("ova") / "phony.ova"
    build_ova("debian-12", path)
    return path


@pytest.fixture(scope="module")
def expected(ova: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the guest sees after the conversion of the plain OVA."""
    return convert_packed(ova, PLAIN, tmp_path_factory.mktemp("plain"))


@pytest.mark.parametrize("packaging", OTHERS)
def test_conversions_of_all_packagings_end_alike(
    packaging: str, ova: Path, expected: dict[str, str], tmp_path: Path
) -> None:
    seen = convert_packed(ova, packaging, tmp_path)
    assert sorted(n for n in {*expected, *seen} if expected.get(n) != seen.get(n)) == []
    assert digest_of(seen) == digest_of(expected)
    assert "/etc/fstab" in seen
