"""The kernels a guest has and its bootloader offers, and which of them boots best on KVM."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import PurePosixPath
from typing import Any

from conversions.pipeline.appliance import GuestFS
from conversions.pipeline.errors import GuestError
from conversions.pipeline.linux.bootloader import BootEntry
from conversions.pipeline.linux.files import GuestFiles
from conversions.pipeline.linux.versions import version_key
from conversions.pipeline.report import Level, Reporter
from conversions.pipeline.types import Application, Inspection, KernelInfo

_KERNEL_FILE = re.compile(r"^(?:vmlinuz|vmlinux|kernel|Image|image|bzImage)-")
# What tells no flavour: parts of a package, and the architecture at the end of a version.
_PARTS = {"", "core", "modules", "extra", "base"}
_ARCH = re.compile(r"\b(?:i[3-6]86|x86_64|aarch64|ppc64(?:le)?|s390x)\b")
_DEBUG = re.compile(r"[-+.](?:debug|dbg)\b")
# Drivers a kernel may have built in and listed nowhere but in its configuration.
_SYMBOLS = {
    "VIRTIO_PCI": "virtio_pci", "VIRTIO_BLK": "virtio_blk", "SCSI_VIRTIO": "virtio_scsi",
    "BLK_DEV_SD": "sd_mod",
}  # fmt: skip
_MODULE = re.compile(r"([^/]+?)\.(?:ko|o)(?:\.(?:gz|xz|zst))?$")


def parse_modules(text: str) -> tuple[str, ...]:
    """Return module names, `-` as `_`, from modules.dep or modules.builtin."""
    names = []
    for line in text.split("\n"):
        path = line.split(":", 1)[0].strip()
        if match := _MODULE.search(path):
            names.append(match[1].replace("-", "_"))
    return tuple(names)


def version_of(files: GuestFiles, vmlinuz: str) -> str | None:
    """Return the name of the kernel's folder in /lib/modules; None when there is none.

    It is the file's name after vmlinuz-; on Arch a file `pkgbase` in the folder says which kernel
    it belongs to; on Gentoo and others the folder's name is a part of the file's.
    """
    versions = files.names("/lib/modules")
    name = PurePosixPath(files.realpath(vmlinuz)).name
    plain = _KERNEL_FILE.sub("", name)
    if plain in versions:
        return plain
    for version in versions:
        if (files.read(f"/lib/modules/{version}/pkgbase") or "").strip() == plain:
            return version
    parts = [v for v in versions if v and v in name]
    return max(parts, key=len, default=None)


def find_initrd(files: GuestFiles, version: str) -> str | None:
    """Return the initramfs in /boot of a kernel version: of several the shortest name.

    Twins such as the one for Xen hold the version too and are longer.
    """
    names = [
        name
        for name in files.names("/boot")
        if version in name
        and name.startswith(("initrd-", "initramfs-", "initrd.img-"))
        and files.is_file(f"/boot/{name}")  # reading a device would not end
        and not re.search(r"kdump|rescue|fallback|\.(bak|old|pre-v2v|dpkg-\w+)$", name)
    ]
    return f"/boot/{min(names, key=len)}" if names else None


def _modules_of(g: GuestFS, files: GuestFiles, modpath: str) -> tuple[str, ...]:
    """Return the modules of a folder: by its index, or by looking where there is none."""
    listed = parse_modules(files.read(f"{modpath}/modules.dep") or "")
    return listed or (parse_modules("\n".join(g.find(modpath))) if files.is_folder(modpath) else ())


def _package_of(guest: Inspection, version: str) -> Application | None:
    """Return the package a kernel came in; the one with the image before those of its parts.

    Flavours share a version: of 2.6.18-8.el5 the PAE kernel is that of kernel-PAE, and of
    3.10.0-1.el7 the one with .x86_64.debug that of kernel-debug.
    """

    def full(app: Application) -> str:
        return f"{app.version}-{app.release}"

    def fits(app: Application) -> bool:
        if guest.package_format == "deb":
            return app.name in (f"linux-image-{version}", f"linux-image-unsigned-{version}")
        return (
            app.name.startswith("kernel")
            and not app.name.endswith(("-devel", "-headers", "-source", "-doc"))
            # The kernel of SUSE drops the last number of the release.
            and version.startswith((full(app), full(app).rpartition(".")[0] + "-"))
        )

    def is_other_flavour(app: Application) -> bool:
        flavour = set(re.split(r"[-+._]", app.name.removeprefix("kernel"))) - _PARTS
        rest = version.removeprefix(full(app)).removeprefix(full(app).rpartition(".")[0])
        return flavour != set(re.split(r"[-+.]", _ARCH.sub("", rest))) - _PARTS

    found = [app for app in guest.applications if fits(app)]
    return min(
        found,
        key=lambda a: (is_other_flavour(a), "-core" not in a.name, "-modules" in a.name,
                       len(a.name)),
        default=None,
    )  # fmt: skip


def kernel_info(
    g: GuestFS, files: GuestFiles, guest: Inspection, vmlinuz: str, initrd: str | None
) -> KernelInfo | None:
    """Describe the kernel of a vmlinuz path.

    None when it has no modules of its own version, nor the drivers of a disk built in.
    """
    plain = _KERNEL_FILE.sub("", PurePosixPath(files.realpath(vmlinuz)).name)
    version = version_of(files, vmlinuz) or plain
    modpath = f"/lib/modules/{version}"
    modules = _modules_of(g, files, modpath)
    listed = parse_modules(files.read(f"{modpath}/modules.builtin") or "")
    config_path = files.first_file(f"/boot/config-{version}", f"{modpath}/config")
    config = files.read(config_path) if config_path else None
    lines = set((config or "").split("\n"))
    symbols = {
        line.split("=", 1)[0]
        for line in lines
        if line.startswith("CONFIG_") and line.endswith(("=y", "=m"))
    }
    configured = (module for symbol, module in _SYMBOLS.items() if f"CONFIG_{symbol}=y" in lines)
    builtin = tuple(dict.fromkeys((*listed, *configured)))
    if not (modules or listed or {"virtio_blk", "virtio_scsi"}.intersection(builtin)):
        return None
    available = set(modules) | set(builtin)

    def supports(module: str, symbol: str) -> bool:
        return module in available or f"CONFIG_{symbol}" in symbols

    package = _package_of(guest, version)
    return KernelInfo(
        name=package.name if package else PurePosixPath(vmlinuz).name,
        version=version,
        package_version=package.version if package else version,
        arch=guest.arch,
        vmlinuz=vmlinuz,
        initrd=initrd or find_initrd(files, version),
        config_file=config_path,
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
        is_debug=bool(_DEBUG.search(f"{package.name if package else ''} {version}")),
    )


def offered_kernels(
    g: GuestFS,
    files: GuestFiles,
    guest: Inspection,
    entries: Iterable[BootEntry],
    report: Reporter,
) -> list[KernelInfo]:
    """Describe the kernels a bootloader offers, in its order, each once.

    Entries without a file or without modules are left out with a warning.  Raises GuestError when
    none remains.
    """
    found: dict[str, KernelInfo] = {}
    for entry in entries:
        vmlinuz = entry.vmlinuz
        if vmlinuz in found or is_rescue(entry):
            continue
        if not files.is_file(vmlinuz):
            report.log(
                Level.WARNING, f"The bootloader offers {vmlinuz}, which does not exist (ignored)."
            )
            continue
        real = entry.initrd if entry.initrd and files.is_file(entry.initrd) else None
        info = kernel_info(g, files, guest, vmlinuz, real)
        if info is None:
            report.log(Level.WARNING, f"{vmlinuz} has no modules in /lib/modules (ignored).")
            continue
        found[vmlinuz] = info
        if not info.modules:
            report.log(
                Level.WARNING,
                f"{vmlinuz} has no modules; it is taken for all that it has built in.",
            )
        if info.initrd is None:
            report.log(Level.WARNING, f"No initramfs was found for kernel {info.version}.")
    if not found:
        raise GuestError(
            "The bootloader offers no kernel that has its modules installed.",
            remedy="Install a kernel package in the guest on its source and export it again.",
            code="E-NO-KERNEL",
        )
    report.log(Level.INFO, kernels_text(list(found.values())))
    report.report("kernels", [kernel_dict(k) for k in found.values()])
    return list(found.values())


def is_rescue(entry: BootEntry) -> bool:
    """Tell whether an entry is the one-size-fits-all kernel of dracut, which stays as it is."""
    return "rescue" in PurePosixPath(entry.vmlinuz).name


def best_kernel(kernels: Sequence[KernelInfo]) -> KernelInfo:
    """Return the kernel to boot: the default one, unless another can do more of virtio.

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

    def virtio(kernel: KernelInfo) -> tuple[bool, bool]:
        return kernel.supports_virtio_blk, kernel.supports_virtio_net

    best = max(usable, key=lambda k: (virtio(k), not k.is_debug, version_key(k.version)))
    return best if virtio(best) > virtio(usable[0]) else usable[0]


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
