"""Outputs openstack and glance: the real client library against a cloud of one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from conversions.pipeline import stop
from conversions.pipeline.cli import main
from conversions.pipeline.cli_job import job_from
from conversions.pipeline.cli_options import options_parser
from conversions.pipeline.early_copy import can_copy_early
from conversions.pipeline.errors import JobError, Stopped, TargetError
from conversions.pipeline.guestcaps import expected_guestcaps
from conversions.pipeline.job import CopyOptions, Input, Job, Mode, Target
from conversions.pipeline.kept import RECORD
from conversions.pipeline.leftovers import NOTES, clean_up
from conversions.pipeline.output_kinds import kind_of
from conversions.pipeline.outputs import openstack_cloud
from conversions.pipeline.outputs.glance import GlanceOutput
from conversions.pipeline.outputs.openstack import OpenStackOutput
from conversions.pipeline.outputs.openstack_cloud import MARK
from conversions.pipeline.outputs.openstack_properties import image_properties
from conversions.pipeline.overlay import create_overlays
from conversions.pipeline.report import RecordingReporter
from conversions.pipeline.run import convert
from conversions.pipeline.types import BlockBus, Machine, NetBus, Overlay, TargetMeta
from conversions.secrets import take_secrets, with_secrets
from inventory.sources.types import CpuTopology, Source
from tests.engine_alone import is_copying, kill_when, started
from tests.https_server import make_certificate
from tests.openstack_server import SERVER, Mood, OpenStackServer
from tests.unit.pipeline.samples import GUEST, make_meta, make_source, source_disk, target_disk

MIB = 1 << 20
GENID = "c3b9e8a4-7a65-4b8a-9d3f-1a2b3c4d5e6f"
PASSWORD = Mood().password
NOTHING_MADE = {"token issue"}


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Wait in hundredths of a second, away from any cloud that the person at this host has."""
    monkeypatch.setattr(openstack_cloud, "POLL_SECONDS", 0.01)
    for name in [n for n in os.environ if n.startswith("OS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(tmp_path / "clouds.yaml"))
    monkeypatch.chdir(tmp_path)


@dataclass
class Scene:
    """A cloud, and a machine with disks over which there are overlays."""

    server: OpenStackServer
    folder: Path
    source: Source
    overlays: Sequence[Overlay]
    report: RecordingReporter

    @property
    def mood(self) -> Mood:
        """How the cloud behaves."""
        return self.server.cloud.mood

    @property
    def calls(self) -> list[str]:
        """What the cloud was asked to do."""
        return self.server.cloud.calls

    def options(self, **values: str | None) -> dict[str, tuple[str, ...]]:
        """Return what -oo says; None leaves something out."""
        given: dict[str, str | None] = {
            "server-id": SERVER,
            "dev-disk-by-id": str(self.server.cloud.by_id),
            "os-username": self.mood.user,
            "os-user-domain-name": "Default",
            "os-project-name": "moves",
            "os-project-domain-name": "Default",
            **{key.replace("_", "-"): value for key, value in values.items()},
        }
        return {key: (value,) for key, value in given.items() if value is not None}

    def output(self, *, password: str | None = PASSWORD, **values: Any) -> OpenStackOutput:
        """Return an output into volumes."""
        base: dict[str, Any] = {
            "kind": "openstack",
            "format": "raw",
            "uri": self.server.auth_url,
            "options": self.options(),
            "secrets": {"os-password": (password,)} if password else {},
        }
        return OpenStackOutput(Target(**(base | values)), None, self.report)

    def glance(self, format_: str = "qcow2") -> GlanceOutput:
        """Return an output into images."""
        return GlanceOutput(Target(kind="glance", format=format_), None, self.report)  # type: ignore[arg-type]

    def convert(self, output: OpenStackOutput | GlanceOutput, **values: Any) -> None:
        """Do what the pipeline does with an output."""
        options = values.pop("copy", CopyOptions())
        with output.prepare(self.source, self.overlays) as targets:
            disks = output.target_disks(self.source, self.overlays, {})
            output.check_space({}, self.overlays)
            meta = self.meta(**values)
            output.check(meta)
            output.copy(targets, disks, options)
            output.write_metadata(targets, meta)
            targets.commit()

    def meta(self, **values: Any) -> TargetMeta:
        """Return what the output describes."""
        return make_meta(source=self.source, name=self.source.name, **values)

    def warnings(self) -> list[str]:
        """Return the warnings of the log."""
        return [e["text"] for e in self.report.of("log") if e["level"] == "warning"]


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Callable[..., Scene]]:
    """Make a scene of disks with these sizes in MiB; the first 2 MiB of each are data."""
    with OpenStackServer(tmp_path / "cloud") as server:

        def make(*sizes_mib: int, server: OpenStackServer = server, **values: Any) -> Scene:
            work = tmp_path / "work"
            work.mkdir()
            disks = []
            for number, size in enumerate(sizes_mib or (16,)):
                raw = tmp_path / f"source{number}.raw"
                raw.write_bytes(os.urandom(2 * MIB))
                os.truncate(raw, size * MIB)
                disks.append(replace(source_disk(number), path=str(raw)))
            source = make_source(disks=tuple(disks), **values)
            report = RecordingReporter()
            return Scene(server, tmp_path, source, create_overlays(source, work, report), report)

        yield make


@pytest.fixture
def https(tmp_path: Path) -> Iterator[tuple[OpenStackServer, Path]]:
    """A cloud with a certificate that nobody knows, and the file of that."""
    certificate, _thumbprint = make_certificate(tmp_path)
    with OpenStackServer(tmp_path / "secure", certificate) as server:
        yield server, certificate


def environment(monkeypatch: pytest.MonkeyPatch, server: OpenStackServer) -> None:
    """Say in the environment how to sign in."""
    for name, value in {
        "AUTH_URL": server.auth_url, "USERNAME": server.cloud.mood.user, "PASSWORD": PASSWORD,
        "USER_DOMAIN_NAME": "Default", "PROJECT_DOMAIN_NAME": "Default", "PROJECT_NAME": "moves",
    }.items():  # fmt: skip
        monkeypatch.setenv(f"OS_{name}", value)


def assert_same(scene: Scene, name: str, source: int) -> None:
    """Compare a volume with a disk; what follows the disk on the volume is empty."""
    cloud = scene.server.cloud
    file = cloud.data_of(cloud.volume(name)["id"])
    command = ["qemu-img", "compare", "-q", "-f", "raw", "-F", "raw"]
    subprocess.run([*command, f"source{source}.raw", str(file)], check=True, cwd=scene.folder)


# --- What each kind takes ------------------------------------------------------------------------


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Run the command line with output options over a source that does not exist."""
    assert main(["-i", "ova", "/no/such.ova", *words]) == 1
    captured = capsys.readouterr()
    return captured.err + captured.out


@pytest.mark.rows("4-T02")
@pytest.mark.parametrize("alias", ["openstack", "osp", "rhosp", "glance"])
def test_spellings(alias: str) -> None:
    assert kind_of(alias).name == ("glance" if alias == "glance" else "openstack")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        pytest.param(
            ("-oo", "server-id=x", "-of", "qcow2"), "qcow2", marks=pytest.mark.rows("4-T72")
        ),
        pytest.param(
            ("-oo", "server-id=x", "-oa", "preallocated"), "preallocated",
            marks=pytest.mark.rows("4-T72"),
        ),
        pytest.param((), "server-id", marks=pytest.mark.rows("4-T72")),
        pytest.param(("-oo", "server-id="), "server-id", marks=pytest.mark.rows("4-T72")),
        pytest.param(
            ("-oo", "server-id=x", "-of", "vmdk"), "vmdk", marks=pytest.mark.rows("4-T03")
        ),
        pytest.param(
            ("-oo", "os-colour=red"), "os-colour is not an option of output openstack",
            marks=pytest.mark.rows("4-T10"),
        ),
        (("-oo", "os-password=s3cret", "-oo", "os-password=s3cret"), "given 2 times"),
        (("-oo", "server-id=x", "-oo", "verify-server-certificate=no"), "verify-server-cert"),
        (("-oo", "server-id=../../x"), "../../x"),
        (("-oo", "server-id=x", "-oc", "ftp://cloud"), "-oc"),
        (("-oo", "server-id=x", "-oc", "https://u:s3cret@cloud/v3"), "-oc"),
        (("-oo", "server-id=x", "-oc", "https://{auth}/v3"), "-oc"),
        (("-oo", "server-id=x", "-op", "f", "-oo", "os-password=s3cret"), "twice"),
    ],
)  # fmt: skip
def test_what_openstack_refuses(
    words: tuple[str, ...], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = refusal(capsys, "-o", "openstack", *words)
    assert expected in text
    assert "such.ova" not in text
    assert "s3cret" not in text


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        pytest.param(("-op", "/etc/hostname"), "password", marks=pytest.mark.rows("4-T07")),
        pytest.param(
            ("-oo", "os-username=u"), "os-username is not an option of output glance",
            marks=pytest.mark.rows("4-T10"),
        ),
        (("-oc", "https://cloud/v3"), "-oc"),
        (("-os", "fast"), "-os"),
        (("-oa", "preallocated"), "preallocated"),
        pytest.param(("-of", "vmdk"), "vmdk", marks=pytest.mark.rows("4-T03")),
    ],
)  # fmt: skip
def test_what_glance_refuses(
    words: tuple[str, ...], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = refusal(capsys, "-o", "glance", *words)
    assert expected in text
    assert "such.ova" not in text


def test_the_client_library_is_loaded_for_these_outputs_alone(repository: Path) -> None:
    program = (
        "import sys, conversions.pipeline.cli, conversions.pipeline.run\n"
        "assert 'openstack' not in sys.modules and 'keystoneauth1' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], cwd=repository, check=True)


# --- Volumes -------------------------------------------------------------------------------------


@pytest.mark.rows("4-T73", "4-T74")
def test_a_disk_becomes_a_volume(scene: Callable[..., Scene]) -> None:
    place = scene(512, genid=GENID)
    options = place.options(guest_id="guest-7")
    place.convert(place.output(options=options, storage="fast"))
    volume = place.server.cloud.volume("web_01-sda")
    assert volume["size"] == 1
    assert volume["volume_type"] == "fast"
    assert volume["status"] == "available"
    temporary, final = volume["descriptions"]
    assert temporary == "Temporary volume of web_01, being converted"
    assert final == "web_01: disk 1/1, converted by v2vweb"
    assert volume["bootable"] == "true"
    assert volume["volume_image_metadata"] == image_properties(place.meta())
    date = volume["metadata"].pop("virt_v2v_conversion_date")
    assert len(date) == len("2026/01/31 12:00:00")
    assert UUID(volume["metadata"].pop(MARK))
    assert volume["metadata"] == {
        "virt_v2v_version": "v2vweb 0.1.0",
        "virt_v2v_guest_name": "web_01",
        "virt_v2v_disk_index": "1/1",
        "virt_v2v_vm_generation_id": GENID,
        "virt_v2v_guest_id": "guest-7",
    }
    assert place.calls == [
        "token issue",
        "volume create web_01-sda",
        "server add volume web_01-sda",
        "server remove volume web_01-sda",
        "volume set bootable web_01-sda",
        "volume set properties web_01-sda",
        "volume set web_01-sda",
    ]
    assert_same(place, "web_01-sda", 0)


@pytest.mark.parametrize("parallel", [1, 2])
def test_every_disk_has_its_own_bytes(parallel: int, scene: Callable[..., Scene]) -> None:
    place = scene(16, 24, 8)
    place.convert(place.output(), copy=CopyOptions(parallel=parallel), boot_disk=1)
    for number, letter in enumerate("abc"):
        assert_same(place, f"web_01-sd{letter}", number)
        volume = place.server.cloud.volume(f"web_01-sd{letter}")
        assert volume["metadata"]["virt_v2v_disk_index"] == f"{number + 1}/3"
        # The machine is started from the disk that has its boot loader.
        assert volume["bootable"] == str(letter == "b").lower()
        assert ("volume_image_metadata" in volume) == (letter == "b")
    assert place.warnings() == []
    [*_before, files] = [e["data"] for e in place.report.of("report") if e["name"] == "files"]
    assert [entry["bytes"] for entry in files["created"]] == [1 << 30] * 3


@pytest.fixture
def loop_device() -> Iterator[Callable[[Path], Path]]:
    """Makes block devices of files; skips where none can be had."""
    if not os.access("/dev/loop-control", os.W_OK):
        pytest.skip("this host gives no loop device")
    made = []

    def make(file: Path) -> Path:
        command = ["losetup", "--find", "--show", str(file)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        made.append(done.stdout.strip())
        return Path(made[-1])

    yield make
    for device in made:
        subprocess.run(["losetup", "--detach", device], check=True)


def test_a_real_device_is_filled_and_every_byte_checked(
    scene: Callable[..., Scene], loop_device: Callable[[Path], Path]
) -> None:
    place = scene(16)
    place.server.cloud.device_of = loop_device
    place.convert(place.output(), copy=CopyOptions(verify="full"))
    assert place.report.data("copy")[0]["verified"] == "full"
    assert_same(place, "web_01-sda", 0)


@pytest.mark.rows("4-T75")
@pytest.mark.parametrize(
    ("mood", "expected", "detached"),
    [
        ({"create_status": 413}, "ExceedsAvailableQuota.* .HTTP 413", False),
        ({"volume_status": "error"}, "is error, where available was expected", False),
        ({"attach_status": 403}, "no room for another disk", False),
        ({"attach_fails_later": True}, "is available, where in-use was expected", False),
        ({"device_appears": False}, "is that the one this program runs on", True),
        ({"volume_bytes": MIB}, "has 1.0 MiB; the disk needs 16.0 MiB", True),
        ({"describe_status": 500}, "Not today", True),
    ],
    ids=["quota", "error", "refused", "fails-later", "no-device", "small", "no-description"],
)
def test_a_failure_takes_volumes_off_the_server_and_deletes_them(
    mood: dict[str, Any],
    expected: str,
    detached: bool,
    scene: Callable[..., Scene],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(openstack_cloud, "LIMIT_SECONDS", 0.3)
    place = scene(16)
    place.server.cloud.mood = Mood(**mood)
    with pytest.raises(TargetError, match=expected):
        place.convert(place.output())
    assert place.server.cloud.volumes == {}
    if "create_status" in mood:
        assert set(place.calls) == NOTHING_MADE
    else:
        assert place.calls[-1] == "volume delete web_01-sda"
    assert ("server remove volume web_01-sda" in place.calls) == detached
    assert place.warnings() == []


def test_what_was_copied_before_a_failure_is_deleted_too(scene: Callable[..., Scene]) -> None:
    place = scene(16, 16)
    output = place.output()
    with (
        pytest.raises(TargetError, match="no room for another disk"),
        output.prepare(place.source, place.overlays) as targets,
    ):
        first, second = output.target_disks(place.source, place.overlays, {})
        targets.close(targets.open(first))
        place.server.cloud.mood.attach_status = 403
        targets.open(second)
    assert place.server.cloud.volumes == {}


def test_leaving_without_a_commit_deletes_the_volumes(scene: Callable[..., Scene]) -> None:
    place = scene(16)
    output = place.output()
    with output.prepare(place.source, place.overlays) as targets:
        [disk] = output.target_disks(place.source, place.overlays, {})
        targets.open(disk)
    assert place.calls[-2:] == ["server remove volume web_01-sda", "volume delete web_01-sda"]


def test_a_volume_that_cannot_be_deleted_is_named(scene: Callable[..., Scene]) -> None:
    place = scene(16)
    place.server.cloud.mood.volume_status = "maintenance"
    with pytest.raises(TargetError, match="is maintenance"):
        place.convert(place.output())
    [volume_id] = place.server.cloud.volumes
    [warning] = place.warnings()
    assert f"has to be deleted by hand ({volume_id})" in warning


@pytest.mark.parametrize("attaching", [False, True])
def test_a_stop_while_waiting_for_the_device_removes_the_volume(
    attaching: bool, scene: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stop, "_asked", threading.Event())
    place = scene(16)
    place.server.cloud.mood.device_appears = False
    place.server.cloud.mood.attach_looks = 60 if attaching else 2
    raised: list[BaseException] = []

    def work() -> None:
        try:
            place.convert(place.output())
        except Stopped as error:
            raised.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    while not any(call.startswith("server add") for call in place.calls):
        thread.join(0.02)
        assert thread.is_alive()
    stop.ask_stop("a test asked")
    if attaching:
        assert place.server.cloud.volume("web_01-sda")["status"] == "attaching"
    stop.join_or_stop(thread)
    assert len(raised) == 1
    assert place.server.cloud.volumes == {}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"password": "wr0ng-word"}, "Signing in to OpenStack failed"),
        ({"password": None}, "No password"),
        ({"uri": "http://127.0.0.1:1/v3"}, "Signing in to OpenStack failed"),
        ({"uri": ""}, "Signing in to OpenStack failed"),
        ({"options": {"server_id": SERVER[::-1]}}, "could not be found"),
        ({"options": {"os_cloud": "nowhere"}}, "nowhere was not found"),
        ({"options": {"os_region_name": "elsewhere"}}, "elsewhere"),
        ({"storage": "slow"}, "Volume type slow was not found"),
        ({"quota_gib": 1}, "is 1; 0 are in use and 2 more are needed"),
    ],
    ids=["password", "no-password", "no-answer", "no-address", "server", "cloud", "region", "type",
         "quota"],
)  # fmt: skip
def test_refused_before_anything_is_converted(
    change: dict[str, Any], expected: str, scene: Callable[..., Scene]
) -> None:
    place = scene(16, 16)
    place.server.cloud.mood.quota_gib = change.pop("quota_gib", 1000)
    if "options" in change:
        change["options"] = place.options(**change["options"])
    output = place.output(**change)
    with (
        pytest.raises(TargetError, match=expected) as raised,
        output.prepare(place.source, place.overlays),
    ):
        raise AssertionError("not reached")
    assert set(place.calls) <= NOTHING_MADE
    assert "wr0ng" not in raised.value.message


# --- Signing in ----------------------------------------------------------------------------------


@pytest.mark.rows("4-T74")
def test_an_unknown_certificate_is_refused_unless_verification_is_off(
    https: tuple[OpenStackServer, Path], scene: Callable[..., Scene]
) -> None:
    server, certificate = https
    place = scene(16, server=server)
    with pytest.raises(TargetError, match="certificate verify failed"):
        place.convert(place.output())
    assert place.calls == []
    with place.output(options=place.options(os_cacert=str(certificate))).prepare(
        place.source, place.overlays
    ):
        assert place.calls == ["token issue"]
    place.convert(place.output(options=place.options(verify_server_certificate="false")))
    assert server.cloud.volume("web_01-sda")["bootable"] == "true"
    assert "not verified" in place.warnings()[0]


def test_a_keystone_that_leads_elsewhere_is_not_followed(scene: Callable[..., Scene]) -> None:
    cloud = scene()
    cloud.mood.redirect = "http://127.0.0.1:9/v3"
    with pytest.raises(TargetError, match="sends us elsewhere, which is not followed"):
        cloud.convert(cloud.output())
    assert cloud.calls == []


def test_the_password_may_be_in_a_file(scene: Callable[..., Scene]) -> None:
    place = scene(16)
    file = place.folder / "password"
    file.write_text(f"{PASSWORD}\nsecond line\n")
    place.convert(place.output(password=None, password_file=str(file)))
    assert place.server.cloud.volumes


def test_the_library_s_own_settings_are_read(
    scene: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = scene(16)
    auth = {
        "auth_url": place.server.auth_url, "username": place.mood.user, "password": PASSWORD,
        "user_domain_name": "Default", "project_name": "moves", "project_domain_name": "Default",
    }  # fmt: skip
    # JSON is YAML.
    clouds = {
        "clouds": {"one": {"auth": auth}, "other": {"auth": {"auth_url": "http://x.invalid"}}}
    }
    (place.folder / "clouds.yaml").write_text(json.dumps(clouds))
    bare = {"server-id": (SERVER,), "dev-disk-by-id": (str(place.server.cloud.by_id),)}
    named = place.output(password=None, uri="", options={**bare, "os-cloud": ("one",)})
    with named.prepare(place.source, place.overlays):
        assert place.calls == ["token issue"]
    environment(monkeypatch, place.server)
    with place.output(password=None, uri="", options=bare).prepare(place.source, place.overlays):
        assert place.calls == ["token issue"] * 2
    (place.folder / "clouds.yaml").write_text("clouds: [")
    with (
        pytest.raises(TargetError, match="Signing in"),
        named.prepare(place.source, place.overlays),
    ):
        raise AssertionError("not reached")


@pytest.mark.rows("4-T116")
def test_the_password_is_shown_and_kept_nowhere(
    scene: Callable[..., Scene], capfd: pytest.CaptureFixture[str]
) -> None:
    place = scene(16)
    words = [f"-oo={key}={value}" for key, (value,) in place.options().items()]
    arguments = ["-i", "ova", "x.ova", "-o", "osp", "-oc", place.server.auth_url, *words]
    job = job_from(options_parser().parse_args([*arguments, f"-oo=os-password={PASSWORD}"]))
    assert job.target
    values, sealed = take_secrets(job)
    assert PASSWORD not in f"{job!r}{values}{sealed}"
    assert with_secrets(values, sealed) == job == Job.from_json(job.to_json())
    place.convert(OpenStackOutput(job.target, None, place.report))
    assert place.server.cloud.volumes  # it was the right password
    # The programs that ran are in the events, with their arguments.
    assert "qemu-img convert" in json.dumps(place.report.events)
    captured = capfd.readouterr()
    assert PASSWORD not in json.dumps(place.report.events) + captured.out + captured.err
    with pytest.raises(JobError, match="os-password of output openstack is secret") as raised:
        Job.from_dict(
            {**values, "target": {**values["target"], "options": {"os-password": [PASSWORD]}}}
        )
    assert PASSWORD not in raised.value.message


# --- Properties ----------------------------------------------------------------------------------

CAPS = expected_guestcaps()
SLES = replace(GUEST, distro="sles", major_version=15, minor_version=4)


@pytest.mark.parametrize(
    ("values", "present", "absent"),
    [
        pytest.param(
            {
                "source": make_source(
                    vcpus=2, cpu_topology=CpuTopology(sockets=1, cores=2, threads=1)
                ),
                "guestcaps": replace(CAPS, block_bus=BlockBus.VIRTIO_SCSI),
                "guest": SLES,
                "uefi": True,
            },
            {
                "os_type": "linux", "os_distro": "sled", "os_version": "15.4",
                "hw_disk_bus": "scsi", "hw_scsi_model": "virtio-scsi",
                "hw_firmware_type": "uefi",
                "hw_cpu_sockets": "1", "hw_cpu_cores": "2", "hw_cpu_threads": "1",
            },
            set(),
            marks=pytest.mark.rows("4-T119"),
        ),
        (
            {},
            {
                "architecture": "x86_64", "hypervisor_type": "kvm", "vm_mode": "hvm",
                "hw_disk_bus": "virtio", "hw_vif_model": "virtio", "hw_video_model": "vga",
                "hw_machine_type": "q35", "hw_rng_model": "virtio",
                "os_type": "linux", "os_distro": "debian", "os_version": "11.4",
                "hw_cpu_sockets": "1", "hw_cpu_cores": "2",
            },
            {"hw_scsi_model", "hw_firmware_type", "hw_cpu_threads"},
        ),
        (
            {
                "guestcaps": replace(
                    CAPS, block_bus=BlockBus.IDE, net_bus=NetBus.RTL8139, machine=Machine.I440FX,
                    virtio_rng=False,
                ),
                "guest": replace(GUEST, distro="archlinux", major_version=0, minor_version=0),
            },
            {"hw_disk_bus": "ide", "hw_vif_model": "rtl8139", "hw_machine_type": "pc",
             "os_distro": "arch"},
            {"os_version", "hw_rng_model"},
        ),
        ({"guest": replace(GUEST, minor_version=0)}, {"os_version": "11"}, set()),
        ({"guest": None}, {"vm_mode": "hvm"}, {"os_type", "os_distro", "os_version"}),
    ],
    ids=["T119", "usual", "emulated", "no-minor", "not-inspected"],
)  # fmt: skip
def test_properties(values: dict[str, Any], present: dict[str, str], absent: set[str]) -> None:
    found = image_properties(make_meta(**values))
    assert {key: found.get(key) for key in present} == present
    assert not absent & found.keys()


# --- Images --------------------------------------------------------------------------------------


@pytest.mark.rows("4-T120")
@pytest.mark.parametrize("format_", ["qcow2", "raw"])
def test_every_disk_becomes_an_image(
    format_: str, scene: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = scene(16, 24, 8, name="vm")
    cloud = place.server.cloud
    environment(monkeypatch, place.server)
    cloud.staging = place.folder / "work"
    # A file of the machine's name is none of our business.
    (place.folder / "vm").write_text("something else")
    place.convert(place.glance(format_), copy=CopyOptions(parallel=3))
    for number, name in enumerate(("vm", "vm-disk2", "vm-disk3")):
        image = cloud.image(name)
        assert (image["status"], image["disk_format"]) == ("active", format_)
        assert (image["container_format"], image["min_ram"]) == ("bare", 1024)
        assert image.items() >= image_properties(place.meta()).items()
        command = ["qemu-img", "compare", "-q", "-f", "raw", "-F", format_]
        file = cloud.folder / f"image-{image['id']}"
        subprocess.run([*command, f"source{number}.raw", file], check=True, cwd=place.folder)
    assert cloud.staged == [["upload-sda"], ["upload-sdb"], ["upload-sdc"]]
    assert list((place.folder / "work").glob("upload-*")) == []


@pytest.mark.parametrize(
    ("mood", "expected"),
    [
        ({"upload_status": 413}, "exceeds the quota.* .HTTP 413"),
        ({"upload_status": 503}, "HTTP 503"),
        ({"upload_cut_after": 1000}, "Image vm could not be uploaded"),
        ({"upload_loses": 512}, "Image vm is not what was sent"),
    ],
    ids=["quota", "busy", "broken-off", "loses-bytes"],
)
def test_an_upload_that_fails_leaves_nothing(
    mood: dict[str, Any],
    expected: str,
    scene: Callable[..., Scene],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = scene(16, 16, name="vm")
    environment(monkeypatch, place.server)
    place.server.cloud.mood = Mood(**mood)
    with pytest.raises(TargetError, match=expected):
        place.convert(place.glance())
    assert place.server.cloud.images == {}
    assert place.calls[-1] == "image delete vm"
    assert list((place.folder / "work").glob("upload-*")) == []


def test_a_stop_ends_an_upload(
    scene: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = scene(16, name="vm")
    environment(monkeypatch, place.server)
    output = place.glance()
    with (
        pytest.raises(Stopped),
        output.prepare(place.source, place.overlays) as targets,
    ):
        [disk] = output.target_disks(place.source, place.overlays, {})
        Path(disk.part_path).write_bytes(bytes(MIB))
        monkeypatch.setattr(stop, "_asked", threading.Event())
        stop.ask_stop("a test asked")
        targets.close(disk)
    assert place.calls[-2:] == ["image create vm", "image delete vm"]
    assert not Path(disk.part_path).exists()


def test_images_are_not_staged_all_together_while_the_guest_is_converted() -> None:
    target = Target(kind="glance")
    job = Job(
        mode=Mode.COPY,
        source=Input(kind="ova", location="/x.ova"),
        target=target,
        copy=CopyOptions(overlap="always"),
    )
    output = GlanceOutput(target, "vm", RecordingReporter())
    disks = output.target_disks(make_source(), [target_disk(0).overlay], {})
    assert not can_copy_early(job, GUEST, {}, disks)


def test_glance_is_asked_before_anything_is_converted(
    scene: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = scene(16)
    with (
        pytest.raises(TargetError, match="auth_url"),
        place.glance().prepare(place.source, place.overlays),
    ):
        raise AssertionError("not reached")
    environment(monkeypatch, place.server)
    monkeypatch.setenv("OS_PASSWORD", "wr0ng-word")
    with (
        pytest.raises(TargetError, match="requires authentication"),
        place.glance().prepare(place.source, place.overlays),
    ):
        raise AssertionError("not reached")


# --- What a kill leaves --------------------------------------------------------------------------


def killed(place: Scene, target: Target, moment: str) -> Job:
    """Kill an engine with -9 at its copy, or when the cloud has done something but not answered.

    Returns the job.  Things of somebody else have the names that ours get.
    """
    cloud = place.server.cloud
    for things in (cloud.volumes, cloud.images):
        other = {"id": str(uuid4()), "name": "web-sda", "status": "available", "size": 1}
        things[other["id"]] = other | {"metadata": {MARK: str(uuid4())}, MARK: str(uuid4())}
    job = Job(
        mode=Mode.COPY,
        source=Input(kind="disk", location=str(place.folder / "source0.raw"), format="raw"),
        target=target,
        copy=CopyOptions(keep_converted=True, rate_bytes=MIB // 4 if moment == "copy" else None),
        name="web-sda" if target.kind == "glance" else "web",
        work_dir=str(place.folder / "killed"),
    )
    cloud.hold_at = moment
    engine = started(job)
    kill_when(engine, lambda: cloud.holding.is_set() or (moment == "copy" and is_copying(engine)))
    cloud.go_on.set()
    return job


def tidied(work: Path, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """Clean up after a killed engine; return the exit status and what was said."""
    status = main(["--clean-up", str(work), *words])
    captured = capsys.readouterr()
    return status, captured.out + captured.err


def assert_goes_on_from_the_copy(place: Scene, job: Job) -> None:
    """See that the converted disks were kept and nothing is in the way of a second run."""
    work = Path(job.work_dir)
    assert sorted(path.name for path in work.iterdir()) == [RECORD, "v2vovl-sda.qcow2"]
    again = {"copy": CopyOptions(), "resume": str(work), "work_dir": str(place.folder / "again")}
    convert(replace(job, **again), place.report)
    assert not work.exists()


@pytest.mark.parametrize(
    "moment",
    ["volume create", "server add volume", "copy", "server remove volume", "volume set bootable",
     "volume set web"],
)  # fmt: skip
def test_volumes_of_a_killed_engine_are_taken_off_and_deleted(
    moment: str, scene: Callable[..., Scene], capsys: pytest.CaptureFixture[str]
) -> None:
    place = scene(16)
    cloud = place.server.cloud
    job = killed(place, place.output().target, moment)
    work = Path(job.work_dir)
    foreign, ours = cloud.volumes
    assert not any(PASSWORD.encode() in p.read_bytes() for p in work.rglob("*") if p.is_file())

    status, said = tidied(work, capsys)
    assert status == 1
    mark = cloud.volumes[ours]["metadata"][MARK]
    assert "No password" in said
    assert f"OpenStack at 127.0.0.1, project {place.mood.project}" in said
    assert f"volume web-sda (run {mark})" in said
    assert (work / NOTES).exists()
    assert list(cloud.volumes) == [foreign, ours]

    status, said = tidied(work, capsys, "-oo", f"os-password={PASSWORD}")
    assert status == 0
    assert f"Removed: volume web-sda ({ours})" in said
    assert list(cloud.volumes) == [foreign]
    assert [path.name for path in cloud.by_id.iterdir() if path.is_symlink()] == []
    assert_goes_on_from_the_copy(place, job)
    assert len(cloud.volumes) == 2


@pytest.mark.parametrize("moment", ["image create", "image receive", "image set"])
def test_images_of_a_killed_engine_are_deleted(
    moment: str,
    scene: Callable[..., Scene],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = scene(16)
    cloud = place.server.cloud
    environment(monkeypatch, place.server)
    job = killed(place, place.glance().target, moment)
    foreign, ours = cloud.images
    clean_up(Path(job.work_dir), place.report, lambda target: target)
    assert place.report.data("files") == {"created": [], "removed": [f"web-sda ({ours})"]}
    assert list(cloud.images) == [foreign]
    assert_goes_on_from_the_copy(place, job)
    assert len(cloud.images) == 2


def test_leftovers_are_not_looked_for_in_another_project(
    scene: Callable[..., Scene],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """There they would be missing, and count as removed."""
    place = scene(16)
    environment(monkeypatch, place.server)
    work = Path(killed(place, place.glance().target, "image create").work_dir)
    first, place.mood.project = place.mood.project, "f" * 32
    status, said = tidied(work, capsys)
    assert status == 1
    assert f"project {place.mood.project}; the run" in said
    assert f"worked at OpenStack at 127.0.0.1, project {first}" in said
    assert (work / NOTES).exists()


def test_a_volume_that_stays_is_named_and_the_others_are_deleted(
    scene: Callable[..., Scene], capsys: pytest.CaptureFixture[str]
) -> None:
    place = scene(16, 16)
    cloud = place.server.cloud
    work = place.folder / "work"
    with place.output().prepare(place.source, place.overlays) as targets:
        for disk in targets.disks:
            targets.close(targets.open(disk))
        targets.committed = True  # as after a kill: nothing is removed on the way out
    stuck, other = cloud.volumes
    cloud.volumes[stuck]["status"] = "maintenance"
    status, said = tidied(work, capsys, "-oo", f"os-password={PASSWORD}")
    assert status == 1
    assert list(cloud.volumes) == [stuck]
    assert f"Removed: volume web_01-sdb ({other})" in said
    assert f"has to be deleted by hand ({stuck})" in said
    assert "made: volume web_01-sda" in said
    assert "volume web_01-sdb (run" not in said
    cloud.volumes[stuck]["status"] = "error"
    assert tidied(work, capsys, "-oo", f"os-password={PASSWORD}")[0] == 0
    assert cloud.volumes == {}
    assert not work.exists()
