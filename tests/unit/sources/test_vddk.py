"""Spec 5.7: VMware's library through nbdkit; the library itself is nowhere to be had."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from inventory.sources.errors import SourceError
from inventory.sources.nbdkit import Servers, installed_filters
from inventory.sources.vddk import (
    VddkOptions,
    VddkReader,
    check_vddk,
    export_pattern,
    vddk_filters,
    vddk_server,
)
from inventory.sources.vmware import VmwareServer
from tests.unit.sources.test_vmware import domain_xml

NAMES = ("[ds] a/a.vmdk", "[ds] a/a_1.vmdk")
URI = "esx://admin@esx.example.org/?no_verify=1"
# Stands for an nbdkit with the plugin: tells its version, writes down what it is called with.
FAKE = """#!{python}
import os, sys
words = sys.argv[1:]
if words[0] == "--dump-plugin":
    print("name=vddk\\nversion={version}\\n{library}")
    sys.exit(0)
if words[0] == "--dump-config":
    os.execv("/usr/bin/nbdkit", ["nbdkit", *words])
with open({log!r}, "a") as log:
    print("\\t".join(words), file=log)
at = words.index("vddk")
own = [w for w in words[:at] if not w.startswith("--filter=")]
os.execv("/usr/bin/nbdkit", ["nbdkit", *own, "memory", "1M"])
"""


def reader(
    *names: str,
    options: Mapping[str, tuple[str, ...]] | None = None,
    extra: str | None = None,
    password: str | None = "s3cret",  # noqa: S107
    warnings: list[str] | None = None,
) -> VddkReader:
    more = {} if extra is None else {"extra": extra}
    return VddkReader(
        URI,
        "my vm",
        password=password,
        fetch_xml=lambda: domain_xml(*names, **more),
        warn=(warnings if warnings is not None else []).append,
        options={"vddk-thumbprint": ("AA:BB",)} if options is None else options,
    )


@pytest.mark.rows("1-T233")
@pytest.mark.parametrize("option", ["vddk-foo", "libdir", "https-thumbprint", ""])
def test_options_that_are_not_known(option: str) -> None:
    with pytest.raises(SourceError) as caught:
        reader(options={option: ("1",)})
    assert caught.value.code == "E-VDDK-OPTION"


def test_options_that_cannot_be(tmp_path: Path) -> None:
    for options, code in (
        ({"vddk-port": ("1", "2")}, "E-VDDK-OPTION"),
        ({"vddk-libdir": (str(tmp_path / "none"),)}, "E-VDDK-LIBDIR"),
    ):
        with pytest.raises(SourceError) as caught:
            VddkOptions.from_pairs(options)
        assert caught.value.code == code
    with pytest.raises(SourceError) as caught:
        reader(password=None)
    assert caught.value.code == "E-VC-PASSWORD"


@pytest.mark.rows("1-T232")
def test_the_machine_must_have_an_id() -> None:
    with pytest.raises(SourceError) as caught:
        reader(extra="").read()
    assert caught.value.code == "E-VDDK-MOREF"


@pytest.mark.rows("1-T234")
def test_files_are_named_for_all_disks_or_for_none() -> None:
    with pytest.raises(SourceError, match="given 1 times for 2 disks"):
        reader(*NAMES, options={"vddk-file": ("[ds] x.vmdk",)}).read()
    source = reader(*NAMES, options={"vddk-file": ("[x] 1.vmdk", "[x] 2.vmdk")}).read()
    assert [disk.path for disk in source.disks] == ["[x] 1.vmdk", "[x] 2.vmdk"]


@pytest.mark.rows("1-T235", "1-T236")
def test_patterns_of_exports() -> None:
    assert export_pattern(NAMES) == r"\[ds\] a/a*.vmdk"
    assert export_pattern(["[ds] a?b.vmdk"]) == r"\[ds\] a\?b.vmdk"
    with pytest.raises(SourceError):
        export_pattern(["[ds] a.vmdk", "[ds] a.img"])


@pytest.mark.rows("1-T237")
def test_filters_from_the_client_to_the_plugin() -> None:
    everything = frozenset({"cow", "retry", "count", "blocksize", "multi-conn", "readahead"})
    assert vddk_filters(everything, verbose=True) == (
        "multi-conn", "cow", "blocksize", "count", "retry",
    )  # fmt: skip
    assert vddk_filters(frozenset({"cow"}), verbose=True) == ("cow",)
    assert vddk_filters(installed_filters()) == ("multi-conn", "cow", "blocksize", "retry")


def test_the_command(tmp_path: Path) -> None:
    pairs = {
        "vddk-transports": ("nbdssl",), "vddk-libdir": (str(tmp_path),),
        "vddk-compression": ("zlib",), "vddk-snapshot": ("snap-1",),
    }  # fmt: skip
    server = vddk_server(
        VmwareServer.from_uri("vpx://vcenter/DC/host"),
        "vm-7",
        VddkOptions.from_pairs(pairs),
        thumbprint="AA:BB",
        password_file=Path("/w/vddk-password"),
        disks=("file", "[ds] a.vmdk"),
        filters=("multi-conn", "cow", "blocksize", "retry"),
    )
    command = server.command(Path("/w/in0"), Path("/w/in0.pid"), [])
    at = command.index("vddk")
    assert command[at - 4 : at] == [
        "--filter=multi-conn", "--filter=cow", "--filter=blocksize", "--filter=retry",
    ]  # fmt: skip
    assert command[at:] == [
        "vddk", "server=vcenter", "vm=moref=vm-7", "user=root", "password=+/w/vddk-password",
        "compression=zlib", f"libdir={tmp_path}", "snapshot=snap-1", "thumbprint=AA:BB",
        "transports=nbdssl", "file=[ds] a.vmdk", "multi-conn-mode=disable", "cow-block-size=4096",
        "minblock=512", "maxdata=2M", "retry-delay=1", "retries=6",
    ]  # fmt: skip
    assert [command[i + 1] for i, word in enumerate(command) if word == "-D"] == [
        "nbdkit.backend.datapath=0", "vddk.datapath=0", "vddk.stats=1",
    ]  # fmt: skip


def test_this_host_has_no_plugin(tmp_path: Path) -> None:
    with Servers(tmp_path) as servers, pytest.raises(SourceError) as caught:
        one = reader(NAMES[0])
        one.serve(one.read(), servers)
    assert caught.value.code == "E-VDDK-PLUGIN"
    assert "nbdkit-plugin-vddk" in caught.value.remedy
    assert list(tmp_path.iterdir()) == []


def fake_nbdkit(folder: Path, monkeypatch: pytest.MonkeyPatch, version: str, library: str) -> Path:
    log = folder / "log"
    program = folder / "bin" / "nbdkit"
    program.parent.mkdir()
    program.write_text(
        FAKE.format(python=sys.executable, version=version, library=library, log=str(log))
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    return log


def test_a_plugin_without_its_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_nbdkit(tmp_path, monkeypatch, "1.32.5", "vddk_default_libdir=/usr/lib/vmware-vix-disklib")
    with pytest.raises(SourceError) as caught:
        check_vddk(VddkOptions(values={}))
    assert caught.value.code == "E-VDDK-LIBRARY"
    assert "vddk-libdir" in caught.value.remedy


@pytest.mark.rows("1-T235")
@pytest.mark.parametrize("version", ["1.32.5", "1.45.11"])
def test_disks_are_served_by_as_few_servers_as_can_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    log = fake_nbdkit(tmp_path, monkeypatch, version, "vddk_library_version=8")
    work = tmp_path / "work"
    work.mkdir()
    one = reader(*NAMES)
    with Servers(work) as servers:
        disks = one.serve(one.read(), servers).disks
        assert (work / "vddk-password").stat().st_mode & 0o77 == 0
    nodes = [dict(disk.node or {}) for disk in disks]
    calls = [line.split("\t") for line in log.read_text().splitlines()]
    if version == "1.45.11":
        assert [node["export"] for node in nodes] == list(NAMES)
        assert nodes[0]["server"] == nodes[1]["server"]
        assert [r"export=\[ds\] a/a*.vmdk" in call for call in calls] == [True]
    else:
        assert [f"file={name}" in call for name, call in zip(NAMES, calls, strict=True)] == [
            True, True,
        ]  # fmt: skip
        assert nodes[0]["server"] != nodes[1]["server"]
    assert not any("s3cret" in word for call in calls for word in call)
