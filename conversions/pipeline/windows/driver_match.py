"""Which files of a driver collection fit a Windows: one rule on the path for every layout.

The folders of a path name the architecture and the Windows; the rest of the layout does not matter.
Fits NetKVM/2k12R2/amd64/netkvm.sys as well as drivers/by-os/amd64/2k22/netkvm.inf.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

# In this order: the first of these folders in a path decides.
VERSION_FOLDERS: Mapping[str, tuple[str, ...]] = {
    "xp": ("winxp",),
    "2k3": ("win2k3", "win2k3r2"),
    "2k8": ("win2k8", "winvista"),
    "w7": ("win7",),
    "2k8r2": ("win2k8r2",),
    "w8": ("win8",),
    "2k12": ("win2k12",),
    "w8.1": ("win8.1",),
    "2k12r2": ("win2k12r2",),
    "w10": ("win10",),
    "w11": ("win11",),
    "2k16": ("win2k16",),
    "2k19": ("win2k19",),
    "2k22": ("win2k22",),
    "2k25": ("win2k25",),
}
# Drivers of an older sibling that a newer system also loads; used only when asked for.
_SIBLINGS: Mapping[str, tuple[str, ...]] = {
    "win11": ("win10",),
    "win2k25": ("win2k22", "win2k19", "win2k16"),
    "win2k22": ("win2k19", "win2k16"),
    "win2k19": ("win2k16",),
}
_ARCHES = {"x86": "i386", "i386": "i386", "amd64": "x86_64"}
AGENT_NAMES: Mapping[str, tuple[str, ...]] = {
    "i386": ("qemu-ga-x86.msi", "qemu-ga-i386.msi", "rhev-qga.msi"),
    "x86_64": ("qemu-ga-x64.msi", "qemu-ga-x86_64.msi", "rhev-qga64.msi"),
}


def driver_place(path: str) -> tuple[str, str] | None:
    """Return architecture and version folder that a driver file is for; None when it is no such.

    Left out are debug files, which are unsigned, and the sriov set, which conflicts with netkvm.
    """
    *folders, name = path.lower().split("/")
    if "sriov" in folders or "vioprot." in path.lower() or name.endswith(".pdb"):
        return None
    arch = next((_ARCHES[f] for f in ("x86", "i386", "amd64") if f in folders), None)
    version = next((v for v in VERSION_FOLDERS if v in folders), None)
    return (arch, version) if arch and version else None


def fits(path: str, *, arch: str, osinfo: str) -> bool:
    """Tell whether a driver file is for this Windows and architecture."""
    place = driver_place(path)
    return place is not None and place[0] == arch and osinfo in VERSION_FOLDERS[place[1]]


def choose_drivers(
    paths: Iterable[str], *, arch: str, osinfo: str, siblings: bool = False
) -> tuple[str, dict[str, str]]:
    """Return the Windows that the drivers are made for, and {lower-case name: path}.

    Of files with one name the last path wins, in sorted order, so the choice is always the same.
    With `siblings`, a system without a folder of its own takes that of the next older sibling.
    """
    every = sorted(paths)
    for wanted in (osinfo, *(_SIBLINGS.get(osinfo, ()) if siblings else ())):
        chosen = {
            path.rsplit("/", 1)[-1].lower(): path
            for path in every
            if fits(path, arch=arch, osinfo=wanted)
        }
        if chosen:
            return wanted, without_stub(chosen)
    return osinfo, {}


def without_stub(chosen: Mapping[str, str]) -> dict[str, str]:
    """Leave out qemufwcfg, a stub for the same device, where the real fwcfg driver is present."""
    drop = "fwcfg.inf" in chosen and "qemufwcfg.inf" in chosen
    return {n: p for n, p in chosen.items() if not (drop and n.startswith("qemufwcfg."))}


def choose_agents(paths: Iterable[str], *, arch: str) -> dict[str, str]:
    """Return the QEMU guest agent's installers as {lower-case name: path}."""
    wanted = AGENT_NAMES.get(arch, ())
    names = {path.rsplit("/", 1)[-1].lower(): path for path in sorted(paths)}
    return {name: path for name, path in names.items() if name in wanted}


def coverage(paths: Iterable[str]) -> dict[str, list[str]]:
    """Return which architectures are there for each version folder that has a block driver."""
    found: dict[str, set[str]] = {}
    for path in paths:
        place = driver_place(path)
        if place and path.lower().endswith(("/viostor.sys", "/vioscsi.sys")):
            found.setdefault(place[1], set()).add(place[0])
    return {v: sorted(found[v]) for v in VERSION_FOLDERS if v in found}
