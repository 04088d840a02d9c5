"""Spec 4.7 and 5.8: disks over ssh, from a real sshd on loopback with keys of its own."""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from inventory.sources.base import Warn, disk_uri
from inventory.sources.domain_ssh import SshDomainReader
from inventory.sources.domain_xml import parse_domain
from inventory.sources.errors import SourceError
from inventory.sources.nbdkit import Servers
from inventory.sources.network_disks import Place
from inventory.sources.sftp import Sftp
from inventory.sources.ssh import SshHost, read_file, ssh_path
from inventory.sources.types import Controller
from inventory.sources.vmx_ssh import VmxSshReader
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


def xen_reader(sshd: Sshd, xml: bytes) -> SshDomainReader:
    return domain_reader(sshd, xml, "xen+ssh://h/")


def domain_reader(
    sshd: Sshd, xml: bytes, uri: str = "qemu+ssh://h/system", warn: Warn = pytest.fail
) -> SshDomainReader:
    def find_volume(pool: str, volume: str) -> Place | None:
        return Place(path=f"/{pool}/{volume}", format="qcow2")

    return SshDomainReader(
        uri, "x", sshd.host(), fetch_xml=lambda: xml, find_volume=find_volume, warn=warn
    )


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


def layered(folder: Path, *formats: str) -> Path:
    """Make an image with layers, the lowest first, each with a part of its own; return the top."""
    top: Path | None = None
    for number, fmt in enumerate(formats):
        path = folder / f"layer {number}.{fmt}"
        below = ["-b", top.name, "-F", formats[number - 1]] if top else []
        command = ["qemu-img", "create", "-q", "-f", fmt, *below, str(path), str(SIZE)]
        subprocess.run(command, check=True)
        write = f"write -q -P {number + 1} {number * 65536} 64k"
        subprocess.run(["qemu-io", "-f", fmt, "-c", write, str(path)], check=True)
        top = path
    assert top
    return top


def qcow2_disk(path: Path) -> bytes:
    disk = "<disk type='file'><driver type='qcow2'/><source file='{}'/></disk>"
    return kvm(disk.format(path))


def kvm(disks: str) -> bytes:
    return f"<domain type='kvm'><name>x</name><devices>{disks}</devices></domain>".encode()


@pytest.mark.parametrize(
    "formats", [("qcow2",), ("raw", "qcow2"), ("qcow2", "qcow2", "qcow2")], ids=len
)
def test_a_disk_with_layers_is_read_as_the_guest_sees_it(
    sshd: Sshd, tmp_path: Path, formats: tuple[str, ...]
) -> None:
    top = layered(tmp_path, *formats)
    warnings: list[str] = []
    reader = domain_reader(sshd, qcow2_disk(top), warn=warnings.append)
    with Servers(tmp_path) as servers:
        (disk,) = reader.serve(reader.read(), servers).disks
        assert read_disk(disk_uri(disk), tmp_path / "out") == read_disk(str(top), tmp_path / "own")
        overlay = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", disk_uri(disk)]
        subprocess.run([*overlay, "-F", disk.format, str(tmp_path / "overlay")], check=True)
        out = read_disk(str(tmp_path / "overlay"), tmp_path / "out")
        assert out == (tmp_path / "own").read_bytes()
    if len(formats) == 1:
        assert warnings == []
    else:
        assert f"the top of {len(formats)} layers" in warnings[0]


@pytest.mark.parametrize(
    ("backing", "fmt", "code", "why"),
    [
        ("lower.qcow2", "", "E-IMG-BACKING", "without its format"),
        ("lower.qcow2", "vmdk", "E-IMG-BACKING", "as 'vmdk'"),
        ("nbd://h/x", "raw", "E-IMG-BACKING", "no file"),
        ('json:{"driver":"file","filename":"/etc/shadow"}', "raw", "E-IMG-BACKING", "no file"),
        ("top.qcow2", "qcow2", "E-IMG-BACKING", "below itself"),
        ("./top.qcow2", "qcow2", "E-IMG-BACKING", "more than 64 layers"),
        ("missing.qcow2", "qcow2", "E-NBD-OPEN", "No such file"),
        ("raw.img", "qcow2", "E-IMG-READ", "does not begin"),
    ],
)
def test_layers_that_cannot_be_read(
    sshd: Sshd, tmp_path: Path, backing: str, fmt: str, code: str, why: str
) -> None:
    (tmp_path / "raw.img").write_bytes(bytes(SIZE))
    top = tmp_path / "top.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(top), str(SIZE)], check=True)
    rebase = ["qemu-img", "rebase", "-q", "-u", "-f", "qcow2", "-b", backing, "-F", fmt or "raw"]
    subprocess.run([*rebase, str(top)], check=True)
    if not fmt:  # as programs before qemu 6.1 left it
        data = top.read_bytes()
        top.write_bytes(data.replace(b"\xe2\x79\x2a\xca", b"\xe2\x79\x2a\xcb", 1))
    reader = domain_reader(sshd, qcow2_disk(top))
    with Servers(tmp_path) as servers, pytest.raises(SourceError, match=why) as caught:
        reader.serve(reader.read(), servers)
    assert caught.value.code == code


def test_a_layer_behind_a_symbolic_link_is_the_one_that_the_host_means(
    sshd: Sshd, tmp_path: Path
) -> None:
    for name, value in (("images", "11"), ("real", "22")):
        (tmp_path / name).mkdir()
        write = f"write -q -P 0x{value} 0 64k"
        base = str(tmp_path / name / "base.raw")
        subprocess.run(["qemu-img", "create", "-q", "-f", "raw", base, str(SIZE)], check=True)
        subprocess.run(["qemu-io", "-f", "raw", "-c", write, base], check=True)
    (tmp_path / "real/deep").mkdir()
    (tmp_path / "images/web01").symlink_to(tmp_path / "real/deep")
    top = tmp_path / "images/web01/top.qcow2"
    command = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", "../base.raw", "-F", "raw"]
    subprocess.run([*command, str(top)], check=True)
    reader = domain_reader(sshd, qcow2_disk(top), warn=print)
    with Servers(tmp_path) as servers:
        (disk,) = reader.serve(reader.read(), servers).disks
        assert read_disk(disk_uri(disk), tmp_path / "out")[:4] == b"\x22" * 4


@pytest.mark.parametrize("fmt", ["raw", "qcow2"])
def test_what_has_no_size_is_not_read_as_zeros(sshd: Sshd, tmp_path: Path, fmt: str) -> None:
    """As a block device has none over ssh, behind a link or below a layer."""
    (tmp_path / "device").touch()
    path = tmp_path / "device"
    if fmt == "qcow2":
        path = tmp_path / "top.qcow2"
        create = ["qemu-img", "create", "-q", "-f", "qcow2", "-u", "-b", "device", "-F", "raw"]
        subprocess.run([*create, str(path), str(SIZE)], check=True)
    disk = f"<disk type='file'><driver type='{fmt}'/><source file='{path}'/></disk>"
    reader = domain_reader(sshd, kvm(disk), warn=print)
    with Servers(tmp_path) as servers, pytest.raises(SourceError, match="0 bytes") as caught:
        reader.serve(reader.read(), servers)
    assert "block device" in caught.value.remedy


def test_an_image_that_qcow2_has_encrypted_is_refused(sshd: Sshd, tmp_path: Path) -> None:
    top = tmp_path / "top.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(top), str(SIZE)], check=True)
    data = bytearray(top.read_bytes())
    data[32:36] = b"\0\0\0\2"  # LUKS, as its method of encryption
    top.write_bytes(data)
    reader = domain_reader(sshd, qcow2_disk(top))
    with Servers(tmp_path) as servers, pytest.raises(SourceError, match="encrypted by qcow2"):
        reader.serve(reader.read(), servers)


def test_a_list_of_files_is_not_taken_for_a_vmdk(sshd: Sshd, tmp_path: Path) -> None:
    path = tmp_path / "d.vmdk"
    path.write_text('createType="monolithicFlat"\nRW 2 FLAT "/etc/hostname" 0\n' + " " * 600)
    disk = f"<disk type='file'><driver type='vmdk'/><source file='{path}'/></disk>"
    reader = domain_reader(sshd, kvm(disk))
    with Servers(tmp_path) as servers, pytest.raises(SourceError, match="begins as raw") as caught:
        reader.serve(reader.read(), servers)
    assert caught.value.code == "E-IMG-READ"


def test_a_file_that_the_user_may_not_read_says_who_must(sshd: Sshd, tmp_path: Path) -> None:
    disk = f"<disk type='file'><source file='{tmp_path}/none.img'/></disk>"
    reader = domain_reader(sshd, kvm(disk))
    with Servers(tmp_path) as servers, pytest.raises(SourceError, match="No such file") as caught:
        reader.serve(reader.read(), servers)
    assert "the user who logs in there may read it" in caught.value.remedy


def test_an_image_whose_data_is_in_another_file_is_refused(sshd: Sshd, tmp_path: Path) -> None:
    top = tmp_path / "top.qcow2"
    command = ["qemu-img", "create", "-q", "-f", "qcow2", "-o", "data_file=data.raw", str(top)]
    subprocess.run([*command, str(SIZE)], check=True, cwd=tmp_path)
    reader = domain_reader(sshd, qcow2_disk(top))
    with Servers(tmp_path) as servers, pytest.raises(SourceError) as caught:
        reader.serve(reader.read(), servers)
    assert caught.value.code == "E-IMG-EXTENT"


@pytest.mark.parametrize(
    "disk",
    [
        "<disk type='block'><source dev='/dev/vg/lv'/></disk>",
        "<disk type='volume'><source pool='dev' volume='vg'/></disk>",
    ],
)
def test_devices_of_a_kvm_host_are_not_read_over_ssh(sshd: Sshd, disk: str) -> None:
    with pytest.raises(SourceError, match=r"/dev/vg.* is a block device") as caught:
        domain_reader(sshd, kvm(disk)).read()
    assert caught.value.code == "E-SSH-BLOCK"


def test_volumes_and_network_disks_of_a_kvm_host(sshd: Sshd) -> None:
    nbd = "<disk type='network'><source protocol='nbd' name='e'><host name='{}'/></source></disk>"
    volume = "<disk type='volume'><source pool='p' volume='v'/></disk>"
    source = domain_reader(sshd, kvm(volume + nbd.format("n"))).read()
    assert [disk.path for disk in source.disks] == ["/p/v", "nbd://n:10809/e"]
    assert all(disk.remote for disk in source.disks)
    with pytest.raises(SourceError, match="another place"):
        domain_reader(sshd, kvm(nbd.format("localhost"))).read()


def test_an_ssh_disk_of_the_host_itself_is_read_with_the_same_key(
    sshd: Sshd, machine: Path, tmp_path: Path
) -> None:
    flat = machine / "web-flat.vmdk"
    parts = urlsplit(sshd.uri())
    host = f"<host name='{parts.hostname}' port='{parts.port}'/>"
    identity = f"<identity username='{parts.username}'/>"
    source = f"<source protocol='ssh' name='{flat}'>{host}{identity}</source>"
    uri = f"qemu+ssh://{parts.netloc}/system"
    xml = kvm(f"<disk type='network'>{source}</disk>")
    reader = domain_reader(sshd, xml, uri)
    with pytest.raises(SourceError, match="another place"):  # it is localhost
        reader.read()
    with Servers(tmp_path) as servers:
        source_of = parse_domain(
            kvm(f"<disk type='network'>{source}</disk>"), print, lambda _pool, _name: None
        )
        (disk,) = reader.serve(source_of, servers).disks
        assert read_disk(disk_uri(disk), tmp_path / "out") == flat.read_bytes()
