"""The XML of an inspection, from the reports of a run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from lxml import etree

from conversions.pipeline import cli
from conversions.pipeline.inspector_xml import inspector_xml

LINUX: dict[str, Any] = {
    "root": "/dev/vg/root", "type": "linux", "distro": "fedora", "arch": "x86_64",
    "major_version": 40, "minor_version": 0, "package_format": "rpm",
    "package_management": "dnf", "product_name": "Fedora 40 & <more>",
    "product_variant": "unknown", "osinfo": "fedora40", "uefi_esps": [],
    "mountpoints": [["/", "/dev/vg/root"], ["/boot", "/dev/sda1"]],
    "filesystems": [["/dev/sda1", "xfs"], ["/dev/sda2", "unknown"], ["/dev/vg/root", "ext4"]],
    "windows_systemroot": "", "windows_software_hive": "",
}  # fmt: skip
WINDOWS = LINUX | {
    "type": "windows", "distro": "windows", "osinfo": "win2k22", "major_version": 10,
    "package_format": "unknown", "package_management": "", "product_variant": "Server",
    "windows_systemroot": "/Windows",
    "windows_software_hive": "/Windows/System32/config/SOFTWARE",
    "windows_system_hive": "/Windows/System32/config/SYSTEM",
    "windows_current_control_set": "ControlSet001",
}  # fmt: skip


def reports(guest: dict[str, Any], **more: Any) -> dict[str, Any]:
    disks = [{"virtual_size_bytes": None, "declared_capacity_bytes": 7}, {}]
    return {
        "inspection": guest,
        "source": {"disks": disks, "firmware": "unknown"},
        "overlays": [{"sd": "sda", "virtual_size_bytes": 6442450944}],
        "estimate": {"disks": {"sda": 1000}},
    } | more


def parsed(data: dict[str, Any]) -> etree._Element:
    return etree.fromstring(inspector_xml(data).encode())


def tags(element: etree._Element | None) -> list[str]:
    assert element is not None
    return [str(child.tag) for child in element if isinstance(child.tag, str)]


@pytest.mark.rows("2-T140")
def test_a_linux_has_its_elements_in_order() -> None:
    root = parsed(reports(LINUX, boot_disk=1))
    assert root.tag == "v2v-inspection"
    assert tags(root) == ["program", "package", "version", "disks", "firmware", "operatingsystem"]
    assert root.findtext("program") == "virt-v2v-inspector"
    first, second = root.iterfind("disks/disk")
    assert [(e.tag, e.text) for e in first] == [
        ("virtual-size", "6442450944"), ("allocated", "1000"), ("boot-order", "2"),
    ]  # fmt: skip
    assert first.find("allocated[@estimated='true']") is not None
    assert (second.get("index"), tags(second), second.findtext("boot-order")) == (
        "1", ["boot-order"], "1",
    )  # fmt: skip
    assert root.find("firmware[@type='bios']") is not None
    assert tags(root.find("operatingsystem")) == [
        "name", "distro", "osinfo", "arch", "major_version", "minor_version", "package_format",
        "package_management", "product_name", "root", "mountpoints", "filesystems",
    ]  # fmt: skip
    assert root.findtext("operatingsystem/product_name") == "Fedora 40 & <more>"
    assert root.findtext(".//mountpoint[@dev='/dev/sda1']") == "/boot"
    assert root.findtext(".//filesystem[@dev='/dev/sda1']/type") == "xfs"
    assert not tags(root.find(".//filesystem[@dev='/dev/sda2']"))


def test_filesystems_have_what_they_say_of_themselves() -> None:
    details = {
        "/dev/sda1": {"label": "a <b>", "uuid": "u-1", "version": "5"},
        "/dev/vg/root": {"uuid": "u-2"},
    }
    root = parsed(reports(LINUX, filesystems=details))
    found = root.findall(".//filesystem")
    assert [[(e.tag, e.text, dict(e.attrib)) for e in one] for one in found] == [
        [("type", "xfs", {"version": "5"}), ("label", "a <b>", {}), ("uuid", "u-1", {})],
        [],
        [("type", "ext4", {}), ("uuid", "u-2", {})],
    ]


@pytest.mark.parametrize(
    ("found", "flags"),
    [
        ([], []),
        ([("C-ANTIVIRUS", "note")], []),
        ([("C-ANTIVIRUS", "warning")], ["windows_antivirus"]),
        (
            [("C-ANTIVIRUS", "warning"), ("C-GROUP-POLICY", "warning")],
            ["windows_group_policy", "windows_antivirus"],
        ),
    ],
)
def test_what_may_forbid_drivers_is_flagged(found: list[tuple[str, str]], flags: list[str]) -> None:
    concerns = [{"code": code, "level": level} for code, level in found]
    system = parsed(reports(WINDOWS, concerns=concerns)).find("operatingsystem")
    assert tags(system)[11 : tags(system).index("root")] == [
        "windows_current_control_set", *flags,
    ]  # fmt: skip


@pytest.mark.rows("4-T105")
def test_a_windows_has_its_hives_and_no_packages() -> None:
    root = parsed(reports(WINDOWS))
    assert root.findtext("disks/disk/virtual-size") == "6442450944"
    system = root.find("operatingsystem")
    assert system is not None
    assert (system.findtext("distro"), system.findtext("osinfo")) == ("windows", "win2k22")
    assert tags(system)[6:12] == [
        "product_name", "product_variant", "windows_systemroot", "windows_software_hive",
        "windows_system_hive", "windows_current_control_set",
    ]  # fmt: skip
    without = parsed(reports(WINDOWS | {"windows_systemroot": ""}))
    assert "windows_software_hive" not in tags(without.find("operatingsystem"))


@pytest.mark.parametrize(
    ("firmware", "esps", "kind"),
    [("bios", ["/dev/sda1"], "bios"), ("uefi", [], "uefi"), ("unknown", ["/dev/sda1"], "uefi")],
)
def test_the_firmware_is_the_sources_else_the_disks(
    firmware: str, esps: list[str], kind: str
) -> None:
    data = reports(LINUX | {"uefi_esps": esps})
    data["source"]["firmware"] = firmware
    element = parsed(data).find("firmware")
    assert element is not None
    assert element.get("type") == kind


def test_names_that_no_document_can_hold_are_replaced() -> None:
    hostile = LINUX | {
        "product_name": "a\x00b\x1bc\ud800",
        "mountpoints": [["/x\x01", "/dev/s\x02da"]],
    }
    root = parsed(reports(hostile))
    assert root.findtext(".//product_name") == "a\ufffdb\ufffdc\ufffd"
    assert root.findtext(".//mountpoint[@dev='/dev/s\ufffdda']") == "/x\ufffd"


def test_without_an_inspection_there_is_no_document() -> None:
    with pytest.raises(ValueError, match="nothing was inspected"):
        inspector_xml({"source": {"disks": []}})


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["-o", "null"], "a copy has its own files"),
     (["--inspect", "--events"], "cannot both go to standard output")],
)  # fmt: skip
def test_the_command_line_refuses_a_document_where_there_is_none(
    arguments: list[str], words: str, repository: Path
) -> None:
    command = [sys.executable, "-m", "conversions.pipeline", "-i", "ova", "x.ova", "-O", "-"]
    run = subprocess.run([*command, *arguments], cwd=repository, capture_output=True, text=True)
    assert run.returncode == cli.EXIT_ERROR
    assert words in run.stdout + run.stderr


@pytest.mark.rows("4-T106")
@pytest.mark.parametrize("where", ["-", "found.xml"])
def test_the_command_line_writes_the_document_after_success(
    where: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    def run(_job: Any, reporter: Any, **_options: Any) -> int:
        reporter.log("info", "Looking.")
        for name, data in reports(LINUX).items():
            reporter.report(name, data)
        return 0

    monkeypatch.setattr(cli, "run_job", run)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["-i", "ova", "x.ova", "--inspect", "-O", where]) == 0
    said = capsys.readouterr()
    text = said.out if where == "-" else (tmp_path / where).read_text()
    assert etree.fromstring(text.encode()).tag == "v2v-inspection"
    assert "Looking." in (said.err if where == "-" else said.out)
