"""Spec 7: servers of ours for disks that are no files here; real nbdkit, no network."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from inventory.sources.base import disk_uri
from inventory.sources.errors import SourceError
from inventory.sources.https_disk import https_server
from inventory.sources.nbdkit import NbdServer, ServerError, Servers, pick_filters, quoted
from inventory.sources.types import SourceDisk
from tests.unit.sources.conftest import SIZE, read_through

DISK = SourceDisk(id=0, controller=None, path="far away", format="raw", remote=True)


def file_server(path: Path) -> NbdServer:
    return NbdServer(
        plugin="file",
        parameters=[("file", str(path))],
        filters=pick_filters("cow", "no-such-filter", "retry"),
    )


def pids_with(text: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                if text.encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def is_gone(text: str) -> bool:
    end = time.monotonic() + 10
    while pids_with(text) and time.monotonic() < end:
        time.sleep(0.05)
    return not pids_with(text)


def test_what_is_read_is_what_lies_there_and_nothing_stays(image: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    with Servers(work) as servers:
        disk = servers.serve(DISK, file_server(image))
        assert read_through(disk, tmp_path) == image.read_bytes()
        assert pids_with(str(work))
        assert (work / "keep-reads").exists()
        servers.stop_keeping()
        assert not (work / "keep-reads").exists()
    assert not pids_with(str(work))
    assert list(work.iterdir()) == []


def test_blocks_read_while_converting_are_not_fetched_again(image: Path, tmp_path: Path) -> None:
    with Servers(tmp_path) as servers:
        disk = servers.serve(DISK, file_server(image))
        first = read_through(disk, tmp_path)
        image.write_bytes(bytes(SIZE))
        assert read_through(disk, tmp_path) == first


def test_servers_end_also_when_the_work_fails(image: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    with pytest.raises(RuntimeError, match="boom"), Servers(work) as servers:
        servers.serve(DISK, file_server(image))
        raise RuntimeError("boom")
    assert not pids_with(str(work))


def test_a_server_dies_with_its_process(image: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    code = (
        "import sys, time; from pathlib import Path\n"
        "from inventory.sources.nbdkit import NbdServer, Servers\n"
        "s = Servers(Path(sys.argv[1]))\n"
        "s.start(NbdServer(plugin='file', parameters=[('file', sys.argv[2])]))\n"
        "print('up', flush=True); time.sleep(100)"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(work), str(image)], stdout=subprocess.PIPE
    )
    assert child.stdout
    assert child.stdout.readline() == b"up\n"
    assert len(pids_with(f"{work}/in0")) == 1
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert is_gone(f"{work}/in0")


@pytest.mark.rows("1-T231")
def test_secrets_and_proxies_reach_no_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy:1")
    monkeypatch.setenv("ALL_PROXY", "http://proxy:2")
    monkeypatch.setenv("no_proxy", "x")
    lines: list[str] = []
    server = NbdServer(
        plugin="curl",
        parameters=[("url", "https://localhost:1/x")],
        secrets=[("password", "s3cret-word")],
    )
    assert "s3cret-word" not in repr(server)
    with Servers(tmp_path, lines.append) as servers:
        servers.start(server)
        (pid,) = pids_with(f"{tmp_path}/in0")
        shown = Path(f"/proc/{pid}/cmdline").read_bytes()
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    assert b"password=-" in shown
    assert b"s3cret" not in shown + environment
    assert not any("s3cret" in line for line in lines)
    assert b"proxy" not in environment.lower()


def test_a_cookie_that_nbdkit_takes_as_text_alone_is_not_logged(tmp_path: Path) -> None:
    lines: list[str] = []
    url = ("url", "https://localhost:1/x")
    server = NbdServer(plugin="curl", parameters=[("cookie", "s3cret\nword"), url])
    with Servers(tmp_path, lines.append) as servers:
        servers.start(server)
    assert " cookie=*** url=https:" in lines[0]
    assert not any("s3cret" in line or "word" in line for line in lines)


def test_what_cannot_be_served_says_why(image: Path, tmp_path: Path) -> None:
    with Servers(tmp_path) as servers:
        with pytest.raises(ServerError, match="no-such-plugin"):
            servers.start(NbdServer(plugin="no-such-plugin"))
        with pytest.raises(ServerError, match=r"far away cannot be opened: .*[Cc]onnect"):
            servers.serve(DISK, NbdServer(plugin="curl", parameters=[("url", "https://[::1]:1/")]))
        with pytest.raises(SourceError, match="far away is served by no server"):
            disk_uri(DISK)
    with pytest.raises(ServerError, match="no filter nothing"):
        pick_filters("cow", needed="nothing")


def test_long_folders_have_their_sockets_elsewhere(image: Path, tmp_path: Path) -> None:
    work = tmp_path / ("x" * 100)
    work.mkdir()
    with Servers(work) as servers:
        disk = servers.serve(DISK, file_server(image))
        assert disk.node
        path = Path(disk.node["server"]["path"])
        assert len(str(path)) < 60
        assert path.parent.stat().st_mode & 0o77 == 0
        assert read_through(disk, tmp_path) == image.read_bytes()
    assert not path.parent.exists()


def test_an_image_on_another_host_may_name_no_other_file(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(1 << 20))
    layer = tmp_path / "layer.qcow2"
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(secret), str(layer)],
        check=True,
    )
    disk = SourceDisk(id=0, controller=None, path="layer", format="qcow2", remote=True)
    with Servers(tmp_path) as servers, pytest.raises(SourceError) as caught:
        servers.serve(disk, file_server(layer))
    assert caught.value.code == "E-IMG-BACKING"


def test_an_https_server_is_given_one_quoted_url() -> None:
    command = https_server("https://h/a%20b").command(Path("/w/in0"), Path("/w/in0.pid"), [])
    assert command[:4] == ["nbdkit", "--exit-with-parent", "--foreground", "--readonly"]
    assert command[command.index("curl") - 2 : command.index("curl")] == [
        "--filter=cow", "--filter=retry",
    ]  # fmt: skip
    assert "url=https://h/a%20b" in command
    assert "protocols=https" in command


def test_quoting_leaves_nothing_that_a_url_could_be_read_by() -> None:
    assert quoted("/my vm_1+2%é'\"&?#") == "/my%20vm%5f1%2b2%25%c3%a9%27%22%26%3f%23"
