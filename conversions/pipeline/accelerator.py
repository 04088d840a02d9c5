"""Find out whether a guest can really be started with KVM on this host."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

# x86 real mode: write 0 to port 0xf4 (isa-debug-exit), which makes qemu exit with status 1.
# It sits at the reset vector's target, so KVM must run a vCPU for it.
_PROBE_SECONDS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Accelerator:
    """Whether KVM works, and the finding that says so."""

    kvm: bool
    reason: str


def choose_accelerator() -> Accelerator:
    """Return the finding for this host, tried once per boot and kept in a private cache file."""
    cache = _cache_file()
    with contextlib.suppress(OSError, ValueError, TypeError):
        if cache.stat().st_uid == os.getuid():
            return Accelerator(**json.loads(cache.read_text()))
    found = _try_kvm()
    with contextlib.suppress(OSError):
        cache.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        part = cache.with_suffix(f".{os.getpid()}")
        part.write_text(json.dumps(asdict(found)))
        part.rename(cache)
    return found


def _cache_file() -> Path:
    boot = "unknown"
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    base = os.environ.get("XDG_CACHE_HOME")
    folder = Path(base) if base else Path(tempfile.gettempdir()) / f".v2vweb-{os.getuid()}"
    return folder / f"v2vweb-kvm-{boot}.json"


def _try_kvm() -> Accelerator:
    if not Path("/dev/kvm").exists():
        return Accelerator(kvm=False, reason="there is no /dev/kvm")
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return Accelerator(kvm=False, reason="/dev/kvm may not be opened by this user")
    with tempfile.NamedTemporaryFile(suffix=".bin") as firmware:
        # 64 KiB of firmware; at its end the reset vector: mov al,0 / out 0xf4,al / hlt.
        code = bytes([0xB0, 0x00, 0xE6, 0xF4, 0xF4])
        firmware.write(bytes(0xFFF0) + code + bytes(16 - len(code)))
        firmware.flush()
        command = [
            "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none",
            "-machine", "pc,accel=kvm", "-cpu", "host", "-m", "16", "-bios", firmware.name,
            "-device", "isa-debug-exit,iobase=0xf4,iosize=0x01",
        ]  # fmt: skip
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=_PROBE_SECONDS, check=False
            )
        except FileNotFoundError:
            return Accelerator(kvm=False, reason="qemu-system-x86_64 is not installed")
        except subprocess.TimeoutExpired:
            return Accelerator(kvm=False, reason="a guest started with KVM did not run")
    if done.returncode == 1 and not done.stderr.strip():
        return Accelerator(kvm=True, reason="a guest was started with KVM")
    last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
    return Accelerator(kvm=False, reason=f"a guest could not be started with it ({last[:200]})")
