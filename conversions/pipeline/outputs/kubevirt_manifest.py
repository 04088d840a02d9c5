"""The manifest of a converted VM for KubeVirt: a VirtualMachine of kubevirt.io/v1.

Source: KubeVirt's API reference for kubevirt.io/v1 and the checks of its admission; the tests hold
every document against a schema of the fields used here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import yaml

from conversions.pipeline.inspector_xml import VERSION
from conversions.pipeline.outputs.domain_host import assumed_host
from conversions.pipeline.outputs.kubevirt_names import (
    POD_NETWORK,
    is_label_value,
    is_network_name,
    network_name_like,
)
from conversions.pipeline.outputs.libvirt_devices import boot_order
from conversions.pipeline.types import Machine, NetBus, Slot, TargetMeta
from inventory.sources.types import Nic, Removable

Warn = Callable[[str], None]
Node = dict[str, Any]

LABELS = "v2vweb"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "s390x": "s390x"}
_MODELS = {NetBus.VIRTIO_NET: "virtio", NetBus.E1000: "e1000", NetBus.RTL8139: "rtl8139"}
_SOUND = ("ac97", "ich9")
_MAC = re.compile(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}")
# Time to shut down by itself before it is killed; KubeVirt's documentation has this for machines.
_GRACE_SECONDS = 180


class Given(str):
    """A word from the source or from a person; it is always written in quotes.

    Readers of YAML differ in what plain words are: to some of them 1e3 is a number.
    """

    __slots__ = ()


class _Dumper(yaml.SafeDumper):
    """Writes words that were given in quotes, and never an alias."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.add_representer(
    Given, lambda dumper, word: dumper.represent_scalar("tag:yaml.org,2002:str", word, style='"')
)


def manifest(meta: TargetMeta, warn: Warn = lambda _text: None) -> str:
    """Return the document as YAML; `warn` hears what the target will not have.

    The name must be one that Kubernetes takes and the disks' paths must be absolute.
    """
    document = _Machine(meta, warn).document()
    # A line that is folded is read back the same, but no person wants to read it.
    body = yaml.dump(
        document, Dumper=_Dumper, sort_keys=False, explicit_start=True, width=float("inf")
    )
    return "".join(f"# {line}\n" for line in _head(document)) + body


def _head(document: Node) -> Iterator[str]:
    """Yield what to know before applying it; no word of it comes from the source."""
    spec = document["spec"]["template"]["spec"]
    yield f"written by v2vweb {VERSION}"
    if spec["volumes"]:
        yield "The disks are read as raw files of the node that runs the machine, which needs the"
        yield "feature gate HostDisk; or import them, and name their claims under volumes."
    if any("cdrom" in disk for disk in spec["domain"]["devices"]["disks"]):
        yield "Empty CD-ROM drives need KubeVirt 1.6 and its feature gate"
        yield "DeclarativeHotplugVolumes; remove them where it is off."


class _Machine:
    def __init__(self, meta: TargetMeta, warn: Warn) -> None:
        self._meta = meta
        self._warn = warn
        self._caps = meta.guestcaps
        self._source = meta.source
        self._is_windows = meta.guest is not None and meta.guest.type == "windows"
        self._secure = meta.uefi and meta.source.uefi_secureboot

    def document(self) -> Node:
        disks, volumes = self._drives()
        interfaces, networks = self._network()
        spec: Node = {}
        if architecture := _ARCHITECTURES.get(self._caps.arch):
            spec["architecture"] = architecture
        spec["domain"] = self._domain(disks, interfaces)
        spec["volumes"] = volumes
        spec["networks"] = networks
        spec["terminationGracePeriodSeconds"] = _GRACE_SECONDS
        return {
            "apiVersion": "kubevirt.io/v1",
            "kind": "VirtualMachine",
            "metadata": {"name": Given(self._meta.name), "labels": dict(self._labels())},
            "spec": {"runStrategy": "Halted", "template": {"spec": spec}},
        }

    def _labels(self) -> Iterator[tuple[str, str]]:
        guest, hypervisor = self._meta.guest, self._source.hypervisor
        values = {
            "version": VERSION,
            "genid": self._source.genid,
            "osinfo": guest.osinfo if guest else None,
            "source": hypervisor if hypervisor != "unknownhv" else None,
        }
        for name, value in values.items():
            if value and is_label_value(value):
                yield f"{LABELS}/{name}", Given(value)
            elif value:
                self._warn(f"{value[:80]!r} cannot be a label; {name} is left out.")

    def _domain(self, disks: list[Node], interfaces: list[Node]) -> Node:
        domain: Node = {}
        if (machine := self._machine()) is not None:
            domain["machine"] = {"type": machine}
        domain["firmware"] = {"bootloader": self._bootloader()}
        if self._is_windows:
            domain["clock"] = self._clock()
        memory = f"{self._source.memory_bytes >> 20}Mi"
        domain["resources"] = {"requests": {"memory": memory}}
        if features := self._features():
            domain["features"] = features
        domain["cpu"] = self._cpu()
        domain["devices"] = dict(self._devices(disks, interfaces))
        return domain

    def _machine(self) -> str | None:
        """Return the machine type; None leaves it to the cluster, which knows its architecture."""
        if self._caps.machine is Machine.VIRT:
            return "virt" if self._caps.arch == "aarch64" else None
        if self._caps.machine is Machine.I440FX:
            self._warn(
                "KubeVirt runs no machine of type pc; the target gets q35, with SATA in the place "
                "of IDE. A guest as old as this one may not start on it."
            )
        return "q35"

    def _bootloader(self) -> Node:
        if not self._meta.uefi:
            return {"bios": {}}
        # Left out, secure boot is on.
        return {"efi": {"persistent": True, "secureBoot": self._secure}}

    def _clock(self) -> Node:
        """Return the clock that Windows keeps time by; KubeVirt has none in local time."""
        if not self._caps.rtc_utc:
            self._warn(
                "The guest takes its clock for local time, KubeVirt sets it to UTC: the time is "
                "wrong until the guest has asked a time server."
            )
        return {
            "timer": {
                "hpet": {"present": False},
                "hyperv": {},
                "pit": {"tickPolicy": "delay"},
                "rtc": {"tickPolicy": "catchup"},
            },
            "utc": {},
        }

    def _features(self) -> Node:
        known = assumed_host(self._caps.arch).features & {"acpi", "apic"}
        features: Node = {name: {} for name in sorted(known)}
        if self._secure:
            # The firmware keeps its variables safe from the guest in that mode only.
            features["smm"] = {"enabled": True}
        return features

    def _cpu(self) -> Node:
        cpu: Node = {}
        model = self._source.cpu_model
        # qemu64 is made up: no node says that it has it, so the machine would never be placed.
        if model and model != "qemu64" and is_label_value(model):
            cpu["model"] = Given(model)
        elif model:
            self._warn(f"CPU model {model[:80]!r} is left out; the machine gets that of its node.")
        if topology := self._source.cpu_topology:
            cpu |= {
                "sockets": topology.sockets,
                "cores": topology.cores,
                "threads": topology.threads,
            }
        else:
            cpu["cores"] = self._source.vcpus
        return cpu

    def _devices(self, disks: list[Node], interfaces: list[Node]) -> Iterator[tuple[str, Any]]:
        """Yield the devices; what needs a feature gate of its own, as vsock, is left alone."""
        sound = self._source.sound
        if sound in _SOUND:
            yield "sound", {"name": "sound", "model": sound}
        elif sound:
            self._warn(f"KubeVirt has no sound card {sound}; it is left out.")
        if self._caps.virtio_rng:
            yield "rng", {}
        if not self._caps.virtio_balloon:
            yield "autoattachMemBalloon", False
        if not self._caps.virtio_1_0:
            yield "useVirtioTransitional", True
        yield "disks", disks
        if not interfaces:
            # It would be given a card on the pod network.
            yield "autoattachPodInterface", False
        yield "interfaces", interfaces
        yield "inputs", [{"type": "tablet", "bus": "usb", "name": "tablet"}]

    def _drives(self) -> tuple[list[Node], list[Node]]:
        """Return the drives and the volumes behind them; an empty CD-ROM drive has none."""
        disks: list[Node] = []
        volumes: list[Node] = []
        buses, is_virt = self._meta.buses, self._caps.machine is Machine.VIRT
        ide = "scsi" if is_virt else "sata"
        drives: list[tuple[str, int, Slot]] = [
            (bus, number, slot)
            for bus, slots in (("virtio", buses.virtio_blk), (ide, buses.ide), ("scsi", buses.scsi))
            for number, slot in enumerate(slots)
        ]
        cdroms = 0
        for bus, number, slot in drives:
            if isinstance(slot, Removable):
                # No CD-ROM drive is on virtio.
                cdrom = {"bus": ide if bus == "virtio" else bus}
                disks.append({"cdrom": cdrom, "name": f"cdrom-{cdroms}"})
                cdroms += 1
            elif slot is not None:
                name = f"disk-{number}"
                order = boot_order(number, self._meta.boot_disk)
                disks.append({"disk": {"bus": bus}, "bootOrder": order, "name": name})
                path = Given(slot.final_path)
                volumes.append({"hostDisk": {"path": path, "type": "Disk"}, "name": name})
                if slot.format != "raw":
                    self._warn(
                        f"{slot.final_path} is {slot.format}, and KubeVirt takes files of its "
                        "nodes for raw: import the disk into the cluster, or convert to raw."
                    )
        if any(buses.ide) and is_virt:
            self._warn("Machine type virt has no IDE: the drives on that bus are on SCSI here.")
        if any(buses.floppy):
            self._warn("KubeVirt has no floppy drives: that of the source is left out.")
        return disks, volumes

    def _network(self) -> tuple[list[Node], list[Node]]:
        interfaces: list[Node] = []
        networks: list[Node] = []
        for number, nic in enumerate(self._meta.nics):
            name = f"net-{number}"
            # Of either kind: what a source calls a bridge or a network means nothing to a cluster.
            is_pod = nic.vnet == POD_NETWORK
            if is_pod and any("pod" in network for network in networks):
                self._warn(
                    f"Card {number + 1} leads to the pod network as another does, and a machine "
                    "can be on it once; here it leads to a network attachment of that name."
                )
                is_pod = False
            interface: Node = {"name": name, ("masquerade" if is_pod else "bridge"): {}}
            if nic.mac and _MAC.fullmatch(nic.mac):
                interface["macAddress"] = Given(nic.mac)
            elif nic.mac:
                self._warn(f"{nic.mac[:80]!r} is no MAC address; it is left out.")
            interface["model"] = _MODELS[self._caps.net_bus]
            interfaces.append(interface)
            source = {"pod": {}} if is_pod else {"multus": {"networkName": self._attachment(nic)}}
            networks.append({"name": name, **source})
        return interfaces, networks

    def _attachment(self, nic: Nic) -> Given:
        """Return the network attachment a card leads to, of which the cluster must have one."""
        if is_network_name(nic.vnet):
            return Given(nic.vnet)
        like = network_name_like(nic.vnet)
        self._warn(
            f"Network {nic.vnet[:80]!r} cannot be the name of a network attachment; the manifest "
            f"says {like}. Another one can be given with --network or --bridge."
        )
        return Given(like)
