"""Spec 0.1 and 0.2: which reader takes a source on another host, and what does not fit it."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from conversions.pipeline.cli import main
from conversions.pipeline.errors import JobError
from conversions.pipeline.job import Input, Job, Mode
from conversions.secrets import take_secrets, with_secrets
from inventory.sources import libvirt_host, remote
from inventory.sources.domain_ssh import SshDomainReader
from inventory.sources.errors import SourceError
from inventory.sources.libvirt_host import LibvirtReader
from inventory.sources.readers import reader_for
from inventory.sources.vddk import VddkReader
from inventory.sources.vmware import VmwareHttpsReader
from inventory.sources.vmx import VmxReader
from inventory.sources.vmx_ssh import VmxSshReader

ESX = "esx://root@esx.example.org/"


@pytest.mark.parametrize(
    ("kind", "location", "connection", "transport", "expected"),
    [
        ("libvirt", "vm", ESX, None, VmwareHttpsReader),
        ("libvirt", "vm", "vpx://u@vc/DC/host", None, VmwareHttpsReader),
        ("libvirt", "vm", ESX, "vddk", VddkReader),
        ("libvirt", "vm", "xen+ssh://root@xen/", None, SshDomainReader),
        ("libvirt", "vm", "qemu+ssh://root@kvm/system", "ssh", SshDomainReader),
        ("libvirt", "vm", "qemu+libssh2://root@kvm/system", "ssh", SshDomainReader),
        ("libvirt", "vm", "qemu:///system", None, LibvirtReader),
        ("libvirt", "vm", None, None, LibvirtReader),
        ("vmx", "ssh://root@esx/vmfs/a.vmx", None, "ssh", VmxSshReader),
        ("vmx", "ssh://root@esx/vmfs/a.vmx", None, None, VmxReader),
    ],
)
def test_who_reads_what(
    kind: str, location: str, connection: str | None, transport: str | None, expected: type,
    tmp_path: Path,
) -> None:  # fmt: skip
    warnings: list[str] = []
    reader = reader_for(
        kind, location, work_dir=tmp_path, warn=warnings.append,
        connection=connection, transport=transport, password="x",
    )  # fmt: skip
    assert type(reader) is expected
    assert warnings == []


@pytest.mark.rows("1-T231")
@pytest.mark.parametrize("name", ["https_proxy", "ALL_PROXY", "no_proxy"])
def test_libvirt_asks_vmware_through_no_proxy(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def domain_xml(*words: str, running: object, thumbprint: str) -> bytes:
        assert (running, thumbprint) == (None, "")
        assert words == (ESX, "vm", "pass")
        raise KeyError(os.environ.get(name, "no proxy"))

    monkeypatch.setenv(name, "http://proxy:1")
    monkeypatch.setattr(remote, "domain_xml", domain_xml)
    reader = reader_for(
        "libvirt", "vm", work_dir=tmp_path, warn=print, connection=ESX, password="pass"
    )
    with pytest.raises(KeyError, match="no proxy"):
        reader.read()


@pytest.mark.parametrize(("password", "code"), [("right", "E-LV-NODOM"), ("wrong", "E-LV-AUTH")])
def test_libvirt_is_given_the_password_it_asks_for(
    password: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On libvirt's test driver with users of its own; such an address is refused elsewhere."""
    node = tmp_path / "node.xml"
    node.write_text("<node><auth><user password='right'>operator</user></auth></node>")
    address = f"test://operator@/{node}"
    monkeypatch.setattr(libvirt_host, "checked_uri", lambda _uri: f"test://{node}")
    monkeypatch.setattr(libvirt_host, "urlsplit", lambda _uri: urlsplit(address))
    with pytest.raises(SourceError) as caught:
        libvirt_host.domain_xml(address, "vm", password)
    assert caught.value.code == code


@pytest.mark.rows("1-T225")
def test_another_libvirt_host_is_tried_with_a_warning(tmp_path: Path) -> None:
    warnings: list[str] = []
    reader = reader_for(
        "libvirt", "vm", work_dir=tmp_path, warn=warnings.append, connection="qemu+ssh://h/system"
    )
    assert isinstance(reader, LibvirtReader)
    assert "another host" in warnings[0]
    assert "with -it ssh" in warnings[0]


@pytest.mark.parametrize("keep", [False, True])
def test_the_password_of_a_screen_is_asked_for_over_ssh_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: bool
) -> None:
    xml = (
        "<domain type='kvm'><name>vm</name><devices><disk type='file'><source file='/d'/></disk>"
        "<graphics type='vnc'{}/></devices></domain>"
    )
    monkeypatch.setattr(remote, "domain_xml", lambda *_, **__: xml.format("").encode())
    told = xml.format(" passwd='s3cret'")
    monkeypatch.setattr(remote, "with_screen_password", lambda *_: told)
    reader = reader_for(
        "libvirt", "vm", work_dir=tmp_path, warn=pytest.fail, transport="ssh",
        connection="qemu+ssh://root@kvm/system", keep_display=keep,
    )  # fmt: skip
    display = reader.read().display
    assert display is not None
    assert display.password == ("s3cret" if keep else None)


@pytest.mark.rows("1-T184", "1-T241")
@pytest.mark.parametrize(
    ("kind", "connection", "transport", "options", "code"),
    [
        ("vmx", None, "vddk", {}, "E-INPUT-TRANSPORT"),
        ("ova", None, "ssh", {}, "E-INPUT-TRANSPORT"),
        ("libvirt", "qemu:///system", "vddk", {}, "E-INPUT-TRANSPORT"),
        ("libvirt", "qemu:///system", "ssh", {}, "E-INPUT-TRANSPORT"),
        ("libvirt", "qemu+tls://h/system", "ssh", {}, "E-INPUT-TRANSPORT"),
        ("libvirt", ESX, "ssh", {}, "E-INPUT-TRANSPORT"),
        ("libvirt", ESX, "nfs", {}, "E-INPUT-TRANSPORT"),
        ("libvirt", ESX, None, {"vddk-libdir": ("/x",)}, "E-INPUT-OPTION"),
        ("libvirt", ESX, "vddk", {"vddk-foo": ("1",)}, "E-VDDK-OPTION"),
        ("libvirt", "xen+ssh://h/", None, {"x": ("y",)}, "E-INPUT-OPTION"),
        ("libvirt", "qemu+ext://h/system?command=id", None, {}, "E-LV-URI"),
        ("vmx", None, None, {"x": ("y",)}, "E-INPUT-OPTION"),
        ("vmx", None, "ssh", {"x": ("y",)}, "E-INPUT-OPTION"),
        ("ova", None, None, {"x": ("y",)}, "E-INPUT-OPTION"),
        ("disk", None, None, {"x": ("y",)}, "E-INPUT-OPTION"),
        ("libvirtxml", None, None, {"x": ("y",)}, "E-INPUT-OPTION"),
    ],
)
def test_what_does_not_fit_the_source(
    kind: str, connection: str | None, transport: str | None, options: dict[str, tuple[str, ...]],
    code: str, tmp_path: Path,
) -> None:  # fmt: skip
    with pytest.raises(SourceError) as caught:
        reader_for(
            kind, "ssh://h/a.vmx", work_dir=tmp_path, warn=print, connection=connection,
            transport=transport, password="x", options=options,
        )  # fmt: skip
    assert caught.value.code == code


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    status = main(["-i", "libvirt", "-ic", ESX, "vm", *words, "--print-source"])
    text = capsys.readouterr()
    return status, text.out + text.err


@pytest.mark.rows("1-T226", "1-T233")
def test_the_command_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "none was given" in printed(capsys)[1]
    with pytest.raises(SystemExit):
        printed(capsys, "-ip", "a", "-ip", "b")
    status, text = printed(capsys, "-ip", str(tmp_path / "none"))
    assert (status, "cannot be read" in text) == (1, True)
    file = tmp_path / "password"
    file.write_text("s3cret-word\n")
    status, text = printed(capsys, "-it", "vddk", "-ip", str(file), "-io", "vddk-foo=1")
    assert (status, "vddk-foo" in text, "s3cret" in text) == (1, True, False)
    assert main(["-io", "?"]) == 0
    assert "vddk-libdir" in capsys.readouterr().out
    assert main(["--machine-readable"]) == 0
    assert "input-transport:vddk" in capsys.readouterr().out.split()


@pytest.mark.rows("4-T116")
def test_the_password_of_a_source_is_sealed_and_shown_nowhere() -> None:
    source = Input(
        kind="libvirt", location="vm", connection=ESX, transport="vddk", password="s3cret-word",
        options={"vddk-libdir": ("/opt/vddk",)},
    )  # fmt: skip
    job = Job(mode=Mode.INSPECT, source=source)
    assert "s3cret" not in repr(job)
    values, sealed = take_secrets(job)
    assert "s3cret" not in str(values) + sealed
    assert with_secrets(values, sealed) == job
    assert Job.from_json(job.to_json()) == job


@pytest.mark.rows("1-T184", "1-T263")
def test_nothing_on_another_host_is_changed_in_place() -> None:
    for source in (
        Input(kind="vmx", location="ssh://h/a", transport="ssh"),
        Input(kind="libvirt", location="vm", transport="vddk"),
        Input(kind="libvirt", location="vm", allow_running=True),
    ):
        with pytest.raises(JobError):
            Job(mode=Mode.IN_PLACE, source=source)
