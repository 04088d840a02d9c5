"""Steps 2, 3 and 15 for a source on another host, up to what the appliance would open."""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conversions.pipeline import source as source_module
from conversions.pipeline.errors import TargetError
from conversions.pipeline.job import Input, Job, Mode, Target
from conversions.pipeline.overlay import create_overlays
from conversions.pipeline.report import RecordingReporter
from conversions.pipeline.source import fingerprint, open_source, report_unchanged
from inventory.sources import remote
from inventory.sources.base import SourceReader
from inventory.sources.nbdkit import Servers
from inventory.sources.readers import reader_for
from tests.https_server import HttpsServer, Mood, make_certificate
from tests.unit.sources.test_vmware import FLAT, PASSWORD, domain_xml

SIZE = 1 << 20


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(random.Random(9).randbytes(SIZE))
    return path


@pytest.fixture
def job(image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Job]:
    """A job that reads a machine of an ESXi host; libvirt's answer is the test's."""
    monkeypatch.setattr(remote, "domain_xml", lambda *_words, **_more: domain_xml())
    certificate, _ = make_certificate(tmp_path)
    with HttpsServer({FLAT: image}, certificate, Mood()) as server:
        uri = f"esx://root@localhost:{server.port}/?no_verify=1"
        source = Input(kind="libvirt", location="my vm", connection=uri, password=PASSWORD)
        yield Job(mode=Mode.INSPECT, source=source)


def test_overlays_lie_over_disks_of_another_host(job: Job, image: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    report = RecordingReporter()
    with Servers(work) as servers:
        source = open_source(job, work, report, servers)
        before = fingerprint(source, job.source.location)
        (overlay,) = create_overlays(source, work, report)
        assert overlay.virtual_size_bytes == SIZE
        assert overlay.source_label == "[ds+a] my vm/my vm.vmdk"
        out = tmp_path / "out"
        subprocess.run(
            ["qemu-img", "convert", "-f", "qcow2", "-O", "raw", overlay.path, str(out)], check=True
        )
        assert out.read_bytes() == image.read_bytes()
        report_unchanged(source, job.source.location, before, report)
    said = json.dumps(report.events)
    assert PASSWORD not in said
    assert "On another host, and only read here" in said
    assert "Source unchanged" not in said
    (check,) = [e["data"] for e in report.events if e.get("name") == "source_check"]
    assert check == {"unchanged": None, "changed": []}


@pytest.mark.parametrize("keep", [False, True])
def test_the_reader_is_told_whether_the_display_is_kept(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: bool
) -> None:
    asked: list[bool] = []

    def noting(*words: Any, **how: Any) -> SourceReader:
        asked.append(how["keep_display"])
        return reader_for(*words, **how)

    monkeypatch.setattr(source_module, "reader_for", noting)
    target = Target(directory=str(tmp_path), keep_display=keep)
    with Servers(tmp_path) as servers:
        copying = replace(job, mode=Mode.COPY, target=target)
        open_source(copying, tmp_path, RecordingReporter(), servers)
    assert asked == [keep]


@pytest.mark.rows("1-T263")
def test_disks_of_another_host_are_not_changed_in_place(job: Job, tmp_path: Path) -> None:
    in_place = replace(job, mode=Mode.IN_PLACE)
    with Servers(tmp_path) as servers, pytest.raises(TargetError) as caught:
        open_source(in_place, tmp_path, RecordingReporter(), servers)
    assert caught.value.code == "E-IN-PLACE-REMOTE"
