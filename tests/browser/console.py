"""A real console for the browser tests: script/server on a folder and a port of its own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PYTHON = REPOSITORY / ".venv/bin/python"
START_SECONDS = 90
# Longer than script/server gives its parts.
STOP_SECONDS = 75

ADD_USER = """
import os
from django.contrib.auth.models import Group, User
name = os.environ["TEST_USER"]
user = User.objects.create_user(name, password=os.environ["TEST_PASSWORD"])
if name == "administrator":
    user.is_staff = user.is_superuser = True
    user.save()
else:
    user.groups.add(Group.objects.get(name=name.capitalize()))
"""


@dataclass(kw_only=True)
class Console:
    """A running console; `var` holds all it stores, `log` what it prints.

    `settings` are variables that its environment has besides.
    """

    var: Path
    log: Path
    settings: Mapping[str, str] = field(default_factory=dict)
    password: str = "a-long-test-password-0"
    port: int = field(default_factory=lambda: free_port())
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Its address, without the last slash."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """The environment of its commands: this test's state and settings, nobody else's."""
        ours = {"DATABASE_URL", "REDIS_URL", "SECRET_KEY", "DEBUG", "HTTPS"}
        inherited = {name: value for name, value in os.environ.items() if name not in ours}
        return inherited | {"V2VWEB_VAR": str(self.var)} | self.settings

    def start(self) -> None:
        """Start the console and wait until it answers."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [str(REPOSITORY / "script/server"), "--port", str(self.port)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.environment,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the console does not start:\n{self.log.read_text()[-3000:]}")
            time.sleep(0.3)

    def answers(self) -> bool:
        """Tell whether the sign-in page comes."""
        try:
            with urllib.request.urlopen(f"{self.url}/accounts/login/", timeout=5) as response:  # noqa: S310
                return bool(response.status == 200)
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"the sign-in page answers {error.code}") from error
        except OSError:
            return False

    def stop(self) -> int:
        """Stop it as Ctrl-C does; return its exit code."""
        assert self.process
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        return self.process.wait(STOP_SECONDS)

    def add_user(self, name: str) -> None:
        """Add "administrator", or a user named like a role in lower case with that role."""
        self.manage("shell", "-c", ADD_USER, TEST_USER=name, TEST_PASSWORD=self.password)

    def manage(self, *arguments: str, **variables: str) -> str:
        """Run a management command on its state; return what it prints."""
        result = subprocess.run(
            [str(PYTHON), "manage.py", *arguments],
            cwd=REPOSITORY,
            env=self.environment | variables,
            check=True,
            capture_output=True,
            text=True,
        )
        return result.stdout


@contextmanager
def running_console(log: Path, *, engine: str = "") -> Iterator[Console]:
    """Run a console of its own with a user of each role; nothing of it is left afterwards.

    `engine` is a module that stands for the engine.
    """
    log.unlink(missing_ok=True)
    # Not below pytest's own folder: that may be too long for a Unix socket.
    var = Path(tempfile.mkdtemp(prefix="v2vweb-", dir="/var/tmp"))
    settings = {"V2VWEB_ENGINE_PYTHON": str(stand_in(var, engine))} if engine else {}
    running = Console(var=var, log=log, settings=settings)
    running.start()
    try:
        for name in ("administrator", "operators", "viewers"):
            running.add_user(name)
        yield running
    finally:
        running.stop()
        shutil.rmtree(var, ignore_errors=True)


def stand_in(folder: Path, module: str) -> Path:
    """Write the program that stands for the engine's Python: it runs another module."""
    program = folder / "engine-python"
    program.write_text(f'#!/bin/sh\nshift 2\nexec {PYTHON} -m {module} "$@"\n')
    program.chmod(0o755)
    return program


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
