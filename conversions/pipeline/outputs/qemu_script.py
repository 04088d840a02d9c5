"""A shell script that starts a converted VM with qemu.

Source: qemu(1) of 7.2; every option is tried against the installed qemu in the tests.  Nothing of
the source gets into the text unquoted, and disks are named relative to the script, so that the
folder can be moved.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from conversions.pipeline.errors import TargetError
from conversions.pipeline.outputs.libvirt_devices import boot_order
from conversions.pipeline.types import Machine, NetBus, Slot, TargetMeta
from inventory.sources.display import DisplayType
from inventory.sources.types import Removable

Warn = Callable[[str], None]

_MACHINES = {Machine.I440FX: "pc", Machine.Q35: "q35", Machine.VIRT: "virt"}
_PROGRAMS = {"ppc64le": "ppc64"}
_NICS = {NetBus.E1000: "e1000", NetBus.RTL8139: "rtl8139"}
# Pairs of code and variables, in the places of Debian, Fedora and SUSE, best first.
_FIRMWARE = {
    ("x86_64", False): (
        ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
        ("/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"),
        ("/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"),
        ("/usr/share/qemu/ovmf-x86_64-code.bin", "/usr/share/qemu/ovmf-x86_64-vars.bin"),
    ),
    ("x86_64", True): (
        ("/usr/share/OVMF/OVMF_CODE_4M.ms.fd", "/usr/share/OVMF/OVMF_VARS_4M.ms.fd"),
        ("/usr/share/OVMF/OVMF_CODE.secboot.fd", "/usr/share/OVMF/OVMF_VARS.secboot.fd"),
        ("/usr/share/edk2/ovmf/OVMF_CODE.secboot.fd", "/usr/share/edk2/ovmf/OVMF_VARS.secboot.fd"),
        ("/usr/share/qemu/ovmf-x86_64-ms-code.bin", "/usr/share/qemu/ovmf-x86_64-ms-vars.bin"),
    ),
    ("aarch64", False): (
        ("/usr/share/AAVMF/AAVMF_CODE.fd", "/usr/share/AAVMF/AAVMF_VARS.fd"),
        (
            "/usr/share/edk2/aarch64/QEMU_EFI-pflash.raw",
            "/usr/share/edk2/aarch64/vars-template-pflash.raw",
        ),
    ),
}
# The slots of the root bus that virtio-blk may fill; the rest go to bridges of 31 slots each.
_ROOT_DISKS = 12
_BRIDGE_SLOTS = 31
_AHCI_PORTS = 6
_VNC_BASE = 5900


def qemu_script(meta: TargetMeta, warn: Warn = lambda _text: None) -> str:
    """Return the script.  Raises TargetError for hardware that qemu cannot be given.

    Its own arguments are added to qemu's; the variables at its top can be set from outside.
    """
    return _Script(meta, warn).text()


class _Script:
    def __init__(self, meta: TargetMeta, warn: Warn) -> None:
        self._meta = meta
        self._warn = warn
        self._caps = meta.guestcaps
        self._is_pc = meta.guestcaps.machine is not Machine.VIRT
        self._secure = (
            meta.uefi
            and meta.source.uefi_secureboot
            and meta.guestcaps.machine is not Machine.I440FX
        )

    def text(self) -> str:
        meta, caps = self._meta, self._caps
        program = f"qemu-system-{_PROGRAMS.get(caps.arch, caps.arch)}"
        options = " \\\n".join(f"    {option}" for option in self._options())
        return (
            "#!/bin/sh\n"
            "# Starts the converted machine; arguments are passed on to qemu.\n"
            "set -e\n"
            "#set -x\n"
            'cd -- "$(dirname -- "$0")"\n'
            f"machine=${{V2V_MACHINE:-{_MACHINES[caps.machine]}}}\n"
            "accel=${V2V_ACCEL:-kvm:tcg}\n"
            + ("audio=${V2V_AUDIO:-none}\n" if meta.source.sound else "")
            + (self._firmware() if meta.uefi else "")
            + (_VSOCK if caps.virtio_socket else "")
            + f"exec {shlex.quote(program)} \\\n{options} \\\n"
            + ("    ${vsock:+-device} ${vsock:+$vsock} \\\n" if caps.virtio_socket else "")
            + '    "$@"\n'
        )

    def _firmware(self) -> str:
        """Return the lines that find the host's loader; the variables stay beside the disks."""
        pairs = _FIRMWARE.get((self._caps.arch, self._secure))
        if pairs is None:
            raise TargetError(
                f"No UEFI firmware is known for {self._caps.arch}"
                f"{' with secure boot' if self._secure else ''}; no script can start this machine.",
                remedy="Choose the libvirt or the local output.",
            )
        wanted = " ".join(f"{code}:{template}" for code, template in pairs)
        return (
            f"vars={shlex.quote('./' + self._stem() + '-vars.fd')}\n"
            f"for pair in {wanted}; do\n"
            "    code=${pair%%:*} template=${pair#*:}\n"
            '    [ -r "$code" ] && [ -r "$template" ] && break\n'
            "    code=\n"
            "done\n"
            'if [ -z "$code" ]; then\n'
            '    echo "UEFI firmware is not installed on this host." >&2\n'
            "    exit 1\n"
            "fi\n"
            '[ -e "$vars" ] || cp -- "$template" "$vars"\n'
        )

    def _stem(self) -> str:
        return self._meta.name.replace("/", "_")

    def _options(self) -> Iterator[str]:
        """Yield one option a line, quoted for the shell."""
        meta, caps, source = self._meta, self._caps, self._meta.source
        yield "-no-user-config -nodefaults"
        yield f"-name {_list(('guest', meta.name))}"
        if source.genid and self._is_pc:
            yield f"-device {_list('vmgenid', ('guid', source.genid), ('id', 'vmgenid0'))}"
        if not caps.rtc_utc:
            yield "-rtc base=localtime"
        machine = '"$machine",accel="$accel"'
        machine += ",smm=on" if self._secure else ""
        machine += ",pcspk-audiodev=snd0" if source.sound == "pcspk" and self._is_pc else ""
        yield f"-machine {machine}"
        if meta.uefi:
            if self._secure:
                yield "-global driver=cfi.pflash01,property=secure,value=on"
            yield '-drive if=pflash,format=raw,unit=0,readonly=on,file="$code"'
            yield f"-drive {_list(('if', 'pflash'), ('format', 'raw'), ('unit', '1'))},file=" + (
                _value("./" + self._stem() + "-vars.fd")
            )
        yield f"-m {source.memory_bytes >> 20}"
        # "max" is the host's own processor under KVM, and all there is under TCG.
        yield f"-cpu {_value(source.cpu_model or 'max')}"
        if topology := source.cpu_topology:
            yield (
                f"-smp cpus={source.vcpus},sockets={topology.sockets},cores={topology.cores},"
                f"threads={topology.threads}"
            )
        elif source.vcpus > 1:
            yield f"-smp {source.vcpus}"
        yield from self._drives()
        for number, nic in enumerate(meta.nics):
            yield f"-netdev user,id=net{number}"
            model = _NICS.get(caps.net_bus, "virtio-net-pci")
            mac = (("mac", nic.mac),) if nic.mac else ()
            yield f"-device {_list(model, ('netdev', f'net{number}'), *mac)}"
        yield from self._screen()
        yield "-device qemu-xhci,id=usb"
        yield "-device usb-tablet,bus=usb.0"
        yield from self._sound()
        if caps.virtio_rng:
            yield "-object rng-random,filename=/dev/urandom,id=rng0"
            yield "-device virtio-rng-pci,rng=rng0"
        if caps.virtio_balloon:
            yield "-device virtio-balloon-pci"
        if caps.isa_pvpanic and self._is_pc:
            yield "-device pvpanic,ioport=0x505"
        yield "-device virtio-serial-pci"
        yield (
            "-chardev socket,id=agent0,server=on,wait=off,"
            'path="${XDG_RUNTIME_DIR:-/tmp}/v2v-$$.agent"'
        )
        yield "-device virtserialport,chardev=agent0,name=org.qemu.guest_agent.0"
        if meta.guest and meta.guest.type == "linux":
            yield "-serial stdio"

    def _drives(self) -> Iterator[str]:
        buses = self._meta.buses
        yield from self._virtio_blk(buses.virtio_blk)
        if any(buses.ide) and not self._is_pc:
            self._warn("Machine type virt has no IDE: the drives on that bus are left out.")
        else:
            yield from self._ide(buses.ide)
        if any(buses.scsi):
            yield "-device virtio-scsi-pci,id=scsi0"
        for number, slot in enumerate(buses.scsi):
            yield from self._drive(slot, "scsi", number, "scsi0.0", ("lun", number))
        if any(buses.floppy) and not self._is_pc:
            self._warn("Machine type virt has no floppy drives: that of the source is left out.")
        else:
            yield from self._floppies(buses.floppy)

    def _virtio_blk(self, slots: Sequence[Slot]) -> Iterator[str]:
        for number, slot in enumerate(slots):
            bridge, place = divmod(number - _ROOT_DISKS, _BRIDGE_SLOTS)
            if bridge >= 0 and place == 0:
                yield f"-device pci-bridge,id=bridge{bridge},chassis_nr={bridge + 1}"
            if slot is None:
                continue
            identity = f"drive-vblk-{number}"
            bus = (("bus", f"bridge{bridge}"),) if bridge >= 0 else ()
            yield self._backend(slot, identity)
            front = ["virtio-blk-pci", ("drive", identity), *bus]
            yield f"-device {_list(*front, *self._order(slot, number))}"

    def _ide(self, slots: Sequence[Slot]) -> Iterator[str]:
        """Yield IDE on pc, two drives on each of two channels; AHCI, six ports each, on q35."""
        if self._caps.machine is Machine.I440FX:
            if len(slots) > 4:
                raise TargetError(
                    f"{len(slots)} drives on IDE: machine type pc has 4 places.",
                    remedy="Choose the libvirt output, or remove CD-ROM drives from the source.",
                )
            for number, slot in enumerate(slots):
                yield from self._drive(
                    slot, "ide", number, f"ide.{number // 2}", ("unit", number % 2)
                )
            return
        for number, slot in enumerate(slots):
            controller, port = divmod(number, _AHCI_PORTS)
            if controller and not port:
                yield f"-device ich9-ahci,id=ahci{controller}"
            bus = f"ahci{controller}.{port}" if controller else f"ide.{port}"
            yield from self._drive(slot, "ide", number, bus, ("unit", 0))

    def _floppies(self, slots: Sequence[Slot]) -> Iterator[str]:
        if any(slots) and self._caps.machine is Machine.Q35:  # pc has a controller built in
            yield "-device isa-fdc,id=fdc0"
        for number, slot in enumerate(slots):
            if slot is not None:
                yield f"-drive if=none,id=drive-floppy-{number}"
                yield f"-device floppy,drive=drive-floppy-{number},unit={number}"

    def _drive(
        self, slot: Slot, kind: str, number: int, bus: str, place: tuple[str, int]
    ) -> Iterator[str]:
        if slot is None:
            return
        identity = f"drive-{kind}-{number}"
        device = f"{kind}-{'cd' if isinstance(slot, Removable) else 'hd'}"
        yield self._backend(slot, identity)
        yield "-device " + _list(
            device,
            ("drive", identity),
            ("bus", bus),
            (place[0], str(place[1])),
            *self._order(slot, number),
        )

    def _backend(self, slot: Slot, identity: str) -> str:
        if slot is None or isinstance(slot, Removable):
            return f"-drive if=none,id={identity},media=cdrom"
        name = "./" + Path(slot.final_path).name
        return "-drive " + _list(
            ("file", name),
            ("format", slot.format),
            ("if", "none"),
            ("id", identity),
            ("discard", "unmap"),
        )

    def _order(self, slot: Slot, number: int) -> Sequence[tuple[str, str]]:
        """Return the boot order of a disk; qemu takes it on the front end only."""
        if slot is None or isinstance(slot, Removable):
            return ()
        return (("bootindex", str(boot_order(number, self._meta.boot_disk))),)

    def _screen(self) -> Iterator[str]:
        yield "-vga std" if self._is_pc else "-device virtio-gpu-pci"
        display = self._meta.source.display
        if display and display.type is DisplayType.SPICE:
            port = display.port or _VNC_BASE
            yield f"-spice port={port},addr=127.0.0.1,disable-ticketing=on"
            return
        port = display.port if display and display.port else _VNC_BASE
        # The next free one, so that several of these scripts run side by side.
        yield f"-display vnc=127.0.0.1:{max(0, port - _VNC_BASE)},to=99"

    def _sound(self) -> Iterator[str]:
        model = self._meta.source.sound
        if not model:
            return
        devices = {
            "ich6": ("intel-hda", "hda-duplex,audiodev=snd0"),
            "ich9": ("ich9-intel-hda", "hda-duplex,audiodev=snd0"),
            "ac97": ("AC97,audiodev=snd0",),
            "es1370": ("ES1370,audiodev=snd0",),
            "sb16": ("sb16,audiodev=snd0",),
            "usb": ("usb-audio,bus=usb.0,audiodev=snd0",),
            "pcspk": (),
        }.get(model)
        if devices is None or (not self._is_pc and model in ("sb16", "pcspk")):
            self._warn(f"Sound card {model} cannot be had on this machine; it is left out.")
            return
        yield '-audiodev driver="$audio",id=snd0'
        for device in devices:
            yield f"-device {device}"


# A context id must be free on the whole host; nobody else has this process's own number.
_VSOCK = (
    "vsock=\n"
    "if [ -w /dev/vhost-vsock ]; then\n"
    "    cid=$$\n"
    '    [ "$cid" -gt 2 ] || cid=3\n'
    "    vsock=vhost-vsock-pci,guest-cid=$cid\n"
    "fi\n"
)


def _value(text: str) -> str:
    """Return one value of a qemu option list, quoted for qemu (commas) and for the shell."""
    return shlex.quote(text.replace(",", ",,"))


def _list(*parts: str | tuple[str, str]) -> str:
    """Return a qemu option list, quoted as one word for the shell."""
    return shlex.quote(
        ",".join(
            part if isinstance(part, str) else f"{part[0]}={part[1].replace(',', ',,')}"
            for part in parts
        )
    )
