"""Spec 5.1 to 5.4: domain XML, and which hosts may be asked."""

from __future__ import annotations

import pytest

from inventory.sources.display import DisplayType
from inventory.sources.domain_xml import parse_domain
from inventory.sources.errors import SourceError
from inventory.sources.network_disks import Place
from inventory.sources.types import Controller, CpuTopology, Firmware, RemovableType, Source
from inventory.sources.uris import checked_uri

DOMAIN = """<domain type='kvm'><name> web </name><genid>g-1</genid>
<memory unit='{unit}'>{memory}</memory><vcpu>{vcpu}</vcpu>
<os firmware='efi'><firmware><feature enabled='yes' name='secure-boot'/></firmware></os>
<features><acpi/><apic/></features>
<cpu><vendor>Intel</vendor><topology sockets='1' cores='2' threads='1'/></cpu>
<devices>{devices}
<controller type='scsi' model='{scsi}'/>
<interface type='bridge'><mac address='52:54:00:AA:BB:CC'/><source bridge='br0'/>
 <model type='virtio'/></interface>
<interface type='bridge'><mac address='00:00:00:00:00:00'/><source bridge=''/></interface>
<interface type='direct'><source dev='eth0'/></interface>
<graphics type='spice'/><sound model='ich9'/></devices></domain>"""
DISK = "<disk type='file' device='disk'><driver type='qcow2'/><source file='{}'/>{}</disk>"
ON_SCSI = "<target dev='sda' bus='scsi'/>"


def domain(
    devices: str = DISK.format("/d.qcow2", ON_SCSI), **values: str
) -> tuple[Source, list[str]]:
    warnings: list[str] = []
    options = {"unit": "KiB", "memory": "1048576", "vcpu": "2", "scsi": "lsilogic"} | values
    xml = DOMAIN.format(devices=devices, **options)

    def find_volume(pool: str, volume: str) -> Place | None:
        return Place(path=f"/{pool}/{volume}", format="raw") if pool == "default" else None

    return parse_domain(xml.encode(), warnings.append, find_volume), warnings


@pytest.mark.rows("1-T201")
def test_a_domain_gives_the_machine_it_describes() -> None:
    source, warnings = domain()
    assert (source.name, source.hypervisor, source.genid) == ("web", "kvm", "g-1")
    assert (source.memory_bytes, source.vcpus) == (1 << 30, 2)
    assert source.cpu_topology == CpuTopology(sockets=1, cores=2, threads=1)
    assert (source.firmware, source.uefi_secureboot) == (Firmware.UEFI, True)
    assert source.features == ("acpi", "apic")
    assert source.display is not None
    assert (source.display.type, source.sound) == (DisplayType.SPICE, "ich9")
    assert [(n.vnet, n.mac, n.model) for n in source.nics] == [
        ("br0", "52:54:00:aa:bb:cc", "virtio"), ("eth1", None, None),
    ]  # fmt: skip
    assert [w for w in warnings if "direct" in w]


@pytest.mark.rows("1-T202")
@pytest.mark.parametrize(
    ("unit", "memory", "expected"),
    [("KiB", "1024", 1 << 20), ("GiB", "2", 2 << 30), ("MB", "1", 10**6), ("parsec", "1", 1024)],
)
def test_units_of_memory_are_honoured(unit: str, memory: str, expected: int) -> None:
    assert domain(unit=unit, memory=memory)[0].memory_bytes == expected


@pytest.mark.rows("1-T205")
@pytest.mark.parametrize(
    ("bus", "model", "controller"),
    [("ide", "x", Controller.IDE), ("sata", "x", Controller.SATA),
     ("virtio", "x", Controller.VIRTIO_BLK), ("scsi", "lsilogic", Controller.SCSI),
     ("scsi", "virtio-scsi", Controller.VIRTIO_SCSI), ("usb", "x", None)],
)  # fmt: skip
def test_buses_of_disks(bus: str, model: str, controller: Controller | None) -> None:
    source, _ = domain(DISK.format("/d", f"<target bus='{bus}'/>"), scsi=model)
    assert source.disks[0].controller is controller


@pytest.mark.rows("1-T207", "1-T208")
@pytest.mark.parametrize(
    ("devices", "paths"),
    [
        ("<disk type='block' device='disk'><driver type='raw'/><source dev='/dev/x'/></disk>",
         ["/dev/x"]),
        ("<disk type='file'><source file='/plain'/></disk>", ["/plain"]),
        ("<disk type='volume' device='disk'><source pool='default' volume='v'/></disk>",
         ["/default/v"]),
        (DISK.format("/a", "") + "<disk type='file' device='disk'/>", ["/a"]),
        (DISK.format("/a", "") + "<disk type='block' device='disk'><source/></disk>", ["/a"]),
    ],
)  # fmt: skip
def test_where_disks_lie(devices: str, paths: list[str]) -> None:
    """Of those without a medium none is taken."""
    source, warnings = domain(devices)
    assert [disk.path for disk in source.disks] == paths
    assert len([w for w in warnings if "left out: " in w]) == devices.count("<disk") - len(paths)


@pytest.mark.parametrize(
    "disk",
    [
        DISK.format("json:{}", ""),
        DISK.format("nbd://h/x", ""),
        "<disk type='network' device='disk'/>",
        "<disk type='nvme' device='disk'><source type='pci'/></disk>",
        "<disk type='file' device='disk'><driver type='odd'/><source file='/b'/></disk>",
        "<disk type='volume' device='disk'><source pool='rbd' volume='v'/></disk>",
    ],
)
def test_no_machine_is_read_without_one_of_its_disks(disk: str) -> None:
    """What is no path is none: qemu would take json:{...} and nbd:// as its own words."""
    with pytest.raises(SourceError, match="Disk 2 of the domain") as caught:
        domain(DISK.format("/a", "") + disk)
    assert (caught.value.code, "dumpxml" in caught.value.remedy) == ("E-LV-DISK", True)


@pytest.mark.rows("1-T213")
def test_drives_and_their_places() -> None:
    drives = "".join(
        f"<disk type='file' device='{kind}'><target dev='{dev}' bus='ide'/></disk>"
        for kind, dev in [
            ("cdrom", "hdc"),
            ("cdrom", "sr1"),
            ("floppy", "fda"),
            ("cdrom", "vdaa"),
            ("cdrom", "hda1"),
            ("cdrom", "sr"),
            ("cdrom", "x9"),
        ]
    )
    source, warnings = domain(DISK.format("/a", "") + drives)
    assert [(r.type, r.slot) for r in source.removables] == [
        (RemovableType.CDROM, 2), (RemovableType.CDROM, 1), (RemovableType.FLOPPY, 0),
        (RemovableType.CDROM, 26), *[(RemovableType.CDROM, None)] * 3,
    ]  # fmt: skip
    for name in ("hda1", "sr", "x9"):
        assert [w for w in warnings if f"{name!r}" in w]


@pytest.mark.rows("1-T201", "1-T206", "1-T240")
@pytest.mark.parametrize(
    ("xml", "code"),
    [
        (b"<domain><name>a</name></domain>", "E-LV-TYPE"),
        (b"<domain type='kvm'/>", "E-LV-NAME"),
        (b"<domain type='kvm'><name> </name></domain>", "E-LV-NAME"),
        (b"<domain type='kvm'><name>a</name><devices/></domain>", "E-LV-NODISK"),
        (b"<node/>", "E-LV-TYPE"),
        (b"<domain", "E-XML-PARSE"),
        (b"<!DOCTYPE a [<!ENTITY b 'c'>]><domain type='kvm'/>", "E-XML-DTD"),
    ],
)
def test_domains_that_cannot_be(xml: bytes, code: str) -> None:
    with pytest.raises(SourceError) as caught:
        parse_domain(xml, lambda _text: None, lambda _pool, _volume: None)
    assert caught.value.code == code


@pytest.mark.parametrize(
    "uri",
    [
        "qemu:///system", "qemu:///session", "test:///default", "qemu+ssh://root@host/system",
        "qemu+tls://host.example.org/system", "qemu+libssh2://u@10.0.0.1:2222/system",
        "xen+ssh://root@xen/", "esx://root@esx.example.org/?no_verify=1",
        "vpx://user@vcenter/Datacenter/host", "vpx://DOMAIN%5Cuser@vc/DC%201/cluster/host",
        "qemu+ssh://root@[::1]/system",
    ],
)  # fmt: skip
def test_addresses_that_may_be_used(uri: str) -> None:
    assert checked_uri(uri) == uri


@pytest.mark.parametrize(
    "uri",
    [
        "", "qemu", "/etc/passwd", "file:///etc/passwd", "qemu:/system", "qemu:///root/x",
        "qemu+ext:///system?command=/bin/sh", "qemu+ext://h/system?command=id",
        "qemu+ssh://h/system?command=/tmp/x", "qemu+ssh://h/system?netcat=/tmp/x",
        "qemu+ssh://h/system?keyfile=/root/.ssh/id_rsa", "qemu+ssh://h/system?socket=/tmp/s",
        "qemu+ssh://h/system?known_hosts=/etc/shadow", "qemu+ssh://h/system?proxy=netcat",
        "qemu+ssh://h/system?sshauth=agent", "qemu+tls://h/system?pkipath=/tmp/pki",
        "qemu+unix:///system?socket=/tmp/s", "qemu+tcp://h/system", "qemu:///system?authfile=/x",
        "qemu+ssh://-oProxyCommand=id/system", "qemu+ssh://-oProxyCommand=id@h/system",
        "qemu+ssh://a%20-oX@h/system", "qemu+ssh://h%0aX/system", "qemu+ssh://h/system\n",
        "qemu+ssh://h/system#x", "qemu+ssh://u:secret@h/system", "qemu+ssh:///system",
        "qemu+ssh://h:99999/system", "qemu+ssh://h/system?mode=direct", "test:///tmp/evil.xml",
        "test+ssh://h/default", "lxc:///", "openvz:///system", "vbox:///session", "ch:///system",
        "esx://root@h/etc/passwd", "esx+ssh://h/", "vpx://u@vc/../../etc", "vpx://u@vc/DC/-x",
        "esx://h/?no_verify=1&no_verify=2", "qemu+ssh://h/system?no_verify=/etc/passwd",
        "QEMU:///system", "qemu+ssh://hö/system", "qemu+ssh://h/system " + "x" * 500,
        "hyperv://h", "phyp://h", "bhyve:///system", "remote://h/system", "unix:///x",
        "esx:///", "esx:/etc/passwd", "vpx:///DC/host", "gsx://root@h/", "esx+ext://h/?command=id",
        "esx+http://h/", "vpx+ssh://u@vc/DC/host", "vpx+ext://vc/DC/host?command=/bin/sh",
        "esx://root:secret@h/", "esx://root:@h/", "vpx://u@vc/DC/host?vcenter=evil.example.org",
        "esx://root@h/?vcenter=*", "esx://root@h/?proxy=socks5://evil:1080", "esx://root@h/?proxy=x",
        "esx://root@h/?no_verify=1&vcenter=evil", "esx://root@h/?transport=file",
        "esx://root@h/?transport=https&cacert=/etc/shadow", "esx://-K/etc/passwd@h/",
        "esx://root%00@h/", "esx://ro%0aot@h/", "esx://root@h%00.evil/", "esx://root@h:0x50/",
        "vpx://u@vc/DC%2f..%2f..%2fetc/host", "vpx://u@vc/DC/%2e%2e/host", "vpx://u@vc//host",
        "vpx://u@vc/DC/host%0a", "vpx://u@vc/DC;id/host", "vpx://u@vc/$(id)/host", "vpx://u@vc/`id`",
        "vpx://u@vc/DC/host#?no_verify=1", "vpx://u@vc/DC/host?no_verify=1&mode=x",
        "xen+ssh://-oProxyCommand=id@h/", "xen+ssh://-oProxyCommand=id/", "xen+ssh://root@h/../etc",
        "xen+ssh://root@h/?command=/tmp/x", "xen+ssh://root@h/?netcat=/tmp/x", "xen+ssh:///",
        "xen+ssh://root@h/?keyfile=/root/.ssh/id_rsa", "xen+ssh://root@h/?socket=/tmp/s",
        "xen+ssh://root@h/?known_hosts=/etc/shadow", "xen+ext://h/?command=id", "xen+tcp://h/",
        "xen+unix:///system?socket=/tmp/s", "xen:///etc/xen", "xen+ssh://root:secret@h/",
        "xen+ssh://root@h/?known_hosts_verify=ignore", "xen+ssh://root@h/?name=qemu:///system",
    ],
)  # fmt: skip
def test_addresses_that_are_refused(uri: str) -> None:
    """They would run a program, read a file, or hand an option to ssh."""
    with pytest.raises(SourceError) as caught:
        checked_uri(uri)
    assert caught.value.code == "E-LV-URI"
    assert "\n" not in caught.value.message
