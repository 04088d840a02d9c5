"""What the host side decides and does, as tables and with real qemu-img."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from lxml import etree

from conversions.pipeline import commands, stop
from conversions.pipeline.converted import Converted
from conversions.pipeline.disk_copy import convert_command, copy_disks
from conversions.pipeline.errors import CommandError, HostError, JobError, TargetError
from conversions.pipeline.guestcaps import expected_guestcaps, guestcaps_from_dict
from conversions.pipeline.job import CopyOptions, Input, Job, Mode, NetworkMap, Target
from conversions.pipeline.last_steps import write_target
from conversions.pipeline.networks import map_nics, parse_map
from conversions.pipeline.outputs.files import FileTargets, safe_name
from conversions.pipeline.outputs.local import LocalOutput
from conversions.pipeline.outputs.preview import preview
from conversions.pipeline.overlay import create_overlays
from conversions.pipeline.report import EventReporter, Level, RecordingReporter, json_lines
from conversions.pipeline.sizes import human, short
from conversions.pipeline.steps import Step
from conversions.pipeline.target_buses import assign_target_buses
from conversions.pipeline.types import BlockBus, Guestcaps
from inventory.sources.nbdkit import Servers
from inventory.sources.types import (
    Controller,
    CpuTopology,
    Nic,
    Removable,
    RemovableType,
    VnetType,
    disk_letters,
)
from tests.unit.pipeline.samples import GUEST, make_meta, make_source, source_disk, target_disk

CAPS = expected_guestcaps()
COMPARE = ("qemu-img", "compare", "-q", "-f", "raw", "-F")
IDE = replace(CAPS, block_bus=BlockBus.IDE)
SCSI = replace(CAPS, block_bus=BlockBus.VIRTIO_SCSI)


def cdrom(controller: Controller | None, slot: int | None) -> Removable:
    """Return a CD-ROM drive."""
    return Removable(type=RemovableType.CDROM, controller=controller, slot=slot)


@pytest.mark.rows("2-T137")
@pytest.mark.parametrize(
    ("disks", "removables", "caps", "expected", "warnings"),
    [
        (1, [cdrom(Controller.IDE, 2)], CAPS, ("virtio_blk", 1, "ide", 2), 0),
        (21, [cdrom(Controller.IDE, 2)], CAPS, ("virtio_blk", 21, "ide", 2), 0),
        (3, [cdrom(Controller.IDE, 2)], IDE, ("ide", 4, "ide", 3), 1),
        (2, [cdrom(None, None)], IDE, ("ide", 3, "ide", 2), 0),
        (2, [cdrom(Controller.SCSI, 0)], SCSI, ("scsi", 3, "scsi", 2), 1),
        (1, [cdrom(Controller.SATA, 0)], CAPS, ("virtio_blk", 1, "ide", 0), 0),
        (1, [cdrom(Controller.VIRTIO_BLK, 0)], CAPS, ("virtio_blk", 2, "virtio_blk", 1), 1),
        (
            1,
            [Removable(type=RemovableType.FLOPPY, slot=0)],
            CAPS,
            ("virtio_blk", 1, "floppy", 0),
            0,
        ),
    ],
)
def test_drives_are_assigned_to_target_buses(
    disks: int,
    removables: list[Removable],
    caps: Guestcaps,
    expected: tuple[str, int, str, int],
    warnings: int,
) -> None:
    report = RecordingReporter()
    buses = assign_target_buses(
        [target_disk(n) for n in range(disks)],
        removables,
        caps,
        report,
    )
    bus, length, removable_bus, slot = expected
    assert len(getattr(buses, bus)) == length
    assert getattr(buses, removable_bus)[slot] == removables[0]
    assert report.warnings == warnings


@pytest.mark.rows("2-T137")
def test_two_cdroms_of_one_slot_give_one_warning() -> None:
    report = RecordingReporter()
    drives = [cdrom(Controller.IDE, 2), cdrom(Controller.IDE, 2)]
    buses = assign_target_buses([target_disk(0)], drives, CAPS, report)
    assert buses.ide == (None, None, *drives)
    assert report.warnings == 1


@pytest.mark.rows("4-T48")
def test_two_cdroms_without_a_slot_take_the_first_ones() -> None:
    report = RecordingReporter()
    drives = [cdrom(None, None), cdrom(Controller.IDE, None)]
    buses = assign_target_buses([target_disk(0)], drives, CAPS, report)
    assert buses.ide == tuple(drives)
    assert report.warnings == 0


def parsed(xml: str) -> etree._Element:
    """Return the XML as a tree."""
    return etree.fromstring(xml.encode())


def test_the_preview_needs_no_inspection() -> None:
    job = Job(
        mode=Mode.COPY,
        source=Input(kind="ova", location="/x.ova"),
        target=Target(directory="/t"),
        name="new",
        network_map=NetworkMap(bridges={"br0": "prod"}),
    )
    root = parsed(preview(make_source(), {}, job).text)
    assert root.findtext("name") == "new"
    assert root.find("devices/disk/source").get("file") == "/t/new-sda"  # type: ignore[union-attr]
    assert root.find("devices/interface/source").get("bridge") == "prod"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "target",
    [
        *(Target(kind=kind, directory="/t") for kind in ("local", "qemu", "kubevirt")),
        Target(kind="openstack", format="raw", options={"server-id": ("me",)}),
    ],
    ids=lambda target: target.kind,
)
def test_vcpus_are_not_grouped_into_another_number(target: Target) -> None:
    topology = CpuTopology(sockets=2, cores=2, threads=1)
    job = Job(mode=Mode.COPY, source=Input(kind="ova", location="/x.ova"), target=target, name="n")
    fits, odd, plain = (
        preview(make_source(vcpus=vcpus, cpu_topology=given), {}, job)
        for vcpus, given in ((4, topology), (5, topology), (5, None))
    )
    assert fits.text != odd.text == plain.text
    (warned,) = set(odd.problems) - set(plain.problems)
    assert warned.startswith("2 sockets of 2 cores with 1 threads make 4 vCPUs")


def test_a_target_is_told_of_fitting_topologies_alone(tmp_path: Path) -> None:
    report, seen = RecordingReporter(), []
    job = Job(mode=Mode.REHEARSE, source=Input(kind="ova", location="/x.ova"))
    output = LocalOutput(Target(directory="/t"), None, report)
    output.preview = seen.append  # type: ignore[method-assign]
    source = make_source(disks=(), vcpus=5, cpu_topology=CpuTopology(sockets=2, cores=2, threads=1))
    converted = Converted(
        source=source, before={}, overlays=(target_disk(0).overlay,), estimates={}, guest=GUEST,
        guestcaps=CAPS, boot_disk=None,
    )  # fmt: skip
    with Servers(tmp_path) as servers:
        write_target(job, converted, output, None, servers, tmp_path, report)
    assert [(meta.source.vcpus, meta.source.cpu_topology) for meta in seen] == [(5, None)]
    assert sum("make 4 vCPUs" in e["text"] for e in report.of("log")) == 1


def test_guestcaps_survive_json() -> None:
    from dataclasses import asdict

    assert guestcaps_from_dict(json.loads(json.dumps(asdict(CAPS)))) == CAPS


NIC = Nic(vnet="n1", vnet_type=VnetType.NETWORK, mac="00:16:3E:00:00:0A")


@pytest.mark.rows("1-T008", "1-T009")
@pytest.mark.parametrize(
    ("networks", "bridges", "macs", "expected"),
    [
        ([], [], [], ("Network", "n1")),
        (["n1:x"], [], [], ("Network", "x")),
        (["lan"], [], [], ("Network", "lan")),
        (["n1:x", "y"], [], [], ("Network", "x")),
        ([], ["br"], [], ("Network", "n1")),
        ([], ["n1:br"], [], ("Network", "n1")),
        (["a"], [], ["00:16:3e:00:00:0a:bridge:dmz"], ("Bridge", "dmz")),
        (["n1:prod:vlan7"], [], [], ("Network", "prod:vlan7")),
    ],
)
def test_networks_are_mapped(
    networks: list[str], bridges: list[str], macs: list[str], expected: tuple[str, str]
) -> None:
    [nic] = map_nics([NIC], parse_map(networks, bridges, macs))
    assert (nic.vnet_type, nic.vnet) == expected
    assert nic.mac == NIC.mac


@pytest.mark.rows("1-T010")
@pytest.mark.parametrize(
    ("networks", "macs"),
    [
        (["a:b", "a:b"], []),
        (["a:b", "a:c"], []),
        (["x", "y"], []),
        ([":"], []),
        ([], ["00:11:22:33:44:bridge:x"]),
        ([], ["00:11:22:33:44:55:bridge:"]),
        ([], ["00:11:22:33:44:55:bridge:x", "00:11:22:33:44:55:bridge:y"]),
    ],
)
def test_bad_maps_are_refused(networks: list[str], macs: list[str]) -> None:
    with pytest.raises(JobError):
        parse_map(networks, [], macs)


@pytest.mark.rows("4-T110")
def test_a_job_survives_json_and_refuses_what_it_does_not_know() -> None:
    job = Job(
        mode=Mode.COPY,
        source=Input(kind="ova", location="/x"),
        target=Target(directory="/t"),
        network_map=NetworkMap(macs={"00:11:22:33:44:55": ("bridge", "x")}),
    )
    assert Job.from_json(job.to_json()) == job
    for key, value in (
        ("mode", "burn"),
        ("colour", 1),
        ("trim", "yes"),
        ("root", "sda"),
        ("root", "btrfsvol:sda"),
        ("memory_mib", True),
        ("target", {"format": "vhd"}),
        ("target", {"format": "raw", "compressed": True}),
        ("target", None),
    ):
        with pytest.raises(JobError):
            Job.from_dict({**job.to_dict(), key: value})
    with pytest.raises(JobError):
        Job.from_json("{")


@pytest.mark.parametrize(
    ("index", "letters"), [(0, "a"), (25, "z"), (26, "aa"), (27, "ab"), (701, "zz"), (702, "aaa")]
)
def test_disk_letters(index: int, letters: str) -> None:
    assert disk_letters(index) == letters


def test_sizes_for_people() -> None:
    assert [human(n) for n in (512, 1536, 3 << 30)] == ["512 bytes", "1.5 KiB", "3.0 GiB"]
    assert [short(n) for n in (12, 21474836480, 5 << 40)] == ["12", "20.0G", "5120.0G"]


@pytest.mark.parametrize("name", ["", " ", ".", "..", "a\nb", "x" * 201])
def test_names_that_cannot_be_files_are_refused(name: str) -> None:
    with pytest.raises(TargetError):
        safe_name(name)


def test_a_slash_in_a_name_becomes_an_underscore() -> None:
    assert safe_name("a/b $(x)") == "a_b $(x)"


@pytest.fixture
def copied(tmp_path: Path) -> Callable[..., tuple[RecordingReporter, Path, Path]]:
    """Copy a 16 MiB disk with 4 MiB of data through an overlay into a target folder."""

    def copy(**options: object) -> tuple[RecordingReporter, Path, Path]:
        raw = tmp_path / "source.raw"
        raw.write_bytes(b"v2v!" * (1 << 20))
        os.truncate(raw, 16 << 20)
        source = make_source(disks=(replace(source_disk(0), path=str(raw)),))
        folder = tmp_path / "target"
        folder.mkdir(exist_ok=True)
        report = RecordingReporter()
        output = LocalOutput(Target(directory=str(folder), **options), None, report)  # type: ignore[arg-type]
        overlays = create_overlays(source, tmp_path, report)
        with output.prepare(source, overlays) as targets:
            copy_disks(targets, targets.disks, output.target, CopyOptions(), report)
            output.write_metadata(targets, make_meta())
            targets.commit()
        return report, raw, folder

    return copy


@pytest.mark.parametrize(
    ("options", "at_least", "at_most"),
    [
        ({}, 0, 6 << 20),
        ({"format": "raw"}, 0, 6 << 20),
        ({"compressed": True}, 0, 1 << 20),
        ({"allocation": "preallocated"}, 16 << 20, 18 << 20),
        ({"format": "raw", "allocation": "preallocated"}, 16 << 20, 18 << 20),
    ],
)
def test_a_copy_is_identical_and_allocated_as_asked(
    copied: Callable[..., tuple[RecordingReporter, Path, Path]],
    options: dict[str, object],
    at_least: int,
    at_most: int,
) -> None:
    report, raw, folder = copied(**options)
    disk = folder / "web_01-sda"
    subprocess.run(
        [
            "qemu-img",
            "compare",
            "-q",
            "-f",
            "raw",
            "-F",
            str(options.get("format", "qcow2")),
            str(raw),
            str(disk),
        ],
        check=True,
    )
    assert at_least <= disk.stat().st_blocks * 512 <= at_most
    assert sorted(p.name for p in folder.iterdir()) == ["web_01-sda", "web_01.xml"]
    last = report.of("progress")[-1]
    assert last["done_bytes"] == last["total_bytes"] == 4 << 20
    first_created = next(e for e in report.events if e.get("name") == "targets")["seq"]
    started = next(
        e for e in report.events if e["type"] == "log" and "qemu-img convert" in e["text"]
    )["seq"]
    assert first_created < started


def test_an_existing_target_is_refused_and_kept(
    copied: Callable[..., tuple[RecordingReporter, Path, Path]],
) -> None:
    _report, _raw, folder = copied()
    before = (folder / "web_01-sda").read_bytes()
    with pytest.raises(TargetError, match="exists already"):
        copied()
    assert (folder / "web_01-sda").read_bytes() == before
    copied(overwrite=True)


def test_a_failed_copy_leaves_nothing(tmp_path: Path) -> None:
    report = RecordingReporter()
    source = make_source()
    folder = tmp_path / "target"
    folder.mkdir()
    output = LocalOutput(Target(directory=str(folder)), None, report)
    with (
        pytest.raises(CommandError),
        output.prepare(source, [target_disk(0).overlay]) as targets,
    ):
        Path(targets.disks[0].part_path).write_bytes(b"half")
        copy_disks(targets, targets.disks, output.target, CopyOptions(), report)
    assert list(folder.iterdir()) == []
    removed = report.data("files")["removed"]
    assert removed == [str(folder / "web_01-sda.part"), str(folder / "web_01.xml.part")]


def test_of_two_runs_with_one_name_the_first_keeps_it(tmp_path: Path) -> None:
    """However close they are: the second is refused in its step, and removes nothing."""
    source, disks = make_source(), [target_disk(0).overlay]
    first, second = (
        LocalOutput(Target(directory=str(tmp_path), overwrite=True), None, RecordingReporter())
        for _ in range(2)
    )
    with first.prepare(source, disks) as targets:
        # Its copy begins much later.
        with pytest.raises(TargetError, match="another conversion"), second.prepare(source, disks):
            pass
        [part] = [Path(disk.part_path) for disk in targets.disks]
        part.write_bytes(part.read_bytes() + b"of the first")
        targets.write(tmp_path / "web_01.xml", "<domain/>")
        targets.commit()
    assert (tmp_path / "web_01-sda").read_bytes() == b"of the first"


def test_a_result_that_comes_while_the_names_are_taken_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = LocalOutput(Target(directory=str(tmp_path)), None, RecordingReporter())
    take = FileTargets.take

    def finished_by_another_before(targets: FileTargets, part: Path) -> None:
        part.with_suffix("").write_bytes(b"a result")
        take(targets, part)

    monkeypatch.setattr(FileTargets, "take", finished_by_another_before)
    with (
        pytest.raises(TargetError, match="exists already"),
        output.prepare(make_source(), [target_disk(0).overlay]),
    ):
        pass
    assert {path.read_bytes() for path in tmp_path.iterdir()} == {b"a result"}


@pytest.mark.rows("4-T21")
@pytest.mark.parametrize(
    ("allocation", "free", "said"),
    [
        ("sparse", 1 << 30, r"1\.0 GiB free, up to 1\.5 GiB needed"),
        ("preallocated", 3 << 29, r"1\.5 GiB free, up to 2\.0 GiB needed"),
    ],
)
def test_too_little_room_names_both_numbers(
    allocation: str, free: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    monkeypatch.setattr(
        shutil,
        "disk_usage",
        lambda _path: shutil._ntuple_diskusage(1, 1, free),
    )
    target = Target(directory=str(tmp_path), allocation=allocation)  # type: ignore[arg-type]
    output = LocalOutput(target, None, RecordingReporter())
    with pytest.raises(TargetError, match=said):
        output.check_space({"sda": 500 << 20}, [target_disk(0).overlay])


@pytest.mark.rows("2-T39", "4-T21")
def test_a_full_folder_for_work_is_told_before_the_source_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    from conversions.pipeline.run import convert

    monkeypatch.setenv("VIRT_V2V_TMPDIR", str(tmp_path))
    free = (1 << 30) - 1
    monkeypatch.setattr(
        shutil, "disk_usage", lambda _path: shutil._ntuple_diskusage(1 << 40, 1 << 40, free)
    )
    report = RecordingReporter()
    job = Job(mode=Mode.REHEARSE, source=Input(kind="ova", location="/no.ova"))
    with pytest.raises(HostError, match=rf"in {tmp_path}: .* free, 1\.0 GiB needed") as caught:
        convert(job, report)
    assert "VIRT_V2V_TMPDIR" in caught.value.remedy
    assert {e["name"] for e in report.of("step")} == {Step.REQUEST}
    assert list(tmp_path.iterdir()) == []


def test_compression_and_writing_out_of_order_exclude_each_other() -> None:
    assert "-W" not in convert_command(target_disk(0), Target(compressed=True))


def test_a_program_that_fails_is_named_with_its_last_words() -> None:
    report = RecordingReporter()
    with pytest.raises(CommandError, match="exit status 3: broken"):
        commands.run(["sh", "-c", "echo broken >&2; exit 3"], report)
    assert any(e["level"] == Level.ERROR for e in report.of("log"))


def test_a_program_dies_with_the_engine(tmp_path: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from conversions.pipeline.commands import run\n"
        "from conversions.pipeline.report import RecordingReporter\n"
        "run(['sleep', '611'], RecordingReporter())\n"
    )
    root = Path(__file__).resolve().parents[3]
    engine = subprocess.Popen([sys.executable, "-c", code, str(root)])
    deadline = time.monotonic() + 10
    while not (children := stop.children_of(engine.pid)):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(0.2)  # setpriv becomes sleep
    engine.kill()
    engine.wait()
    while Path(f"/proc/{children[0]}/cmdline").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_reporter_numbers_events_without_gaps_and_cleans_lines() -> None:
    report = RecordingReporter()
    with report.step(Step.COPY):
        report.log(Level.WARNING, "a\x00b\n" + "x" * 5000)
    threads = [threading.Thread(target=report.progress, args=("sda", n, 10)) for n in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [e["seq"] for e in report.events] == list(range(1, len(report.events) + 1))
    first, second = report.of("log")
    assert first["text"] == "a\ufffdb"
    assert second["text"].endswith("(cut at 4096)")
    with pytest.raises(ValueError, match="x"), report.step(Step.TRIM):
        raise ValueError("x")
    assert report.of("step")[-1]["state"] == "failed"


def test_nothing_that_a_database_or_a_terminal_cannot_take_leaves_the_engine() -> None:
    written = io.StringIO()
    report = EventReporter(json_lines(written))
    report.report("concerns", [{"found": "a\udce9\0", "lines": ("b\x1b[2J\tc\n", 1, None)}])
    report.report("copy", {"to\0": Path("/caf\udce9")})
    report.event("result", status="error", message="\u2028", code=Step.COPY)
    concerns, copy, result = map(json.loads, written.getvalue().splitlines())
    assert concerns["data"] == [{"found": "a\ufffd\ufffd", "lines": ["b\ufffd[2J\tc\n", 1, None]}]
    assert copy["data"] == {"to\ufffd": "/caf\ufffd"}
    assert (result["message"], result["code"]) == ("\ufffd", "copy")
