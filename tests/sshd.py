"""A real sshd on loopback with keys of its own."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Self

import pytest

from inventory.sources.ssh import SshHost


class Sshd:
    """A daemon that lets the client key in; `known` holds its host key, `unknown` another one.

    Its sftp may be a program instead.  A context manager.
    """

    def __init__(self, folder: Path, *, sftp: str = "internal-sftp") -> None:
        if not Path("/usr/sbin/sshd").exists():
            pytest.skip("openssh-server is not installed (script/setup --with-tests installs it)")
        self.folder = folder
        for name in ("host", "client", "other"):
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)],
                check=True,
            )
        shutil.copy(folder / "client.pub", folder / "authorized")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        config = folder / "config"
        config.write_text(
            f"ListenAddress 127.0.0.1:{self.port}\nHostKey {folder}/host\nStrictModes no\n"
            f"AuthorizedKeysFile {folder}/authorized\nPidFile none\nUsePAM no\n"
            "PermitRootLogin yes\nPasswordAuthentication no\nPubkeyAuthentication yes\n"
            f"MaxStartups 50\nSubsystem sftp {sftp}\n"
        )
        # Where privileges are separated, a folder for it must be there.
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        # It wants to be called by its whole path.
        self.process = subprocess.Popen(
            ["/usr/sbin/sshd", "-D", "-E", str(folder / "log"), "-f", str(config)]
        )
        for name, key in (("known", "host"), ("unknown", "other")):
            words = (folder / f"{key}.pub").read_text().split()[:2]
            (folder / name).write_text(f"[localhost]:{self.port} {' '.join(words)}\n")
        end = time.monotonic() + 20
        while time.monotonic() < end:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        raise AssertionError((folder / "log").read_text())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.process.terminate()
        self.process.wait()

    def uri(self, path: str = "") -> str:
        return f"ssh://{getpass.getuser()}@localhost:{self.port}{path}"

    def host(self, *, key: str = "client", known: str = "known") -> SshHost:
        options = {
            "ssh-identity": (str(self.folder / key),),
            "ssh-known-hosts": (str(self.folder / known),),
        }
        return SshHost.from_parts(self.uri(), password=None, options=options)

    def home(self, *, key: str = "client", known: str = "known") -> Path:
        """Return a home whose user has that key and knows those hosts."""
        home = self.folder / f"home-{key}-{known}"
        (home / ".ssh").mkdir(parents=True, exist_ok=True)
        shutil.copy(self.folder / key, home / ".ssh/id_ed25519")
        shutil.copy(self.folder / known, home / ".ssh/known_hosts")
        return home
