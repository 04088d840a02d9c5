"""What the guest builders share: the appliance, the boot report, the OVA."""

from __future__ import annotations

import hashlib
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from string import Template

import guestfs

# Tells the serial console what the guest booted on; boot.py waits for this line.
GUEST_UP = r"""#!/bin/sh
root=$(findmnt -no SOURCE /)
for n in /sys/class/net/*; do
    [ -e "$n/device/driver" ] || continue
    nic=$(basename "$(readlink -f "$n/device/driver")")
done
ip=$(ip -4 -o addr show scope global | awk '{print $4; exit}')
echo "GUEST-UP root=$root nic=${nic:-none} ip=${ip:-none}" > /dev/ttyS0
"""

GUEST_UP_UNIT = """[Unit]
Description=Report what this guest booted on
After=network.target multi-user.target
[Service]
Type=oneshot
ExecStart=/usr/local/sbin/guest-up
[Install]
WantedBy=multi-user.target
"""

# The layout and the vocabulary of an export from vSphere: SCSI disk, IDE CD-ROM, one NIC.
OVF = Template("""<?xml version="1.0" encoding="UTF-8"?>
<Envelope vmw:buildId="build-1" xmlns="http://schemas.dmtf.org/ovf/envelope/1"
 xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1"
 xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData"
 xmlns:vssd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData"
 xmlns:vmw="http://www.vmware.com/schema/ovf">
  <References><File ovf:href="$disk" ovf:id="file1" ovf:size="$size_bytes"/></References>
  <DiskSection><Info>Virtual disk information</Info>
    <Disk ovf:capacity="$gib" ovf:capacityAllocationUnits="byte * 2^30" ovf:diskId="vmdisk1"
     ovf:fileRef="file1"
     ovf:format="http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"/>
  </DiskSection>
  <NetworkSection><Info>Networks</Info>
    <Network ovf:name="nat"><Description>nat</Description></Network></NetworkSection>
  <VirtualSystem ovf:id="$name"><Info>A virtual machine</Info><Name>$name</Name>
    <OperatingSystemSection ovf:id="$os_id" vmw:osType="$os_type"><Info>OS</Info>
    </OperatingSystemSection>
    <VirtualHardwareSection><Info>Hardware</Info>
      <System><vssd:ElementName>Virtual Hardware Family</vssd:ElementName>
        <vssd:InstanceID>0</vssd:InstanceID>
        <vssd:VirtualSystemIdentifier>$name</vssd:VirtualSystemIdentifier>
        <vssd:VirtualSystemType>vmx-14</vssd:VirtualSystemType></System>
      <Item><rasd:AllocationUnits>hertz * 10^6</rasd:AllocationUnits>
        <rasd:ElementName>1 virtual CPU</rasd:ElementName><rasd:InstanceID>1</rasd:InstanceID>
        <rasd:ResourceType>3</rasd:ResourceType><rasd:VirtualQuantity>1</rasd:VirtualQuantity>
      </Item>
      <Item><rasd:AllocationUnits>byte * 2^20</rasd:AllocationUnits>
        <rasd:ElementName>1024MB</rasd:ElementName><rasd:InstanceID>2</rasd:InstanceID>
        <rasd:ResourceType>4</rasd:ResourceType><rasd:VirtualQuantity>1024</rasd:VirtualQuantity>
      </Item>
      <Item><rasd:Address>0</rasd:Address><rasd:ElementName>SCSI Controller 0</rasd:ElementName>
        <rasd:InstanceID>3</rasd:InstanceID><rasd:ResourceSubType>lsilogic</rasd:ResourceSubType>
        <rasd:ResourceType>6</rasd:ResourceType></Item>
      <Item><rasd:Address>1</rasd:Address>
        <rasd:ElementName>VirtualIDEController 1</rasd:ElementName>
        <rasd:InstanceID>4</rasd:InstanceID><rasd:ResourceType>5</rasd:ResourceType></Item>
      <Item ovf:required="false"><rasd:AddressOnParent>0</rasd:AddressOnParent>
        <rasd:ElementName>CD-ROM 1</rasd:ElementName><rasd:InstanceID>5</rasd:InstanceID>
        <rasd:Parent>4</rasd:Parent>
        <rasd:ResourceSubType>vmware.cdrom.remotepassthrough</rasd:ResourceSubType>
        <rasd:ResourceType>15</rasd:ResourceType></Item>
      <Item><rasd:AddressOnParent>0</rasd:AddressOnParent>
        <rasd:ElementName>Hard Disk 1</rasd:ElementName>
        <rasd:HostResource>ovf:/disk/vmdisk1</rasd:HostResource>
        <rasd:InstanceID>6</rasd:InstanceID><rasd:Parent>3</rasd:Parent>
        <rasd:ResourceType>17</rasd:ResourceType></Item>
      <Item><rasd:AddressOnParent>7</rasd:AddressOnParent>
        <rasd:AutomaticAllocation>true</rasd:AutomaticAllocation>
        <rasd:Connection>nat</rasd:Connection><rasd:ElementName>Ethernet 1</rasd:ElementName>
        <rasd:InstanceID>7</rasd:InstanceID><rasd:ResourceSubType>$nic</rasd:ResourceSubType>
        <rasd:ResourceType>10</rasd:ResourceType></Item>
      <vmw:Config ovf:required="false" vmw:key="firmware" vmw:value="$firmware"/>
    </VirtualHardwareSection>
  </VirtualSystem>
</Envelope>
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedVm:
    """What the descriptor says about the machine."""

    name: str
    size_gib: int
    os_id: int
    os_type: str
    nic: str
    firmware: str = "bios"


@contextmanager
def appliance(raw: Path, size_gib: int) -> Iterator[guestfs.GuestFS]:
    """Launch an appliance with a new raw disk as /dev/sda; flush and end it on leaving."""
    g = guestfs.GuestFS(python_return_dict=True)
    try:
        g.set_backend("direct")
        # /dev/kvm may exist and yet start no guest; emulation works everywhere.
        g.set_backend_settings(["force_tcg"])
        g.set_memsize(1500)
        g.set_network(False)
        g.disk_create(str(raw), "raw", size_gib << 30)
        # The disk is thrown away when building fails, so nothing needs to survive a crash.
        g.add_drive(str(raw), format="raw", cachemode="unsafe")
        g.launch()
        yield g
        g.sync()
        g.umount_all()
        g.shutdown()
    finally:
        g.close()


def report_boot(g: guestfs.GuestFS) -> None:
    """Make the guest print GUEST-UP on its serial console, and let root log in there."""
    g.write("/usr/local/sbin/guest-up", GUEST_UP)
    g.chmod(0o755, "/usr/local/sbin/guest-up")
    g.write("/etc/systemd/system/guest-up.service", GUEST_UP_UNIT)
    g.sh("systemctl enable guest-up.service serial-getty@ttyS0.service")
    g.sh("echo root:v2v | chpasswd")


def add_payload(g: guestfs.GuestFS, mib: int) -> None:
    """Add data to copy, with its checksum, and deleted data that trimming is there to save."""
    if mib:
        g.sh(f"head -c {mib}M /dev/urandom > /var/lib/payload.bin")
        g.sh("cd /var/lib && sha256sum payload.bin > payload.sha256")
    g.sh("head -c 200M /dev/urandom > /var/tmp/junk; sync; rm /var/tmp/junk")


def pack_ova(raw: Path, ova: Path, vm: ExportedVm, tmp: Path) -> None:
    """Pack a raw disk as an OVA: descriptor first, manifest, streamOptimized VMDK."""
    disk = f"{vm.name}-disk1.vmdk"
    convert = ["qemu-img", "convert", "-f", "raw", "-O", "vmdk"]
    subprocess.run(
        [*convert, "-o", "subformat=streamOptimized", str(raw), str(tmp / disk)], check=True
    )
    descriptor = OVF.substitute(
        disk=disk,
        size_bytes=(tmp / disk).stat().st_size,
        gib=vm.size_gib,
        name=vm.name,
        os_id=vm.os_id,
        os_type=vm.os_type,
        nic=vm.nic,
        firmware=vm.firmware,
    )
    (tmp / f"{vm.name}.ovf").write_text(descriptor)
    manifest = "".join(f"SHA256({n})= {sha256(tmp / n)}\n" for n in (f"{vm.name}.ovf", disk))
    (tmp / f"{vm.name}.mf").write_text(manifest)
    unfinished = ova.with_name(f".{ova.name}.part")
    with tarfile.open(unfinished, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name in (f"{vm.name}.ovf", f"{vm.name}.mf", disk):
            tar.add(tmp / name, name)
    unfinished.rename(ova)


def sha256(path: Path) -> str:
    """Return a file's digest in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
