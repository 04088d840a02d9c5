"""Whole guests converted by the engine's command line, and started on virtio afterwards."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.guests.boot import boot_guest

pytestmark = pytest.mark.timeout(1800)


def convert(repository: Path, ova: Path, folder: Path) -> dict[str, Any]:
    """Convert into a folder; return the reports by name, and the log's lines as "log"."""
    command = [sys.executable, "-m", "conversions.pipeline", "--events", "-i", "ova", str(ova)]
    done = subprocess.run(
        [*command, "-o", "local", "-os", str(folder)],
        cwd=repository,
        capture_output=True,
        text=True,
    )
    events = [json.loads(line) for line in done.stdout.splitlines()]
    log = [event["text"] for event in events if event["type"] == "log"]
    assert done.returncode == 0, "\n".join(log[-50:]) + done.stderr
    reports = {e["name"]: e["data"] for e in events if e["type"] == "report"}
    return reports | {"log": log}


def changed_paths(reports: dict[str, Any]) -> set[str]:
    """Return the files the conversion says it changed."""
    return {change["path"] for change in reports["changes"]}


@pytest.mark.parametrize(("layout", "boot"), [("plain", "bls"), ("lvm", "classic")])
def test_an_rpm_guest_boots_on_virtio(
    layout: str,
    boot: str,
    build_sample: Callable[..., Path],
    repository: Path,
    tmp_path: Path,
    results_dir: Path,
) -> None:
    ova = build_sample("rpm", layout=layout, boot=boot)
    reports = convert(repository, ova, tmp_path)
    assert reports["guestcaps"]["block_bus"] == "virtio-blk"
    assert reports["guestcaps"]["arch_min_version"] == 2
    changed = changed_paths(reports)
    assert {"/etc/fstab", "/boot/grub2/device.map", "open-vm-tools"} <= changed
    if layout == "plain" and boot == "bls":
        # The kernel would wait for a swap partition that is called something else now.
        assert any(path.startswith("/boot/loader/entries/") for path in changed)
    disk = tmp_path / "centos9-sda"
    guest = boot_guest([disk], console=results_dir / f"rpm-{layout}-{boot}-boot.log")
    root = "/dev/mapper/cl-root" if layout == "lvm" else "/dev/vda3"
    assert (guest["root"], guest["nic"]) == (root, "virtio_net")


def test_a_uefi_guest_boots_on_virtio(
    build_sample: Callable[..., Path], repository: Path, tmp_path: Path, results_dir: Path
) -> None:
    """Its firmware knows no boot entry: what starts is the loader the conversion has made."""
    ova = build_sample("debian", layout="uefi")
    reports = convert(repository, ova, tmp_path)
    assert "/boot/efi/EFI/BOOT/BOOTX64.EFI" in changed_paths(reports)
    assert '<os firmware="efi">' in (tmp_path / "debian12.xml").read_text()
    console = results_dir / "debian-uefi-boot.log"
    guest = boot_guest([tmp_path / "debian12-sda"], is_uefi=True, console=console)
    assert (guest["root"], guest["nic"]) == ("/dev/vda2", "virtio_net")
