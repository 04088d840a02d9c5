"""Measure what copying early and copying several disks at once gain.

    script/bench-copy early OVA [--virt-v2v]    while the guest is converted, against afterwards
    script/bench-copy disks OVA [--gib 2]       one, two and four disks: one by one, and at once

`early` converts the OVA with --overlap never and always, then once more with every byte of the
early copy checked; with --virt-v2v the peer converts it too.  `disks` adds disks of random data to
the OVA's first one and looks at the time of the step that copies.  An OVA with 6 GiB of data:
script/sample-ova big.ova --size-gib 10 --payload-mib 6144
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from conversions.pipeline.accelerator import choose_accelerator

ROOT = Path(__file__).resolve().parent.parent


def convert(arguments: Sequence[str], folder: Path) -> tuple[float, dict[str, float]]:
    """Convert with this engine; return the seconds in all and by step."""
    folder.mkdir()
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "conversions.pipeline", "--events", *arguments,
         "-o", "local", "-os", str(folder), "-of", "qcow2", "-on", "guest"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    seconds = time.monotonic() - begun
    events = [json.loads(line) for line in done.stdout.splitlines()]
    if done.returncode:
        sys.exit(f"bench-copy: the engine failed: {events[-1] if events else done.stderr}")
    return seconds, {e["name"]: e["seconds"] for e in events if e.get("state") == "finished"}


def peer_seconds(ova: Path, folder: Path) -> float:
    """Convert with virt-v2v; return the seconds."""
    folder.mkdir()
    env = os.environ | {"LIBGUESTFS_BACKEND": "direct", "LC_ALL": "C.UTF-8"}
    if not choose_accelerator().kvm:
        env["LIBGUESTFS_BACKEND_SETTINGS"] = "force_tcg"
    begun = time.monotonic()
    subprocess.run(
        ["virt-v2v", "-i", "ova", str(ova), "-o", "local", "-os", str(folder), "-of", "qcow2"],
        env=env, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    return time.monotonic() - begun


def bench_early(ova: Path, scratch: Path, *, with_peer: bool) -> None:
    """Print the times of one guest copied after and during its conversion."""
    took = {}
    for overlap in ("never", "always"):
        took[overlap], steps = convert(
            ["-i", "ova", str(ova), "--overlap", overlap], scratch / overlap
        )
        print(
            f"--overlap {overlap:6} {took[overlap]:7.1f} s "
            f"(conversion {steps['conversion']:.1f}, copy {steps['copy']:.1f})"
        )
    print(f"early against serial: {took['always'] / took['never']:.2f}")
    # Each byte of the copy against the overlays it was made from: what a serial copy would hold.
    convert(["-i", "ova", str(ova), "--overlap", "always", "--verify", "full"], scratch / "check")
    print("the early copy is the same as the converted overlays, byte by byte")
    if with_peer:
        peer = peer_seconds(ova, scratch / "virt-v2v")
        print(f"virt-v2v        {peer:7.1f} s; early against it: {took['always'] / peer:.2f}")


def bench_disks(ova: Path, scratch: Path, gib: int) -> None:
    """Print the time of the copy of one, two and four disks, one by one and at once."""
    subprocess.run(["tar", "-xf", ova, "-C", scratch], check=True)
    first = scratch / "sda.raw"
    vmdk = next(scratch.glob("*.vmdk"))
    subprocess.run(["qemu-img", "convert", "-O", "raw", vmdk, first], check=True)
    disks = [first]
    for number in range(1, 4):
        disk = scratch / f"data{number}.raw"
        with disk.open("wb") as file:
            for _mib in range(gib << 10):
                file.write(os.urandom(1 << 20))
        disks.append(disk)
    for count in (1, 2, 4):
        times = {}
        for at_once in sorted({1, count}):
            arguments = ["-i", "disk", *map(str, disks[:count]), "--parallel", str(at_once)]
            folder = scratch / f"{count}-{at_once}"
            total, steps = convert([*arguments, "--overlap", "never"], folder)
            times[at_once] = steps["copy"], total
            for file in folder.iterdir():
                file.unlink()
        words = "; ".join(
            f"{n} at once: copy {copy:.1f} s, in all {total:.1f} s"
            for n, (copy, total) in times.items()
        )
        print(f"{count} disks: {words}; copy {times[count][0] / times[1][0]:.2f}")


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="script/bench-copy",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", choices=["early", "disks"])
    parser.add_argument("ova", type=Path)
    parser.add_argument("--virt-v2v", action="store_true", help="time the peer as well")
    parser.add_argument("--gib", type=int, default=2, help="size of each added disk (%(default)s)")
    options = parser.parse_args()
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    with tempfile.TemporaryDirectory(prefix="bench-copy.", dir="/var/tmp") as name:
        if options.what == "early":
            bench_early(options.ova.resolve(), Path(name), with_peer=options.virt_v2v)
        else:
            bench_disks(options.ova.resolve(), Path(name), options.gib)


if __name__ == "__main__":
    main()
