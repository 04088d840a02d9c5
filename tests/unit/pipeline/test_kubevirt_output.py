"""The manifest for KubeVirt, held against the fields of its API, and the files beside it."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from conversions.pipeline.disk_copy import copy_disks
from conversions.pipeline.errors import CommandError, JobError, TargetError
from conversions.pipeline.guestcaps import emulated_guestcaps, expected_guestcaps
from conversions.pipeline.job import CopyOptions, Input, Job, Mode, Target
from conversions.pipeline.outputs.kubevirt import KubevirtOutput
from conversions.pipeline.outputs.kubevirt_manifest import manifest
from conversions.pipeline.outputs.preview import preview
from conversions.pipeline.report import RecordingReporter
from conversions.pipeline.types import (
    Machine,
    NetBus,
    Overlay,
    TargetBuses,
    TargetDisk,
    TargetMeta,
)
from inventory.sources.types import (
    CpuTopology,
    Firmware,
    Nic,
    Removable,
    RemovableType,
    VnetType,
)
from tests.unit.pipeline.samples import (
    CDROM,
    GUEST,
    make_meta,
    make_source,
    source_disk,
    target_disk,
)

SCHEMA = json.loads(
    (Path(__file__).parents[2] / "data/kubevirt_virtualmachine.schema.json").read_text()
)
CAPS = expected_guestcaps()
OLD = replace(CAPS, virtio_1_0=False, virtio_rng=False, virtio_balloon=False)
PC = replace(emulated_guestcaps("x86_64", "old"), machine=Machine.I440FX)
ARM = replace(CAPS, machine=Machine.VIRT, arch="aarch64")
WINDOWS = replace(GUEST, type="windows", osinfo="win2k22")
FLOPPY = Removable(type=RemovableType.FLOPPY, slot=0)
GENID = "c3b9e8a4-7a65-4b8a-9d3f-1a2b3c4d5e6f"
MIB = 1 << 20


def network(name: str, mac: str | None = None) -> Nic:
    return Nic(vnet=name, vnet_type=VnetType.NETWORK, mac=mac)


def raw_disks(count: int) -> tuple[TargetDisk, ...]:
    return tuple(replace(target_disk(n), format="raw") for n in range(count))


def meta(**values: Any) -> TargetMeta:
    """Return a machine with a name that KubeVirt takes and raw disks."""
    base = {"name": "web01", "buses": TargetBuses(virtio_blk=raw_disks(1), ide=(CDROM,))}
    return make_meta(**(base | values))


def problems(document: dict[str, Any]) -> list[str]:
    """Return what the API has against a document: its schema's words, then admission's."""
    found = [e.message for e in jsonschema.Draft202012Validator(SCHEMA).iter_errors(document)]
    spec = document["spec"]["template"]["spec"]
    devices = spec["domain"]["devices"]
    networks = {n["name"]: n for n in spec["networks"]}
    volumes = [v["name"] for v in spec["volumes"]]
    disks = [d["name"] for d in devices["disks"]]
    cards = [i["name"] for i in devices["interfaces"]]
    orders = [d["bootOrder"] for d in devices["disks"] if "bootOrder" in d]
    for what, names in (("disk", disks), ("card", cards), ("volume", volumes), ("order", orders)):
        if len(set(names)) != len(names):
            found.append(f"a {what} is there twice")
    if sorted(networks) != sorted(cards) or len(networks) != len(spec["networks"]):
        found.append("cards and networks differ")
    if volumes != [d["name"] for d in devices["disks"] if "disk" in d]:
        found.append("disks and volumes differ")
    if sum("pod" in n for n in networks.values()) > 1:
        found.append("two cards on the pod network")
    if any("masquerade" in i and "pod" not in networks[i["name"]] for i in devices["interfaces"]):
        found.append("masquerade without the pod network")
    return found


def parsed(machine: TargetMeta, heard: list[str] | None = None) -> dict[str, Any]:
    """Return the document, valid, as any reader of YAML sees it."""
    text = manifest(machine, ([] if heard is None else heard).append)
    document: dict[str, Any] = yaml.safe_load(text)
    assert problems(document) == []
    return document


def domain(machine: TargetMeta, heard: list[str] | None = None) -> dict[str, Any]:
    found: dict[str, Any] = parsed(machine, heard)["spec"]["template"]["spec"]["domain"]
    return found


MACHINES: dict[str, TargetMeta] = {
    "plain": meta(),
    "bare": meta(buses=TargetBuses(), nics=(), guest=None),
    "old": meta(guestcaps=OLD),
    "pc": meta(guestcaps=PC, buses=TargetBuses(ide=(*raw_disks(2), CDROM), floppy=(FLOPPY,))),
    "scsi": meta(buses=TargetBuses(scsi=(*raw_disks(3), CDROM), virtio_blk=(CDROM,))),
    "arm": meta(guestcaps=ARM),
    "s390x": meta(guestcaps=replace(ARM, arch="s390x")),
    "uefi": meta(uefi=True),
    "secure": meta(uefi=True, source=make_source(uefi_secureboot=True)),
    "windows": meta(guest=WINDOWS, guestcaps=replace(CAPS, rtc_utc=False)),
    "many": meta(
        buses=TargetBuses(virtio_blk=raw_disks(28)),
        boot_disk=5,
        nics=tuple(network(name) for name in ("default", "default", "lab/vlan7", "VM Network", "")),
    ),
    "hostile": meta(
        source=make_source(
            genid="x: {y\n}", hypervisor="&a *b", cpu_model="- !!python/x", sound="<script>"
        ),
        guest=replace(GUEST, osinfo="'\"\n---"),
        nics=(Nic(vnet='a"\n  - b: c', vnet_type=VnetType.BRIDGE, mac="00:11\n: x"),),
        buses=TargetBuses(
            virtio_blk=(replace(target_disk(0), final_path="/t/$(x) '\"\\\n: ]", format="raw"),)
        ),
    ),
}


@pytest.mark.rows("4-T37", "4-T117")
@pytest.mark.parametrize("name", MACHINES)
def test_t37_every_manifest_is_valid(name: str) -> None:
    """Also a hostile one: its words stay words, and what cannot be a name or a label is none."""
    heard: list[str] = []
    document = parsed(MACHINES[name], heard)
    spec = document["spec"]["template"]["spec"]
    assert document["spec"]["runStrategy"] == "Halted"
    if name == "hostile":
        assert spec["volumes"][0]["hostDisk"]["path"] == "/t/$(x) '\"\\\n: ]"
        assert document["metadata"]["labels"].keys() == {"v2vweb/version"}
        assert spec["networks"] == [{"name": "net-0", "multus": {"networkName": "a-b-c"}}]
        assert len(heard) == 7


def test_the_validation_can_fail() -> None:
    for wrong in (
        {"features": {"pae": {}}},
        {"cpu": {"thread": 2}},
        {"resources": {"clock": {}}},
        {"firmware": {"bootloader": {"efi": {}}}},
    ):
        document = parsed(meta())
        document["spec"]["template"]["spec"]["domain"] |= wrong
        assert problems(document)
    for interface in ({"name": "net_0"}, {"name": "net-0", "bridge": {}, "masquerade": {}}):
        document = parsed(meta())
        document["spec"]["template"]["spec"]["domain"]["devices"]["interfaces"] = [interface]
        assert problems(document)


@pytest.mark.rows("4-T35")
def test_t35_an_old_linux_on_bios() -> None:
    found = domain(meta(guestcaps=OLD))
    assert found["firmware"] == {"bootloader": {"bios": {}}}
    assert found["devices"]["useVirtioTransitional"] is True
    assert found["devices"]["autoattachMemBalloon"] is False
    assert "rng" not in found["devices"]
    assert "clock" not in found


@pytest.mark.rows("4-T36")
@pytest.mark.parametrize("kind", VnetType)
def test_t36_a_windows_on_the_default_network(kind: VnetType) -> None:
    """Whether its source called that a network or a bridge."""
    mac = "52:54:00:12:34:56"
    machine = meta(guest=WINDOWS, nics=(Nic(vnet="default", vnet_type=kind, mac=mac),))
    found = domain(machine)
    assert found["clock"] == {
        "timer": {
            "hpet": {"present": False},
            "hyperv": {},
            "pit": {"tickPolicy": "delay"},
            "rtc": {"tickPolicy": "catchup"},
        },
        "utc": {},
    }
    assert found["devices"]["rng"] == {}
    assert found["devices"]["interfaces"] == [
        {"name": "net-0", "masquerade": {}, "macAddress": mac, "model": "virtio"}
    ]
    assert parsed(machine)["spec"]["template"]["spec"]["networks"] == [{"name": "net-0", "pod": {}}]


@pytest.mark.rows("4-T38")
@pytest.mark.parametrize("memory_bytes", [1 << 30, (1 << 30) + 1000])
def test_t38_memory_and_one_processor(memory_bytes: int) -> None:
    found = domain(meta(source=make_source(memory_bytes=memory_bytes, vcpus=1)))
    assert found["resources"] == {"requests": {"memory": "1024Mi"}}
    assert found["cpu"] == {"cores": 1}


@pytest.mark.rows("4-T54")
def test_t54_labels_under_a_prefix_of_our_own() -> None:
    labels = parsed(meta(source=make_source(genid=GENID)))["metadata"]["labels"]
    assert labels.pop("v2vweb/version")
    assert labels == {
        "v2vweb/genid": GENID, "v2vweb/osinfo": "debian11", "v2vweb/source": "vmware",
    }  # fmt: skip
    assert (
        "v2vweb/source"
        not in parsed(meta(source=make_source(hypervisor="unknownhv")))["metadata"]["labels"]
    )


@pytest.mark.parametrize("word", ["1e3", "0x10", "0o17", "12:30:45", "no", "1.5", "123", "null"])
def test_a_word_that_looks_like_something_else_is_in_quotes(word: str) -> None:
    """Readers of YAML 1.1 and 1.2 and Go's take different words for numbers and the like."""
    text = manifest(meta(name=word, nics=(network(word),), source=make_source(cpu_model=word)))
    assert f'name: "{word}"' in text
    if ":" not in word:
        assert f'networkName: "{word}"' in text
        assert f'model: "{word}"' in text


def test_secure_boot_is_said_either_way() -> None:
    """Left out, KubeVirt takes it for on, and refuses the machine for want of SMM."""
    plain = domain(MACHINES["uefi"])
    assert plain["firmware"]["bootloader"]["efi"] == {"persistent": True, "secureBoot": False}
    assert "smm" not in plain["features"]
    secure = domain(MACHINES["secure"])
    assert secure["firmware"]["bootloader"]["efi"] == {"persistent": True, "secureBoot": True}
    assert secure["features"]["smm"] == {"enabled": True}


@pytest.mark.parametrize(
    ("buses", "caps", "expected"),
    [
        (TargetBuses(virtio_blk=raw_disks(1), ide=(None, CDROM)), CAPS, ["virtio", "sata"]),
        (TargetBuses(scsi=(*raw_disks(1), CDROM)), CAPS, ["scsi", "scsi"]),
        (TargetBuses(ide=(*raw_disks(1), CDROM)), PC, ["sata", "sata"]),
        (TargetBuses(virtio_blk=(*raw_disks(1), CDROM)), CAPS, ["virtio", "sata"]),
        (TargetBuses(virtio_blk=raw_disks(1), ide=(CDROM,)), ARM, ["virtio", "scsi"]),
    ],
    ids=["virtio", "scsi", "ide", "virtio-cdrom", "arm"],
)
def test_buses_are_those_of_the_target(buses: TargetBuses, caps: Any, expected: list[str]) -> None:
    disk, cdrom = domain(meta(buses=buses, guestcaps=caps))["devices"]["disks"]
    assert [disk["disk"]["bus"], cdrom["cdrom"]["bus"]] == expected
    assert (disk["name"], cdrom["name"]) == ("disk-0", "cdrom-0")


def test_boot_order_and_topology() -> None:
    topology = CpuTopology(sockets=4, cores=8, threads=2)
    found = domain(
        meta(
            buses=TargetBuses(virtio_blk=raw_disks(3)),
            boot_disk=1,
            source=make_source(cpu_model="Broadwell", cpu_topology=topology, sound="ich9"),
            guestcaps=replace(CAPS, net_bus=NetBus.E1000),
        )
    )
    assert [disk["bootOrder"] for disk in found["devices"]["disks"]] == [2, 1, 4]
    assert found["cpu"] == {"model": "Broadwell", "sockets": 4, "cores": 8, "threads": 2}
    assert found["devices"]["sound"] == {"name": "sound", "model": "ich9"}
    assert found["devices"]["interfaces"][0]["model"] == "e1000"


def test_networks_become_the_pods_or_attachments() -> None:
    heard: list[str] = []
    document = parsed(MACHINES["many"], heard)
    spec = document["spec"]["template"]["spec"]
    names = [n.get("multus", {}).get("networkName") for n in spec["networks"]]
    assert names == [None, "default", "lab/vlan7", "vm-network", "network"]
    assert ["pod network" in heard[0], "'VM Network'" in heard[1], "''" in heard[2]] == [True] * 3
    assert (
        parsed(meta(nics=()))["spec"]["template"]["spec"]["domain"]["devices"][
            "autoattachPodInterface"
        ]
        is False
    )


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"buses": TargetBuses(virtio_blk=(target_disk(0),))}, "for raw"),
        ({"guestcaps": PC}, "type pc"),
        ({"guest": WINDOWS, "guestcaps": replace(CAPS, rtc_utc=False)}, "local time"),
        ({"buses": TargetBuses(floppy=(FLOPPY,))}, "floppy"),
        ({"source": make_source(sound="sb16")}, "sb16"),
        ({"source": make_source(cpu_model="qemu64")}, "qemu64"),
    ],
)
def test_what_the_target_will_not_have_is_said(values: dict[str, Any], words: str) -> None:
    heard: list[str] = []
    parsed(meta(**values), heard)
    assert any(words in text for text in heard)


# --- The files ---------------------------------------------------------------------------------


def output(
    folder: Path, name: str | None = "web01", report: RecordingReporter | None = None, **values: Any
) -> KubevirtOutput:
    target = Target(kind="kubevirt", directory=str(folder), format="raw", **values)
    job = Job(mode=Mode.COPY, source=Input(kind="ova", location="/x"), target=target)
    assert Job.from_json(job.to_json()) == job
    return KubevirtOutput(target, name, report or RecordingReporter())


def overlays(folder: Path, count: int = 1) -> list[Overlay]:
    """Return overlays with a pattern each, of 1 MiB."""
    found = []
    for number in range(count):
        path = folder / f"overlay{number}.qcow2"
        raw = folder / f"overlay{number}.raw"
        raw.write_bytes(bytes([number + 1]) * MIB)
        convert = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2"]
        subprocess.run([*convert, raw, path], check=True)
        overlay = replace(target_disk(number).overlay, path=str(path), virtual_size_bytes=MIB)
        found.append(overlay)
    return found


def write(kubevirt: KubevirtOutput, layers: list[Overlay]) -> None:
    """Copy and describe a machine."""
    source = make_source(disks=tuple(source_disk(n) for n in range(len(layers))))
    report = RecordingReporter()
    with kubevirt.prepare(source, layers) as targets:
        kubevirt.check_space({}, layers)
        copy_disks(targets, targets.disks, kubevirt.target, CopyOptions(verify="full"), report)
        buses = TargetBuses(virtio_blk=kubevirt.target_disks(source, layers, {}))
        kubevirt.write_metadata(targets, meta(buses=buses, source=source))
        targets.commit()


def test_disks_and_manifest_are_written(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    write(output(folder), overlays(tmp_path, 2))
    assert sorted(p.name for p in folder.iterdir()) == ["web01-sda", "web01-sdb", "web01.yaml"]
    assert (folder / "web01-sdb").read_bytes() == b"\2" * MIB
    document = yaml.safe_load((folder / "web01.yaml").read_text())
    assert problems(document) == []
    paths = [v["hostDisk"]["path"] for v in document["spec"]["template"]["spec"]["volumes"]]
    assert paths == [str(folder / "web01-sda"), str(folder / "web01-sdb")]


@pytest.mark.rows("4-T31")
@pytest.mark.parametrize("name", ["Web_01", "-x", "x.", "a..b", "x/y", "ä", "x" * 64])
def test_t31_a_name_that_kubernetes_does_not_take(name: str, tmp_path: Path) -> None:
    with pytest.raises(TargetError) as caught, output(tmp_path, name).prepare(make_source(), []):
        raise AssertionError("not reached")
    assert "-on" in caught.value.remedy


@pytest.mark.rows("4-T31")
def test_t31_a_name_with_dots(tmp_path: Path) -> None:
    assert output(tmp_path, "web.01-x").name_for(make_source()) == "web.01-x"


@pytest.mark.rows("4-T32")
def test_t32_as_many_paths_as_disks(tmp_path: Path) -> None:
    kubevirt = output(tmp_path, options={"disk": (str(tmp_path / "one"),)})
    with (
        pytest.raises(TargetError, match="has 2 disks, and 1 paths"),
        kubevirt.prepare(make_source(), [target_disk(n).overlay for n in range(2)]),
    ):
        raise AssertionError("not reached")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("paths", "create"),
    [
        (("d/one", "d/one"), "true"),
        (("d/one", "link/one"), "false"),
        (("d/one", "d/one/two"), "true"),
        (("d/one", "d/one.part"), "true"),
        (("d/one", "web01.yaml"), "false"),
        (("web01.yaml/one", "d/one"), "true"),
    ],
)
def test_two_files_with_one_path_are_refused_before_anything_is_done(
    paths: tuple[str, str], create: str, tmp_path: Path
) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "link").symlink_to("d")
    options = {"disk": tuple(str(tmp_path / path) for path in paths), "create": (create,)}
    kubevirt = output(tmp_path, options=options, overwrite=True)
    layers = [target_disk(n).overlay for n in range(2)]
    with (
        pytest.raises(TargetError, match="cannot both be written"),
        kubevirt.prepare(make_source(), layers),
    ):
        raise AssertionError("not reached")


def test_a_folder_is_not_overwritten(tmp_path: Path) -> None:
    """The renaming at the end would fail, after the whole copy."""
    (tmp_path / "web01-sda").mkdir()
    with (
        pytest.raises(TargetError, match="is a folder"),
        output(tmp_path, overwrite=True).prepare(make_source(), [target_disk(0).overlay]),
    ):
        raise AssertionError("not reached")


@pytest.mark.rows("4-T33")
def test_t33_a_disk_goes_where_it_was_told(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "out", tmp_path / "d"
    folder.mkdir()
    path = elsewhere / "disk.img"
    kubevirt = output(folder, options={"disk": (str(path),)})
    layers = overlays(tmp_path)
    with pytest.raises(TargetError, match="/d does not exist"):
        write(kubevirt, layers)
    elsewhere.mkdir()
    write(kubevirt, layers)
    assert path.read_bytes() == b"\1" * MIB
    assert [p.name for p in folder.iterdir()] == ["web01.yaml"]
    document = yaml.safe_load((folder / "web01.yaml").read_text())
    [volume] = document["spec"]["template"]["spec"]["volumes"]
    assert volume["hostDisk"]["path"] == str(path)


@pytest.mark.rows("4-T34")
def test_t34_a_disk_that_exists_only_gets_new_content(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    layers, disk = overlays(tmp_path), folder / "web01-sda"
    kubevirt = output(folder, options={"create": ("false",)})
    with pytest.raises(TargetError, match="web01-sda does not exist"):
        write(kubevirt, layers)
    assert not list(folder.iterdir())
    disk.write_bytes(b"\xff" * (MIB // 2))
    with pytest.raises(TargetError, match=r"1\.0 MiB"):
        write(kubevirt, layers)
    assert disk.read_bytes() == b"\xff" * (MIB // 2)
    disk.write_bytes(b"\xff" * (MIB + 4096))  # larger, as a claim may be
    disk.chmod(0o604)
    before = disk.stat()
    write(kubevirt, layers)
    after = disk.stat()
    assert disk.read_bytes() == b"\1" * MIB + b"\xff" * 4096
    assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)


def test_a_disk_that_exists_outlives_a_failure(tmp_path: Path) -> None:
    disk = tmp_path / "web01-sda"
    disk.write_bytes(bytes(MIB))
    kubevirt = output(tmp_path, options={"create": ("false",)})
    [layer] = overlays(tmp_path)
    with pytest.raises(CommandError), kubevirt.prepare(make_source(), [layer]):
        raise CommandError("the copy failed")
    assert disk.exists()


def test_an_existing_qcow2_is_compared_as_far_as_the_machine_sees_it(tmp_path: Path) -> None:
    old, disk = tmp_path / "old", tmp_path / "web01-sda"
    old.write_bytes(b"\xff" * 3 * MIB)
    convert = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2"]
    subprocess.run([*convert, old, disk], check=True)
    target = Target(
        kind="kubevirt",
        directory=str(tmp_path),
        format="qcow2",
        options={"create": ("false",)},
    )
    write(KubevirtOutput(target, "web01", RecordingReporter()), overlays(tmp_path))
    subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", disk, old], check=True)
    assert old.read_bytes() == b"\1" * MIB + b"\xff" * 2 * MIB


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"options": {"disk": ("relative",)}}, "not the path of a file"),
        ({"options": {"disk": ("/a/../etc/x",)}}, "not the path of a file"),
        ({"options": {"disk": ("/a\nb",)}}, "not the path of a file"),
        ({"options": {"disk": ("",)}}, "not the path of a file"),
        ({"options": {"create": ("false",)}, "allocation": "preallocated"}, "neither compressed"),
        pytest.param({"compressed": True}, "raw", marks=pytest.mark.rows("4-T11")),
        pytest.param({"options": {"create": ("0",)}}, "neither true",
                     marks=pytest.mark.rows("4-T12")),
        pytest.param({"options": {"x": ("",)}}, "x is not an option of output kubevirt",
                     marks=pytest.mark.rows("4-T10")),
    ],
)  # fmt: skip
def test_options_that_cannot_be(values: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(JobError, match=words):
        output(tmp_path, **values)


def test_the_preview_is_the_manifest_and_what_it_lacks() -> None:
    reports = {
        "inspection": {
            **{name: getattr(WINDOWS, name) for name in WINDOWS.__slots__},
            "applications": [{"name": "x"}],
        }
    }
    job = Job(
        mode=Mode.COPY,
        source=Input(kind="ova", location="/x.ova"),
        target=Target(kind="kubevirt", directory="/t"),
        name="new",
    )
    found = preview(make_source(firmware=Firmware.UEFI), reports, job)
    document = yaml.safe_load(found.text)
    assert problems(document) == []
    spec = document["spec"]["template"]["spec"]
    assert spec["volumes"][0]["hostDisk"]["path"] == "/t/new-sda"
    assert "efi" in spec["domain"]["firmware"]["bootloader"]
    assert "clock" in spec["domain"]
    assert found.title == "KubeVirt manifest"
    assert ["for raw" in problem for problem in found.problems] == [True]
