"""Going on from the copy: what is kept of a conversion, what is not, and when it is of no use."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from conversions.pipeline import kept
from conversions.pipeline.converted import Converted
from conversions.pipeline.early_copy import copying_early
from conversions.pipeline.errors import (
    JobError,
    Stopped,
    TargetError,
)
from conversions.pipeline.guestcaps import expected_guestcaps
from conversions.pipeline.job import CopyOptions, Input, Job, Mode, Target
from conversions.pipeline.kept import RECORD, KeptError, keep_converted, read_kept, remembered
from conversions.pipeline.last_steps import write_target
from conversions.pipeline.outputs.local import LocalOutput
from conversions.pipeline.overlay import create_overlays
from conversions.pipeline.report import RecordingReporter
from conversions.pipeline.run import convert
from conversions.pipeline.source import fingerprint, open_source
from conversions.pipeline.types import Application
from conversions.pipeline.work import work_folder
from inventory.sources.nbdkit import Servers
from tests.unit.pipeline.samples import GUEST
from tests.unit.sources.ova_builder import make_ova

MIB = 1 << 20
SIZE = 8 * MIB


@dataclass
class Run:
    """A disk image as the source, and runs that convert it as far as the copy."""

    folder: Path
    report: RecordingReporter

    @property
    def disk(self) -> Path:
        """The source."""
        return self.folder / "web.raw"

    def job(self, target: str, *, work: str = "work", **values: object) -> Job:
        """Return the job that copies to a folder, which is made."""
        folder = self.folder / target
        folder.mkdir(exist_ok=True)
        options: dict[str, object] = {
            "mode": Mode.COPY,
            "source": Input(kind="disk", location=str(self.disk), format="raw"),
            "target": Target(directory=str(folder)),
            "copy": CopyOptions(keep_converted=True),
            "work_dir": str(self.folder / work),
        }
        return Job(**(options | values))  # type: ignore[arg-type]

    def convert(self, job: Job, *, early: bool = False, fail: str = "") -> None:
        """Do what a conversion does, with writes into the overlay in place of an appliance.

        With `fail` the copy runs into a missing folder ("target") or a stop ("stop").
        """
        assert job.target
        report = self.report
        with ExitStack() as stack:
            work = stack.enter_context(work_folder(job, report))
            servers = stack.enter_context(Servers(work))
            source = open_source(job, work, report, servers)
            before = fingerprint(source, job.source.location)
            overlays = create_overlays(source, work, report)
            write(overlays[0].path, 1, 0x62)
            output = LocalOutput(job.target, job.name, report)
            targets = stack.enter_context(output.prepare(source, overlays))
            if early:
                disks = output.target_disks(source, overlays, {})
                overlays = stack.enter_context(
                    copying_early(output, targets, disks, job, work, report)
                )
            write(overlays[0].path, 2, 0x63)
            converted = Converted(
                source=source, before=before, overlays=overlays, estimates={"sda": SIZE},
                guest=replace(GUEST, applications=(Application(name="bash", version="5"),)),
                guestcaps=expected_guestcaps(), boot_disk=0,
            )  # fmt: skip
            (work / "helper.sock").touch()
            stack.enter_context(remembered(work, job, converted))
            if fail == "target":
                (self.folder / "target").rename(self.folder / "gone")
            elif fail:
                raise Stopped("Stopped: by a test. The source is unchanged.")
            write_target(job, converted, output, targets, servers, work, report)

    def fail(self, **how: object) -> Path:
        """Run a conversion whose copy is stopped; return the folder that is kept."""
        with pytest.raises(Stopped):
            self.convert(self.job("target"), fail="stop", **how)  # type: ignore[arg-type]
        return Path(self.report.data("kept")["folder"])

    def expected(self) -> Path:
        """Return the disk of a conversion that nothing disturbs."""
        self.convert(self.job("undisturbed", work="other"))
        return self.folder / "undisturbed" / "web-sda"


def write(image: str, place: int, pattern: int) -> None:
    """Write a cluster of data and one of zeros."""
    words = ["-c", f"write -P {pattern} {place * 64}k 64k", "-c", f"write -z {place * 128}k 64k"]
    subprocess.run(["qemu-io", "-f", "qcow2", *words, image], check=True, capture_output=True)


def same(one: Path, other: Path) -> bool:
    command = ["qemu-img", "compare", "-q", "-f", "qcow2", "-F", "qcow2", one, other]
    return subprocess.run(command, check=False).returncode == 0


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = Run(tmp_path, RecordingReporter())
    run.disk.write_bytes(os.urandom(SIZE // 2) + bytes(SIZE // 2))
    return run


@pytest.mark.parametrize("early", [False, True])
def test_the_room_is_looked_at_once_more_before_a_copy_that_has_not_begun(
    run: Run, early: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what the converted disk holds: all of the source but a cluster that was zeroed."""
    seen: list[dict[str, int]] = []
    monkeypatch.setattr(
        LocalOutput, "check_space", lambda _self, needed, _disks: seen.append(needed)
    )
    run.convert(run.job("target"), early=early)
    assert seen == ([] if early else [{"sda": SIZE - (64 << 10)}])


@pytest.mark.rows("4-T97")
@pytest.mark.parametrize("early", [False, True])
def test_a_continued_copy_gives_the_same_as_an_undisturbed_one(run: Run, early: bool) -> None:
    folder = run.fail(early=early)
    layers = 2 if early else 1
    assert sorted(path.suffix for path in folder.iterdir()) == [".json", *[".qcow2"] * layers]
    assert list((run.folder / "target").iterdir()) == []
    run.report.events.clear()
    convert(run.job("elsewhere", work="second", name="web02", resume=str(folder)), run.report)
    result = run.folder / "elsewhere" / "web02-sda"
    assert same(result, run.expected())
    written = (run.folder / "elsewhere" / "web02.xml").read_text()
    undisturbed = (run.folder / "undisturbed" / "web.xml").read_text()
    renamed = undisturbed.replace("undisturbed/web", "elsewhere/web02")
    assert written == renamed.replace("<name>web<", "<name>web02<")
    assert not folder.exists()
    assert not (run.folder / "second").exists()
    told = [e["data"] for e in run.report.of("report") if e["name"] == "targets"]
    assert [data["committing"] for data in told[:3]] == [False, True, False]
    steps = {e["name"]: e["state"] for e in run.report.of("step")}
    assert steps["conversion"] == "skipped"
    assert steps["copy"] == "finished"


def test_a_layer_that_a_cut_off_commit_left_over_the_target_leads_back(run: Run) -> None:
    """A kill between the two rebases of an early copy."""
    folder = run.fail(early=True)
    gone = run.folder / "target" / "web-sda.part"
    command = ["qemu-img", "rebase", "-u", "-f", "qcow2", "-F", "qcow2", "-b", gone]
    subprocess.run([*command, folder / "v2vlayer-sda.qcow2"], check=True)
    convert(run.job("elsewhere", work="second", resume=str(folder)), run.report)
    assert same(run.folder / "elsewhere" / "web-sda", run.expected())


def test_what_is_kept_stays_until_a_copy_succeeds(run: Run) -> None:
    folder = run.fail()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    job = run.job("elsewhere", work="second", resume=str(folder))
    (run.folder / "elsewhere" / "web-sda").touch()
    with pytest.raises(TargetError, match="exists already"):
        convert(job, run.report)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert run.report.data("kept")["folder"] == str(folder)
    convert(replace(job, name="web02"), run.report)
    assert not folder.exists()


def test_nothing_is_kept_that_was_not_asked_for(run: Run) -> None:
    job = run.job("target")
    with pytest.raises(TargetError, match="target cannot be told: No such file"):
        run.convert(replace(job, copy=CopyOptions()), fail="target")
    assert not (run.folder / "work").exists()


def test_nothing_is_kept_where_the_next_conversion_would_have_no_room(
    run: Run, tmp_path: Path
) -> None:
    folder = run.fail()
    assert keep_converted(folder, MIB, run.report)
    assert not keep_converted(folder, 1 << 60, run.report)
    assert "must stay free" in run.report.of("log")[-1]["text"]


def test_a_changed_source_is_not_continued(run: Run) -> None:
    folder = run.fail()
    with run.disk.open("r+b") as stream:
        stream.write(b"started meanwhile")
    with pytest.raises(TargetError, match="changed since web was converted") as caught:
        convert(run.job("elsewhere", work="second", resume=str(folder)), run.report)
    assert caught.value.code == "E-SOURCE-CHANGED"
    assert list((run.folder / "elsewhere").iterdir()) == []
    run.disk.unlink()
    with pytest.raises(Exception, match=r"web\.raw"):
        convert(run.job("elsewhere", work="second", resume=str(folder)), run.report)


def test_another_source_is_refused(run: Run) -> None:
    folder = run.fail()
    other = Input(kind="disk", location="/srv/other.raw", format="raw")
    with pytest.raises(KeptError, match=r"web\.raw, not of /srv/other\.raw"):
        convert(run.job("elsewhere", source=other, resume=str(folder)), run.report)


def test_a_folder_in_use_is_refused_and_not_discarded(run: Run) -> None:
    folder = run.fail()
    with kept.opened(folder, run.report):
        with pytest.raises(KeptError, match="in use by another conversion"):
            convert(run.job("elsewhere", resume=str(folder)), run.report)
        assert not kept.discard(folder)
    assert kept.discard(folder)
    assert not folder.exists()


def _break(change: Callable[[dict[str, object]], object]) -> Callable[[Path], None]:
    def broken(folder: Path) -> None:
        data = json.loads((folder / RECORD).read_text())
        change(data)
        (folder / RECORD).write_text(json.dumps(data))

    return broken


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / RECORD).write_text("{"),
        lambda folder: (folder / RECORD).write_text("[]"),
        lambda folder: (folder / RECORD).unlink(),
        lambda folder: (folder / "v2vovl-sda.qcow2").unlink(),
        _break(lambda data: data.update(version=2)),
        _break(lambda data: data.pop("guestcaps")),
        _break(lambda data: data["guestcaps"].update(machine="pc")),  # type: ignore[index]
        _break(lambda data: data["overlays"][0].update(layers=["../web.raw"])),  # type: ignore[index]
        _break(lambda data: data["input"].update(odd=1)),  # type: ignore[index]
    ],
)
def test_a_damaged_record_is_refused_with_the_way_out(
    run: Run, damage: Callable[[Path], None]
) -> None:
    folder = run.fail()
    damage(folder)
    with pytest.raises(KeptError) as caught:
        convert(run.job("elsewhere", resume=str(folder)), run.report)
    assert caught.value.code == "E-KEPT"
    assert "onvert the machine anew" in caught.value.remedy


def test_the_record_gives_back_what_was_converted_and_holds_no_secret(run: Run) -> None:
    folder = run.fail()
    converted = read_kept(folder).converted
    assert converted.guest.applications[0].name == "bash"
    assert replace(converted.guest, applications=()) == GUEST
    assert converted.guestcaps == expected_guestcaps()
    assert converted.source.disks[0].path == str(run.disk)
    source = Input(
        kind="libvirt", location="web", password="hush", password_file="/run/password",
        options={"vddk-cookie": ("hush",), "vddk-libdir": ("/opt/vddk",)},
    )  # fmt: skip
    with remembered(folder, run.job("target", source=source), converted):
        assert "hush" not in (folder / RECORD).read_text()
        options = {"vddk-libdir": ("/opt/vddk",)}
        assert read_kept(folder).input == replace(source, password="", options=options)


def test_what_a_package_was_unpacked_into_is_kept_with_the_disks(run: Run) -> None:
    """It is neither unpacked nor read anew: the descriptor is not looked at again."""
    package = run.folder / "vm.ova"
    package.write_bytes(gzip.compress(make_ova(run.folder / "plain.ova").read_bytes()))
    source = Input(kind="ova", location=str(package))
    job = run.job("target", source=source)
    with pytest.raises(Stopped):
        run.convert(job, fail="stop")
    folder = run.folder / "work"
    [unpacked] = folder.glob("ova-*")
    assert (unpacked / "package.tar").exists()
    convert(run.job("elsewhere", work="second", source=source, resume=str(folder)), run.report)
    run.convert(run.job("undisturbed", work="other", source=source))
    name = f"{read_name(run)}-sda"
    assert same(run.folder / "elsewhere" / name, run.folder / "undisturbed" / name)
    assert not folder.exists()


def read_name(run: Run) -> str:
    name: str = run.report.data("source")["name"]
    return name


def test_a_package_that_was_replaced_is_not_continued(run: Run) -> None:
    package = run.folder / "vm.ova"
    package.write_bytes(gzip.compress(make_ova(run.folder / "plain.ova").read_bytes()))
    source = Input(kind="ova", location=str(package))
    with pytest.raises(Stopped):
        run.convert(run.job("target", source=source), fail="stop")
    package.write_bytes(package.read_bytes()[:-1])
    with pytest.raises(TargetError, match=r"vm\.ova changed since"):
        convert(
            run.job("elsewhere", source=source, work="second", resume=str(run.folder / "work")),
            run.report,
        )


def test_a_job_that_continues_survives_its_way_as_json(run: Run) -> None:
    job = run.job("target", resume="/work/x")
    assert Job.from_json(job.to_json()) == job
    with pytest.raises(JobError, match=r"job\.resume must be"):
        Job.from_dict(job.to_dict() | {"resume": 1})


def test_only_a_copy_can_be_continued() -> None:
    with pytest.raises(JobError, match="continued from the copy"):
        Job(mode=Mode.REHEARSE, source=Input(kind="ova", location="/x"), resume="/w")
