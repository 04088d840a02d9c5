"""The kernels a guest has and its bootloader offers, and which of them boots best on KVM."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import PurePosixPath
from typing import Any

from conversions.pipeline.appliance import GuestFS
from conversions.pipeline.errors import GuestError
from conversions.pipeline.linux.files import GuestFiles
from conversions.pipeline.report import Level, Reporter
from conversions.pipeline.types import Inspection, KernelInfo

_MODULE = re.compile(r"([^/]+?)\.(?:ko|o)(?:\.(?:gz|xz|zst))?$")


def parse_modules(text: str) -> tuple[str, ...]:
    """Return module names, `-` as `_`, from modules.dep or modules.builtin."""
    names = []
    for line in text.split("\n"):
        path = line.split(":", 1)[0].strip()
        if match := _MODULE.search(path):
            names.append(match[1].replace("-", "_"))
    return tuple(names)


def kernel_info(
    files: GuestFiles, g: GuestFS, guest: Inspection, vmlinuz: str, initrd: str | None
) -> KernelInfo | None:
    """Describe the kernel of a vmlinuz path; None when it has no modules of its own version."""
    version = PurePosixPath(vmlinuz).name.removeprefix("vmlinuz-")
    modpath = f"/lib/modules/{version}"
    if not g.is_dir(modpath, followsymlinks=True):
        return None
    modules = parse_modules(files.read(f"{modpath}/modules.dep") or "")
    builtin = parse_modules(files.read(f"{modpath}/modules.builtin") or "")
    if not modules and not builtin:
        return None
    config_path = f"/boot/config-{version}"
    config = files.read(config_path)
    symbols = {
        line.split("=", 1)[0]
        for line in (config or "").split("\n")
        if line.startswith("CONFIG_") and line.endswith(("=y", "=m"))
    }
    available = set(modules) | set(builtin)

    def supports(module: str, symbol: str) -> bool:
        return module in available or f"CONFIG_{symbol}" in symbols

    package = next((a for a in guest.applications if a.name == f"linux-image-{version}"), None)
    return KernelInfo(
        name=package.name if package else PurePosixPath(vmlinuz).name,
        version=version,
        package_version=package.version if package else version,
        arch=guest.arch,
        vmlinuz=vmlinuz,
        initrd=initrd,
        config_file=config_path if config is not None else None,
        modpath=modpath,
        modules=modules,
        builtin=builtin,
        supports_virtio_blk=supports("virtio_blk", "VIRTIO_BLK"),
        supports_virtio_scsi=supports("virtio_scsi", "SCSI_VIRTIO"),
        supports_virtio_net=supports("virtio_net", "VIRTIO_NET"),
        supports_virtio_rng=supports("virtio_rng", "HW_RANDOM_VIRTIO"),
        supports_virtio_balloon=supports("virtio_balloon", "VIRTIO_BALLOON"),
        supports_isa_pvpanic=supports("pvpanic_mmio", "PVPANIC_MMIO")
        or supports("pvpanic", "PVPANIC"),
        supports_virtio_socket=supports("vmw_vsock_virtio_transport", "VIRTIO_VSOCKETS"),
        is_xen_pv_only=bool({"CONFIG_X86_XEN", "CONFIG_X86_64_XEN"} & symbols),
        is_debug=version.endswith(("-debug", "-dbg")),
    )


def offered_kernels(
    g: GuestFS,
    files: GuestFiles,
    guest: Inspection,
    entries: Iterable[tuple[str, str | None]],
    report: Reporter,
) -> list[KernelInfo]:
    """Describe the (vmlinuz, initrd) pairs a bootloader offers, in its order, each once.

    Entries without a file or without modules are left out with a warning.  Raises GuestError when
    none remains.
    """
    found: dict[str, KernelInfo] = {}
    for vmlinuz, initrd in entries:
        if vmlinuz in found:
            continue
        if not files.is_file(vmlinuz):
            report.log(
                Level.WARNING, f"The bootloader offers {vmlinuz}, which does not exist (ignored)."
            )
            continue
        real = initrd if initrd and files.is_file(initrd) else None
        info = kernel_info(files, g, guest, vmlinuz, real)
        if info is None:
            report.log(Level.WARNING, f"{vmlinuz} has no modules in /lib/modules (ignored).")
        else:
            found[vmlinuz] = info
    if not found:
        raise GuestError(
            "The bootloader offers no kernel that has its modules installed.",
            remedy="Install a kernel package in the guest on its source and export it again.",
            code="E-NO-KERNEL",
        )
    report.log(Level.INFO, kernels_text(list(found.values())))
    report.report("kernels", [kernel_dict(k) for k in found.values()])
    return list(found.values())


def version_key(version: str) -> list[tuple[int, int, str]]:
    """Return a sort key: digit runs as numbers, the rest as text."""
    return [
        (1, int(piece), "") if piece.isdigit() else (0, 0, piece)
        for piece in re.findall(r"\d+|[a-zA-Z]+|[^\da-zA-Z]", version)
    ]


def best_kernel(kernels: Sequence[KernelInfo]) -> KernelInfo:
    """Return the kernel to boot: the default one if it can do virtio, else the newest that can.

    An administrator's choice is only overruled for a reason.  Raises GuestError when all of them
    run under Xen only.
    """
    usable = [k for k in kernels if not k.is_xen_pv_only]
    if not usable:
        raise GuestError(
            "Every kernel of this guest runs under Xen only.",
            remedy="Install an ordinary kernel in the guest on its source and export it again.",
            code="E-XEN-ONLY",
        )

    def virtio(kernel: KernelInfo) -> bool:
        return kernel.supports_virtio_blk and kernel.supports_virtio_net

    default = usable[0]
    if virtio(default):
        return default
    return max(usable, key=lambda k: (virtio(k), not k.is_debug, version_key(k.version)))


def kernel_dict(kernel: KernelInfo) -> dict[str, Any]:
    """Return the report's form: the modules as their number."""
    data = asdict(kernel)
    data.pop("builtin")
    data["modules_count"] = len(data.pop("modules"))
    return data


def kernels_text(kernels: Sequence[KernelInfo]) -> str:
    """Return the report in the layout of the text log."""
    lines = ["kernels offered by the bootloader in this guest (first in list is default):"]
    for k in kernels:
        flags: Mapping[str, bool] = {
            "blk": k.supports_virtio_blk,
            "net": k.supports_virtio_net,
            "rng": k.supports_virtio_rng,
            "balloon": k.supports_virtio_balloon,
        }
        virtio = " ".join(f"{name}={str(value).lower()}" for name, value in flags.items())
        lines += [
            f"* {k.name} {k.version} ({k.arch})",
            f"\t{k.vmlinuz} -- kernel_info.ki_vmlinuz",
            f"\t{k.initrd or 'no initrd found'} -- kernel_info.ki_initrd",
            f"\t{k.config_file or 'no config found'} -- kernel_info.ki_config_file",
            f"\t{k.modpath} -- kernel_info.ki_modpath",
            f"\t{len(k.modules)} modules found",
            f"\tvirtio: {virtio} -- ki.ki_supports_virtio_blk ki.ki_supports_virtio_net",
            f"\tpvpanic={str(k.supports_isa_pvpanic).lower()} "
            f"xen={str(k.is_xen_pv_only).lower()} debug={str(k.is_debug).lower()}"
            " -- ki.ki_is_xen_pv_only_kernel ki.ki_is_debug",
        ]
    return "\n".join(lines)
