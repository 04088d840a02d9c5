"""Aliases of modules, by which old guests find the drivers of their cards and controllers."""

from __future__ import annotations

import re
from functools import partial

from conversions.pipeline.context import Context
from conversions.pipeline.linux.files import GuestFiles, with_line
from conversions.pipeline.report import Level
from conversions.pipeline.types import BlockBus, KernelInfo, NetBus

_FILES = ("/etc/conf.modules", "/etc/modules.conf", "/etc/modprobe.conf",
          "/etc/modprobe.conf.local")  # fmt: skip
_ADDED = "/etc/modprobe.d/v2vweb.conf"
_NET = {NetBus.VIRTIO_NET: "virtio_net", NetBus.E1000: "e1000", NetBus.RTL8139: "rtl8139cp"}
_BLOCK = {BlockBus.VIRTIO_BLK: "virtio_blk", BlockBus.VIRTIO_SCSI: "virtio_scsi"}
_ETH = re.compile(r"(?m)^(\s*alias\s+eth\d+\s+)(\S+)")
_HOSTADAPTER = re.compile(r"(?m)^(\s*alias\s+scsi_hostadapter\d*\s+)(\S+).*\n?")
_XEN = re.compile(r"(?m)^\s*alias\s+(\S+)\s+(xennet|xen-vnif|xenblk|xen-vbd)\b")


def adapt_aliases(
    c: Context, files: GuestFiles, kernel: KernelInfo, block: BlockBus, net: NetBus
) -> None:
    """Point the aliases of network cards and disk controllers to the new drivers."""
    paths = [path for path in _FILES if files.is_file(path)]
    paths += files.paths("/etc/modprobe.d")
    seen_adapter = False
    for path in paths:
        text = files.read(path) or ""
        keep_first = not seen_adapter
        seen_adapter |= bool(_HOSTADAPTER.search(text))
        change = partial(aliased, block=block, net=net, keep_first=keep_first)
        files.edit(path, change, "module aliases")
        for match in _XEN.finditer(change(text)):
            c.report.log(
                Level.WARNING,
                f"{path}: alias {match[1]} leads to {match[2]}, a driver that only Xen has.",
            )
    if not seen_adapter and block in _BLOCK and reads_aliases(kernel):
        line, what = f"alias scsi_hostadapter {_BLOCK[block]}", "alias of the disk controller added"
        if files.is_folder("/etc/modprobe.d"):
            files.write(_ADDED, f"{line}\n", what)
        elif paths:
            files.edit(paths[-1], partial(with_line, line=line), what)


def reads_aliases(kernel: KernelInfo) -> bool:
    """Tell whether the guest is so old that mkinitrd finds disk drivers by their alias."""
    numbers = re.findall(r"\d+", kernel.version)[:3]
    return [int(n) for n in numbers] < [2, 6, 33]


def aliased(text: str, block: BlockBus, net: NetBus, *, keep_first: bool) -> str:
    """Return a file with its aliases changed; of the disk controllers one is left at most."""
    text = _ETH.sub(lambda m: m[1] + _NET[net], text)
    kept = 0

    def adapter(match: re.Match[str]) -> str:
        nonlocal kept
        kept += 1
        if block not in _BLOCK or not keep_first or kept > 1:
            return ""
        return f"{match[1]}{_BLOCK[block]}\n"

    return _HOSTADAPTER.sub(adapter, text)
