"""Output `ovirt-upload` against a server that speaks the engine's API and the image server's."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from lxml import etree

from conversions.pipeline import stop
from conversions.pipeline.cli import main
from conversions.pipeline.errors import JobError, Stopped, TargetError
from conversions.pipeline.guestcaps import expected_guestcaps
from conversions.pipeline.job import CopyOptions, Input, Job, Mode, Target
from conversions.pipeline.kept import RECORD
from conversions.pipeline.leftovers import NOTES
from conversions.pipeline.output_kinds import check_target
from conversions.pipeline.outputs import imageio, ovirt_api
from conversions.pipeline.outputs.imageio import Piece, Throttle, pieces
from conversions.pipeline.outputs.ovirt_api import Engine, read_password, split_url, trust
from conversions.pipeline.outputs.ovirt_upload import OvirtUploadOutput
from conversions.pipeline.outputs.ovirt_xml import GENERATOR
from conversions.pipeline.overlay import create_overlays
from conversions.pipeline.report import RecordingReporter
from conversions.pipeline.run import convert
from conversions.pipeline.target_buses import assign_target_buses
from conversions.pipeline.types import Overlay, Place, TargetMeta
from inventory.sources.types import Source
from tests.engine_alone import kill_when, started
from tests.ovirt_server import CLUSTER, STORAGE, Disk, OvirtServer, Trouble
from tests.unit.pipeline.samples import make_meta, make_source, source_disk

rows = pytest.mark.rows
MIB = 1 << 20
OTHER = "7d5a4f1c-0000-4000-8000-0000000000ff"
UUIDS = ("7d5a4f1c-0000-4000-8000-00000000000a", "7d5a4f1c-0000-4000-8000-00000000000b")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("certificates")


@pytest.fixture(scope="module")
def disks(tmp_path_factory: pytest.TempPathFactory) -> Disks:
    return Disks(tmp_path_factory.mktemp("disks"))


@pytest.fixture
def server(certificates: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OvirtServer]:
    monkeypatch.setattr(ovirt_api, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(imageio, "_PAUSE_SECONDS", 0.01)
    before = stop.children_of(os.getpid())
    with OvirtServer(certificates) as running:
        yield running
    assert stop.children_of(os.getpid()) == before  # every qemu-nbd has ended


class Disks:
    """Two source disks with data, holes and an odd end; only ever read by what is tested."""

    def __init__(self, work: Path) -> None:
        self.raws = [self._raw(work / f"source{n}.raw") for n in range(2)]
        self.source: Source = make_source(
            disks=tuple(replace(source_disk(n), path=str(raw)) for n, raw in enumerate(self.raws))
        )
        self.overlays = create_overlays(self.source, work, RecordingReporter())
        self.expected: list[bytes] = []  # what the guest will see
        for overlay in self.overlays:
            changed = ["-c", "write -P 0x5a 13M 100k", "-c", "write -z -u 1M 64k"]
            raw = Path(f"{overlay.path}.raw")
            for command in (
                ["qemu-io", "-f", "qcow2", *changed, overlay.path],
                ["qemu-img", "convert", "-f", "qcow2", "-O", "raw", overlay.path, str(raw)],
            ):
                subprocess.run(command, check=True, capture_output=True)
            self.expected.append(raw.read_bytes())

    @staticmethod
    def _raw(path: Path) -> Path:
        with path.open("wb") as file:
            file.write(os.urandom(5 * MIB))
            file.truncate(16 * MIB + 512)
            file.seek(14 * MIB + 4096)
            file.write(b"island" * 100)
        return path


class Scene:
    """Some of the disks, and an output that sends them."""

    def __init__(self, server: OvirtServer, work: Path, disks: Disks, count: int) -> None:
        self.server = server
        self.report = RecordingReporter()
        self.password = work / "password"
        self.password.write_text(f"{server.state.password}\n \n")
        self.raws, self.expected = disks.raws[:count], disks.expected[:count]
        self.source = replace(disks.source, disks=disks.source.disks[:count])
        self.overlays: Sequence[Overlay] = disks.overlays[:count]

    def target(self, **values: Any) -> Target:
        """Return the target; `options` replaces those that are given."""
        options = {"ovirt-cafile": (str(self.server.certificate),)} | values.pop("options", {})
        base = {"storage": "data", "uri": self.server.url, "password_file": str(self.password)}
        return Target(kind="ovirt-upload", options=options, **(base | values))

    def output(self, **values: Any) -> OvirtUploadOutput:
        """Return an output to the server."""
        name = values.pop("name", None)
        return OvirtUploadOutput(self.target(**values), name, self.report)

    def job(self, folder: Path, **values: Any) -> Job:
        """Return the job of an engine of its own."""
        return Job(
            mode=Mode.COPY,
            source=Input(kind="disk", location=str(self.raws[0]), format="raw"),
            target=self.target(**values),
            copy=CopyOptions(keep_converted=True),
            name="web_01",
            work_dir=str(folder / "alone"),
        )

    def meta(self, output: OvirtUploadOutput, **values: Any) -> TargetMeta:
        """Return what the output describes."""
        disks = output.target_disks(self.source, self.overlays, {})
        caps = values.pop("guestcaps", expected_guestcaps())
        buses = assign_target_buses(disks, (), caps, self.report)
        return make_meta(source=self.source, buses=buses, guestcaps=caps, **values)

    def convert(self, output: OvirtUploadOutput, **options: Any) -> None:
        """Do what the pipeline does with an output."""
        with output.prepare(self.source, self.overlays) as targets:
            disks = output.target_disks(self.source, self.overlays, {})
            output.check_space({}, self.overlays)
            meta = self.meta(output)
            output.check(meta)
            output.copy(targets, disks, CopyOptions(**options))
            output.write_metadata(targets, meta)
            targets.commit()

    def refusal(self, output: OvirtUploadOutput) -> str:
        """Return what `prepare` says, which must refuse and have made nothing."""
        with (
            pytest.raises(TargetError) as raised,
            output.prepare(self.source, self.overlays),
        ):
            raise AssertionError("not reached")
        assert not self.server.asked("^(POST|DELETE) /(disks|vms|imagetransfers)")
        return raised.value.message

    def uploaded(self) -> list[bytes]:
        """Return the bytes of every disk of the engine, in the order of their names."""
        disks = self.server.state.disks.values()
        return [bytes(d.data) for d in sorted(disks, key=lambda d: str(d.fields["name"]))]

    def assert_nothing_left(self) -> None:
        """See that the engine has neither disks nor transfers nor machines."""
        state = self.server.state
        assert (state.disks, state.transfers, state.vms) == ({}, {}, {})

    def texts(self) -> str:
        """Return every event as text."""
        return json.dumps(self.report.events)


@pytest.fixture
def scene(server: OvirtServer, tmp_path: Path, disks: Disks) -> Scene:
    return Scene(server, tmp_path, disks, 1)


@pytest.fixture
def two_disks(server: OvirtServer, tmp_path: Path, disks: Disks) -> Scene:
    return Scene(server, tmp_path, disks, 2)


@pytest.mark.parametrize(("format_", "word"), [("raw", "raw"), ("qcow2", "cow")])
def test_disks_arrive_byte_for_byte_and_the_machine_is_made(
    two_disks: Scene, format_: str, word: str
) -> None:
    scene, state = two_disks, two_disks.server.state
    scene.convert(scene.output(format=format_), parallel=2, verify="full")
    assert scene.uploaded() == scene.expected
    assert {r["verified"] for r in scene.report.data("copy")} == {"full"}
    assert "Disk sdb: full check of the copy passed." in scene.texts()
    fields = sorted((d.fields for d in state.disks.values()), key=lambda f: str(f["name"]))
    assert [f["name"] for f in fields] == ["web_01-000", "web_01-001"]
    assert {f["format"] for f in fields} == {word}
    assert {f["status"] for f in fields} == {"ok"}
    size = scene.overlays[0].virtual_size_bytes
    assert {f["provisioned_size"] for f in fields} == {str(size)}
    (vm,) = state.vms.values()
    assert vm["cluster"] == CLUSTER
    root = etree.fromstring(vm["ovf"].encode())
    ids = [d.get("{http://schemas.dmtf.org/ovf/envelope/1/}diskId")
           for d in root.iterfind("DiskSection/Disk")]  # fmt: skip
    assert ids == [f["id"] for f in fields]
    assert f"<rasd:StorageId>{STORAGE}<" in vm["ovf"]
    assert state.transfers == {} and state.tokens == {}


def test_zeros_are_told_and_not_sent(scene: Scene) -> None:
    scene.convert(scene.output())
    total = scene.report.data("copy")[0]["data_bytes"]
    assert 5 * MIB <= total < 6 * MIB
    assert scene.server.state.writes <= 5
    assert scene.server.asked("^PATCH")
    reached = [e["done_bytes"] for e in scene.report.of("progress")]
    assert reached == sorted(reached)
    assert reached[-1] == total


@pytest.mark.parametrize("features", [None, (), ("flush",), ("zero",)])
def test_older_image_servers_get_the_same_bytes(
    scene: Scene, features: tuple[str, ...] | None
) -> None:
    scene.server.trouble = Trouble(features=features)
    scene.convert(scene.output())
    assert scene.uploaded() == scene.expected
    assert bool(scene.server.asked("^PATCH")) == bool(features)


@pytest.mark.parametrize(("writers", "expected"), [(1, 1), (2, 2), (8, 4)])
def test_no_more_connections_than_the_server_allows(
    scene: Scene, writers: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.server.trouble = Trouble(max_writers=writers)
    readers: list[object] = []
    real = imageio.DiskReader.__init__

    def counted(self: imageio.DiskReader, *args: Any) -> None:
        readers.append(self)
        real(self, *args)

    monkeypatch.setattr(imageio.DiskReader, "__init__", counted)
    scene.convert(scene.output())
    assert len(readers) == expected


def test_dropped_connections_and_expired_sessions_are_survived(scene: Scene) -> None:
    scene.server.trouble = Trouble(drop_every=3, expire_after=4)
    scene.convert(scene.output())
    assert scene.uploaded() == scene.expected
    assert scene.server.state.logins > 1


def test_a_transfer_that_is_gone_counts_by_its_disk(scene: Scene) -> None:
    scene.server.trouble = Trouble(forgets_transfers=True)
    scene.convert(scene.output())
    assert scene.uploaded() == scene.expected
    assert len(scene.server.state.vms) == 1


@pytest.mark.parametrize("way", ["proxy", "direct", "old-spelling"])
def test_disks_go_to_a_host_or_through_the_engine(scene: Scene, way: str) -> None:
    options = {"proxy": {"ovirt-proxy": ("",)}, "direct": {"ovirt-direct": ("true",)},
               "old-spelling": {"ovirt-direct": ("false",)}}[way]  # fmt: skip
    scene.convert(scene.output(options=options))
    assert bool(scene.server.asked("-proxy$")) == (way != "direct")
    with pytest.raises(JobError, match="exclude each other"):
        scene.output(options={"ovirt-proxy": ("",), "ovirt-direct": ("",)})


def test_disks_get_the_identities_given(two_disks: Scene) -> None:
    two_disks.convert(two_disks.output(options={"ovirt-disk-uuid": UUIDS}))
    assert set(two_disks.server.state.disks) == set(UUIDS)


@rows("4-T78")
@pytest.mark.parametrize(
    ("given", "words"),
    [
        (UUIDS[:1], "2 disks, but ovirt-disk-uuid was given 1 times"),
        ((UUIDS[0], "00000000-0000-0000-0000-000000000000"), "is no UUID"),
        ((UUIDS[0], "{" + UUIDS[1] + "}"), "is no UUID"),
        ((UUIDS[0], "disk-2"), "is no UUID"),
        ((UUIDS[0], UUIDS[0].upper()), "same UUID"),
    ],
)
def test_identities_that_cannot_be(two_disks: Scene, given: tuple[str, ...], words: str) -> None:
    output = two_disks.output(options={"ovirt-disk-uuid": given})
    assert words in two_disks.refusal(output)
    assert two_disks.server.state.requests == []


@rows("4-T77")
@pytest.mark.parametrize("storage", ["da ta", "data*", "a=b", "x\n"])
def test_storage_names_that_cannot_be(scene: Scene, storage: str) -> None:
    assert "cannot be the name of a storage domain" in scene.refusal(scene.output(storage=storage))
    assert scene.server.state.requests == []


@pytest.mark.parametrize(
    ("values", "trouble", "words"),
    [
        ({"storage": "other"}, {}, "no data centre with a storage domain other"),
        ({"options": {"ovirt-cluster": ("Elsewhere",)}}, {}, "no cluster Elsewhere"),
        ({}, {"arch": "undefined"}, "no processor architecture"),
        ({"name": "a b"}, {}, "cannot be the name of a machine in oVirt"),
        ({"name": 'x" or name=*'}, {}, "cannot be the name of a machine in oVirt"),
        ({}, {"redirect": "https://elsewhere.example/"}, "sends us elsewhere"),
    ],
)
def test_what_the_engine_lacks_is_said_before_the_conversion(
    scene: Scene, values: dict[str, Any], trouble: dict[str, Any], words: str
) -> None:
    scene.server.trouble = Trouble(**trouble)
    assert words in scene.refusal(scene.output(**values))


def test_a_taken_name_and_a_taken_disk_are_refused(scene: Scene) -> None:
    scene.convert(scene.output(options={"ovirt-disk-uuid": UUIDS[:1]}))
    scene.server.state.requests.clear()
    assert "a machine web_01 already" in scene.refusal(scene.output())
    output = scene.output(name="other", options={"ovirt-disk-uuid": UUIDS[:1]})
    assert f"a disk {UUIDS[0]} already" in scene.refusal(output)
    assert len(scene.server.state.disks) == 1


def test_a_machine_for_other_processors_is_refused_before_the_copy(scene: Scene) -> None:
    scene.server.trouble = Trouble(arch="ppc64")
    output = scene.output()
    with pytest.raises(TargetError, match="for x86_64; the hosts of cluster Default are ppc64"):
        scene.convert(output)
    scene.assert_nothing_left()
    with output.prepare(scene.source, scene.overlays):
        output.check(scene.meta(output, guestcaps=replace(expected_guestcaps(), arch="ppc64le")))


def test_a_full_storage_domain_is_refused_with_both_numbers(scene: Scene) -> None:
    scene.server.trouble = Trouble(free_bytes=900 * MIB)
    with pytest.raises(TargetError, match=r"900\.0 MiB free, up to 1\.\d GiB needed"):
        scene.convert(scene.output())
    scene.assert_nothing_left()


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        ({"transfer_phase": "paused_system"}, "it is paused_system"),
        ({"fail_write": 2}, "No space left on device"),
        ({"final_phase": "finished_failure"}, "the transfer is finished_failure"),
        ({"final_phase": "finished_failure", "forgets_transfers": True}, "its disk illegal"),
        ({"job": "failed"}, "could not make the machine"),
        ({"job": "failed", "locked_deletes": 3}, "could not make the machine"),
    ],
)
def test_a_failure_leaves_nothing_in_ovirt(
    two_disks: Scene, trouble: dict[str, Any], words: str
) -> None:
    two_disks.server.trouble = Trouble(**trouble)
    with pytest.raises(TargetError, match=words):
        two_disks.convert(two_disks.output())
    two_disks.assert_nothing_left()
    assert two_disks.report.data("files")["removed"]
    assert two_disks.server.state.tokens == {}


def test_a_disk_that_cannot_be_removed_is_named(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    from conversions.pipeline.outputs import ovirt_transfers

    monkeypatch.setattr(ovirt_transfers, "_CLEAN_UP_SECONDS", 0.1)
    scene.server.trouble = Trouble(job="failed", locked_deletes=1000)
    with pytest.raises(TargetError, match="could not make the machine"):
        scene.convert(scene.output())
    (left,) = scene.server.state.disks
    warnings = [e["text"] for e in scene.report.of("log") if e["level"] == "warning"]
    assert any(f"disks/{left} could not be removed" in text for text in warnings)
    assert scene.report.data("files")["removed"] == []


def test_a_jobs_time_runs_out(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    from conversions.pipeline.outputs import ovirt_transfers

    monkeypatch.setattr(ovirt_transfers, "JOB_SECONDS", 0.2)
    scene.server.trouble = Trouble(job="started")
    with pytest.raises(TargetError, match="The new machine is not ready"):
        scene.convert(scene.output())
    scene.assert_nothing_left()


@rows("4-T98")
def test_a_full_check_finds_an_altered_byte(scene: Scene) -> None:
    scene.server.trouble = Trouble(corrupt=True)
    with pytest.raises(TargetError, match="is not what was converted") as raised:
        scene.convert(scene.output(), verify="full")
    assert raised.value.code == "E-VERIFY"
    scene.assert_nothing_left()


def held(scene: Scene) -> Callable[[], None]:
    """Make the server hold the first write; return what waits for it."""
    scene.server.state.go_on.clear()

    def wait() -> None:
        assert scene.server.state.writing.wait(30)

    return wait


def test_a_stop_cancels_the_transfer_and_deletes_the_disk(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stop, "_asked", threading.Event())
    monkeypatch.setattr(stop, "_reason", "")
    wait, failures = held(scene), []

    def work() -> None:
        try:
            scene.convert(scene.output())
        except BaseException as error:
            failures.append(error)

    worker = threading.Thread(target=work)
    worker.start()
    wait()
    stop.ask_stop("a person asked for it")
    threading.Timer(0.5, scene.server.state.go_on.set).start()
    stop.join_or_stop(worker)
    assert isinstance(failures[0], Stopped)
    scene.assert_nothing_left()
    assert scene.server.asked("/cancel$")


@rows("4-T116")
def test_the_password_is_in_no_argument_no_job_and_no_event(scene: Scene, tmp_path: Path) -> None:
    """A process that is stopped by a signal while it sends, looked at from outside."""
    wait = held(scene)
    job = scene.job(tmp_path)
    process = started(job)
    wait()
    children = [process.pid, *stop.children_of(process.pid)]
    seen: list[bytes] = []
    for pid in children:
        with suppress(OSError):  # one that has ended meanwhile
            seen += [Path(f"/proc/{pid}/{name}").read_bytes() for name in ("cmdline", "environ")]
    assert any(b"qemu-nbd" in line for line in seen)
    process.send_signal(signal.SIGTERM)
    threading.Timer(0.5, scene.server.state.go_on.set).start()
    begun = time.monotonic()
    out, err = process.communicate(timeout=30)
    assert time.monotonic() - begun < 10
    scene.assert_nothing_left()
    assert "Engine: POST imagetransfers" in out
    secrets = [scene.server.state.password, *scene.server.state.tokens]
    for text in (out, err, job.to_json(), *(line.decode(errors="replace") for line in seen)):
        assert not any(secret in text for secret in secrets)


@rows("4-T116")
def test_an_engine_that_repeats_the_password_is_not_quoted(scene: Scene) -> None:
    scene.server.trouble = Trouble(echo_password=True)
    message = scene.refusal(scene.output())
    assert "does not let admin@internal in" in message
    assert "***" in message
    assert scene.server.state.password not in message + scene.texts()


def test_a_wrong_password_and_a_missing_one(scene: Scene) -> None:
    scene.password.write_text("wrong")
    assert "does not let admin@internal in" in scene.refusal(scene.output())
    for text, words in (("\n", "is empty"), (None, "cannot be read")):
        scene.password.unlink(missing_ok=True)
        if text:
            scene.password.write_text(text)
        with (
            pytest.raises(JobError, match=words),
            scene.output().prepare(scene.source, scene.overlays),
        ):
            raise AssertionError("not reached")


def test_certificates_are_checked_unless_that_is_turned_off(scene: Scene, tmp_path: Path) -> None:
    unknown = {"ovirt-cafile": ("",)}
    with (
        pytest.raises(TargetError, match="cannot be reached") as raised,
        scene.output(options=unknown).prepare(scene.source, scene.overlays),
    ):
        raise AssertionError("not reached")
    assert "ovirt-cafile" in raised.value.remedy
    assert scene.server.state.requests == []
    scene.convert(scene.output(options=unknown | {"ovirt-verifypeer": ("false",)}))
    assert scene.uploaded() == scene.expected
    assert "Certificates are not checked" in scene.texts()
    with pytest.raises(JobError, match="cannot be read"):
        trust(str(tmp_path / "missing.pem"), verify=True)


def test_a_name_on_the_certificate_that_is_not_the_hosts(
    tmp_path: Path, disks: Disks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ovirt_api, "POLL_SECONDS", 0.01)
    with OvirtServer(tmp_path, "elsewhere.example") as server:
        scene = Scene(server, tmp_path, disks, 1)
        assert "cannot be reached" in scene.refusal(scene.output())
        assert server.state.requests == []


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://h/ovirt-engine/api", ("https://h/ovirt-engine/api", "admin@internal")),
        ("https://joe%40corp@h:8443/ovirt-engine/api/",
         ("https://h:8443/ovirt-engine/api", "joe@corp")),
        ("https://[::1]/ovirt-engine/api", ("https://[::1]/ovirt-engine/api", "admin@internal")),
    ],
)  # fmt: skip
def test_the_address_names_the_user(url: str, expected: tuple[str, str]) -> None:
    assert split_url(url) == expected


@pytest.mark.parametrize(
    "url",
    ["http://h/ovirt-engine/api", "https:///api", "h", "https://joe:hush@h/api", "https://h:x/api",
     "https://h/api?x=1"],
)  # fmt: skip
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(JobError) as raised:
        split_url(url)
    assert "hush" not in raised.value.message


def test_an_engine_that_talks_without_end_is_cut_off(
    server: OvirtServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ovirt_api, "_MAX_ANSWER_BYTES", 40)
    context = trust(str(server.certificate), verify=True)
    engine = Engine(server.url, "admin@internal", server.state.password, context, print)
    with pytest.raises(TargetError, match="too long"):
        engine.get("datacenters", search="storage.name=data")
    engine.close()


def test_stretches_become_requests() -> None:
    def stretch(start: int, length: int, zero: bool) -> dict[str, object]:
        return {"start": start, "length": length, "zero": zero, "data": not zero}

    found = list(pieces([
        stretch(0, 3 * MIB, False), stretch(3 * MIB, 2 * MIB, False),
        stretch(5 * MIB, MIB, True), stretch(6 * MIB, 200 * MIB, True),
        stretch(206 * MIB, 512, False),
    ]))  # fmt: skip
    assert found == [
        Piece(0, 4 * MIB, False), Piece(4 * MIB, MIB, False),
        Piece(5 * MIB, 128 * MIB, True), Piece(133 * MIB, 73 * MIB, True),
        Piece(206 * MIB, 512, False),
    ]  # fmt: skip
    assert list(pieces([stretch(0, MIB, True)])) == [Piece(0, MIB, True)]


def test_the_rate_holds_for_all_threads_together(scene: Scene) -> None:
    throttle, begun = Throttle(10 * MIB), time.monotonic()
    threads = [threading.Thread(target=throttle.take, args=(MIB,)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 0.45 <= time.monotonic() - begun < 2
    begun = time.monotonic()
    scene.convert(scene.output(), rate_bytes=5 * MIB)
    assert time.monotonic() - begun >= 0.8


def test_a_rehearsal_shows_the_ovf_and_asks_nobody(scene: Scene) -> None:
    output = scene.output()
    disks = output.target_disks(scene.source, scene.overlays, {})
    assert disks[0].place is Place.REMOTE
    output.preview(scene.meta(output))
    assert "<VirtualSystem" in scene.report.data("ovf")["text"]
    assert scene.server.state.requests == []


def test_the_password_can_come_with_the_job(scene: Scene) -> None:
    secrets = {"ovirt-password": (scene.server.state.password,)}
    scene.convert(scene.output(password_file="", secrets=secrets))
    assert len(scene.server.state.vms) == 1
    with pytest.raises(JobError, match="given twice"):
        check_target(scene.target(secrets=secrets))
    with pytest.raises(JobError, match="needs a password"):
        check_target(scene.target(password_file=""))


def test_passwords_lose_only_the_white_space_at_their_end(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("  with spaces \n\n")
    assert read_password(file) == "  with spaces"


# --- What a kill leaves --------------------------------------------------------------------------


def killed(scene: Scene, folder: Path, moment: str, **values: Any) -> Job:
    """Kill an engine with -9 while it sends, or when oVirt has done something but not answered.

    Returns the job.  A disk of somebody else has the name that ours gets, and is being sent to.
    """
    state, job = scene.server.state, scene.job(folder, **values)
    fields = {"id": OTHER, "name": "web_01-000", "status": "locked", "description": GENERATOR}
    state.disks[OTHER] = Disk(fields, bytearray())
    state.transfers[OTHER] = {
        "id": OTHER, "disk": {"id": OTHER}, "phase": "transferring", "ticket": OTHER
    }  # fmt: skip
    if moment == "write":
        state.go_on.clear()
        reached = state.writing
    else:
        state.hold_at, reached = moment, state.holding
    kill_when(started(job), reached.is_set)
    state.go_on.set()
    return job


def tidied(work: Path, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """Clean up after a killed engine; return the exit status and what was said."""
    status = main(["--clean-up", str(work), *words])
    captured = capsys.readouterr()
    return status, captured.out + captured.err


def assert_others_alone_are_left(scene: Scene) -> None:
    """See that the engine has what somebody else has made, and nothing more."""
    state = scene.server.state
    assert (list(state.disks), list(state.transfers), state.vms) == ([OTHER], [OTHER], {})


@pytest.mark.parametrize(
    "moment",
    ["POST /disks$", "POST /imagetransfers$", "write", "/finalize$", "POST /vms$"],
)
def test_what_a_killed_engine_left_in_ovirt_is_removed(
    moment: str, scene: Scene, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The machine was being made when the last was killed, and making it failed."""
    scene.server.trouble = Trouble(job="failed", locked_deletes=2)
    job = killed(scene, tmp_path, moment)
    work = Path(job.work_dir)
    assert len(scene.server.state.disks) == 2
    status, said = tidied(work, capsys)
    assert status == 0
    assert "Removed: disk data/web_01-000" in said
    assert_others_alone_are_left(scene)
    assert sorted(path.name for path in work.iterdir()) == [RECORD, "v2vovl-sda.qcow2"]
    scene.server.trouble = Trouble()
    convert(replace(job, resume=str(work), work_dir=str(tmp_path / "again")), scene.report)
    assert not work.exists()
    assert len(scene.server.state.vms) == 1


def test_a_machine_that_was_made_before_the_kill_stays(
    scene: Scene, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    work = Path(killed(scene, tmp_path, "POST /vms$").work_dir)
    status, said = tidied(work, capsys)
    assert status == 0
    assert "web_01 was made" in said
    assert len(scene.server.state.vms) == 1
    assert len(scene.server.state.disks) == 2
    assert not (work / NOTES).exists()


def test_leftovers_that_cannot_be_signed_in_for_are_named_and_stay_on_record(
    scene: Scene, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    work = Path(killed(scene, tmp_path, "POST /imagetransfers$").work_dir)
    other_file = scene.password.rename(tmp_path / "moved")
    _other, ours = scene.server.state.disks
    status, said = tidied(work, capsys)
    assert status == 1
    assert f"The password file {scene.password} cannot be read" in said
    assert f"Still at {scene.server.url}, as far as they were made: disk data/web_01-000" in said
    assert str(scene.server.state.disks[ours].fields["description"]).split(", ")[1] in said
    assert (work / NOTES).exists()
    where = scene.server.url.replace("127.0.0.1", "localhost")
    status, said = tidied(work, capsys, "-op", str(other_file), "-oc", where)
    assert status == 1
    assert f"worked at {scene.server.url}" in said
    assert len(scene.server.state.disks) == 2
    where = scene.server.url.replace("https://", "https://admin%40internal@")
    assert tidied(work, capsys, "-op", str(other_file), "-oc", where)[0] == 0
    assert_others_alone_are_left(scene)


def test_a_disk_of_a_later_run_with_the_same_identity_stays(
    scene: Scene, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever gives the identities (-oo ovirt-disk-uuid) may run twice and tidy up then."""
    work = Path(
        killed(scene, tmp_path, "POST /disks$", options={"ovirt-disk-uuid": UUIDS[:1]}).work_dir
    )
    scene.server.state.disks[UUIDS[0]].fields["description"] = f"{GENERATOR}, run of tomorrow"
    status, said = tidied(work, capsys)
    assert status == 0
    assert "Removed: disk" not in said
    assert list(scene.server.state.disks) == [OTHER, UUIDS[0]]
