"""Output libvirt against a real daemon: pools, volumes, uploads, refusals."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import libvirt
import pytest
from lxml import etree

from conversions.pipeline.cli import main
from conversions.pipeline.disk_copy import copy_disks
from conversions.pipeline.errors import JobError, TargetError
from conversions.pipeline.guestcaps import expected_guestcaps
from conversions.pipeline.job import CopyOptions, Target
from conversions.pipeline.leftovers import NOTES, Notes
from conversions.pipeline.outputs import libvirt as libvirt_output
from conversions.pipeline.outputs import libvirt_streams, libvirt_targets
from conversions.pipeline.outputs.folder import how_many_fit
from conversions.pipeline.outputs.libvirt import LibvirtOutput
from conversions.pipeline.outputs.libvirt_host import LibvirtHost, check_uri
from conversions.pipeline.overlay import create_overlays
from conversions.pipeline.report import RecordingReporter
from conversions.pipeline.target_buses import assign_target_buses
from conversions.pipeline.types import Machine, Overlay, TargetMeta
from inventory.sources.types import Nic, Source, VnetType
from tests.libvirt_daemon import URI, running_libvirtd
from tests.unit.pipeline.samples import make_meta, make_source, source_disk

MIB = 1 << 20


@pytest.fixture(scope="module")
def libvirtd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[libvirt.virConnect]:
    """A connection to the host's libvirtd, started for the tests when it does not run."""
    try:
        with running_libvirtd(tmp_path_factory.mktemp("libvirtd")) as connection:
            yield connection
    except PermissionError as error:
        pytest.skip(str(error))


@dataclass
class Scene:
    """A pool of its own, a source of one disk, and a name that no domain has."""

    connection: libvirt.virConnect
    pool: libvirt.virStoragePool
    folder: Path
    name: str
    source: Source
    overlays: Sequence[Overlay]
    report: RecordingReporter

    def output(self, **values: object) -> LibvirtOutput:
        """Return an output into the pool."""
        base: dict[str, object] = {
            "kind": "libvirt",
            "uri": URI,
            "storage": self.pool.name(),
            "options": {"domain-type": ("qemu",)},
        }
        return LibvirtOutput(Target(**(base | values)), self.name, self.report)  # type: ignore[arg-type]

    def meta(self, output: LibvirtOutput, **values: object) -> TargetMeta:
        """Return what the output describes."""
        disks = output.target_disks(self.source, self.overlays, {})
        caps = expected_guestcaps()
        base: dict[str, object] = {
            "name": self.name,
            "source": self.source,
            "nics": (),
            "buses": assign_target_buses(disks, (), caps, self.report),
        }
        return make_meta(**(base | values))

    def convert(self, output: LibvirtOutput, *, verify: str = "full", **values: object) -> None:
        """Do what the pipeline does with an output."""
        options = CopyOptions(verify=verify)  # type: ignore[arg-type]
        with output.prepare(self.source, self.overlays) as targets:
            meta = self.meta(output, **values)
            output.check(meta)
            disks = output.target_disks(self.source, self.overlays, {})
            output.check_space({}, self.overlays)
            output.copy(targets, disks, options)
            output.write_metadata(targets, meta)
            targets.commit()

    def domain(self) -> etree._Element:
        """Return what libvirt made of the domain."""
        text = self.connection.lookupByName(self.name).XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
        return etree.fromstring(text)

    def has_domain(self) -> bool:
        """Tell whether the domain is defined."""
        return self.name in {d.name() for d in self.connection.listAllDomains()}


@pytest.fixture
def scene(libvirtd: libvirt.virConnect, tmp_path: Path) -> Iterator[Scene]:
    name = f"v2vtest-{uuid.uuid4().hex[:8]}"
    # The machine's own user has to get there.
    folder = Path(tempfile.mkdtemp(prefix=name, dir="/var/tmp"))
    folder.chmod(0o711)
    xml = f"<pool type='dir'><name>{name}</name><target><path>{folder}</path></target></pool>"
    pool = libvirtd.storagePoolCreateXML(xml)
    raw = tmp_path / "source.raw"
    raw.write_bytes(os.urandom(3 * MIB))
    os.truncate(raw, 16 * MIB)
    report = RecordingReporter()
    source = make_source(
        name=name, disks=(replace(source_disk(0), path=str(raw)),), removables=(), nics=()
    )
    overlays = create_overlays(source, tmp_path, report)
    yield Scene(libvirtd, pool, folder, name, source, overlays, report)
    for domain in libvirtd.listAllDomains():
        if domain.name() == name:
            domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_NVRAM)
    pool.destroy()
    shutil.rmtree(folder)


def sent_otherwise(
    scene: Scene, change: Callable[[BinaryIO], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Upload into the pool, where the volume is changed as soon as it is there."""
    upload = libvirt_targets.upload

    def changed(volume: libvirt.virStorageVol, path: Path, *, sparse: bool) -> None:
        upload(volume, path, sparse=sparse)
        with Path(volume.path()).open("r+b") as file:
            change(file)

    monkeypatch.setattr(LibvirtHost, "is_local", False)
    monkeypatch.setattr(libvirt_targets, "upload", changed)


def assert_same(scene: Scene, disk: Path, format_: str) -> None:
    """Compare a volume with what was converted."""
    command = ["qemu-img", "compare", "-q", "-f", "qcow2", "-F", format_]
    subprocess.run([*command, scene.overlays[0].path, str(disk)], check=True)


@pytest.mark.parametrize("format_", ["qcow2", "raw"])
def test_the_machine_is_defined_with_its_volumes(scene: Scene, format_: str) -> None:
    scene.convert(scene.output(format=format_))
    source = scene.domain().find("devices/disk/source")
    assert source is not None
    assert (source.get("pool"), source.get("volume")) == (scene.name, f"{scene.name}-sda")
    assert scene.pool.listVolumes() == [f"{scene.name}-sda"]
    assert_same(scene, scene.folder / f"{scene.name}-sda", format_)


def test_the_defined_machine_starts(scene: Scene) -> None:
    """qemu accepts every device; nothing on the disk boots, so it is stopped again."""
    scene.convert(scene.output())
    domain = scene.connection.lookupByName(scene.name)
    try:
        domain.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
        assert domain.isActive()
    finally:
        if domain.isActive():
            domain.destroy()


@pytest.mark.parametrize("format_", ["qcow2", "raw"])
@pytest.mark.parametrize("allocation", ["sparse", "preallocated"])
def test_a_pool_that_is_not_ours_gets_its_volumes_by_upload(
    scene: Scene, format_: str, allocation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LibvirtHost, "is_local", False)
    scene.convert(scene.output(format=format_, allocation=allocation))
    disk = scene.folder / f"{scene.name}-sda"
    assert_same(scene, disk, format_)
    occupied = disk.stat().st_blocks * 512
    assert (occupied >= 16 * MIB) == (allocation == "preallocated")
    assert not list(Path(scene.overlays[0].path).parent.glob("upload-*"))
    assert scene.domain().find("devices/disk/source").get("volume") == disk.name  # type: ignore[union-attr]


def test_copies_need_room_where_they_wait_for_their_upload(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LibvirtHost, "is_local", False)
    work = Path(scene.overlays[0].path).parent
    free, seen = 1 << 30, []

    def usage(path: Path) -> object:
        assert path == work
        return shutil._ntuple_diskusage(1 << 40, 1 << 40, free)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    output = scene.output()
    with output.prepare(scene.source, scene.overlays) as targets:
        [disk] = output.target_disks(scene.source, scene.overlays, {"sda": 16 * MIB})
        assert (disk.staged, Path(disk.part_path).parent) == (True, work)
        with pytest.raises(TargetError, match=rf"in {work}: 1\.0 GiB free") as caught:
            output.check_space({}, scene.overlays)
        assert "VIRT_V2V_TMPDIR" in caught.value.remedy
        free += 40 * MIB
        output.check_space({}, scene.overlays)
        three = [
            replace(disk, overlay=replace(disk.overlay, sd=sd)) for sd in ("sda", "sdb", "sdc")
        ]
        assert [how_many_fit(work, three, output.target, n) for n in (1, 2, 3)] == [1, 2, 2]
        monkeypatch.setattr(libvirt_output, "copy_disks", lambda *given: seen.append(given[3]))
        output.copy(targets, three, CopyOptions(parallel=3))
    assert [options.parallel for options in seen] == [2]


@pytest.mark.parametrize("allocation", ["sparse", "preallocated"])
@pytest.mark.parametrize("place", [MIB, 4 * MIB], ids=["data", "hole"])
def test_an_altered_volume_is_found_by_a_full_check_and_removed(
    scene: Scene, allocation: str, place: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def alter(file: BinaryIO) -> None:
        file.seek(place)
        file.write(b"other")

    sent_otherwise(scene, alter, monkeypatch)
    with pytest.raises(TargetError, match=rf"differs from byte \d+ on, of {16 * MIB}") as raised:
        scene.convert(scene.output(format="raw", allocation=allocation))
    assert raised.value.code == "E-VERIFY"
    assert list(scene.folder.iterdir()) == []
    assert not scene.has_domain()


@pytest.mark.parametrize("verify", ["none", "quick", "full"])
def test_a_volume_that_is_cut_off_is_found_by_every_check(
    scene: Scene, verify: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent_otherwise(scene, lambda file: file.truncate(MIB), monkeypatch)
    if verify == "none":
        scene.convert(scene.output(), verify=verify)
        assert scene.report.data("copy")[0]["verified"] == "none"
        return
    with pytest.raises(TargetError, match="is not what was sent") as raised:
        scene.convert(scene.output(), verify=verify)
    assert raised.value.code == "E-VERIFY"
    assert list(scene.folder.iterdir()) == []


@pytest.mark.parametrize("verify", ["none", "quick", "full"])
@pytest.mark.parametrize("format_", ["qcow2", "raw"])
def test_an_uploaded_volume_is_checked_as_far_as_was_asked(
    scene: Scene, format_: str, verify: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LibvirtHost, "is_local", False)
    scene.convert(scene.output(format=format_), verify=verify)
    assert scene.report.data("copy")[0]["verified"] == verify
    texts = [event["text"] for event in scene.report.of("log")]
    said = f"Volume {scene.name}-sda: {verify} check passed."
    assert (said in texts) == (verify != "none")


@pytest.mark.rows("4-T29")
@pytest.mark.parametrize("uploaded", [False, True], ids=["files", "uploaded"])
def test_t29_a_refused_machine_is_an_error_and_leaves_nothing(
    scene: Scene, uploaded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The volumes are removed; the XML is in the report, and the converted disks are kept in the
    work folder (test_resume.py), from where they can go to another place.
    """
    if uploaded:
        monkeypatch.setattr(LibvirtHost, "is_local", False)
    output = scene.output()
    bad = replace(scene.source, genid="not-a-uuid")
    with pytest.raises(TargetError, match="libvirt refused the machine") as raised:
        scene.convert(output, source=bad)
    assert raised.value.code == "E-LIBVIRT"
    assert list(scene.folder.iterdir()) == []
    assert scene.pool.listVolumes() == []
    assert not scene.has_domain()
    assert "not-a-uuid" in scene.report.data("libvirt_xml")["xml"]
    assert len(scene.report.data("files")["removed"]) == 1


def test_a_failure_during_the_upload_removes_the_volume(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LibvirtHost, "is_local", False)

    def broken() -> None:
        raise TargetError("the line went dead")

    monkeypatch.setattr(libvirt_streams, "check_stop", broken)
    with pytest.raises(TargetError, match="the line went dead"):
        scene.convert(scene.output())
    assert list(scene.folder.iterdir()) == []
    assert not scene.has_domain()


@pytest.mark.rows("4-T26")
def test_t26_a_taken_name_is_refused_first(scene: Scene) -> None:
    scene.convert(scene.output())
    (scene.folder / f"{scene.name}-sda").unlink()
    with (
        pytest.raises(TargetError, match=f"a machine named {scene.name} already"),
        scene.output().prepare(scene.source, scene.overlays),
    ):
        raise AssertionError("not reached")


@pytest.mark.parametrize("uploaded", [False, True])
def test_a_taken_volume_is_refused_and_kept(
    scene: Scene, uploaded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LibvirtHost, "is_local", not uploaded)
    disk = scene.folder / f"{scene.name}-sda"
    disk.write_bytes(b"somebody's")
    scene.pool.refresh()
    with (
        pytest.raises(TargetError, match="already"),
        scene.output().prepare(scene.source, scene.overlays),
    ):
        raise AssertionError("not reached")
    assert disk.read_bytes() == b"somebody's"


@pytest.mark.rows("4-T28")
def test_t28_a_pool_by_its_uuid_is_named_in_the_xml(scene: Scene) -> None:
    scene.convert(scene.output(storage=scene.pool.UUIDString()))
    source = scene.domain().find("devices/disk/source")
    assert source is not None
    assert source.get("pool") == scene.name


@pytest.mark.rows("4-T27")
def test_t27_pools_that_cannot_be(scene: Scene) -> None:
    name = f"{scene.name}-x"
    disk = f"<pool type='disk'><name>{name}</name><source><device path='/dev/null'/></source>" \
        "<target><path>/dev</path></target></pool>"  # fmt: skip
    lost = scene.folder / "lost"
    folder = f"<pool type='dir'><name>{name}</name><target><path>{lost}</path></target></pool>"
    for xml, words in ((disk, "is not active"), (folder, "does not exist")):
        pool = scene.connection.storagePoolDefineXML(xml)
        try:
            if words == "does not exist":
                lost.mkdir()
                pool.create()
                lost.rmdir()
            with (
                pytest.raises(TargetError, match=f"{name}.*{words}"),
                scene.output(storage=name).prepare(scene.source, scene.overlays),
            ):
                raise AssertionError("not reached")
        finally:
            if pool.isActive():
                pool.destroy()
            pool.undefine()
    with (
        pytest.raises(TargetError, match=f"has no pool {name}"),
        scene.output(storage=name).prepare(scene.source, scene.overlays),
    ):
        raise AssertionError("not reached")


@pytest.mark.rows("4-T27")
def test_t27_a_pool_of_another_type_names_itself() -> None:
    """libvirt's test driver: pools of every type, and nothing behind them."""
    output_host = LibvirtHost("test:///default")
    xml = "<pool type='iscsi'><name>far</name><source><host name='h'/><device path='d'/></source>" \
        "<target><path>/dev/disk/by-path</path></target></pool>"  # fmt: skip
    pool = output_host.connection.storagePoolCreateXML(xml)
    with pytest.raises(TargetError, match="Pool far is of type iscsi"):
        output_host.find_pool("far")
    pool.destroy()
    output_host.close()


@pytest.mark.rows("4-T30")
def test_t30_a_host_without_kvm_for_the_architecture(scene: Scene) -> None:
    host = LibvirtHost(URI)
    for domain in list(host._capabilities.iterfind("guest/arch/domain[@type='kvm']")):
        parent = domain.getparent()
        assert parent is not None
        parent.remove(domain)
    assert host.domain_type("x86_64") == "qemu"
    assert host.domain_type("vax") is None
    with pytest.raises(TargetError, match="not the name of an architecture"):
        host.facts("x' or '1", Machine.Q35, "kvm", {})
    host.close()
    output = scene.output()
    scene.convert(output)
    assert any("without KVM" in e["text"] for e in scene.report.of("log"))
    assert [e.tag for e in scene.domain().iterfind("features/acpi")] == ["acpi"]


def test_secure_boot_gets_the_hosts_loader(scene: Scene) -> None:
    source = replace(scene.source, uefi_secureboot=True)
    scene.convert(scene.output(), source=source, uefi=True)
    domain = scene.connection.lookupByName(scene.name)
    native = domain.connect().domainXMLToNative("qemu-argv", domain.XMLDesc())
    assert ".ms.fd" in native or "secboot" in native
    assert "smm=on" in native


def test_a_network_that_the_target_lacks_is_a_warning(scene: Scene) -> None:
    nic = Nic(vnet="no-such-net", vnet_type=VnetType.NETWORK)
    scene.convert(scene.output(), nics=(nic,))
    assert any("no-such-net is not defined" in e["text"] for e in scene.report.of("log"))


@pytest.mark.parametrize(
    "uri",
    [
        "qemu+ext:///system?command=/bin/sh",
        "qemu+ssh://host/system?command=touch",
        "qemu+ssh://-oProxyCommand=x/system",
        "qemu+ssh://-l@host/system",
        "qemu:///system?socket=/etc/shadow",
        "qemu+tls://host/system?pkipath=/etc",
        "lxc:///system",
        "esx://host/",
        "qemu:///system#x",
        "qemu:///sys\ntem",
        "/etc/passwd",
    ],
)
def test_connections_that_could_run_or_read_something_are_refused(uri: str) -> None:
    with pytest.raises(JobError, match="refused"):
        check_uri(uri)


@pytest.mark.parametrize(
    "uri", ["qemu:///system", "qemu:///session", "qemu+ssh://root@host.example/system"]
)
def test_ordinary_connections_are_accepted(uri: str) -> None:
    check_uri(uri)


@pytest.mark.rows("4-T01")
def test_t01_libvirt_and_its_default_pool_when_nothing_is_said() -> None:
    import argparse

    from conversions.pipeline.target_options import add_target_options, target_from

    parser = argparse.ArgumentParser()
    add_target_options(parser)
    target = target_from(parser.parse_args([]))
    assert (target.kind, target.storage, target.format) == ("libvirt", "default", "qcow2")


def test_what_a_killed_upload_left_in_the_pool_is_removed_by_its_notes(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command that the supervisor runs; only what the run has noted goes."""
    monkeypatch.setattr(LibvirtHost, "is_local", False)
    work = Path(scene.overlays[0].path).parent
    other = scene.folder / "somebody-s"
    other.write_bytes(b"x")
    scene.pool.refresh()
    with scene.output().prepare(scene.source, scene.overlays) as targets:
        copy_disks(targets, targets.disks, scene.output().target, CopyOptions(), scene.report)
        assert (scene.folder / f"{scene.name}-sda").exists()
        assert (work / NOTES).exists()
        with (work / NOTES).open("a") as stream:
            stream.write('{"kind": "libvirt", "vol')  # cut off: nothing was made
        assert main(["--clean-up", str(work), "-oo", "os-username=x"]) == 1
        assert "is not an option of output libvirt" in capsys.readouterr().err
        assert main(["--clean-up", str(work), "--quiet"]) == 0
        assert sorted(scene.folder.iterdir()) == [other]
        assert not work.exists()
        targets.committed = True  # nothing is left for its own way out


def test_volumes_of_a_machine_that_was_defined_are_no_leftovers(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LibvirtHost, "is_local", False)
    work = Path(scene.overlays[0].path).parent
    kept: list[bytes] = []
    forget = Notes.forget
    monkeypatch.setattr(
        Notes, "forget", lambda notes: (kept.append((work / NOTES).read_bytes()), forget(notes))
    )
    scene.convert(scene.output())
    assert not (work / NOTES).exists()
    (work / NOTES).write_bytes(kept[0])  # killed between the definition and the end
    assert main(["--clean-up", str(work), "--quiet"]) == 0
    assert scene.has_domain()
    assert (scene.folder / f"{scene.name}-sda").exists()
