"""What was found in a guest as the XML that virt-v2v-inspector writes, for tools that read it.

Made from the reports of a run that got as far as the inspection, whatever its mode.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from lxml import etree

from conversions.pipeline.outputs.libvirt_devices import boot_order
from inventory.sources.types import disk_letters

PROGRAM = "virt-v2v-inspector"
PACKAGE = "v2vweb"
VERSION = "0.1.0"
# What no XML document can hold; names in a guest are whatever somebody put there.
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# Written when there is something in them, in this order.
_OPTIONAL = (
    "package_format", "package_management", "product_name", "product_variant",
    "windows_systemroot",
)  # fmt: skip
_HIVES = ("windows_software_hive", "windows_system_hive")
# Defender alone is no antivirus here: every Windows has it, and it is only noted.
_FLAGS = {"C-GROUP-POLICY": "windows_group_policy", "C-ANTIVIRUS": "windows_antivirus"}
_NOTHING = (None, "", "unknown")


def inspector_xml(reports: Mapping[str, Any]) -> str:
    """Return the document, two-space indent.  Raises ValueError when no guest was inspected."""
    guest = reports.get("inspection")
    if not guest:
        raise ValueError("nothing was inspected")
    root = etree.Element("v2v-inspection")
    root.append(etree.Comment(" written by v2vweb "))
    for tag, text in (("program", PROGRAM), ("package", PACKAGE), ("version", VERSION)):
        _text(root, tag, text)
    _disks(etree.SubElement(root, "disks"), reports)
    etree.SubElement(root, "firmware", type="uefi" if _is_uefi(reports) else "bios")
    _system(etree.SubElement(root, "operatingsystem"), guest, reports)
    etree.indent(root, "  ")
    body: str = etree.tostring(root, encoding="unicode")
    return "<?xml version='1.0' encoding='utf-8'?>\n" + body + "\n"


def _disks(parent: etree._Element, reports: Mapping[str, Any]) -> None:
    """Add each disk: its size as the guest sees it, and at most how much of it is in use."""
    source = reports.get("source", {}).get("disks", [])
    overlays = {overlay["sd"]: overlay for overlay in reports.get("overlays", [])}
    estimates = reports.get("estimate", {}).get("disks", {})
    for index, disk in enumerate(source):
        sd = "sd" + disk_letters(index)
        sizes = (
            overlays.get(sd, {}).get("virtual_size_bytes"),
            disk.get("virtual_size_bytes"),
            disk.get("declared_capacity_bytes"),
        )
        element = etree.SubElement(parent, "disk", index=str(index))
        virtual_size = next((size for size in sizes if size), None)
        if virtual_size is not None:
            _text(element, "virtual-size", virtual_size)
        if sd in estimates:
            _text(element, "allocated", estimates[sd], estimated="true")
        _text(element, "boot-order", boot_order(index, reports.get("boot_disk")))


def _is_uefi(reports: Mapping[str, Any]) -> bool:
    stated = reports.get("source", {}).get("firmware", "unknown")
    if stated in ("bios", "uefi"):
        return bool(stated == "uefi")
    return bool(reports["inspection"].get("uefi_esps"))


def _system(parent: etree._Element, guest: Mapping[str, Any], reports: Mapping[str, Any]) -> None:
    _text(parent, "name", guest["type"])
    for tag in ("distro", "osinfo", "arch", "major_version", "minor_version"):
        _text(parent, tag, guest.get(tag, ""))
    wanted = list(_OPTIONAL)
    if guest.get("windows_systemroot"):
        wanted += _HIVES
    for tag in (*wanted, "windows_current_control_set"):
        if guest.get(tag) not in _NOTHING:
            _text(parent, tag, guest[tag])
    warned = {c["code"] for c in reports.get("concerns", []) if c["level"] == "warning"}
    for code, tag in _FLAGS.items():
        if code in warned:
            etree.SubElement(parent, tag)
    _text(parent, "root", guest["root"])
    mountpoints = etree.SubElement(parent, "mountpoints")
    for path, device in guest.get("mountpoints", []):
        _text(mountpoints, "mountpoint", path, dev=device)
    filesystems = etree.SubElement(parent, "filesystems")
    for device, kind in guest.get("filesystems", []):
        element = etree.SubElement(filesystems, "filesystem", dev=_clean(device))
        details = reports.get("filesystems", {}).get(device, {})
        if kind not in _NOTHING:
            version = {"version": details["version"]} if "version" in details else {}
            _text(element, "type", kind, **version)
        for tag in ("label", "uuid"):
            if tag in details:
                _text(element, tag, details[tag])


def _text(parent: etree._Element, tag: str, value: Any, **attributes: str) -> None:
    clean = {name: _clean(text) for name, text in attributes.items()}
    etree.SubElement(parent, tag, clean).text = _clean(value)


def _clean(value: Any) -> str:
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", str(value))
