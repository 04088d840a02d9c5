"""Small OVAs for tests: real ones, and ones broken in a chosen way."""

from __future__ import annotations

import hashlib
import io
import subprocess
import tarfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

_ENVELOPE = """<?xml version="1.0" encoding="UTF-8"?>{doctype}
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1"
  xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1"
  xmlns:r="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData"
  xmlns:vmw="http://www.vmware.com/schema/ovf">
 <References>{references}</References>
 <DiskSection><Info>x</Info>{disk_section}</DiskSection>
 {system}
</Envelope>
"""
_SYSTEM = """<VirtualSystem ovf:id="demo"><Info>x</Info>{name}
  <VirtualHardwareSection><Info>x</Info>
  <Item><r:InstanceID>1</r:InstanceID><r:ResourceType>3</r:ResourceType>
   <r:VirtualQuantity>{vcpus}</r:VirtualQuantity>
   <vmw:CoresPerSocket>{cores}</vmw:CoresPerSocket></Item>
  {memory}
  <Item><r:InstanceID>3</r:InstanceID><r:ResourceType>{controller}</r:ResourceType>
   <r:ResourceSubType>{controller_subtype}</r:ResourceSubType></Item>
  {drives}
  {more}
  {firmware}
 </VirtualHardwareSection></VirtualSystem>
"""
FILE = '<File ovf:id="f{0}" ovf:href="{1}"{2}/>'
DISK = """<Disk ovf:diskId="k{0}" ovf:fileRef="f{0}" ovf:capacity="1"
 ovf:capacityAllocationUnits="byte * 2^20" {1}/>"""
DRIVE = """<Item><r:InstanceID>{0}</r:InstanceID><r:ResourceType>17</r:ResourceType>{1}
 <r:HostResource>{2}</r:HostResource></Item>"""
ON_SCSI = "<r:Parent>3</r:Parent>"
MEMORY = """<Item><r:InstanceID>2</r:InstanceID><r:ResourceType>4</r:ResourceType>
 <r:VirtualQuantity>{0}</r:VirtualQuantity>{1}</Item>"""
NIC = """<Item><r:InstanceID>11</r:InstanceID><r:ResourceType>10</r:ResourceType>
 <r:Connection>LAN</r:Connection><r:ResourceSubType>VmxNet3</r:ResourceSubType></Item>"""
FIRMWARE = '<vmw:Config vmw:key="firmware" vmw:value="{0}"/>'


def make_ovf(**options: object) -> bytes:
    """Return a descriptor; every part of it can be replaced by name.

    `hrefs` gives it a disk per file; their ids are f1, f2 ... and k1, k2 ...
    """
    hrefs = options.get("hrefs", [options.get("href", "d1.vmdk")])
    assert isinstance(hrefs, list)
    attributes = options.get("file_attributes", "")
    numbered = list(enumerate(hrefs, 1))
    values: dict[str, object] = {
        "doctype": "",
        "references": "".join(FILE.format(n, href, attributes) for n, href in numbered),
        "disk_section": "".join(DISK.format(n, "") for n, _href in numbered),
        "name": "<Name>demo</Name>",
        "vcpus": 4,
        "cores": 2,
        "memory": MEMORY.format(1024, ""),
        "controller": 6,
        "controller_subtype": "VirtualSCSI",
        "drives": "".join(
            DRIVE.format(20 + n, ON_SCSI, options.get("host_resource", f"ovf:/disk/k{n}"))
            for n, _href in numbered
        ),
        "more": NIC,
        "firmware": FIRMWARE.format("efi"),
    }
    values |= options
    values.setdefault("system", _SYSTEM.format(**values))
    return _ENVELOPE.format(**values).encode()


@cache
def disk_image(fmt: str, *options: str) -> bytes:
    """Return a real image of 1 MiB with 30 000 bytes in it; `options` as of qemu-img's -o."""
    with TemporaryDirectory() as folder:
        raw, image = Path(folder) / "d.raw", Path(folder) / "d.image"
        raw.write_bytes(b"v2v" * 10_000 + bytes((1 << 20) - 30_000))
        command = ["qemu-img", "convert", "-f", "raw", "-O", fmt]
        command += [word for option in options for word in ("-o", option)]
        subprocess.run([*command, str(raw), str(image)], check=True)
        return image.read_bytes()


def vmdk() -> bytes:
    """Return a real streamOptimized VMDK of 1 MiB."""
    return disk_image("vmdk", "subformat=streamOptimized")


def manifest(files: dict[str, bytes], algorithm: str = "SHA256") -> bytes:
    """Return a manifest of these files."""
    return "".join(
        f"{algorithm}({name})= {hashlib.new(algorithm.lower(), data).hexdigest()}\n"
        for name, data in files.items()
    ).encode()


def make_ova(
    path: Path,
    files: dict[str, bytes] | None = None,
    *,
    ovf: bytes | None = None,
    algorithm: str | None = "SHA256",
    change: Callable[[dict[str, bytes]], None] = lambda _files: None,
    special: Sequence[tarfile.TarInfo] = (),
    tar_format: int = tarfile.USTAR_FORMAT,
    order: str = "ovf mf disks",
    prefix: str = "",
) -> Path:
    """Write an OVA: descriptor, manifest, disks; `change` may spoil the files after the manifest.

    `order` is that of the members, `prefix` stands before all their names.
    """
    disk = {"d1.vmdk": vmdk()} if files is None else files
    described = {"vm.ovf": ovf or make_ovf(), **disk}
    parts = {
        "ovf": {"vm.ovf": described["vm.ovf"]},
        "mf": {"vm.mf": manifest(described, algorithm)} if algorithm else {},
        "disks": disk,
    }
    ordered: dict[str, bytes] = {}
    for part in order.split():
        ordered |= parts[part]
    change(ordered)
    with tarfile.open(path, "w", format=tar_format) as archive:
        for name, data in ordered.items():
            info = tarfile.TarInfo(prefix + name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for info in special:
            archive.addfile(info)
    return path
