"""Changing disks without an overlay: asked for plainly, and honest when it fails."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from conversions.pipeline import run, stop
from conversions.pipeline.cli import main
from conversions.pipeline.direct import changing_disks
from conversions.pipeline.errors import ConversionError, GuestError, JobError
from conversions.pipeline.job import Input, Job, Mode
from conversions.pipeline.overlay import create_overlays
from conversions.pipeline.report import RecordingReporter
from tests.unit.pipeline.guestless import NoAppliance, without_appliance
from tests.unit.pipeline.samples import make_source, source_disk


@pytest.fixture(autouse=True)
def stoppable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the next test be stopped again."""
    monkeypatch.setattr(stop, "no_return", stop.check_stop)


def test_only_a_conversion_in_place_can_be_direct() -> None:
    with pytest.raises(JobError, match="in place"):
        Job(mode=Mode.INSPECT, source=Input(kind="disk", location="a.raw"), direct=True)


@pytest.mark.rows("4-T104")
@pytest.mark.parametrize(
    ("error", "message", "code"),
    [
        (GuestError("No kernel.", code="E-KERNEL"), "No kernel. The state of", "E-KERNEL"),
        (ValueError("odd"), "Unexpected ValueError: odd The state of", "E-INTERNAL"),
    ],
)
def test_a_failure_names_the_disks(
    tmp_path: Path, error: Exception, message: str, code: str
) -> None:
    disk = tmp_path / "a.raw"
    disk.write_bytes(bytes(1 << 20))
    report = RecordingReporter()
    source = make_source(disks=(replace(source_disk(0), path=str(disk), format="raw"),))
    overlays = create_overlays(source, tmp_path, report, direct=True)
    assert [(o.path, o.format) for o in overlays] == [(str(disk), "raw")]
    with pytest.raises(ConversionError) as failure, changing_disks(overlays, report):
        raise error
    assert failure.value.message.startswith(f"{message} {disk} is unknown, possibly corrupt")
    assert failure.value.code == code
    assert list(tmp_path.iterdir()) == [disk]


@pytest.mark.parametrize("at", ["launch", "unlock", "inspect_guest", "check_guest_space"])
def test_the_disks_are_being_changed_as_soon_as_an_appliance_has_them(
    tmp_path: Path, at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It starts RAID arrays, replays journals and rebuilds a database before the conversion."""
    disk = tmp_path / "a.raw"
    disk.write_bytes(bytes(1 << 20))
    report = RecordingReporter()

    def broken(*_args: object, **_options: object) -> None:
        assert report.data("commit") == {"state": "direct"}
        raise GuestError("No system.", code="E-NO-ROOT")

    without_appliance(monkeypatch, lambda _work: None)
    monkeypatch.setattr(NoAppliance if at == "launch" else run, at, broken)
    source = Input(kind="disk", location=str(disk), format="raw")
    work = str(tmp_path / "work")
    with pytest.raises(ConversionError, match=f"No system. The state of {disk} is unknown"):
        run.convert(Job(mode=Mode.IN_PLACE, source=source, direct=True, work_dir=work), report)


@pytest.mark.parametrize("option", ["--print-source", "--print-source=legacy"])
def test_an_option_does_not_take_the_source_for_its_value(
    tmp_path: Path, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    disk = tmp_path / "a.raw"
    disk.write_bytes(bytes(1 << 20))
    assert main(["-i", "disk", option, str(disk)]) == 0
    assert "hypervisor type: unknownhv" in capsys.readouterr().out
