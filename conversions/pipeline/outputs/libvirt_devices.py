"""The devices of a libvirt domain: drives, NICs, screen and the rest.

Source: libvirt's formatdomain; every rule that is ours is in the comments.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lxml import etree

from conversions.pipeline.outputs.domain_host import DomainHost
from conversions.pipeline.types import Machine, NetBus, Slot, TargetDisk, TargetMeta
from inventory.sources.display import Display, DisplayType, ListenType
from inventory.sources.types import Nic, Removable, VnetType, disk_letters

Warn = Callable[[str], None]
"""Takes a sentence about something of the source that the target will not have."""

_NIC_MODELS = {NetBus.E1000: "e1000", NetBus.RTL8139: "rtl8139"}
_LOCAL = "127.0.0.1"


def virtio_model(meta: TargetMeta) -> str:
    """Return the model of all virtio devices.

    On q35 plain "virtio" means 1.0; guests of the 0.9 age need transitional devices there.
    """
    caps = meta.guestcaps
    return (
        "virtio-transitional" if caps.machine is Machine.Q35 and not caps.virtio_1_0 else "virtio"
    )


def add_devices(devices: etree._Element, meta: TargetMeta, host: DomainHost, warn: Warn) -> None:
    """Append every device below `devices`."""
    caps, virtio = meta.guestcaps, virtio_model(meta)
    _drives(devices, meta, host, warn)
    for nic in meta.nics:
        _nic(devices, nic, _NIC_MODELS.get(caps.net_bus, virtio))
    _screen(devices, meta, warn)
    if meta.source.sound:
        etree.SubElement(devices, "sound", model=meta.source.sound)
    if caps.virtio_rng:
        rng = etree.SubElement(devices, "rng", model=virtio)
        etree.SubElement(rng, "backend", model="random").text = "/dev/urandom"
    # Without "none" libvirt adds a balloon of its own.
    etree.SubElement(devices, "memballoon", model=virtio if caps.virtio_balloon else "none")
    if caps.isa_pvpanic and caps.machine is not Machine.VIRT:
        panic = etree.SubElement(devices, "panic", model="isa")
        etree.SubElement(panic, "address", type="isa", iobase="0x505")
    if caps.virtio_socket and host.vsock:
        etree.SubElement(devices, "vsock", model=virtio)
    _inputs(devices, caps.machine)
    etree.SubElement(devices, "console", type="pty")
    etree.SubElement(devices, "controller", type="virtio-serial", model=virtio)
    channel = etree.SubElement(devices, "channel", type="unix")
    etree.SubElement(channel, "target", type="virtio", name="org.qemu.guest_agent.0")


def boot_order(index: int, boot_disk: int | None) -> int:
    """Return a disk's place in the boot order: the boot disk first, the others behind it."""
    if boot_disk is None:
        return index + 1
    return 1 if index == boot_disk else index + 2


def _drives(devices: etree._Element, meta: TargetMeta, host: DomainHost, warn: Warn) -> None:
    buses, machine = meta.buses, meta.guestcaps.machine
    drives = _Drives(devices, meta, host)
    drives.add(buses.virtio_blk, "virtio", "vd", 0)
    first_scsi = 0
    if machine is Machine.VIRT:
        if any(buses.ide):
            warn("Machine type virt has no IDE: the drives on that bus are left out.")
    else:
        bus, prefix = ("ide", "hd") if machine is Machine.I440FX else ("sata", "sd")
        drives.add(buses.ide, bus, prefix, 0)
        # SATA and SCSI share the sdX names; libvirt refuses two disks of one name.
        first_scsi = len(buses.ide) if bus == "sata" else 0
    drives.add(buses.scsi, "scsi", "sd", first_scsi)
    if any(buses.scsi):
        # Without it libvirt may add an emulated controller the guest has no driver for.
        virtio = virtio_model(meta)
        model = "virtio-scsi" if virtio == "virtio" else virtio
        etree.SubElement(devices, "controller", type="scsi", index="0", model=model)
    if any(buses.floppy) and not host.floppy:
        warn("The target has no floppy drives: that of the source is left out.")
    elif any(buses.floppy):
        drives.add(buses.floppy, "", "fd", 0)


class _Drives:
    """Appends the drives of one bus after the other."""

    def __init__(self, devices: etree._Element, meta: TargetMeta, host: DomainHost) -> None:
        self._devices = devices
        self._meta = meta
        self._host = host

    def add(self, slots: Sequence[Slot], bus: str, prefix: str, first: int) -> None:
        """Append a bus; letters follow the slot, an empty slot leaves a comment.

        `bus` "" leaves the attribute out, as for floppies, whose one bus libvirt fills in.
        """
        for number, slot in enumerate(slots):
            target = {"dev": prefix + disk_letters(first + number)}
            if bus:
                target["bus"] = bus
            if slot is None:
                comment = f" no drive in {bus or 'floppy'} slot {number} "
                self._devices.append(etree.Comment(comment))
            elif isinstance(slot, Removable):
                self._removable(target, "cdrom" if bus else "floppy")
            else:
                self._disk(slot, target, boot_order(number, self._meta.boot_disk))

    def _removable(self, target: dict[str, str], device: str) -> None:
        drive = etree.SubElement(self._devices, "disk", device=device, type="file")
        etree.SubElement(drive, "driver", name="qemu", type="raw")
        etree.SubElement(drive, "target", target)

    def _disk(self, slot: TargetDisk, target: dict[str, str], order: int) -> None:
        volume = self._host.volumes.get(slot.final_path)
        kind = "volume" if volume else "file"
        disk = etree.SubElement(self._devices, "disk", type=kind, device="disk")
        virtio = virtio_model(self._meta)
        if target["bus"] == "virtio" and virtio != "virtio":
            disk.set("model", virtio)
        etree.SubElement(disk, "driver", name="qemu", type=slot.format, discard="unmap")
        if volume:
            etree.SubElement(disk, "source", pool=volume[0], volume=volume[1])
        else:
            etree.SubElement(disk, "source", file=slot.final_path)
        etree.SubElement(disk, "target", target)
        etree.SubElement(disk, "boot", order=str(order))


def _nic(devices: etree._Element, nic: Nic, model: str) -> None:
    kind = "bridge" if nic.vnet_type is VnetType.BRIDGE else "network"
    interface = etree.SubElement(devices, "interface", type=kind)
    etree.SubElement(interface, "source", {kind: nic.vnet})
    etree.SubElement(interface, "model", type=model)
    if nic.mac:
        etree.SubElement(interface, "mac", address=nic.mac)


def _screen(devices: etree._Element, meta: TargetMeta, warn: Warn) -> None:
    video = etree.SubElement(devices, "video")
    if meta.guestcaps.machine is Machine.VIRT:
        # That machine has no VGA.
        etree.SubElement(video, "model", type="virtio", heads="1")
    else:
        etree.SubElement(video, "model", type=meta.guestcaps.video, vram="16384", heads="1")
    display = meta.source.display
    # A window cannot open on a host without a screen; VNC shows the same from anywhere.
    spice = display is not None and display.type is DisplayType.SPICE
    graphics = etree.SubElement(devices, "graphics", type="spice" if spice else "vnc")
    if display and display.port:
        graphics.set("port", str(display.port))
    else:
        graphics.set("autoport", "yes")
    if display and display.keymap:
        graphics.set("keymap", display.keymap)
    if display and meta.keep_display:
        _kept_display(graphics, display)
        return
    # On the host itself only: the source's display may have been open to its network.
    etree.SubElement(graphics, "listen", type="address", address=_LOCAL)
    if display and display.password:
        warn("The password of the source's display is left out; the display is local to the host.")


def _kept_display(graphics: etree._Element, display: Display) -> None:
    if display.password:
        graphics.set("passwd", display.password)
    if display.listen is None:
        return
    listen = etree.SubElement(graphics, "listen", type=display.listen.type)
    if display.listen.value and display.listen.type is not ListenType.NONE:
        listen.set(display.listen.type, display.listen.value)


def _inputs(devices: etree._Element, machine: Machine) -> None:
    if machine is Machine.VIRT:  # neither PS/2 nor a USB controller of its own
        etree.SubElement(devices, "controller", type="usb", model="qemu-xhci")
        etree.SubElement(devices, "input", type="tablet", bus="usb")
        etree.SubElement(devices, "input", type="keyboard", bus="usb")
        return
    etree.SubElement(devices, "input", type="tablet", bus="usb")
    etree.SubElement(devices, "input", type="mouse", bus="ps2")
