"""The qemu script: what it says, and that the installed qemu really starts with it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from conversions.pipeline.errors import TargetError
from conversions.pipeline.guestcaps import expected_guestcaps
from conversions.pipeline.job import Target
from conversions.pipeline.outputs.qemu import QemuOutput
from conversions.pipeline.outputs.qemu_script import qemu_script
from conversions.pipeline.report import RecordingReporter
from conversions.pipeline.types import Machine, NetBus, TargetBuses, TargetDisk, TargetMeta
from inventory.sources.display import Display, DisplayType
from inventory.sources.types import CpuTopology, Nic, Removable, RemovableType, VnetType
from tests.unit.pipeline.samples import CDROM, GUEST, make_meta, make_source, target_disk

CAPS = expected_guestcaps()
PC = replace(CAPS, machine=Machine.I440FX, net_bus=NetBus.E1000)
OLD = replace(CAPS, virtio_1_0=False, net_bus=NetBus.RTL8139, rtc_utc=False)
FLOPPY = Removable(type=RemovableType.FLOPPY, slot=0)
HOSTILE = "a,b $(touch pwned)'\"; `touch pwned` \\"
GENID = "c3b9e8a4-7a65-4b8a-9d3f-1a2b3c4d5e6f"


def disks(count: int) -> tuple[TargetDisk, ...]:
    """Return that many target disks."""
    return tuple(target_disk(n) for n in range(count))


@pytest.mark.rows("4-T57")
def test_t57_the_script_is_executable_and_a_shell_reads_it(tmp_path: Path) -> None:
    report = RecordingReporter()
    output = QemuOutput(Target(kind="qemu", directory=str(tmp_path)), None, report)
    meta = make_meta(name="web_01")
    with output.prepare(meta.source, [target_disk(0).overlay]) as targets:
        for disk in targets.disks:
            Path(disk.part_path).write_bytes(b"")
        output.write_metadata(targets, meta)
        targets.commit()
    script = tmp_path / "web_01.sh"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["web_01-sda", "web_01.sh"]
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", str(script)], check=True)
    subprocess.run(["sh", "-n", str(script)], check=True)


@pytest.mark.rows("4-T54", "4-T58", "4-T60")
@pytest.mark.parametrize(
    ("values", "present", "absent"),
    [
        ({"vcpus": 1}, [], ["-smp"]),
        ({"vcpus": 4}, ["-smp 4 "], []),
        (
            {"vcpus": 4, "cpu_topology": CpuTopology(sockets=1, cores=2, threads=2)},
            ["-smp cpus=4,sockets=1,cores=2,threads=2"],
            [],
        ),
        ({"genid": GENID}, [f"-device vmgenid,guid={GENID},id=vmgenid0"], []),
        ({}, ["-cpu max "], ["-rtc", "-soundhw", "vmgenid"]),
    ],
    ids=["T58-one", "T58-four", "T58-topology", "T54", "T60"],
)
def test_options(values: dict[str, object], present: list[str], absent: list[str]) -> None:
    text = qemu_script(make_meta(source=make_source(**values)))
    assert [option for option in present if option not in text] == []
    assert [option for option in absent if option in text] == []
    for line in text.split("\n"):
        assert not (line.lstrip().startswith("-drive") and "bootindex" in line)


@pytest.mark.rows("4-T43")
def test_t43_a_clock_in_local_time() -> None:
    assert "-rtc base=localtime" in qemu_script(make_meta(guestcaps=OLD))


@pytest.mark.rows("4-T59")
def test_t59_uefi_needs_a_known_firmware() -> None:
    caps = replace(CAPS, arch="s390x", machine=Machine.VIRT)
    with pytest.raises(TargetError, match="No UEFI firmware is known for s390x"):
        qemu_script(make_meta(guestcaps=caps, uefi=True))


def test_ide_has_four_places_on_pc() -> None:
    with pytest.raises(TargetError, match="5 drives on IDE"):
        qemu_script(make_meta(guestcaps=PC, buses=TargetBuses(ide=disks(5))))


METAS: dict[str, Callable[[], TargetMeta]] = {
    "plain": make_meta,
    "pc": lambda: make_meta(
        guestcaps=PC,
        buses=TargetBuses(ide=(*disks(2), CDROM), floppy=(FLOPPY,)),
        source=make_source(sound="sb16"),
    ),
    "scsi": lambda: make_meta(
        buses=TargetBuses(scsi=(*disks(2), CDROM), floppy=(FLOPPY, FLOPPY)),
        source=make_source(sound="ich9", genid=GENID),
    ),
    "sata": lambda: make_meta(guestcaps=OLD, buses=TargetBuses(ide=(*disks(7), CDROM))),
    "many": lambda: make_meta(
        buses=TargetBuses(virtio_blk=disks(28)), source=make_source(sound="usb")
    ),
    "uefi": lambda: make_meta(uefi=True),
    "secure": lambda: make_meta(uefi=True, source=make_source(uefi_secureboot=True)),
    "speaker": lambda: make_meta(
        source=make_source(
            sound="pcspk",
            cpu_model="Broadwell",
            cpu_topology=CpuTopology(sockets=1, cores=2, threads=1),
        )
    ),
    "spice": lambda: make_meta(
        source=make_source(display=Display(type=DisplayType.SPICE, port=5999), sound="ac97"),
        guest=replace(GUEST, type="windows"),
    ),
    "three nics": lambda: make_meta(
        nics=tuple(
            Nic(vnet="n,x", vnet_type=VnetType.NETWORK, mac=f"52:54:00:00:00:0{n}")
            for n in range(3)
        ),
        source=make_source(sound="ich6"),
    ),
    "hostile": lambda: make_meta(name=HOSTILE),
}


@pytest.mark.rows("4-T57", "4-T60", "4-T117")
@pytest.mark.parametrize("name", METAS)
def test_t60_t117_qemu_starts_and_waits(name: str, tmp_path: Path) -> None:
    """A name with everything a shell and qemu could take for more runs nothing."""
    folder = tmp_path / ("d,i r'" if name == "hostile" else "vm")
    folder.mkdir()
    meta = METAS[name]()
    slots = [*meta.buses.virtio_blk, *meta.buses.ide, *meta.buses.scsi]
    for slot in slots:
        if isinstance(slot, TargetDisk):
            stem = meta.name.replace("/", "_")
            path = folder / Path(slot.final_path).name.replace("web_01", stem)
            subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, "1M"], check=True)
    if name == "hostile":
        disk = replace(target_disk(0), final_path=str(folder / f"{HOSTILE}-sda"))
        meta = replace(meta, buses=TargetBuses(virtio_blk=(disk,)))
    script = folder / "vm.sh"
    script.write_text(qemu_script(meta))
    script.chmod(0o700)
    version = start_paused(script)
    assert version["qemu"]["major"] >= 7
    assert not list(tmp_path.rglob("pwned"))


def start_paused(script: Path) -> dict[str, dict[str, int]]:
    """Start a script with the processor stopped, ask qemu for its version, and end it."""
    control = Path(tempfile.mkdtemp()) / "qmp"  # a socket's path holds 107 bytes
    process = subprocess.Popen(
        [
            str(script), "-S", "-qmp", f"unix:{control},server=on,wait=off",
        ],
        env=os.environ | {"V2V_ACCEL": "tcg", "XDG_RUNTIME_DIR": str(control.parent)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            with socket.socket(socket.AF_UNIX) as client:
                try:
                    client.connect(str(control))
                except OSError:
                    time.sleep(0.05)
                    continue
                return ask(client)
        process.kill()
        raise AssertionError(process.communicate()[0])
    finally:
        process.kill()
        process.communicate()
        shutil.rmtree(control.parent)


def ask(client: socket.socket) -> dict[str, dict[str, int]]:
    """Talk QMP: the greeting has the version; a status is there once all devices are."""
    stream = client.makefile()
    greeting = json.loads(stream.readline())
    client.sendall(b'{"execute":"qmp_capabilities"}{"execute":"query-status"}')
    assert json.loads(stream.readline()) == {"return": {}}
    assert json.loads(stream.readline())["return"]["status"] == "prelaunch"
    client.sendall(b'{"execute":"quit"}')
    version: dict[str, dict[str, int]] = greeting["QMP"]["version"]
    return version


@pytest.mark.rows("4-T61")
@pytest.mark.parametrize("value", ["", "true"])
def test_t61_the_script_is_started_after_everything_else(
    value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the place of qemu stands a program that notes its start; a failure starts nothing."""
    binaries = tmp_path / "bin"
    binaries.mkdir()
    fake = binaries / "qemu-system-x86_64"
    fake.write_text("#!/bin/sh\nls >started\n")
    fake.chmod(0o700)
    monkeypatch.setenv("PATH", f"{binaries}:{os.environ['PATH']}")
    assert shutil.which("qemu-system-x86_64") == str(fake)
    target = Target(kind="qemu", directory=str(tmp_path), options={"qemu-boot": (value,)})
    output = QemuOutput(target, None, RecordingReporter())
    meta = make_meta(buses=TargetBuses())
    with pytest.raises(TargetError), output.prepare(meta.source, []) as targets:
        output.write_metadata(targets, meta)
        raise TargetError("the copy failed")
    assert [p.name for p in tmp_path.iterdir()] == ["bin"]
    with output.prepare(meta.source, []) as targets:
        output.write_metadata(targets, meta)
        targets.commit()
    deadline = time.monotonic() + 30
    while not (tmp_path / "started").exists() or not (tmp_path / "started").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert "web_01.sh\n" in (tmp_path / "started").read_text()
