"""A driver folder and an ISO with the names of virtio-win, and tools for the first start.

Every file holds its own name: what matters is what is chosen and where it goes.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

AMD64, X86 = "amd64", "x86"
BOTH = (AMD64, X86)
_Versions = dict[str, tuple[str, ...]]
OLD: _Versions = {"2k12": (AMD64,), "2k12R2": (AMD64,), "w8": BOTH, "w8.1": BOTH}
NEW: _Versions = {"2k16": (AMD64,), "2k19": (AMD64,), "2k22": (AMD64,), "2k25": (AMD64,),
                  "w10": BOTH, "w11": (AMD64,)}  # fmt: skip
SEVEN: _Versions = {"2k8R2": (AMD64,), "w7": BOTH}
ALL = {**OLD, **NEW, **SEVEN}
TOOLS = ("rhsrvany.exe", "pnp_wait.exe", "vmdp.exe")
_CO = {**dict.fromkeys(SEVEN, "WdfCoInstaller01009.dll"),
       **dict.fromkeys(OLD, "WdfCoInstaller01011.dll")}  # fmt: skip


def driver_files() -> Iterator[tuple[str, str, str, str]]:
    """Yield folder, version, architecture and name of every driver file of virtio-win."""
    for folder, names, versions, with_co in _rows():
        for version, architectures in versions.items():
            for arch in architectures:
                for name in names:
                    yield folder, version, arch, name
                    if name.endswith(".sys"):
                        yield folder, version, arch, name[:-3] + "pdb"
                if with_co and version in _CO:
                    yield folder, version, arch, _CO[version]


def _rows() -> Iterator[tuple[str, tuple[str, ...], _Versions, bool]]:
    def stem(name: str) -> tuple[str, ...]:
        return f"{name}.cat", f"{name}.inf", f"{name}.sys"

    def only(*names: str) -> _Versions:
        return {name: ALL[name] for name in names}

    server12 = only("2k12", "2k12R2")
    server12r2 = only("2k12R2")
    new64 = dict.fromkeys(NEW, (AMD64,))
    yield "Balloon", (*stem("balloon"), "blnsvr.exe"), ALL, True
    yield "NetKVM", (*stem("netkvm"), "netkvmco.dll", "Readme.md"), OLD, False
    yield "NetKVM", (*stem("netkvm"), "netkvmco.dll", "readme.doc"), SEVEN, False
    yield "NetKVM", (*stem("netkvm"), "netkvmco.exe", "netkvmp.exe", "Readme.md"), NEW, False
    yield "fwcfg", stem("fwcfg"), server12, True
    yield "fwcfg", stem("fwcfg"), {"w8.1": (X86,), **NEW}, False
    yield "qemufwcfg", ("qemufwcfg.cat", "qemufwcfg.inf"), NEW, False
    yield "pvpanic", stem("pvpanic"), ALL, True
    yield "qemupciserial", ("qemupciserial.cat", "qemupciserial.inf"), ALL, False
    yield "qxl", (*stem("qxl"), "qxldd.dll"), SEVEN, False
    yield "qxldod", stem("qxldod"), only("2k16", "2k19", "w10"), False
    yield "sriov", ("vioprot.cat", "vioprot.inf"), {**server12r2, **only("w8.1"), **NEW}, False
    yield "sriov", ("netkvmno.dll", "netkvmp.exe"), {**server12r2, **only("w8.1")}, False
    yield "smbus", ("smbus.cat", "smbus.inf"), only("2k25", "w11"), False
    yield "viofs", (*stem("viofs"), "virtiofs.exe"), {**OLD, **NEW}, True
    yield "viogpudo", (*stem("viogpudo"), "vgpusrv.exe", "viogpuap.exe"), \
        {**server12, **NEW}, False  # fmt: skip
    yield "vioinput", (*stem("vioinput"), "viohidkmdf.sys"), ALL, True
    yield "viomem", stem("viomem"), new64, False
    yield "viorng", (*stem("viorng"), "viorngum.dll", "viorngci.dll"), {**OLD, **SEVEN}, True
    yield "viorng", (*stem("viorng"), "viorngum.dll"), NEW, False
    yield "vioscsi", stem("vioscsi"), ALL, False
    yield "viostor", stem("viostor"), ALL, False
    yield "vioserial", stem("vioser"), ALL, True


def driver_tree(root: Path) -> Path:
    """Make the package's tree: by driver, by system, and the old floppy style beside them."""
    for folder, version, arch, name in driver_files():
        label = "i386" if arch == X86 else arch
        if folder != "smbus":
            put(root / f"drivers/by-driver/{folder}/{version}/{arch}/{name}")
        put(root / f"drivers/by-os/{label}/{version}/{name}")
    for name in ("viostor.sys", "viostor.inf", "netkvm.sys"):
        put(root / f"drivers/amd64/Win2022/{name}")
        put(root / f"drivers/amd64/Win10/{name}")
    return root


def driver_iso_tree(root: Path) -> Path:
    """Make the tree of the ISO: by driver on top, shortcuts for storage, the agents."""
    for folder, version, arch, name in driver_files():
        if folder != "smbus":
            put(root / f"{folder}/{version}/{arch}/{name}")
        if folder in ("viostor", "vioscsi") and version in NEW:
            label = "i386" if arch == X86 else arch
            put(root / f"{label}/{version}/{name}")
    for bits in ("i386", "x86_64"):
        put(root / f"guest-agent/qemu-ga-{bits}.msi")
    put(root / "data/info.json")
    put(root / "virtio-win-gt-x64.msi")
    return root


def make_iso(tree: Path, iso: Path, *options: str) -> Path:
    """Pack a folder as an ISO with Joliet and Rock Ridge names."""
    subprocess.run(
        ["xorriso", "-as", "mkisofs", "-quiet", "-J", "-joliet-long", "-r", *options,
         "-V", "virtio-win-0.1.285", "-o", str(iso), str(tree)],
        check=True,
        capture_output=True,
    )  # fmt: skip
    return iso


def tools_folder(root: Path, names: tuple[str, ...] = TOOLS) -> Path:
    """Make the folder of the first start's tools."""
    root.mkdir(parents=True, exist_ok=True)
    for name in names:
        put(root / name)
    return root


def put(path: Path) -> None:
    """Write a file that holds its own name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{path.name}\n")
