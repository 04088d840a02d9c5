"""The libvirt domain XML of a converted VM.

Source: libvirt's formatdomain; every rule that is ours is in the comments.
"""

from __future__ import annotations

from dataclasses import replace

from lxml import etree

from conversions.pipeline.osinfo import osinfo_id
from conversions.pipeline.outputs.domain_host import DomainHost, assumed_host
from conversions.pipeline.outputs.libvirt_devices import Warn, add_devices
from conversions.pipeline.types import Machine, TargetMeta
from inventory.sources.types import Source

_MACHINES = {Machine.I440FX: "pc", Machine.Q35: "q35", Machine.VIRT: "virt"}
_LIBOSINFO = "http://libosinfo.org/xmlns/libvirt/domain/1.0"


def domain_xml(
    meta: TargetMeta, host: DomainHost | None = None, warn: Warn = lambda _text: None
) -> str:
    """Return the domain XML, UTF-8 with declaration, two-space indent.

    `host` None assumes a current KVM host.  `warn` hears what the target will not have.
    """
    source, caps = meta.source, meta.guestcaps
    host = host or assumed_host(caps.arch)
    domain = etree.Element("domain", type=host.domain_type)
    domain.append(etree.Comment(" written by v2vweb "))
    _text(domain, "name", meta.name.replace("/", "_"))
    if source.genid:
        _text(domain, "genid", source.genid)
    _libosinfo(domain, meta, warn)
    for tag in ("memory", "currentMemory"):
        _text(domain, tag, str(source.memory_bytes // 1024), unit="KiB")
    _text(domain, "vcpu", str(source.vcpus))
    _cpu(domain, source)
    secure = _is_secure_boot(meta, warn)
    features = etree.SubElement(domain, "features")
    wanted = (set(source.features) | {"acpi", "apic", "pae"}) & host.features
    for name in sorted(wanted):
        etree.SubElement(features, name)
    if secure and "acpi" in host.features:
        # OVMF keeps its variables safe from the guest in system management mode only.
        etree.SubElement(features, "smm", state="on")
    _os(domain, meta, secure=secure)
    etree.SubElement(domain, "clock", offset="utc" if caps.rtc_utc else "localtime")
    for tag, action in (("poweroff", "destroy"), ("reboot", "restart"), ("crash", "restart")):
        _text(domain, f"on_{tag}", action)
    add_devices(etree.SubElement(domain, "devices"), meta, host, warn)
    etree.indent(domain, "  ")
    body: str = etree.tostring(domain, encoding="unicode")
    return "<?xml version='1.0' encoding='utf-8'?>\n" + body + "\n"


def public_xml(meta: TargetMeta, host: DomainHost | None = None) -> str:
    """Return the domain XML as it may be shown and kept: without the password of the display."""
    source = meta.source
    if source.display:
        source = replace(source, display=replace(source.display, password=None))
    return domain_xml(replace(meta, source=source), host)


def _text(parent: etree._Element, tag: str, text: str, **attributes: str) -> etree._Element:
    element = etree.SubElement(parent, tag, attributes)
    element.text = text
    return element


def _libosinfo(domain: etree._Element, meta: TargetMeta, warn: Warn) -> None:
    """Say which system it is, so that virt-manager and the like can choose by it."""
    if meta.guest is None:
        return
    if (identity := osinfo_id(meta.guest.osinfo)) is None:
        warn(f"libosinfo's database does not know {meta.guest.osinfo!r}; the XML does not name it.")
        return
    metadata = etree.SubElement(domain, "metadata")
    info = etree.SubElement(metadata, f"{{{_LIBOSINFO}}}libosinfo", nsmap={"libosinfo": _LIBOSINFO})
    etree.SubElement(info, f"{{{_LIBOSINFO}}}os", id=identity)


def _cpu(domain: etree._Element, source: Source) -> None:
    if source.cpu_model:
        cpu = etree.SubElement(domain, "cpu", match="minimum")
        if source.cpu_model == "qemu64":  # made up: no processor has all of its features
            cpu.set("check", "none")
        if source.cpu_vendor:
            _text(cpu, "vendor", source.cpu_vendor)
        _text(cpu, "model", source.cpu_model, fallback="allow")
    else:
        cpu = etree.SubElement(domain, "cpu", mode="host-model")
    if topology := source.cpu_topology:
        etree.SubElement(
            cpu,
            "topology",
            sockets=str(topology.sockets),
            cores=str(topology.cores),
            threads=str(topology.threads),
        )


def _is_secure_boot(meta: TargetMeta, warn: Warn) -> bool:
    wanted = meta.uefi and meta.source.uefi_secureboot
    if wanted and meta.guestcaps.machine is Machine.I440FX:
        warn("Machine type pc cannot do secure boot; the target starts without it.")
        return False
    return wanted


def _os(domain: etree._Element, meta: TargetMeta, *, secure: bool) -> None:
    """Ask for a kind of firmware; libvirt chooses the loader that the host has for it."""
    os_ = etree.SubElement(domain, "os")
    if meta.uefi:
        os_.set("firmware", "efi")
        firmware = etree.SubElement(os_, "firmware")
        etree.SubElement(firmware, "feature", name="secure-boot", enabled="yes" if secure else "no")
        if secure:
            etree.SubElement(firmware, "feature", name="enrolled-keys", enabled="yes")
    machine = _MACHINES[meta.guestcaps.machine]
    _text(os_, "type", "hvm", arch=meta.guestcaps.arch, machine=machine)
