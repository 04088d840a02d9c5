"""Which Windows a guest is.  Rows of the specification are named by their number."""

from __future__ import annotations

import pytest

from conversions.pipeline.windows.versions import product_name, short_id


@pytest.mark.rows("3-T1", "3-T2", "3-T3", "3-T4", "3-T5", "3-T6")
@pytest.mark.parametrize(
    ("version", "name", "variant", "build", "expected"),
    [
        pytest.param((10, 0), "Windows 10 Home", "Client", "22631", "win11", id="T1"),
        pytest.param((10, 0), "Windows 10 Home", "Client", "19045", "win10", id="T2-19045"),
        pytest.param((10, 0), "Windows 10 Home", "Client", "21999", "win10", id="T2-21999"),
        pytest.param((10, 0), "Windows 10 Home", "Client", "", "win10", id="T2-missing"),
        pytest.param((10, 0), "Windows 10 Home", "Client", "22x", "win10", id="T2-unreadable"),
        pytest.param((10, 0), "Windows 10 Home", "Client", "9" * 5000, "win10", id="T2-long"),
        pytest.param((10, 0), "Windows Server 2025", "Server", "", "win2k25", id="T3-2025"),
        pytest.param((10, 0), "Windows Server 2022", "Server", "", "win2k22", id="T3-2022"),
        pytest.param((10, 0), "Windows Server 2019", "Server", "", "win2k19", id="T3-2019"),
        pytest.param((10, 0), "Windows Server 2016", "Server", "", "win2k16", id="T3-2016"),
        pytest.param((10, 0), "Windows Server", "Server", "", "win2k16", id="T3-none"),
        pytest.param((6, 0), "x", "Client", "", "winvista", id="T4-vista"),
        pytest.param((6, 1), "x", "Client", "", "win7", id="T4-7"),
        pytest.param((6, 2), "x", "Client", "", "win8", id="T4-8"),
        pytest.param((6, 3), "x", "Client", "", "win8.1", id="T4-8.1"),
        pytest.param((6, 0), "x", "Server", "", "win2k8", id="T4-2008"),
        pytest.param((6, 1), "x", "Server", "", "win2k8r2", id="T4-2008r2"),
        pytest.param((6, 2), "x", "Server", "", "win2k12", id="T4-2012"),
        pytest.param((6, 3), "x", "Server", "", "win2k12r2", id="T4-2012r2"),
        pytest.param((6, 0), "x", "Server Core", "", "win2k8", id="T4-2008-core"),
        pytest.param((6, 1), "x", "Server Core", "", "win2k8r2", id="T4-2008r2-core"),
        pytest.param((6, 2), "x", "Server Core", "", "win2k12", id="T4-2012-core"),
        pytest.param((6, 3), "x", "Server Core", "", "win2k12r2", id="T4-2012r2-core"),
        pytest.param((5, 1), "Windows XP", "Client", "", "winxp", id="T5-xp"),
        pytest.param((5, 2), "Windows XP x64", "", "", "winxp", id="T5-xp64"),
        pytest.param((5, 2), "Server 2003 R2", "", "", "win2k3r2", id="T5-2003r2"),
        pytest.param((5, 2), "Server 2003", "", "", "win2k3", id="T5-2003"),
        pytest.param((6, 0), "unknown", "unknown", "", "winvista", id="T6"),
        pytest.param((4, 0), "NT 4", "Client", "", "unknown", id="older"),
        pytest.param((6, 9), "x", "Client", "", "unknown", id="unheard-of"),
    ],
)
def test_the_short_id(
    version: tuple[int, int], name: str, variant: str, build: str, expected: str
) -> None:
    assert short_id(*version, name=name, variant=variant, build=build) == expected


def test_windows_11_gets_the_name_people_know() -> None:
    assert product_name("Windows 10 Home", "win11") == "Windows 11 Home"
    assert product_name("Windows 10 Home", "win10") == "Windows 10 Home"
