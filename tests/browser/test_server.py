"""script/server as people use it: start, stop, start again, start twice."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser.console import REPOSITORY, Console

pytestmark = pytest.mark.browser


@pytest.fixture
def server(results_dir: Path) -> Iterator[Console]:
    """A console of this test's own, not started yet."""
    var = Path(tempfile.mkdtemp(prefix="v2vweb-", dir="/var/tmp"))
    log = results_dir / "server-of-its-own.log"
    log.unlink(missing_ok=True)
    console = Console(var=var, log=log)
    yield console
    if console.process:
        console.stop()
    shutil.rmtree(var)


def processes_of(var: Path) -> list[str]:
    """Return the command lines of all processes that run with this state folder."""
    setting = f"V2VWEB_VAR={var}".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if setting in (process / "environ").read_bytes().split(b"\0"):
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue  # it has just ended
    return found


def run_server(console: Console, *options: str) -> subprocess.CompletedProcess[str]:
    """Run script/server where it is expected to refuse."""
    return subprocess.run(
        [str(REPOSITORY / "script/server"), *options],
        env=console.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_stop_leaves_no_process_and_a_second_start_finds_everything(server: Console) -> None:
    server.start()
    server.add_user("viewers")
    assert "password" in server.log.read_text().lower()  # the administrator's, shown once
    server.stop()
    assert processes_of(server.var) == []

    server.log.unlink()
    server.start()
    names = server.manage(
        "shell",
        "-c",
        "from django.contrib.auth.models import User; print(*User.objects.values_list('username'))",
    )
    assert "viewers" in names
    assert "password" not in server.log.read_text().lower()


def test_a_second_server_on_the_same_folder_is_refused(server: Console) -> None:
    server.start()
    second = run_server(server, "--port", str(server.port + 1))
    assert second.returncode == 1
    assert f"a console already runs on {server.var}" in second.stderr
    assert server.answers()


def test_a_port_in_use_is_named(server: Console) -> None:
    server.start()
    other = Path(tempfile.mkdtemp(prefix="v2vweb-", dir="/var/tmp"))
    try:
        second = run_server(Console(var=other, log=server.log), "--port", str(server.port))
        assert second.returncode == 1
        assert f"cannot listen on 127.0.0.1 port {server.port}" in second.stderr
    finally:
        shutil.rmtree(other)


def test_nothing_outlives_a_killed_server(server: Console) -> None:
    server.start()
    assert server.process
    server.process.kill()
    server.process.wait()
    deadline = time.monotonic() + 30
    while processes_of(server.var):
        assert time.monotonic() < deadline, processes_of(server.var)
        time.sleep(0.2)
