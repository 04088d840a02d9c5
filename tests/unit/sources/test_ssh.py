"""Spec 4.7 and 5.8: disks over ssh, from a real sshd on loopback with keys of its own."""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from inventory.sources.base import disk_uri
from inventory.sources.errors import SourceError
from inventory.sources.nbdkit import Servers
from inventory.sources.sftp import Sftp
from inventory.sources.ssh import SshHost, read_file, ssh_path
from inventory.sources.types import Controller
from inventory.sources.vmx_ssh import VmxSshReader
from inventory.sources.xen_ssh import XenSshReader
from tests.sshd import Sshd

SIZE = 2 << 20
VMX = """displayName = "web 01"
memSize = "512"
scsi0:0.present = "TRUE"
scsi0:0.fileName = "{disk}"
"""


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with Sshd(tmp_path_factory.mktemp("sshd")) as daemon:
        yield daemon


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A folder with a VMX file and a flat disk, with a space in its name."""
    folder = tmp_path / "web 01"
    folder.mkdir()
    (folder / "web.vmx").write_text(VMX.format(disk="web.vmdk"))
    (folder / "web-flat.vmdk").write_bytes(random.Random(5).randbytes(SIZE))
    return folder


def vmx_reader(sshd: Sshd, vmx: Path, work: Path, **options: Any) -> VmxSshReader:
    uri = sshd.uri(str(vmx).replace(" ", "%20"))
    return VmxSshReader(uri, sshd.host(), work_dir=work, **{"warn": pytest.fail} | options)


def read_disk(source_uri: str, out: Path) -> bytes:
    subprocess.run(["qemu-img", "convert", "-O", "raw", source_uri, str(out)], check=True)
    return out.read_bytes()


@pytest.mark.rows("1-T182")
def test_a_machine_is_read_over_ssh(sshd: Sshd, machine: Path, tmp_path: Path) -> None:
    reader = vmx_reader(sshd, machine / "web.vmx", tmp_path)
    source = reader.read()
    assert (source.name, source.memory_bytes) == ("web 01", 512 << 20)
    assert source.disks[0].controller is Controller.SCSI
    with Servers(tmp_path) as servers:
        (disk,) = reader.serve(source, servers).disks
        assert (
            read_disk(disk_uri(disk), tmp_path / "out") == (machine / "web-flat.vmdk").read_bytes()
        )
    assert not (tmp_path / "fetched").exists()


def test_a_machine_that_vmware_has_locked_is_refused(
    sshd: Sshd, machine: Path, tmp_path: Path
) -> None:
    (machine / "web.vmx.lck").touch()
    with pytest.raises(SourceError, match=r"web\.vmx\.lck' lies beside.*running") as caught:
        vmx_reader(sshd, machine / "web.vmx", tmp_path).read()
    assert caught.value.code == "E-VMX-RUNNING"
    warnings: list[str] = []
    vmx_reader(sshd, machine / "web.vmx", tmp_path, running=warnings.append).read()
    assert len(warnings) == 1


def test_where_nobody_can_look_a_machine_is_read_with_a_warning(
    sshd: Sshd, machine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stranger = Sftp(sshd.host(key="other"))
    monkeypatch.setattr("inventory.sources.vmx_ssh.Sftp", lambda _host: stranger)
    warnings: list[str] = []
    vmx_reader(sshd, machine / "web.vmx", tmp_path, warn=warnings.append).read()
    (warning,) = warnings
    assert "Whether the machine is shut off is not known" in warning


@pytest.mark.rows("1-T183")
def test_a_machine_with_snapshots_is_refused(sshd: Sshd, machine: Path, tmp_path: Path) -> None:
    (machine / "web-flat.vmdk").unlink()
    reader = vmx_reader(sshd, machine / "web.vmx", tmp_path)
    with Servers(tmp_path) as servers, pytest.raises(SourceError) as caught:
        reader.serve(reader.read(), servers)
    assert caught.value.code == "E-VMX-SNAPSHOT"


@pytest.mark.parametrize("disk", ["../other/web.vmdk", "/vmfs/other/web.vmdk"])
def test_disks_of_other_folders_need_a_word(
    sshd: Sshd, machine: Path, tmp_path: Path, disk: str
) -> None:
    (machine / "web.vmx").write_text(VMX.format(disk=disk))
    with pytest.raises(SourceError) as caught:
        vmx_reader(sshd, machine / "web.vmx", tmp_path).read()
    assert caught.value.code == "E-VMX-OUTSIDE"
    source = vmx_reader(sshd, machine / "web.vmx", tmp_path, anywhere=True).read()
    assert source.disks[0].path.endswith("other/web-flat.vmdk")


def test_a_missing_file_fails_quickly(sshd: Sshd, tmp_path: Path) -> None:
    begun = time.monotonic()
    with pytest.raises(SourceError, match=r"none\.vmx of localhost cannot be opened.*No such file"):
        vmx_reader(sshd, tmp_path / "none.vmx", tmp_path).read()
    assert time.monotonic() - begun < 10


def test_a_large_file_is_not_taken_for_a_vmx(sshd: Sshd, machine: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError) as caught:
        read_file(sshd.host(), str(machine / "web-flat.vmdk"), tmp_path, max_bytes=1000)
    assert caught.value.code == "E-SSH-SIZE"


@pytest.mark.parametrize(("key", "known"), [("client", "unknown"), ("other", "known")])
def test_strangers_are_not_trusted(
    sshd: Sshd, machine: Path, tmp_path: Path, key: str, known: str
) -> None:
    """Neither a host with another key, nor are we let in with one."""
    host = sshd.host(key=key, known=known)
    expected = "[Hh]ost key|known" if known == "unknown" else "[Aa]uth|denied"
    with pytest.raises(SourceError, match=expected):
        read_file(host, str(machine / "web.vmx"), tmp_path, max_bytes=1 << 20)


@pytest.mark.rows("1-T181")
@pytest.mark.parametrize(
    "uri",
    ["ssh://h/", "ssh://h", "http://h/x", "ssh:///x", "/x", "ssh://-oProxyCommand=id/x",
     "ssh://u@-h/x", "ssh://-u@h/x", "ssh://u:secret@h/x", "ssh://h:99999/x", "ssh://h/a%0ab",
     "ssh://h/folder/", "ssh://h/x?y", "ssh://[::1/x"],
)  # fmt: skip
def test_addresses_that_are_refused(uri: str) -> None:
    with pytest.raises(SourceError) as caught:
        SshHost.from_parts(uri, password=None, options={})
        ssh_path(uri)
    assert caught.value.code == "E-SSH-URI"
    assert "\n" not in caught.value.message


@pytest.mark.rows("1-T182")
def test_parts_of_an_address() -> None:
    assert ssh_path("ssh://root@esx:22/vmfs/my%20vm/a.vmx") == "/vmfs/my vm/a.vmx"
    assert ssh_path("//esx/a") == "/a"
    host = SshHost.from_parts(
        "ssh://root@esx:2222/x",
        password="s3cret",
        options={"ssh-identity": ("/home/a%b/id",)},
    )
    server = host.server("/a b")
    command = server.command(Path("/w/in0"), Path("/w/p"), [7])
    assert command[command.index("ssh") :] == [
        "ssh", "host=esx", "path=/a b", "timeout=60", "port=2222", "user=root",
        "identity=/home/a%%b/id", "retry-delay=1", "retries=6", "password=-7",
    ]  # fmt: skip
    assert "s3cret" not in repr(host) + repr(server)
    with pytest.raises(SourceError, match="absolute"):
        SshHost.from_parts("ssh://h/x", password=None, options={"ssh-identity": ("id",)})


def xen(disks: str) -> bytes:
    return f"<domain type='xen'><name>x</name><devices>{disks}</devices></domain>".encode()


def xen_reader(sshd: Sshd, xml: bytes, **_more: Mapping[str, str]) -> XenSshReader:
    return XenSshReader("xen+ssh://h/", "x", sshd.host(), fetch_xml=lambda: xml, warn=print)


@pytest.mark.rows("1-T238")
def test_a_domain_of_a_xen_host(sshd: Sshd, machine: Path, tmp_path: Path) -> None:
    flat = machine / "web-flat.vmdk"
    file = f"<disk type='file' device='disk'><source file='{flat}'/></disk>"
    reader = xen_reader(sshd, xen(file))
    with Servers(tmp_path) as servers:
        (disk,) = reader.serve(reader.read(), servers).disks
        assert read_disk(disk_uri(disk), tmp_path / "out") == flat.read_bytes()
    block = "<disk type='block' device='disk'><source dev='/dev/vg/lv'/></disk>"
    with pytest.raises(SourceError) as caught:
        xen_reader(sshd, xen(file + block)).read()
    assert caught.value.code == "E-XEN-BLOCK"
