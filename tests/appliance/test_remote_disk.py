"""A whole guest converted from an https server that forgets sessions and drops connections."""

from __future__ import annotations

import json
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from conversions.pipeline.job import Input, Job, Mode, Target
from conversions.pipeline.report import RecordingReporter
from conversions.pipeline.run import convert
from inventory.sources import remote
from tests.https_server import HttpsServer, Mood, make_certificate
from tests.unit.sources.test_vmware import FLAT, PASSWORD, domain_xml

pytestmark = pytest.mark.timeout(3000)


def flat_disk(ova: Path, folder: Path) -> Path:
    """Unpack the disk of a sample as an ESXi host has it: flat."""
    with tarfile.open(ova) as tar:
        name = next(m.name for m in tar if m.name.endswith(".vmdk"))
        tar.extract(name, folder)
    flat = folder / "flat.vmdk"
    subprocess.run(
        ["qemu-img", "convert", "-f", "vmdk", "-O", "raw", str(folder / name), str(flat)],
        check=True,
    )
    (folder / name).unlink()
    return flat


def test_a_guest_of_an_esxi_host_is_converted(
    build_sample: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flat = flat_disk(build_sample("debian", layout="lvm"), tmp_path)
    # There is no libvirt driver for a host that is not there: its answer is the test's.
    monkeypatch.setattr(remote, "domain_xml", lambda *_words, **_more: domain_xml())
    certificate, _ = make_certificate(tmp_path)
    mood = Mood(expire_after=400, drop_every=500)
    report = RecordingReporter()
    results = tmp_path / "results"
    results.mkdir()
    with HttpsServer({FLAT: flat}, certificate, mood) as server:
        uri = f"esx://root@localhost:{server.port}/?no_verify=1"
        job = Job(
            mode=Mode.COPY,
            source=Input(kind="libvirt", location="my vm", connection=uri, password=PASSWORD),
            target=Target(directory=str(results)),
        )
        convert(job, report)
    assert report.data("guestcaps")["block_bus"] == "virtio-blk"
    assert mood.logins > 1
    assert mood.drops > 1
    assert PASSWORD not in json.dumps(report.events)
    disk = results / "my vm-sda"
    subprocess.run(["qemu-img", "check", "-q", str(disk)], check=True)
    info = json.loads(subprocess.check_output(["qemu-img", "info", "--output=json", str(disk)]))
    assert (info["format"], info["virtual-size"]) == ("qcow2", flat.stat().st_size)
    assert not info.get("backing-filename")
