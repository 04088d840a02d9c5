"""What each kind of output takes and what it refuses, on the command line and in a job."""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from unittest.mock import MagicMock

import pytest

from conversions.pipeline import run
from conversions.pipeline.cli import main
from conversions.pipeline.convert import likely_guestcaps
from conversions.pipeline.errors import JobError, TargetError
from conversions.pipeline.job import CopyOptions, Input, Job, Mode, Target
from conversions.pipeline.last_steps import check_target
from conversions.pipeline.output_kinds import KINDS, has_serial_console, kind_of
from conversions.pipeline.outputs import output_for
from conversions.pipeline.report import RecordingReporter
from conversions.pipeline.steps import Step
from conversions.pipeline.target_options import add_target_options, target_from
from conversions.pipeline.types import Inspection, Machine
from tests.unit.pipeline.samples import GUEST, make_meta, make_source, target_disk

FOLDER_KINDS = [name for name, kind in KINDS.items() if kind.place == "directory"]


def job(target: Target) -> Job:
    """Return a job with that target."""
    return Job(mode=Mode.COPY, source=Input(kind="ova", location="/x.ova"), target=target)


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Run the command line with output options over a source that does not exist."""
    try:
        status = main(["-i", "ova", "/no/such.ova", *words])
    except SystemExit as ended:
        status = int(str(ended.code))
    captured = capsys.readouterr()
    assert status, words
    return captured.err + captured.out


@pytest.mark.rows("4-T02")
@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("local", "local"), ("disk", "local"),
        *((alias, "openstack") for alias in ("openstack", "osp", "rhosp")),
        ("ovirt", "ovirt"), ("rhv", "ovirt"), ("rhev", "ovirt"),
        *((alias, "ovirt-upload") for alias in
          ("ovirt-upload", "ovirt_upload", "rhv-upload", "rhv_upload")),
        ("vdsm", "vdsm"),
    ],
)  # fmt: skip
def test_t02_spellings(alias: str, name: str) -> None:
    assert kind_of(alias).name == name


@pytest.mark.rows("4-T03", "4-T04", "4-T06", "4-T08", "4-T11", "4-T12", "4-T24", "4-T91")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("-o", "json"), "'json'"),
        (("-o", "nonsense"), "'nonsense'"),
        (("-o", "local", "-os", "/tmp", "-of", "vmdk"), "vmdk"),
        (("-o", "local", "-os", "/tmp", "-oa", "sparse", "-oa", "sparse"), "given twice"),
        (("-o", "local", "-os", "/tmp", "-oa", "thin"), "thin"),
        (("-o", "local"), "directory"),
        (("-o", "null", "-of", "qcow2"), "qcow2"),
        (("-o", "null", "-oa", "preallocated"), "preallocated"),
        (("-o", "null", "-os", "/tmp"), "/tmp"),
        (("-o", "null", "-oo", "compressed"), "compressed"),
        (("-o", "null", "-oc", "qemu:///system"), "qemu:///system"),
        (("-o", "local", "-os", "/tmp", "-oo", "compressed", "-of", "raw"), "raw"),
        (("-o", "local", "-os", "/tmp", "-oo", "compressed=yes"), "yes"),
        (
            ("-o", "local", "-os", "/tmp", "-oo", "compressed", "-oa", "preallocated"),
            "exclude each other",
        ),
        (("-o", "local", "-os", "/tmp", "--parallel", "0"), "parallel 0"),
        (("-o", "local", "-os", "/tmp", "--parallel", "-1"), "parallel -1"),
        (("-o", "qemu", "-os", "/tmp", "-oo", "qemu-boot=perhaps"), "perhaps"),
    ],
    ids=[
        "T03-json", "T03-kind", "T03-format", "T04-twice", "T04-value", "T06", "T08-format",
        "T08-allocation", "T08-folder", "T08-option", "T08-connection", "T11", "T12", "T91",
        "T24", "T24-negative", "T12-qemu",
    ],
)  # fmt: skip
def test_refused_before_the_source_is_opened(
    words: tuple[str, ...], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = refusal(capsys, *words)
    assert expected in text
    assert "such.ova" not in text


@pytest.mark.rows("4-T10")
@pytest.mark.parametrize("name", KINDS)
def test_t10_an_unknown_key_names_the_kind(name: str) -> None:
    with pytest.raises(JobError, match=f"colour is not an option of output {name}"):
        Target_of(name, options={"colour": ("red",), **needed(name)})


def needed(name: str) -> dict[str, tuple[str, ...]]:
    """Return the options that a kind cannot do without."""
    return dict.fromkeys(KINDS[name].required, ("x",))


def Target_of(name: str, **values: object) -> Job:  # noqa: N802  reads like the class it fills
    """Return a job with a target of that kind that has all it needs."""
    kind = KINDS[name]
    base: dict[str, object] = {"kind": name, "format": kind.formats[0], "options": needed(name)}
    if kind.place:
        base[kind.place] = "/tmp"
    if kind.uri_required:
        base["uri"] = "https://server.example/api"
    if kind.password_required:
        base["password_file"] = "/etc/hostname"
    return job(Target(**(base | values)))  # type: ignore[arg-type]


@pytest.mark.rows("4-T07")
@pytest.mark.parametrize("name", [n for n, k in KINDS.items() if not k.takes_password])
def test_t07_a_password_that_nobody_asks_for(name: str) -> None:
    with pytest.raises(JobError, match="takes no password"):
        Target_of(name, password_file="/etc/hostname")


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_can_be_had(name: str) -> None:
    assert output_for(Target_of(name), Path("/w"), RecordingReporter()).describe()


@pytest.mark.rows("4-T05")
def test_t05_the_format_is_qcow2_and_recorded() -> None:
    assert job(Target(directory="/t")).to_dict()["target"]["format"] == "qcow2"


@pytest.mark.parametrize(
    ("guest", "refused"),
    [
        (GUEST, False),
        (replace(GUEST, uefi_esps=("/dev/sda1",)), False),
        (replace(GUEST, uefi_esps=("/dev/sda1",), arch="i686"), False),
        (replace(GUEST, uefi_esps=("/dev/sda1",), arch="s390x"), True),
        (replace(GUEST, arch="s390x"), False),
    ],
)
def test_what_the_target_cannot_have_is_refused_before_the_conversion(
    guest: Inspection, refused: bool
) -> None:
    wanted = Target_of("qemu")
    output = output_for(wanted, Path("/w"), RecordingReporter())
    source = make_source(vcpus=5)
    disks = output.target_disks(source, [target_disk(0).overlay], {})
    with (
        pytest.raises(TargetError, match="No UEFI firmware is known for s390x")
        if refused
        else nullcontext()
    ):
        check_target(wanted, source, guest, output, disks)


def test_a_refused_machine_is_not_converted_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guest = replace(GUEST, uefi_esps=("/dev/sda1",), arch="s390x")
    for name in ("Appliance", "unlock", "list_filesystems", "check_filesystems"):
        monkeypatch.setattr(run, name, MagicMock())
    monkeypatch.setattr(run, "inspect_guest", lambda *_what, **_how: guest)
    monkeypatch.setattr(run, "mountpoint_stats", lambda *_what: ())
    disk = tmp_path / "a.raw"
    disk.write_bytes(bytes(1 << 20))
    wanted = Job(
        mode=Mode.COPY,
        source=Input(kind="disk", location=str(disk), format="raw"),
        target=Target(kind="qemu", directory=str(tmp_path)),
        work_dir=str(tmp_path / "work"),
    )
    report = RecordingReporter()
    with pytest.raises(TargetError, match="No UEFI firmware is known for s390x"):
        run.convert(wanted, report)
    assert report.current == Step.SPACE
    assert list(tmp_path.iterdir()) == [disk]


@pytest.mark.parametrize(
    ("guest", "machine", "arch"),
    [
        (GUEST, Machine.Q35, "x86_64"),
        (replace(GUEST, distro="centos", major_version=5, arch="i386"), Machine.I440FX, "x86_64"),
        (replace(GUEST, arch="aarch64"), Machine.VIRT, "aarch64"),
        (replace(GUEST, type="windows", osinfo="winxp", major_version=5), Machine.I440FX, "x86_64"),
        (replace(GUEST, type="windows", osinfo="win10", major_version=10), Machine.Q35, "x86_64"),
    ],
)
def test_the_machine_is_known_before_the_conversion(
    guest: Inspection, machine: Machine, arch: str
) -> None:
    caps = likely_guestcaps(guest)
    assert (caps.machine, caps.arch) == (machine, arch)


@pytest.mark.rows("4-T06")
def test_t06_a_folder_that_is_not_one(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for path in (tmp_path / "missing", file):
        output = output_for(job(Target(directory=str(path))), Path("/w"), RecordingReporter())
        with (
            pytest.raises(TargetError, match=str(path)),
            output.prepare(make_source(), [target_disk(0).overlay]),
        ):
            raise AssertionError("not reached")


@pytest.mark.rows("4-T13")
@pytest.mark.parametrize("name", KINDS)
def test_t13_help_for_the_options(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-o", name, "-oo", "?"]) == 0
    text = capsys.readouterr().out
    assert all(key in text for key in KINDS[name].options)
    assert name in text


@pytest.mark.rows("4-T14", "4-T15", "4-T16")
@pytest.mark.parametrize(
    ("name", "renamed", "stem"),
    [("windows", None, "windows"), ("windows", "app-7", "app-7"), ("a/b", None, "a_b")],
    ids=["T14", "T14-renamed", "T15"],
)
@pytest.mark.parametrize("kind", ["local", "qemu"])
def test_names_of_files(
    kind: str, name: str, renamed: str | None, stem: str, tmp_path: Path
) -> None:
    request = job(Target(kind=kind, directory=str(tmp_path)))
    output = type(output_for(request, Path("/w"), RecordingReporter()))(
        request.target,
        renamed,
        RecordingReporter(),  # type: ignore[call-arg]
    )
    overlays = [target_disk(n).overlay for n in range(28)]
    disks = output.target_disks(make_source(name=name), overlays, {})
    names = [Path(d.final_path).name for d in disks]
    assert names[0] == f"{stem}-sda"
    assert names[25:] == [f"{stem}-sdz", f"{stem}-sdaa", f"{stem}-sdab"]
    meta = make_meta(source=make_source(name=name), name=output.name_for(make_source(name=name)))
    with output.prepare(meta.source, overlays[:1]) as targets:
        Path(targets.disks[0].part_path).touch()
        output.write_metadata(targets, meta)
        targets.commit()
    suffix = {"local": ".xml", "qemu": ".sh"}[kind]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [f"{stem}-sda", f"{stem}{suffix}"]
    )
    text = (tmp_path / f"{stem}{suffix}").read_text()
    assert (f"<name>{stem}</name>" if kind == "local" else f"-name guest={stem} ") in text


@pytest.mark.rows("4-T109")
def test_t109_the_capabilities(capsys: pytest.CaptureFixture[str]) -> None:
    """The name is ours; the words after it are virt-v2v's.  With a source it is an option."""
    assert main(["--machine-readable"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == ["v2vweb", "virt-v2v-2.0", "libguestfs-rewrite"]
    assert len(set(lines)) == len(lines)
    wanted = {f"input:{name}" for name in ("disk", "libvirt", "libvirtxml", "ova", "vmx")}
    wanted |= {"output:disk", "output:local", "convert:linux", "convert:windows"}
    wanted |= {f"output:{name}" for name in KINDS}
    assert wanted <= set(lines)
    assert main(["--machine-readable", "-i", "ova", "/no/such.ova", "--inspect"]) == 1
    said = capsys.readouterr()
    assert "such.ova" in said.err
    assert "libguestfs-rewrite" not in said.out


UPLOAD = ("-o", "rhv-upload", "-oc", "https://h/ovirt-engine/api", "-op", "/p", "-os", "data")


@pytest.mark.rows("4-T76")
@pytest.mark.parametrize(
    ("missing", "words"),
    [("-oc", "needs the address of its server"), ("-op", "needs a password"),
     ("-os", "needs a target storage")],
)  # fmt: skip
def test_an_upload_to_ovirt_says_what_is_missing(
    missing: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    place = UPLOAD.index(missing)
    assert words in refusal(capsys, *UPLOAD[:place], *UPLOAD[place + 2 :])


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("-oa", "preallocated"), "preallocated"),
        (("-oo", "rhv-verifypeer=perhaps"), "perhaps"),
        (("-oo", "rhv-cluster=a", "-oo", "ovirt-cluster=b"), "given 2 times"),
        (("-oo", "rhv-colour=red"), "ovirt-colour is not an option"),
        (("-oo", "compressed"), "compressed is not an option"),
    ],
)
def test_what_an_upload_to_ovirt_does_not_take(
    words: tuple[str, ...], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert expected in refusal(capsys, *UPLOAD, *words)


def test_the_older_spelling_of_ovirts_options() -> None:
    parser = argparse.ArgumentParser()
    add_target_options(parser)
    old = ("-oo", "rhv-cluster=c", "-oo", "rhv-disk-uuid=1", "-oo", "ovirt-disk-uuid=2")
    target = target_from(parser.parse_args([*UPLOAD, *old]))
    assert (target.kind, target.storage, target.format) == ("ovirt-upload", "data", "qcow2")
    assert target.options == {"ovirt-cluster": ("c",), "ovirt-disk-uuid": ("1", "2")}


@pytest.mark.rows("2-T114")
@pytest.mark.parametrize("name", KINDS)
def test_only_ovirts_storage_has_no_serial_console(name: str) -> None:
    target = Target_of(name).target
    assert has_serial_console(target) == (name not in ("ovirt", "vdsm"))
    assert has_serial_console(None)


def test_copy_options_survive_json() -> None:
    options = CopyOptions(parallel=3, rate_bytes=1 << 20, verify="full", digests=True)
    request = Job(
        mode=Mode.COPY,
        source=Input(kind="ova", location="/x.ova"),
        target=Target(kind="qemu", directory="/t", options={"qemu-boot": ("true",)}),
        copy=options,
    )
    assert Job.from_json(request.to_json()) == request
    for key, value in (("parallel", 0), ("rate_bytes", 0), ("verify", "some"), ("digests", 1)):
        with pytest.raises(JobError):
            Job.from_dict(request.to_dict() | {"copy": {key: value}})
