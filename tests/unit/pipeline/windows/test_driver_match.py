"""Which files of a driver collection are for a guest: rows T21 to T31 of the specification."""

from __future__ import annotations

from pathlib import Path

import pytest

from conversions.pipeline.windows.driver_match import (
    choose_agents,
    choose_drivers,
    coverage,
    fits,
)
from tests.guests import virtio_win

X64, X86 = "x86_64", "i386"
K12R2 = "NetKVM/2k12R2/amd64/netkvm.sys"
VISTA = "viostor/2k8/x86/viostor.sys"


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The files of the package's tree."""
    return listing(virtio_win.driver_tree(tmp_path_factory.mktemp("vd")))


@pytest.fixture(scope="session")
def iso(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The files of the ISO."""
    return listing(virtio_win.driver_iso_tree(tmp_path_factory.mktemp("vi")))


def listing(root: Path) -> list[str]:
    """Return every file below a folder."""
    return [str(p.relative_to(root)) for p in root.rglob("*") if p.is_file()]


@pytest.mark.rows("3-T21", "3-T23", "3-T24", "3-T25", "3-T26")
@pytest.mark.parametrize(
    ("path", "osinfo", "arch", "expected"),
    [
        pytest.param(K12R2, "win2k12r2", X64, True, id="T21-match"),
        pytest.param(K12R2, "win2k12", X64, False, id="T21-other-windows"),
        pytest.param(K12R2, "win2k12r2", X86, False, id="T21-other-arch"),
        pytest.param(VISTA, "winvista", X86, True, id="T23-vista"),
        pytest.param(VISTA, "win2k8", X86, True, id="T23-2008"),
        pytest.param(VISTA, "win2k8r2", X86, False, id="T23-2008r2"),
        pytest.param("amd64/Win2022/viostor.sys", "win2k22", X64, False, id="T24-floppy"),
        pytest.param("viostor/w10/ARM64/viostor.sys", "win10", X64, False, id="T24-arm"),
        pytest.param("sriov/w10/amd64/vioprot.inf", "win10", X64, False, id="T25-sriov"),
        pytest.param("by-os/amd64/w10/vioprot.inf", "win10", X64, False, id="T25-flat"),
        pytest.param("viostor/w10/amd64/viostor.pdb", "win10", X64, False, id="T25-debug"),
        pytest.param("viostor/w10/amd64/VIOSTOR.PDB", "win10", X64, False, id="T25-case"),
        pytest.param("xp/amd64/viostor.sys", "winxp", X64, True, id="T26"),
        pytest.param("2k3/amd64/viostor.sys", "winxp", X64, False, id="T26-not-2003"),
    ],
)
def test_the_path_rule(path: str, osinfo: str, arch: str, expected: bool) -> None:
    assert fits(path, arch=arch, osinfo=osinfo) is expected


@pytest.mark.rows("3-T22")
def test_t22_spelling_does_not_matter_and_the_target_name_is_lower_case() -> None:
    path = "./drivers/by-os/amd64/2K22/NetKVM.INF"
    assert choose_drivers([path], arch=X64, osinfo="win2k22") == ("win2k22", {"netkvm.inf": path})


@pytest.mark.rows("3-T27")
@pytest.mark.parametrize(
    ("osinfo", "arch", "count"),
    [
        ("win10", X64, 50), ("win11", X64, 49), ("win2k22", X64, 47), ("win2k25", X64, 49),
        ("win7", X86, 37), ("winxp", X86, 0), ("win2k16", X64, 50), ("win2k19", X64, 50),
        ("win2k12", X64, 45), ("win2k12r2", X64, 47), ("win8", X86, 37), ("win8.1", X64, 39),
        ("win8.1", X86, 42), ("win10", X86, 47),
    ],
)  # fmt: skip
def test_t27_the_folder_gives_each_windows_its_files(
    folder: list[str], osinfo: str, arch: str, count: int
) -> None:
    _made_for, chosen = choose_drivers(folder, arch=arch, osinfo=osinfo)
    assert len(chosen) == count
    assert not [n for n in chosen if n.endswith(".pdb") or n.startswith(("vioprot", "qemufw"))]


@pytest.mark.rows("3-T28", "3-T29")
@pytest.mark.parametrize(
    ("osinfo", "arch", "count"),
    [
        ("win2k22", X64, 47), ("win11", X64, 47), ("win2k25", X64, 47), ("win2k12r2", X64, 45),
        ("win8.1", X64, 37), ("win8.1", X86, 40),
    ],
)  # fmt: skip
def test_t28_t29_the_iso_gives_each_windows_its_files(
    iso: list[str], osinfo: str, arch: str, count: int
) -> None:
    _made_for, chosen = choose_drivers(iso, arch=arch, osinfo=osinfo)
    assert len(chosen) == count
    assert not any(name.startswith("smbus") for name in chosen)


@pytest.mark.rows("3-T27")
def test_t27_server_2022_gets_exactly_these(folder: list[str]) -> None:
    triples = ("balloon", "fwcfg", "netkvm", "pvpanic", "viofs", "viogpudo", "vioinput", "viomem",
               "viorng", "vioscsi", "vioser", "viostor")  # fmt: skip
    others = ("blnsvr.exe", "netkvmco.exe", "netkvmp.exe", "qemupciserial.cat",
              "qemupciserial.inf", "readme.md", "vgpusrv.exe", "viogpuap.exe", "viohidkmdf.sys",
              "viorngum.dll", "virtiofs.exe")  # fmt: skip
    expected = {f"{t}.{e}" for t in triples for e in ("cat", "inf", "sys")} | set(others)
    assert set(choose_drivers(folder, arch=X64, osinfo="win2k22")[1]) == expected


@pytest.mark.rows("3-T27")
def test_t27_windows_7_gets_exactly_these(folder: list[str]) -> None:
    triples = ("balloon", "netkvm", "pvpanic", "qxl", "vioinput", "viorng", "vioscsi", "vioser",
               "viostor")  # fmt: skip
    others = ("qemupciserial.cat", "qemupciserial.inf", "blnsvr.exe", "netkvmco.dll", "qxldd.dll",
              "readme.doc", "viohidkmdf.sys", "viorngci.dll", "viorngum.dll",
              "wdfcoinstaller01009.dll")  # fmt: skip
    expected = {f"{t}.{e}" for t in triples for e in ("cat", "inf", "sys")} | set(others)
    assert set(choose_drivers(folder, arch=X86, osinfo="win7")[1]) == expected


@pytest.mark.rows("3-T30")
def test_t30_the_stub_stays_where_the_real_driver_is_missing() -> None:
    paths = ["w10/amd64/qemufwcfg.inf", "w10/amd64/qemufwcfg.cat"]
    assert set(choose_drivers(paths, arch=X64, osinfo="win10")[1]) == {
        "qemufwcfg.inf", "qemufwcfg.cat",
    }  # fmt: skip


def test_a_sibling_is_taken_only_when_asked_for() -> None:
    paths = ["viostor/2k19/amd64/viostor.sys", "viostor/2k16/amd64/viostor.sys"]
    assert choose_drivers(paths, arch=X64, osinfo="win2k25") == ("win2k25", {})
    made_for, chosen = choose_drivers(paths, arch=X64, osinfo="win2k25", siblings=True)
    assert (made_for, chosen) == ("win2k19", {"viostor.sys": paths[0]})


def test_agents_are_chosen_by_architecture(iso: list[str], folder: list[str]) -> None:
    assert set(choose_agents(iso, arch=X64)) == {"qemu-ga-x86_64.msi"}
    assert set(choose_agents(iso, arch=X86)) == {"qemu-ga-i386.msi"}
    assert choose_agents(folder, arch=X64) == {}


def test_coverage_says_which_windows_have_a_block_driver(iso: list[str]) -> None:
    covered = coverage(iso)
    assert covered["w10"] == ["i386", "x86_64"]
    assert covered["2k25"] == [X64]
    assert "xp" not in covered
