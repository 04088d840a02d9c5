"""Versions of block drivers: what an INF file says, and which file is asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from conversions.pipeline.windows.collection import open_collection
from conversions.pipeline.windows.driver_versions import (
    MAX_INF_BYTES,
    parse_driver_ver,
    read_driver_versions,
)

LINE = "DriverVer = 07/21/2023,100.93.104.24000"


@pytest.mark.parametrize(
    ("inf", "expected"),
    [
        (LINE.encode(), ("100.93.104.24000", "2023-07-21")),
        (b"[Version]\r\n driverver=7/1/2012,61.63\r\n", ("61.63", "2012-07-01")),
        (f"[Version]\n{LINE} ; x\n".encode("utf-16"), ("100.93.104.24000", "2023-07-21")),
        (f"; {LINE}\n".encode(), None),
        (b"DriverVer = %STAMP%", None),
        (b"DriverVer = 07/21/2023", None),
        (b"\xff\xfe\x00", None),
        (b"", None),
    ],
)
def test_an_inf_file_tells_version_and_day(inf: bytes, expected: tuple[str, str] | None) -> None:
    found = parse_driver_ver(inf)
    assert (found and (found.version, found.day)) == expected


def test_each_windows_is_asked_for_its_own(tmp_path: Path) -> None:
    def put(path: str, version: str, *, more: int = 0) -> None:
        target = tmp_path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(f"DriverVer = 01/02/2024,{version}\n" + " " * more)

    put("viostor/w10/amd64/viostor.inf", "1.1")
    put("viostor/w10/x86/viostor.inf", "1.2")
    put("vioscsi/w10/amd64/vioscsi.inf", "1.3")
    put("vioscsi/w7/x86/vioscsi.inf", "2.1")
    put("viostor/w11/amd64/viostor.inf", "3.1", more=MAX_INF_BYTES)
    put("NetKVM/2k22/amd64/netkvm.inf", "4.1")
    collection = open_collection(tmp_path, named=True)
    assert collection is not None
    found = read_driver_versions(collection)
    assert {folder: driver.version for folder, driver in found.items()} == {
        "w7": "2.1",
        "w10": "1.1",
    }
