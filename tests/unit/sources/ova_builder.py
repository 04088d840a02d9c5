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

_ENVELOPE = """<?xml version="1.0"?>{doctype}
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1"
  xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1"
  xmlns:r="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData"
  xmlns:vmw="http://www.vmware.com/schema/ovf">
 <References><File ovf:id="f1" ovf:href="{href}"{file_attributes}/></References>
 <DiskSection><Info>x</Info><Disk ovf:diskId="k1" ovf:fileRef="f1" ovf:capacity="1"
   ovf:capacityAllocationUnits="byte * 2^20"/></DiskSection>
 <VirtualSystem ovf:id="demo"><Info>x</Info>{name}
  <VirtualHardwareSection><Info>x</Info>
  <Item><r:InstanceID>1</r:InstanceID><r:ResourceType>3</r:ResourceType>
   <r:VirtualQuantity>{vcpus}</r:VirtualQuantity>
   <vmw:CoresPerSocket>{cores}</vmw:CoresPerSocket></Item>
  {memory}
  <Item><r:InstanceID>3</r:InstanceID><r:ResourceType>{controller}</r:ResourceType>
   <r:ResourceSubType>{controller_subtype}</r:ResourceSubType></Item>
  <Item><r:InstanceID>9</r:InstanceID><r:ResourceType>17</r:ResourceType><r:Parent>3</r:Parent>
   <r:HostResource>{host_resource}</r:HostResource></Item>
  {more}
  {firmware}
 </VirtualHardwareSection></VirtualSystem>
</Envelope>
"""
CONVERT = ("qemu-img", "convert", "-f", "raw", "-O", "vmdk")
MEMORY = """<Item><r:InstanceID>2</r:InstanceID><r:ResourceType>4</r:ResourceType>
 <r:VirtualQuantity>{0}</r:VirtualQuantity>{1}</Item>"""
NIC = """<Item><r:InstanceID>11</r:InstanceID><r:ResourceType>10</r:ResourceType>
 <r:Connection>LAN</r:Connection><r:ResourceSubType>VmxNet3</r:ResourceSubType></Item>"""
FIRMWARE = '<vmw:Config vmw:key="firmware" vmw:value="{0}"/>'


def make_ovf(**options: object) -> bytes:
    """Return a descriptor; every part of it can be replaced by name."""
    values: dict[str, object] = {
        "doctype": "",
        "href": "d1.vmdk",
        "file_attributes": "",
        "name": "<Name>demo</Name>",
        "vcpus": 4,
        "cores": 2,
        "memory": MEMORY.format(1024, ""),
        "controller": 6,
        "controller_subtype": "VirtualSCSI",
        "host_resource": "ovf:/disk/k1",
        "more": NIC,
        "firmware": FIRMWARE.format("efi"),
    }
    return _ENVELOPE.format(**(values | options)).encode()


@cache
def vmdk() -> bytes:
    """Return a real streamOptimized VMDK of 1 MiB."""
    with TemporaryDirectory() as folder:
        raw, image = Path(folder) / "d.raw", Path(folder) / "d.vmdk"
        raw.write_bytes(b"v2v" * 10_000 + bytes((1 << 20) - 30_000))
        subprocess.run(
            [
                "qemu-img",
                "convert",
                "-f",
                "raw",
                "-O",
                "vmdk",
                "-o",
                "subformat=streamOptimized",
                str(raw),
                str(image),
            ],
            check=True,
        )
        return image.read_bytes()


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
) -> Path:
    """Write an OVA: descriptor, manifest, disk; `change` may spoil the files after the manifest."""
    disk = {"d1.vmdk": vmdk()} if files is None else files
    described = {"vm.ovf": ovf or make_ovf(), **disk}
    ordered = {"vm.ovf": described["vm.ovf"]}
    if algorithm:
        ordered["vm.mf"] = manifest(described, algorithm)
    ordered |= disk
    change(ordered)
    with tarfile.open(path, "w", format=tar_format) as archive:
        for name, data in ordered.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for info in special:
            archive.addfile(info)
    return path
