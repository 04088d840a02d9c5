"""Spec 5.6: machines of ESXi hosts and vCenters, read from a real https server of the test."""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from inventory.sources.base import disk_uri
from inventory.sources.certificates import plain_thumbprint
from inventory.sources.errors import SourceError
from inventory.sources.https_session import first_line
from inventory.sources.nbdkit import Servers
from inventory.sources.remote import RemoteReader
from inventory.sources.types import Controller, Source
from inventory.sources.vmware import (
    VmwareHttpsReader,
    VmwareServer,
    disk_url,
    parse_vmware_domain,
    url_path,
)
from tests.https_server import HttpsServer, Mood, make_certificate

SIZE = 8 << 20
DOMAIN = """<domain type='vmware' xmlns:vmware='http://libvirt.org/schemas/domain/vmware/1.0'>
<name>my vm</name><uuid>564d0000-0000-0000-0000-000000000001</uuid>
<memory unit='KiB'>1048576</memory><vcpu>2</vcpu><os><type arch='x86_64'>hvm</type></os>
<devices>{disks}<controller type='scsi' index='0' model='vmpvscsi'/>
<interface type='bridge'><mac address='00:0c:29:00:00:01'/><source bridge='VM Network'/>
<model type='vmxnet3'/></interface></devices>{extra}</domain>"""
DISK = "<disk type='file' device='disk'><source file='{}'/><target dev='sda' bus='scsi'/></disk>"
PLACES = "<vmware:datacenterpath>DC 1</vmware:datacenterpath><vmware:moref>vm-7</vmware:moref>"
PASSWORD = "pass:word"
FLAT = "/folder/my%20vm/my%20vm-flat.vmdk?dcPath=DC%25201&dsName=ds%252ba"


def domain_xml(*paths: str, extra: str = PLACES) -> bytes:
    disks = "".join(DISK.format(path) for path in paths or ["[ds+a] my vm/my vm.vmdk"])
    return DOMAIN.format(disks=disks, extra=extra).encode()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(random.Random(3).randbytes(SIZE))
    return path


class Site:
    """A server, and readers of its one machine."""

    def __init__(self, folder: Path, image: Path, *names: str) -> None:
        self.certificate, self.thumbprint = make_certificate(folder, *names)
        self.mood = Mood()
        self.server = HttpsServer({FLAT: image}, self.certificate, self.mood)
        self.work = folder / "work"
        self.work.mkdir()
        self.warnings: list[str] = []
        self.lines: list[str] = []

    def reader(
        self,
        xml: bytes | None = None,
        *,
        user: str = "root@",
        query: str = "?no_verify=1",
        password: str | None = PASSWORD,
        options: Mapping[str, tuple[str, ...]] | None = None,
    ) -> VmwareHttpsReader:
        return VmwareHttpsReader(
            f"esx://{user}localhost:{self.server.port}/{query}",
            "my vm",
            password=password,
            fetch_xml=lambda: xml or domain_xml(),
            warn=self.warnings.append,
            options=options or {},
        )

    def served(self, reader: VmwareHttpsReader, use: Callable[[Source], None]) -> None:
        with self.server, Servers(self.work, self.lines.append) as servers:
            use(reader.serve(reader.read(), servers))

    def error(self, reader: VmwareHttpsReader) -> SourceError:
        with pytest.raises(SourceError) as caught:
            self.served(reader, lambda _source: None)
        return caught.value


@pytest.fixture
def site(tmp_path: Path, image: Path) -> Site:
    return Site(tmp_path, image)


def copy_is(image: Path, out: Path) -> Callable[[Source], None]:
    def check(source: Source) -> None:
        subprocess.run(
            ["qemu-img", "convert", "-O", "raw", disk_uri(source.disks[0]), str(out)], check=True
        )
        assert out.read_bytes() == image.read_bytes()

    return check


@pytest.mark.rows("4-T116")
def test_a_disk_is_read_with_a_session_and_no_password_leaves_this_process(
    site: Site, image: Path, tmp_path: Path
) -> None:
    reader = site.reader()
    assert isinstance(reader, RemoteReader)
    site.served(reader, copy_is(image, tmp_path / "out"))
    assert site.mood.logins == 1
    assert not any("pass:word" in line for line in site.lines)
    assert list(site.work.iterdir()) == []


@pytest.mark.parametrize("refusal", [401, 403])
def test_forgotten_sessions_and_dropped_connections_cost_no_byte(
    site: Site, image: Path, tmp_path: Path, refusal: int
) -> None:
    site.mood.expire_after = 50
    site.mood.drop_every = 60
    site.mood.refusal = refusal
    site.served(site.reader(), copy_is(image, tmp_path / "out"))
    assert site.mood.logins >= 2
    assert site.mood.drops >= 1
    assert any("session was renewed" in line for line in site.lines)


def test_a_password_that_is_refused_again_and_again_is_not_tried_for_ever(
    site: Site, tmp_path: Path
) -> None:
    def use(source: Source) -> None:
        site.mood.password = "changed"
        site.mood.sessions.clear()
        for _ in range(20):
            done = subprocess.run(
                ["qemu-img", "info", "-f", "raw", disk_uri(source.disks[0])], capture_output=True
            )
            assert done.returncode
            time.sleep(0.3)

    site.served(site.reader(), use)
    assert site.mood.logins == 1
    assert site.mood.with_password == 1 + 3
    assert any("given up" in line for line in site.lines)


@pytest.mark.rows("1-T227")
def test_the_address_of_a_disk() -> None:
    server = VmwareServer.from_uri("vpx://user@vc/DC%201/host")
    place = url_path("DC 1", "[ds+a] my vm/my vm.vmdk")
    assert disk_url(server, place) == (
        "https://vc/folder/my%20vm/my%20vm-flat.vmdk?dcPath=DC%25201&dsName=ds%252ba"
    )
    server = VmwareServer.from_uri("esx://root@[::1]:8443/")
    assert disk_url(server, "/x") == "https://[::1]:8443/x"
    for path in ("/vm.vmdk", "[ds] ../../sdk.vmdk", "[ds] a\nb.vmdk", "json:{}", "[ds] a.img"):
        with pytest.raises(SourceError) as caught:
            url_path("DC", path)
        assert caught.value.code == "E-VC-PATH"


@pytest.mark.rows("1-T228")
@pytest.mark.parametrize("path", ["[ds+a] my vm/my vm-000002.vmdk", "[ds+a] my vm/my vm.vmdk"])
def test_the_disk_of_a_snapshot_is_looked_for_under_its_base(
    site: Site, image: Path, tmp_path: Path, path: str
) -> None:
    site.served(site.reader(domain_xml(path)), copy_is(image, tmp_path / "out"))
    heads = [r for r in site.mood.requests if r.startswith("HEAD")]
    assert (heads[0] != heads[1]) == ("-000002" in path)


@pytest.mark.rows("1-T229")
@pytest.mark.parametrize(
    ("user", "mood", "code", "hint"),
    [
        ("root@", {"password": "other"}, "E-VC-AUTH", "password"),
        ("", {}, "E-VC-AUTH", "into the address"),
        ("root@", {"status": 503}, "E-VC-HTTP", "browse"),
        ("root@", {"status": 404}, "E-VC-NODISK", "browse"),
        ("root@", {"status": 302}, "E-VC-HTTP", "browse"),
        ("root@", {"no_status_line": True}, "E-VC-HTTP", ""),
    ],
)
def test_answers_that_end_it(
    site: Site, user: str, mood: dict[str, object], code: str, hint: str
) -> None:
    for key, value in mood.items():
        setattr(site.mood, key, value)
    error = site.error(site.reader(user=user))
    assert (error.code, hint in error.remedy) == (code, True)
    assert bool(site.warnings) == (user == "")


@pytest.mark.rows("1-T226")
def test_a_password_is_needed(site: Site) -> None:
    with pytest.raises(SourceError) as caught:
        site.reader(password=None)
    assert caught.value.code == "E-VC-PASSWORD"
    site.server._server.server_close()


@pytest.mark.rows("1-T230")
def test_certificates_are_checked_unless_it_is_said_not_to(
    site: Site, image: Path, tmp_path: Path
) -> None:
    for query in ("?no_verify=0", ""):
        assert VmwareServer.from_uri(f"esx://h/{query}").verify
    assert not VmwareServer.from_uri("esx://h/?no_verify=1").verify
    with pytest.raises(SourceError, match="no_verify"):
        VmwareServer.from_uri("esx://h/?no_verify=10")
    assert site.error(site.reader(query="")).code == "E-VC-CERTIFICATE"
    assert site.mood.requests == []


@pytest.mark.parametrize("names", [(), ("localhost.localdomain",)])
def test_a_thumbprint_trusts_one_certificate_whatever_names_it_has(
    tmp_path: Path, image: Path, names: tuple[str, ...]
) -> None:
    site = Site(tmp_path, image, *names)
    reader = site.reader(query="", options={"https-thumbprint": (site.thumbprint,)})
    site.served(reader, copy_is(image, tmp_path / "out"))
    assert site.mood.logins == 1
    assert not any("sslverify" in line for line in site.lines)
    assert list(site.work.iterdir()) == []


def test_another_certificate_is_noticed_while_disks_are_read(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inventory.sources.https_disk.RETRY", (("retries", "1"),))

    def use(source: Source) -> None:
        folder = tmp_path / "other"
        folder.mkdir()
        site.server.show(make_certificate(folder)[0])
        asked = list(site.mood.requests)
        done = subprocess.run(
            ["qemu-img", "convert", "-O", "raw", disk_uri(source.disks[0]), str(tmp_path / "out")],
            capture_output=True,
        )
        assert done.returncode
        assert site.mood.requests == asked

    site.served(site.reader(query="", options={"https-thumbprint": (site.thumbprint,)}), use)
    assert any("localhost has the thumbprint" in line for line in site.lines)


def test_another_certificate_gets_no_password(site: Site) -> None:
    other = "00:" * 19 + "00"
    reader = site.reader(options={"https-thumbprint": (other,)})
    assert site.error(reader).code == "E-VC-THUMBPRINT"
    assert site.mood.requests == []
    for bad in ("", "xx", "00" * 19, "zz" * 20):
        with pytest.raises(SourceError):
            plain_thumbprint(bad)


@pytest.mark.rows("1-T232")
def test_what_the_xml_must_say(site: Site) -> None:
    with pytest.raises(SourceError) as caught:
        site.reader(domain_xml(extra="")).read()
    assert caught.value.code == "E-VC-DATACENTER"
    found = parse_vmware_domain(domain_xml(), print)
    assert (found.datacenter, found.moref) == ("DC 1", "vm-7")
    (disk,) = found.source.disks
    assert (disk.path, disk.format, disk.remote) == ("[ds+a] my vm/my vm.vmdk", "raw", True)
    assert disk.controller is Controller.SCSI
    assert found.source.nics[0].vnet == "VM Network"
    site.server._server.server_close()


def test_the_first_line_of_a_file_is_the_password(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_bytes("pä ss\r\nsecond\n".encode())
    assert first_line(file) == "pä ss"
    with pytest.raises(SourceError, match="cannot be read"):
        first_line(tmp_path / "missing")
