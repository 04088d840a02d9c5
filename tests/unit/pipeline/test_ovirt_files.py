"""Outputs `ovirt` and `vdsm`: the files of a storage domain, with real qemu-img."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from lxml import etree

from conversions.pipeline.disk_copy import convert_command
from conversions.pipeline.errors import CommandError, JobError, TargetError
from conversions.pipeline.guestcaps import expected_guestcaps
from conversions.pipeline.job import CopyOptions, Target
from conversions.pipeline.outputs import ovirt as module
from conversions.pipeline.outputs.ovirt import OvirtOutput, mount_command
from conversions.pipeline.outputs.ovirt_files import VolumeFiles, VolumeOutput
from conversions.pipeline.outputs.vdsm import VdsmOutput
from conversions.pipeline.overlay import create_overlays
from conversions.pipeline.report import RecordingReporter
from conversions.pipeline.target_buses import assign_target_buses
from conversions.pipeline.types import Overlay, TargetMeta
from inventory.sources.types import Source
from tests.unit.pipeline.samples import make_meta, make_source, source_disk, target_disk

MIB = 1 << 20
DOMAIN = "11111111-2222-3333-4444-555555555555"
ROOT = os.geteuid() == 0


@pytest.fixture
def share() -> Iterator[Path]:
    """A folder that vdsm's user can reach, unlike tmp_path, with an attached export domain."""
    with tempfile.TemporaryDirectory(prefix="v2vtest-", dir="/var/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        for path in (folder / DOMAIN, *(folder / DOMAIN / p for p in
                     ("images", "master", "master/vms"))):  # fmt: skip
            path.mkdir()
            if ROOT:
                os.chown(path, 36, 36)
        yield folder


class Scene:
    """A source of some disks over whose overlays an output is run."""

    def __init__(self, work: Path, disks: int = 1) -> None:
        self.report = RecordingReporter()
        raws = []
        for number in range(disks):
            raw = work / f"source{number}.raw"
            raw.write_bytes(os.urandom(2 * MIB))
            os.truncate(raw, 8 * MIB)
            raws.append(raw)
        self.source: Source = make_source(
            disks=tuple(replace(source_disk(n), path=str(raw)) for n, raw in enumerate(raws))
        )
        self.overlays: Sequence[Overlay] = create_overlays(self.source, work, self.report)

    def meta(self, output: VolumeOutput) -> TargetMeta:
        """Return what the output describes."""
        disks = output.target_disks(self.source, self.overlays, {})
        caps = expected_guestcaps()
        buses = assign_target_buses(disks, (), caps, self.report)
        return make_meta(source=self.source, buses=buses)

    def convert(self, output: VolumeOutput, **options: Any) -> None:
        """Do what the pipeline does with an output."""
        with output.prepare(self.source, self.overlays) as targets:
            disks = output.target_disks(self.source, self.overlays, {})
            output.check_space({}, self.overlays)
            meta = self.meta(output)
            output.check(meta)
            output.copy(targets, disks, CopyOptions(**{"verify": "full"} | options))
            output.write_metadata(targets, meta)
            targets.commit()

    def same(self, overlay: Overlay, file: Path, format_: str) -> bool:
        """Tell whether a volume holds what was converted."""
        command = ["qemu-img", "compare", "-q", "-f", "qcow2", "-F", format_]
        return subprocess.run([*command, overlay.path, str(file)]).returncode == 0

    def warnings(self) -> list[str]:
        """Return the warnings of the log."""
        return [e["text"] for e in self.report.of("log") if e["level"] == "warning"]


def export(place: object, report: RecordingReporter, **values: Any) -> OvirtOutput:
    """Return an output into an export domain."""
    return OvirtOutput(Target(kind="ovirt", directory=str(place), **values), None, report)


def pairs(text: str) -> list[tuple[str, str]]:
    """Return the lines KEY=value of a .meta file."""
    assert text.endswith("\nEOF\n")
    return [(k, v) for k, _, v in (line.partition("=") for line in text.splitlines()[:-1])]


@pytest.mark.parametrize(("format_", "word"), [("raw", "RAW"), ("qcow2", "COW")])
def test_an_export_domain_gets_volumes_and_an_ovf(
    share: Path, tmp_path: Path, format_: str, word: str
) -> None:
    scene = Scene(tmp_path, disks=2)
    scene.convert(export(share, scene.report, format=format_))
    root = etree.parse(next((share / DOMAIN / "master" / "vms").glob("*/*.ovf"))).getroot()
    hrefs = [f.get("{http://schemas.dmtf.org/ovf/envelope/1/}href", "")
             for f in root.iterfind("References/File")]  # fmt: skip
    assert len(hrefs) == 2
    for href, overlay in zip(hrefs, scene.overlays, strict=True):
        file = share / DOMAIN / "images" / href
        assert scene.same(overlay, file, format_)
        image, volume = href.split("/")
        assert sorted(p.name for p in file.parent.iterdir()) == [volume, f"{volume}.meta"]
        lines = pairs(file.with_name(f"{volume}.meta").read_text())
        assert [key for key, _value in lines] == [
            "DOMAIN", "VOLTYPE", "CTIME", "MTIME", "IMAGE", "DISKTYPE", "PUUID", "LEGALITY",
            "POOL_UUID", "SIZE", "FORMAT", "TYPE", "DESCRIPTION",
        ]  # fmt: skip
        values = dict(lines)
        assert (values["DOMAIN"], values["IMAGE"]) == (DOMAIN, image)
        assert (values["SIZE"], values["FORMAT"], values["TYPE"]) == ("16384", word, "SPARSE")
        assert (values["POOL_UUID"], values["LEGALITY"]) == ("", "LEGAL")
    for path in (share / DOMAIN).rglob("*"):
        found = path.stat()
        assert not ROOT or (found.st_uid, found.st_gid) == (36, 36), path
        if path.is_file():
            assert found.st_mode & 0o777 == 0o666
        elif path.parent.name in ("images", "vms"):
            assert found.st_mode & 0o777 == 0o755
    disk = root.find("Section/Disk")
    assert disk is not None
    assert disk.get("{http://schemas.dmtf.org/ovf/envelope/1/}actual_size") == "1"
    assert scene.warnings() == []


def test_preallocated_volumes_say_so(share: Path, tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.convert(export(share, scene.report, format="raw", allocation="preallocated"))
    meta = next(share.rglob("*.meta"))
    assert dict(pairs(meta.read_text()))["TYPE"] == "PREALLOCATED"
    assert meta.with_suffix("").stat().st_blocks * 512 >= 8 * MIB


@pytest.mark.rows("4-T71")
@pytest.mark.parametrize("when", ["copy", "metadata"])
def test_a_failure_leaves_the_domain_as_it_was(
    share: Path, tmp_path: Path, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Scene(tmp_path, disks=2)
    before = sorted(share.rglob("*"))
    seen: list[Path] = []

    def broken(targets: VolumeFiles, *_args: object, **_values: object) -> None:
        seen.extend(share.rglob("*.part"))
        raise TargetError("the disk is full")

    monkeypatch.setattr(VolumeFiles, "close" if when == "copy" else "commit", broken)
    with pytest.raises(TargetError, match="full"):
        scene.convert(export(share, scene.report))
    assert seen
    assert sorted(share.rglob("*")) == before
    assert scene.report.data("files")["removed"]


@pytest.mark.rows("4-T70")
def test_places_that_are_no_export_domain(share: Path, tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    said = []
    other = share / "99999999-2222-3333-4444-555555555555"
    for change in (other.mkdir, lambda: (share / DOMAIN).rename(share / "kept")):
        change()
        with (
            pytest.raises(TargetError) as raised,
            export(share, scene.report).prepare(scene.source, scene.overlays),
        ):
            raise AssertionError("not reached")
        said.append(raised.value.message)
    other.rmdir()
    (share / "not-a-domain").mkdir()
    with (
        pytest.raises(TargetError) as raised,
        export(share, scene.report).prepare(scene.source, scene.overlays),
    ):
        raise AssertionError("not reached")
    said.append(raised.value.message)
    assert "2 storage domains" in said[0]
    assert "master/vms" in said[1]
    assert "no storage domain" in said[2]


@pytest.mark.rows("4-T68")
@pytest.mark.parametrize("kind", ["ovirt", "vdsm"])
def test_a_disk_that_is_no_number_of_sectors(kind: str, share: Path) -> None:
    """T68: refused before the conversion, not when its .meta is written."""
    overlay = replace(target_disk(0).overlay, virtual_size_bytes=MIB + 1)
    report = RecordingReporter()
    output = export(share, report) if kind == "ovirt" else vdsm(share, report)
    with (
        pytest.raises(TargetError, match="1048577 bytes, which is no multiple of 512"),
        output.prepare(make_source(), [overlay]),
    ):
        raise AssertionError("not reached")


@pytest.mark.rows("4-T69")
@pytest.mark.parametrize("kind", ["ovirt", "vdsm"])
def test_more_disks_than_ovirt_has_places_for(kind: str, share: Path) -> None:
    overlays = [target_disk(n).overlay for n in range(24)]
    report = RecordingReporter()
    output = export(share, report) if kind == "ovirt" else vdsm(share, report, count=24)
    with (
        pytest.raises(TargetError, match="24 disks; in oVirt it can have 23"),
        output.prepare(make_source(), overlays),
    ):
        raise AssertionError("not reached")


@pytest.mark.skipif(not ROOT, reason="only root meets folders of another user")
def test_a_domain_that_vdsm_may_not_write_into(share: Path, tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    os.chown(share / DOMAIN, 0, 0)
    with (
        pytest.raises(TargetError, match="Nothing can be written") as raised,
        export(share, scene.report).prepare(scene.source, scene.overlays),
    ):
        raise AssertionError("not reached")
    assert "36:36" in raised.value.remedy


class Mounts:
    """Stands for mount and umount: a mounted share is a link in a list."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, share: Path, busy: int = 0) -> None:
        self.now: list[Path] = []
        self.commands: list[list[str]] = []
        self._share = share
        self._busy = busy
        monkeypatch.setattr(module, "run", self.run)
        monkeypatch.setattr(module.subprocess, "run", self.unmount)
        monkeypatch.setattr(module, "geteuid", lambda: 0)
        monkeypatch.setattr(module, "_UNMOUNT_PAUSE_SECONDS", 0.01)
        monkeypatch.setattr(Path, "is_mount", lambda path: path in self.now)

    def run(self, command: list[str], _report: object) -> str:
        self.commands.append(command)
        point = Path(command[-1])
        self.now.append(point)
        (self._share / DOMAIN).rename(point / DOMAIN)
        return ""

    def unmount(self, command: list[str], **_values: object) -> subprocess.CompletedProcess[str]:
        self.commands.append(command)
        if self._busy:
            self._busy -= 1
            return subprocess.CompletedProcess(command, 32, "", "target is busy")
        point = self.now.pop()
        (point / DOMAIN).rename(self._share / DOMAIN)
        return subprocess.CompletedProcess(command, 0, "", "")


@pytest.mark.rows("4-T71")
def test_a_share_is_mounted_and_unmounted_whatever_happens(
    share: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the commands: nothing can be mounted where the tests run."""
    scene = Scene(tmp_path)
    mounts = Mounts(monkeypatch, share, busy=2)
    output = export("server.example:/export/v2v", scene.report)
    with (
        pytest.raises(TargetError, match="halfway"),
        output.prepare(scene.source, scene.overlays),
    ):
        point = mounts.now[0]
        raise TargetError("halfway")
    assert mounts.commands[0] == ["mount", "-t", "nfs", "--", "server.example:/export/v2v",
                                  str(point)]  # fmt: skip
    assert mounts.commands[1:] == [["umount", "--", str(point)]] * 3
    assert not point.exists()
    assert (share / DOMAIN / "master" / "vms").is_dir()


def test_a_share_that_stays_mounted_is_never_deleted(
    share: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Scene(tmp_path)
    mounts = Mounts(monkeypatch, share, busy=1000)
    with (
        pytest.raises(TargetError, match="halfway"),
        export("server:/x", scene.report).prepare(scene.source, scene.overlays),
    ):
        point = mounts.now[0]
        raise TargetError("halfway")
    assert (point / DOMAIN).is_dir()
    assert any("could not be unmounted" in text for text in scene.warnings())
    (point / DOMAIN).rename(share / DOMAIN)
    point.rmdir()


@pytest.mark.parametrize("place", ["-o:/x", "host name:/x", "h;x:/x", "host:/x\n"])
def test_shares_that_are_none(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: Path
) -> None:
    mounts = Mounts(monkeypatch, share)
    with (
        pytest.raises(TargetError, match="no NFS share"),
        export(place, RecordingReporter()).prepare(make_source(), [target_disk(0).overlay]),
    ):
        raise AssertionError("not reached")
    assert mounts.commands == []


def test_a_mount_that_fails_leaves_no_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "geteuid", lambda: 0)
    monkeypatch.setattr(module.tempfile, "tempdir", str(tmp_path))

    def refused(command: list[str], _report: object) -> str:
        assert command == mount_command("server:/x", Path(command[-1]))
        raise CommandError("mount ended with exit status 32: access denied")

    monkeypatch.setattr(module, "run", refused)
    with (
        pytest.raises(TargetError, match=r"server:/x cannot be mounted.*access denied"),
        export("server:/x", RecordingReporter()).prepare(make_source(), [target_disk(0).overlay]),
    ):
        raise AssertionError("not reached")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(module, "geteuid", lambda: 1000)
    with (
        pytest.raises(TargetError, match="Only root"),
        export("server:/x", RecordingReporter()).prepare(make_source(), [target_disk(0).overlay]),
    ):
        raise AssertionError("not reached")


def vdsm(
    place: Path, report: RecordingReporter, *, count: int = 1, options: Any = None, **values: Any
) -> VdsmOutput:
    """Return an output into VDSM's folders, `count` disks."""
    given = {
        "vdsm-image-uuid": tuple(f"image-{n}" for n in range(count)),
        "vdsm-vol-uuid": tuple(f"volume-{n}" for n in range(count)),
        "vdsm-vm-uuid": ("vm-1",),
        "vdsm-ovf-output": (str(place),),
    }
    target = Target(
        kind="vdsm",
        directory=f"{place}/center/{DOMAIN}/",
        options=given | (options or {}),
        **values,
    )
    return VdsmOutput(target, None, report)


def make_images(place: Path, count: int) -> None:
    """Make the folders as VDSM does."""
    for number in range(count):
        (place / "center" / DOMAIN / "images" / f"image-{number}").mkdir(parents=True)


def test_vdsm_gets_its_volumes_where_it_wants_them(tmp_path: Path) -> None:
    place = tmp_path / "place"
    make_images(place, 2)
    scene = Scene(tmp_path, disks=2)
    scene.convert(vdsm(place, scene.report, count=2))
    images = place / "center" / DOMAIN / "images"
    files = sorted(str(p.relative_to(images)) for p in images.rglob("*") if p.is_file())
    assert files == ["image-0/volume-0", "image-0/volume-0.meta", "image-1/volume-1",
                     "image-1/volume-1.meta"]  # fmt: skip
    assert scene.same(scene.overlays[1], images / "image-1" / "volume-1", "qcow2")
    values = dict(pairs((images / "image-1" / "volume-1.meta").read_text()))
    assert (values["DOMAIN"], values["IMAGE"]) == (DOMAIN, "image-1")
    root = etree.parse(place / "vm-1.ovf").getroot()
    assert root.find("Content") is not None
    disk = root.find("Section/Disk")
    assert disk is not None
    assert disk.get("{http://schemas.dmtf.org/ovf/envelope/1/}actual_size") is None


def test_vdsm_can_have_the_other_flavour(tmp_path: Path) -> None:
    make_images(tmp_path / "place", 1)
    scene = Scene(tmp_path)
    options = {"vdsm-ovf-flavour": ("ovirt",)}
    scene.convert(vdsm(tmp_path / "place", scene.report, options=options))
    assert etree.parse(tmp_path / "place" / "vm-1.ovf").getroot().find("VirtualSystem") is not None


@pytest.mark.parametrize(("options", "compat"), [({}, "1.1"), ({"vdsm-compat": "0.10"}, "0.10")])
def test_vdsm_can_have_qcow2_for_old_hosts(
    tmp_path: Path, options: dict[str, str], compat: str
) -> None:
    make_images(tmp_path / "place", 1)
    scene = Scene(tmp_path)
    given = {key: (value,) for key, value in options.items()}
    output = vdsm(tmp_path / "place", scene.report, options=given)
    assert f"compat={compat}" in " ".join(convert_command(target_disk(0), output.target))
    scene.convert(output)
    info = subprocess.run(
        ["qemu-img", "info", str(tmp_path / f"place/center/{DOMAIN}/images/image-0/volume-0")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert f"compat: {compat}" in info.stdout


def test_vdsm_keeps_its_folders_after_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "place"
    make_images(place, 1)
    before = sorted(place.rglob("*"))
    scene = Scene(tmp_path)

    def broken(*_args: object) -> None:
        raise TargetError("no")

    monkeypatch.setattr(VolumeFiles, "commit", broken)
    with pytest.raises(TargetError):
        scene.convert(vdsm(place, scene.report))
    assert sorted(place.rglob("*")) == before


def test_what_vdsm_did_not_prepare_is_refused(tmp_path: Path) -> None:
    place, report = tmp_path / "place", RecordingReporter()
    overlays = [target_disk(n).overlay for n in range(2)]
    for output, words in (
        (vdsm(place, report, count=1), "2 disks, but vdsm-image-uuid was given 1 times"),
        (vdsm(place, report, count=2), "image-0 does not exist"),
    ):
        with (
            pytest.raises(TargetError, match=words),
            output.prepare(make_source(), overlays),
        ):
            raise AssertionError("not reached")
    make_images(place, 2)
    volume = place / "center" / DOMAIN / "images" / "image-1" / "volume-1"
    volume.write_text("somebody's")
    with (
        pytest.raises(TargetError, match="volume-1 exists already"),
        vdsm(place, report, count=2).prepare(make_source(), overlays),
    ):
        raise AssertionError("not reached")
    assert volume.read_text() == "somebody's"


@pytest.mark.parametrize("value", ["../x", "a/b", "", "..", "x\n"])
@pytest.mark.parametrize("key", ["vdsm-image-uuid", "vdsm-vol-uuid", "vdsm-vm-uuid"])
def test_uuids_that_are_paths_are_refused(key: str, value: str, tmp_path: Path) -> None:
    with pytest.raises(JobError):
        vdsm(tmp_path, RecordingReporter(), options={key: (value,)})


@pytest.mark.parametrize("kind", ["ovirt", "vdsm"])
def test_a_rehearsal_shows_the_ovf(kind: str, tmp_path: Path) -> None:
    report = RecordingReporter()
    output = export(tmp_path, report) if kind == "ovirt" else vdsm(tmp_path, report)
    output.preview(make_meta())
    assert "<Name>web_01</Name>" in report.data("ovf")["text"]
