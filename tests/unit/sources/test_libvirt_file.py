"""Files of domain XML: the rows of section 8.8 that are about what a domain says."""

from __future__ import annotations

import hashlib
import os
import subprocess
import time
from pathlib import Path

import pytest

from conversions.pipeline.cli import main
from conversions.pipeline.errors import TargetError
from conversions.pipeline.job import Input, Job, Mode
from conversions.pipeline.report import RecordingReporter
from conversions.pipeline.source import fingerprint, open_source
from inventory.sources.display import ListenType
from inventory.sources.errors import SourceError
from inventory.sources.libvirt_host import connection, volume_of
from inventory.sources.nbdkit import Servers
from inventory.sources.readers import reader_for
from inventory.sources.text import current
from inventory.sources.types import Firmware, Source

DOMAIN = "<domain type='kvm'><name>web</name>{}<devices>{}{}</devices></domain>"
DISK = (
    "<disk type='file' device='disk'><driver type='{}'/><source file='{}'/>"
    "<target bus='{}'/></disk>"
)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """A raw disk of 1 MiB."""
    path = tmp_path / "d.raw"
    path.write_bytes(os.urandom(1 << 20))
    return path


def read(
    tmp_path: Path, devices: str, *, rest: str = "", disk: str | None = None, anywhere: bool = False
) -> tuple[Source, list[str]]:
    """Return the machine of a file with these devices besides a disk, and the warnings."""
    path = tmp_path / "web.xml"
    disk = DISK.format("raw", tmp_path / "d.raw", "virtio") if disk is None else disk
    path.write_text(DOMAIN.format(rest, disk, devices))
    warnings: list[str] = []
    reader = reader_for(
        "libvirtxml", str(path), work_dir=tmp_path, warn=warnings.append,
        connection="test:///default", disks_anywhere=anywhere,
    )  # fmt: skip
    return reader.read(), warnings


def refused(tmp_path: Path, disk: str) -> str:
    """Return the code with which a domain with that disk is refused."""
    with pytest.raises(SourceError) as caught:
        read(tmp_path, "", disk=disk)
    assert caught.value.message.endswith(".")
    return caught.value.code


@pytest.mark.rows("1-T200", "4-T114")
def test_a_whole_domain_is_printed_as_it_is(tmp_path: Path, raw: Path) -> None:
    source, warnings = read(
        tmp_path,
        "<interface type='network'><source network='default'/>"
        "<mac address='52:54:00:01:02:03'/><model type='virtio'/></interface>",
        rest="<memory>1048576</memory><features><pae/><acpi/><apic/></features>"
        "<cpu><topology sockets='4' cores='8' threads='2'/></cpu>",
    )
    assert (source.disks[0].path, source.disks[0].virtual_size_bytes) == (str(raw), 1 << 20)
    assert not warnings
    lines = current(source).splitlines()
    for line in (
        "    source name: web", "hypervisor type: kvm", "         memory: 1073741824 (bytes)",
        "       nr vCPUs: 64", "   CPU topology: sockets: 4 cores/socket: 8 threads/core: 2",
        "   CPU features: acpi,apic,pae", "       firmware: unknown", "\t0 [virtio-blk]",
        '\tNetwork "default" mac: 52:54:00:01:02:03 [virtio]',
    ):  # fmt: skip
        assert line in lines


@pytest.mark.rows("1-T203")
def test_a_topology_that_says_a_part_counts_for_the_vcpus(tmp_path: Path, raw: Path) -> None:
    source, _ = read(tmp_path, "", rest="<cpu><topology sockets='2'/></cpu>")
    assert (source.vcpus, source.cpu_topology) == (2, None)


@pytest.mark.rows("1-T204")
@pytest.mark.parametrize(
    ("system", "firmware"),
    [
        ("<os firmware='efi'/>", Firmware.UEFI),
        ("<os><loader type='pflash'>/x</loader></os>", Firmware.UEFI),
        ("<os><loader type='rom'>/x</loader></os>", Firmware.UNKNOWN),
        ("", Firmware.UNKNOWN),
        ("<os firmware='bios'/>", Firmware.BIOS),
    ],
)
def test_firmware(tmp_path: Path, raw: Path, system: str, firmware: Firmware) -> None:
    assert read(tmp_path, "", rest=system)[0].firmware is firmware


@pytest.mark.rows("1-T209", "1-T210")
def test_disks_behind_a_protocol(tmp_path: Path) -> None:
    disk = "<disk type='network' device='disk'><source protocol='{}' name='{}'>{}</source></disk>"
    here = disk.format("nbd", "x", "<host name='localhost' port='10809'/>")
    there = disk.format("nbd", "x", "<host name='2001:db8::7'/>")
    assert (
        refused(tmp_path, here + disk.format("gluster", "p/v", "<host name='h'/>")) == "E-LV-DISK"
    )
    source, _ = read(tmp_path, "", disk=here + there)
    assert [d.path for d in source.disks] == [
        "nbd://localhost:10809/x", "nbd://[2001:db8::7]:10809/x",
    ]  # fmt: skip
    for port, path in (("443", "https://h/a%20b%5fc"), ("8443", "https://h:8443/a%20b%5fc")):
        host = f"<host name='h' port='{port}'/>"
        source, _ = read(tmp_path, "", disk=disk.format("https", "a b_c", host))
        assert source.disks[0].path == path
    wrong = disk.format("https", "x", "<host name='h' port='0'/>")
    assert refused(tmp_path, wrong) == "E-LV-PORT"


@pytest.mark.rows("1-T211", "1-T212")
def test_volumes_of_pools(tmp_path: Path) -> None:
    volume = (
        "<volume><name>v.qcow2</name><capacity>1048576</capacity>"
        "<target><format type='qcow2'/></target></volume>"
    )
    with connection("test:///default", read_only=False) as link:
        pool = link.storagePoolLookupByName("default-pool")
        pool.createXML(volume)
        for name in ("default-pool", pool.UUIDString()):
            found = volume_of(link, name, "v.qcow2")
            assert found is not None
            assert (found.path, found.format) == ("/default-pool/v.qcow2", "qcow2")
    disk = "<disk type='volume' device='disk'><source pool='{}' volume='{}'/></disk>"
    for pool_name, name in (("none", "v"), ("default-pool", "none")):
        assert refused(tmp_path, disk.format(pool_name, name)) == "E-LV-VOLUME"


@pytest.mark.rows("1-T214", "1-T215", "1-T216")
def test_network_cards(tmp_path: Path, raw: Path) -> None:
    source, warnings = read(
        tmp_path,
        "<interface type='direct'><source dev='eth0'/></interface>"
        "<interface type='network'><source network='n'/><mac address='00:00:00:00:00:00'/>"
        "</interface><interface type='bridge'><source bridge=''/></interface>"
        "<interface type='user'/><hostdev/>",
    )
    assert [(n.vnet, n.vnet_type, n.mac) for n in source.nics] == [
        ("n", "Network", None), ("eth2", "Bridge", None),
    ]  # fmt: skip
    assert len(warnings) == 2


@pytest.mark.rows("1-T217")
def test_screens(tmp_path: Path, raw: Path) -> None:
    source, warnings = read(tmp_path, "<graphics type='sdl'/>")
    assert (source.display, len(warnings)) == (None, 1)
    source, warnings = read(
        tmp_path,
        "<graphics type='vnc' autoport='no' port='5901' passwd='x'><listen type='bogus'/>"
        "</graphics><graphics type='spice'/>",
    )
    assert source.display is not None
    assert (source.display.type, source.display.port, source.display.listen) == ("vnc", 5901, None)
    assert len(warnings) == 1
    for listen, expected in (
        ("<listen type='socket'/>", (ListenType.SOCKET, None)),
        ("<listen type='network' network='lan'/>", (ListenType.NETWORK, "lan")),
        ("<listen type='none'/>", (ListenType.NONE, None)),
        ("<listen type='address'/>", None),
    ):
        source, _ = read(tmp_path, f"<graphics type='vnc' port='5900'>{listen}</graphics>")
        assert source.display is not None
        found = source.display.listen
        assert ((found.type, found.value) if found else None) == expected
        assert source.display.port is None


@pytest.mark.rows("1-T218")
def test_sound(tmp_path: Path, raw: Path) -> None:
    assert read(tmp_path, "<sound model='ich9'/>")[0].sound == "ich9"
    source, warnings = read(tmp_path, "<sound model='foo'/>")
    assert (source.sound, len(warnings)) == (None, 1)


@pytest.mark.rows("1-T239")
def test_a_name_is_a_path_whatever_it_looks_like(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name = 'json:{"driver":"file"}'
    assert (
        refused(tmp_path, DISK.format("qcow2", name.replace('"', "&quot;"), "ide")) == "E-IMG-READ"
    )
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", f"./{name}", "1M"], check=True)
    disk = DISK.format("qcow2", name.replace('"', "&quot;"), "ide")
    assert read(tmp_path, "", disk=disk)[0].disks[0].path == str(tmp_path / name)


def test_a_disk_without_a_format_has_the_one_it_shows(tmp_path: Path) -> None:
    path = tmp_path / "d.img"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, "3M"], check=True)
    disk = f"<disk type='file'><source file='{path}'/></disk>"
    source, warnings = read(tmp_path, "", disk=disk)
    assert (source.disks[0].format, source.disks[0].virtual_size_bytes) == ("qcow2", 3 << 20)
    assert len(warnings) == 1


def test_layers_below_a_disk_are_read_only_when_the_image_is_trusted(
    tmp_path: Path, raw: Path
) -> None:
    layer = tmp_path / "layer.qcow2"
    create = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw"]
    subprocess.run([*create, "-b", raw, layer], check=True)
    for fmt in ("<driver type='qcow2'/>", ""):
        disk = f"<disk type='file'>{fmt}<source file='{layer}'/></disk>"
        assert refused(tmp_path, disk) == "E-IMG-BACKING"
        source, _ = read(tmp_path, "", disk=disk, anywhere=True)
        assert source.disks[0].other_files == (str(raw),)
        assert set(fingerprint(source, "")) == {str(raw), str(layer)}


def test_a_file_that_is_missing_or_no_domain(tmp_path: Path) -> None:
    path = tmp_path / "x.xml"
    for text, code in (
        (None, "E-XML-READ"),
        ("<node/>", "E-LV-TYPE"),
        (" " * (17 << 20), "E-OVF-SIZE"),
    ):
        if text is not None:
            path.write_text(text)
        with pytest.raises(SourceError) as caught:
            reader_for("libvirtxml", str(path), work_dir=tmp_path, warn=pytest.fail).read()
        assert caught.value.code == code


@pytest.mark.rows("1-T241")
def test_options_of_other_inputs_are_refused(tmp_path: Path, raw: Path) -> None:
    read(tmp_path, "")
    words = ["-i", "libvirtxml", str(tmp_path / "web.xml"), "--print-source"]
    assert main(words) == 0
    try:
        status = main([*words, "-io", "x=y"])
    except SystemExit as error:
        status = int(str(error.code))
    assert status != 0


@pytest.mark.rows("1-T263", "4-T102")
def test_a_disk_on_another_host_is_not_changed_in_place(tmp_path: Path) -> None:
    path = tmp_path / "web.xml"
    disk = "<disk type='network'><source protocol='https' name='d'><host name='h'/></source></disk>"
    path.write_text(DOMAIN.format("", disk, ""))
    job = Job(mode=Mode.IN_PLACE, source=Input(kind="libvirtxml", location=str(path)))
    with pytest.raises(TargetError):
        open_source(job, tmp_path, RecordingReporter(), Servers(tmp_path))


@pytest.mark.rows("1-T219", "1-T220", "4-T99", "4-T100")
@pytest.mark.parametrize("fmt", ["raw", "qcow2"])
@pytest.mark.parametrize(
    ("fail", "right", "status", "warned"),
    [
        ("fail='error'", False, "E-LV-CHECKSUM", 0),
        ("fail='err'", True, "matches", 0),
        ("fail='warn'", False, "differs", 1),
        ("", False, "differs", 1),
        ("", True, "matches", 0),
        ("fail='ignore'", False, None, 0),
        ("fail='bogus'", False, None, 1),
        ("fail='print'", False, "computed", 0),
    ],
)
def test_digests_are_those_of_the_content(
    tmp_path: Path, raw: Path, fmt: str, fail: str, right: bool, status: str | None, warned: int
) -> None:
    method = {"raw": "md5", "qcow2": "sha256"}[fmt]
    path, content = raw, raw.read_bytes()
    expected = hashlib.new(method, content, usedforsecurity=False).hexdigest()
    if fmt == "qcow2":
        path = tmp_path / "d.qcow2"
        convert = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2"]
        subprocess.run([*convert, raw, path], check=True)
    text = f" {expected.upper()}\n" if right else "0" * 32
    checksum = f"<checksum method='{method}' {fail}>{text}</checksum>"
    xml = tmp_path / "web.xml"
    disk = DISK.format(fmt, path, "ide").replace("</disk>", f"{checksum}</disk>")
    xml.write_text(DOMAIN.format("", disk, ""))
    job = Job(mode=Mode.INSPECT, source=Input(kind="libvirtxml", location=str(xml)))
    report = RecordingReporter()
    if status == "E-LV-CHECKSUM":
        with pytest.raises(SourceError) as caught:
            open_source(job, tmp_path, report, Servers(tmp_path))
        assert caught.value.code == status
        return
    open_source(job, tmp_path, report, Servers(tmp_path))
    assert [d["status"] for d in report.data("digests")] == ([status] if status else [])
    assert report.warnings == warned
    said = [event["text"] for event in report.events if event["type"] == "log"]
    assert bool([line for line in said if line.endswith(expected)]) == (status == "computed")


@pytest.mark.rows("1-T221", "4-T99")
def test_digests_of_other_methods_are_refused(tmp_path: Path, raw: Path) -> None:
    disk = DISK.format("raw", raw, "ide").replace("</disk>", "<checksum{}>0</checksum></disk>")
    assert refused(tmp_path, disk.format(" method='sha1'")) == "E-LV-CHECKSUM"
    assert len(read(tmp_path, "", disk=disk.format(""))[1]) == 1


def test_a_digest_that_is_given_up_leaves_no_program(tmp_path: Path) -> None:
    path = tmp_path / "d.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, "8G"], check=True)
    disk = DISK.format("qcow2", path, "ide")
    (tmp_path / "web.xml").write_text(
        DOMAIN.format("", disk.replace("</disk>", "<checksum method='md5'>0</checksum></disk>"), "")
    )
    reader = reader_for(
        "libvirtxml", str(tmp_path / "web.xml"), work_dir=tmp_path, warn=pytest.fail
    )
    reader.read()

    def stop(_done: int, total: int) -> None:
        assert total == 8 << 30
        raise InterruptedError

    with pytest.raises(InterruptedError):
        reader.verify(stop)
    for _attempt in range(100):
        commands = [p.read_bytes() for p in Path("/proc").glob("[0-9]*/cmdline") if p.exists()]
        if not [c for c in commands if b"qemu-nbd" in c and os.fsencode(path) in c]:
            return
        time.sleep(0.1)
    pytest.fail("qemu-nbd still runs")
