"""Step 8: free space inside the guest, and how large each target disk can become."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from conversions.pipeline.appliance import GuestFS
from conversions.pipeline.disk_copy import data_bytes
from conversions.pipeline.errors import GuestError
from conversions.pipeline.report import Level, Reporter
from conversions.pipeline.sizes import short
from conversions.pipeline.types import MountpointStats, Overlay
from inventory.sources.types import Source

MIB = 1 << 20
NEEDED_ROOT_BYTES = 100 * MIB
# A rebuilt initramfs takes 20 to 70 MiB while it is compressed.
NEEDED_BOOT_BYTES = 50 * MIB
NEEDED_OTHER_BYTES = 10 * MIB
NEEDED_INODES = 100
# What the conversion writes to; a full data filesystem is no reason to refuse.
_WRITTEN = ("/usr", "/var", "/tmp")  # noqa: S108  paths inside the guest
_WRITTEN_UEFI = ("/boot/efi", "/efi")
_TRIMMABLE = ("ext2", "ext3", "ext4", "xfs")


def mountpoint_stats(g: GuestFS, report: Reporter) -> tuple[MountpointStats, ...]:
    """Return statvfs of every mounted filesystem, and report them."""
    stats = []
    for device, mountpoint in g.mountpoints():
        values = dict(g.statvfs(mountpoint))
        stats.append(
            MountpointStats(
                device=device,
                mountpoint=mountpoint,
                vfs=g.vfs_type(device),
                **{k: values[k] for k in ("bsize", "blocks", "bfree", "bavail", "files", "ffree")},
            )
        )
    report.log(Level.INFO, stats_text(stats))
    report.report("mpstats", [asdict(s) for s in stats])
    return tuple(stats)


def stats_text(stats: Sequence[MountpointStats]) -> str:
    """Return the report in the layout of the text log."""
    lines = ["mpstats:"]
    for s in stats:
        lines.append(f"mountpoint statvfs {s.device} {s.mountpoint} ({s.vfs}):")
        lines.append(f"  bsize={s.bsize} blocks={s.blocks} bfree={s.bfree} bavail={s.bavail}")
    return "\n".join(lines)


def estimate_target_sizes(
    stats: Sequence[MountpointStats], sizes: Mapping[str, int]
) -> dict[str, object]:
    """Estimate how many bytes each target disk will need at most.

    Free space on filesystems that fstrim reaches is shared over the disks by virtual size; each
    device counts once, however often it is mounted.  `sizes` are virtual sizes by sd name.
    Returns fs_total_size, source_total_size, ratio, fs_free, scaled_saving and
    disks {sd: bytes}, each at most its virtual size.
    """
    devices = {s.device: s for s in stats}.values()
    fs_total = sum(s.blocks * s.bsize for s in devices)
    source_total = sum(sizes.values())
    fs_free = sum(s.bfree * s.bsize for s in devices if s.vfs in _TRIMMABLE)
    ratio = min(1.0, fs_total / source_total) if source_total else 0.0
    saving = fs_free * fs_total // source_total if source_total else 0
    saving = min(saving, fs_free)
    disks = {
        sd: max(0, size - size * saving // source_total) if source_total else size
        for sd, size in sizes.items()
    }
    return {
        "fs_total_size": fs_total,
        "source_total_size": source_total,
        "ratio": ratio,
        "fs_free": fs_free,
        "scaled_saving": saving,
        "disks": disks,
    }


def measured_bytes(source: Source, overlays: Sequence[Overlay], report: Reporter) -> dict[str, int]:
    """Return how many bytes each disk holds, by overlay; nothing of disks on other hosts.

    Those are not asked: some servers read a whole disk to tell.  Raises CommandError.
    """
    return {
        overlay.sd: data_bytes(overlay.path, report)
        for disk, overlay in zip(source.disks, overlays, strict=True)
        if not disk.remote
    }


def estimate_targets(
    stats: Sequence[MountpointStats],
    overlays: Sequence[Overlay],
    measured: Mapping[str, int],
    report: Reporter,
    *,
    trimming: bool,
) -> dict[str, int]:
    """Report the estimate and return {sd: bytes}.

    A target needs what its disk holds now, or less where trimming gives up what lies in free space;
    the 5 % and the reserve beside it are for what the conversion adds.  Both figures are bounds of
    the sum alone: the saving is shared over all disks.
    """
    sizes = {o.sd: o.virtual_size_bytes for o in overlays}
    estimate = estimate_target_sizes(stats, sizes)
    disks = estimate["disks"]
    assert isinstance(disks, dict)  # noqa: S101  for the type checker
    held = {sd: min(size, measured.get(sd, size)) for sd, size in sizes.items()}
    if not trimming or sum(held.values()) < sum(disks.values()):
        disks = held
    estimate |= {"measured": dict(measured), "disks": disks}
    report.log(Level.INFO, estimate_text(estimate))
    report.report("estimate", estimate)
    return disks


def estimate_text(estimate: Mapping[str, object]) -> str:
    """Return the report in the layout of the text log."""
    prefix = "estimate_target_size: "
    lines = []
    for key in ("fs_total_size", "source_total_size", "ratio", "fs_free", "scaled_saving"):
        value = estimate[key]
        assert isinstance(value, int | float)  # noqa: S101  for the type checker
        text = f"{value:.3f}" if key == "ratio" else f"{value} [{short(value)}]"
        lines.append(f"{prefix}{key} = {text}")
    disks = estimate["disks"]
    assert isinstance(disks, dict)  # noqa: S101  for the type checker
    lines += [f"{prefix}{sd}: {size} [{short(size)}]" for sd, size in disks.items()]
    return "\n".join(lines)


def shortages(stats: Sequence[MountpointStats], *, uefi: bool) -> list[str]:
    """Return one sentence for each filesystem of the guest without the room a conversion needs."""
    found = []
    for s in stats:
        free, need = s.bfree * s.bsize, needed_bytes(s.mountpoint, uefi=uefi)
        if free < need:
            found.append(f"{s.mountpoint}: {free / MIB:.1f} MiB free, {need // MIB} MiB needed")
        if s.files > 0 and s.ffree < NEEDED_INODES and need:
            found.append(f"{s.mountpoint}: {s.ffree} free inodes, {NEEDED_INODES} needed")
    return found


def needed_bytes(mountpoint: str, *, uefi: bool) -> int:
    """Return how much must be free on a filesystem of the guest; 0 where nothing is written.

    The EFI system partition is written to only where the guest starts from it.
    """
    if mountpoint == "/":
        return NEEDED_ROOT_BYTES
    if mountpoint == "/boot":
        return NEEDED_BOOT_BYTES
    written = (*_WRITTEN, *_WRITTEN_UEFI) if uefi else _WRITTEN
    return NEEDED_OTHER_BYTES if mountpoint in written else 0


def check_guest_space(stats: Sequence[MountpointStats], report: Reporter, *, uefi: bool) -> None:
    """Refuse a guest without room for new files.  Raises GuestError naming every shortage.

    A filesystem that the conversion does not write to is only worth a warning when it is full.
    """
    for s in stats:
        free = s.bfree * s.bsize
        if not needed_bytes(s.mountpoint, uefi=uefi) and s.blocks and free < NEEDED_OTHER_BYTES:
            report.log(
                Level.WARNING,
                f"{s.mountpoint} of the guest is almost full ({free / MIB:.1f} MiB free); the "
                "conversion writes nothing there.",
            )
    found = shortages(stats, uefi=uefi)
    if found:
        raise GuestError(
            f"Not enough free space in the guest. {'; '.join(found)}.",
            remedy="Delete files or an old kernel in the guest on its source, and export it again.",
            code="E-GUEST-SPACE",
        )
