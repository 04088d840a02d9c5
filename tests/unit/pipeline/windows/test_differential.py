"""How two conversions of a Windows guest are compared."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

from tests.differential import compare
from tests.differential_windows import Windows, reason_for
from tests.guests import hives

SCRIPTS = "Program Files/Guestfs/Firstboot/scripts"


def state(folder: Path, files: Mapping[str, bytes], *, label: str = "C") -> Windows:
    """Return what is compared of a filesystem that holds these files."""
    archive = folder / "files.tar"
    with tarfile.open(archive, "w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    found = Windows()
    found.add_filesystem(label, archive)
    return found


def registry(folder: Path, description: hives.Description) -> Windows:
    """Return what is compared of a guest with this SYSTEM."""
    data = hives.make_hive(folder / "hive", description).read_bytes()
    return state(folder, {"Windows/System32/Config/SYSTEM": data})


def test_registries_are_compared_value_by_value(tmp_path: Path) -> None:
    source = registry(tmp_path, {"A\\B": {"Start": 0}, "A\\C": {"x": "y"}})
    ours = registry(tmp_path, {"A\\B": {"Start": 4}, "a\\c": {"X": "y"}, "New": {}})
    peer = registry(tmp_path, {"A\\B": {"Start": 2}, "A\\C": {"x": "y"}, "New": {}})
    alike, (found,) = compare(source, ours, peer, reason=reason_for)
    assert alike == 1
    assert (found.path, found.ours, found.peer) == ("SYSTEM\\a\\b : start", "changed", "changed")
    assert "-type 4 02 00 00 00" in found.text and "+type 4 04 00 00 00" in found.text
    assert found.reason == ""


def test_a_reason_holds_in_one_direction_only(tmp_path: Path) -> None:
    debug = state(tmp_path, {"Windows/Drivers/VirtIO/netkvm.pdb": b"x"})
    none = Windows()
    (found,) = compare(none, none, debug, reason=reason_for)[1]
    assert "debug files" in found.reason
    (found,) = compare(none, debug, none, reason=reason_for)[1]
    assert found.reason == ""


def test_scripts_are_the_same_at_another_place_in_the_queue(tmp_path: Path) -> None:
    ours = state(tmp_path, {f"{SCRIPTS}/5000-0002-a.bat": b"x", f"{SCRIPTS}/5000-0003-a.bat": b"y"})
    peer = state(tmp_path, {f"{SCRIPTS}/5000-0001-a.bat": b"x"})
    alike, (found,) = compare(Windows(), ours, peer, reason=reason_for)
    assert alike == 1
    assert found.path == f"C:/{SCRIPTS}/5000 a.bat (2)"


def test_case_matters_on_the_drive_and_not_on_the_esp(tmp_path: Path) -> None:
    lower, upper = {"efi/boot/x.efi": b"x"}, {"EFI/Boot/X.EFI": b"x"}
    for label, differences in (("ESP", 0), ("C", 2)):
        ours, peer = (state(tmp_path, files, label=label) for files in (lower, upper))
        assert len(compare(Windows(), ours, peer, reason=reason_for)[1]) == differences
