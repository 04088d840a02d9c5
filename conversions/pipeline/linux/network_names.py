"""Names of network interfaces that hang on the slot of the card, and keeping them on KVM.

Names such as ens192 come from the place of the card on the bus, which is another one on KVM; a
configuration under the old name would apply to nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from conversions.pipeline.context import Context
from conversions.pipeline.linux.files import GuestFiles, with_line
from conversions.pipeline.report import Level
from conversions.pipeline.types import Machine, NetBus
from inventory.sources.types import Nic

_FOLDERS = (
    "/etc/network/interfaces.d", "/etc/netplan", "/etc/NetworkManager/system-connections",
    "/etc/sysconfig/network-scripts", "/etc/sysconfig/network", "/etc/systemd/network",
)  # fmt: skip
_SLOT_NAME = re.compile(r"\b(en(?:[opsx][0-9a-f]+\w*))\b")
_MAC = re.compile(r"\b([0-9a-fA-F]{2}(?::[0-9a-fA-F]{2}){5})\b")
_STATIC = re.compile(
    r"(?mi)\bstatic\b|^\s*-?\s*addresses:|^address\d?=|^Address=|method=manual|^\s*IPADDR\d?="
)
_LINKS = "/etc/systemd/network"
_PERSISTENT = "/etc/udev/rules.d/70-persistent-net.rules"
_DRIVERS = {NetBus.VIRTIO_NET: "virtio_net", NetBus.E1000: "e1000 e1000e",
            NetBus.RTL8139: "8139cp 8139too"}  # fmt: skip
MAX_FILES = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfiguredNic:
    """An interface a file configures by a name that will change; `mac` lower case, if it says."""

    name: str
    path: str
    mac: str | None
    static: bool


def configured_nics(files: GuestFiles) -> list[ConfiguredNic]:
    """Return the interfaces with a name from their slot that files of the guest configure."""
    paths = ["/etc/network/interfaces"]
    for folder in _FOLDERS:
        paths += [p for p in files.paths(folder) if not p.endswith((".link", "~", ".bak"))]
    found: dict[str, ConfiguredNic] = {}
    for path in paths[:MAX_FILES]:
        # The name of an ifcfg file is that of its interface.
        name = path.rsplit("/", 1)[1]
        text = files.read(path) or ""
        body = "\n".join(line for line in text.split("\n") if not line.lstrip().startswith("#"))
        if name.startswith("ifcfg-"):
            body += f"\n{name.removeprefix('ifcfg-')}"
        names = sorted(set(_SLOT_NAME.findall(body)))
        macs = sorted({mac.lower() for mac in _MAC.findall(body)})
        for nic in names:
            found.setdefault(
                nic,
                ConfiguredNic(
                    name=nic,
                    path=path,
                    # With several of both in a file it is not certain which belongs to which.
                    mac=macs[0] if len(macs) == 1 and len(names) == 1 else None,
                    static=bool(_STATIC.search(body)),
                ),
            )
    return sorted(found.values(), key=lambda n: n.name)


def expected_name(machine: Machine, index: int = 0) -> str:
    """Return the name a first, second ... card gets on KVM."""
    return f"ens{3 + index}" if machine is Machine.I440FX else f"enp{1 + index}s0"


def match_nics(
    configured: Sequence[ConfiguredNic], nics: Sequence[Nic]
) -> list[tuple[ConfiguredNic, str | None, bool]]:
    """Return (configured, MAC, certain): by its MAC, or because there is one card and one name."""
    macs = {nic.mac.lower() for nic in nics if nic.mac}
    alone = len(configured) == 1 and len(nics) == 1
    result: list[tuple[ConfiguredNic, str | None, bool]] = []
    for one in configured:
        if one.mac and one.mac in macs:
            result.append((one, one.mac, True))
        elif alone:
            result.append((one, (nics[0].mac or "").lower() or None, True))
        else:
            result.append((one, None, False))
    return result


def link_file(name: str, mac: str | None, net: NetBus) -> str:
    """Return a .link file that gives a card its name, by MAC, or by driver where there is one."""
    match = f"MACAddress={mac}" if mac else f"Driver={_DRIVERS[net]}"
    return (
        "# Written by v2vweb: keeps the name this card had before the move to KVM.\n"
        f"[Match]\n{match}\n\n[Link]\nName={name}\n"
    )


def udev_rule(name: str, mac: str | None, net: NetBus) -> str:
    """Return the rule that does the same for guests without systemd."""
    match = f'ATTR{{address}}=="{mac}"' if mac else f'DRIVERS=="{_DRIVERS[net].split()[0]}"'
    return f'SUBSYSTEM=="net", ACTION=="add", {match}, NAME="{name}"'


def keep_names(c: Context, files: GuestFiles, net: NetBus) -> None:
    """Arrange that cards keep the names that files of the guest configure them by."""
    configured = configured_nics(files)
    if not configured or not c.job.keep_nic_names:
        return
    what = "name of a network card kept"
    for one, mac, certain in match_nics(configured, c.source.nics):
        if not certain:
            c.report.log(
                Level.WARNING,
                f"{one.path} configures {one.name}, but which of the {len(c.source.nics)} network "
                "cards that is cannot be told; its name will change.",
            )
            continue
        c.report.log(Level.INFO, f"{one.name} ({one.path}) keeps its name.")
        if files.is_folder("/etc/systemd"):
            files.make_folder(_LINKS)
            files.write(f"{_LINKS}/10-v2vweb-{one.name}.link", link_file(one.name, mac, net), what)
        elif files.is_folder("/etc/udev/rules.d"):
            rule = udev_rule(one.name, mac, net)
            files.edit(_PERSISTENT, partial(with_line, line=rule), what, create=True)
