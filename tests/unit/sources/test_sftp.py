"""Folders and files over ssh, from a real sshd and from servers that mean no good."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import asyncssh
import pytest

from inventory.sources import sftp
from inventory.sources.errors import SourceError
from inventory.sources.host_access import HostAccess
from inventory.sources.libvirt_child import read_host
from inventory.sources.sftp import Entry, Sftp
from inventory.sources.ssh import SshHost
from tests.ssh_server import ssh_server, tcp_server
from tests.sshd import Sshd

# What the shell makes of these is an answer to the first packet, of 9 bytes, and one to a second.
VERSION = r"head -c 9 >/dev/null; printf '\0\0\0\5\2\0\0\0\3'; head -c 4 >/dev/null; "
HANDLE = r"printf '\0\0\0\12\146\0\0\0\0\0\0\0\1h'; "
SILENCE = "cat >/dev/null"


class Hostile(asyncssh.SFTPServer):
    """Has a folder of strange names, one that never ends, and everywhere a file without end."""

    async def scandir(self, path: bytes) -> AsyncIterator[asyncssh.SFTPName]:
        strange = (b".", b"..", b"../up", b"\xff", b"a\nb", b"\x1b[2J", b"x" * 256, b"web")
        for name in strange:
            yield asyncssh.SFTPName(name, attrs=asyncssh.SFTPAttrs())
        while path == b"/endless":
            yield asyncssh.SFTPName(b".", attrs=asyncssh.SFTPAttrs())

    def open(self, path: bytes, pflags: int, attrs: asyncssh.SFTPAttrs) -> object:
        return self

    def read(self, file: object, offset: int, size: int) -> bytes:
        return bytes(size)

    def close(self, file: object) -> None:
        pass


def failure(host: SshHost, path: str = "/") -> SourceError:
    with pytest.raises(SourceError) as caught, Sftp(host) as connection:
        connection.entries(path)
    return caught.value


def program(folder: Path, script: str) -> str:
    path = folder / "sftp"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def test_files_are_read_whole(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    file = folder / "file"
    file.write_bytes(os.urandom(100_000))
    with Sshd(tmp_path) as sshd, Sftp(sshd.host()) as connection:
        assert connection.read(str(file), max_bytes=100_000) == file.read_bytes()
        with pytest.raises(SourceError, match="more than the 99999 bytes"):
            connection.read(str(file), max_bytes=99_999)
        with pytest.raises(SourceError, match="cannot be read"):
            connection.entries(str(file))
        assert [entry.name for entry in connection.entries(str(folder))] == ["file"]


def test_what_a_user_has_configured_counts_but_not_against_known_hosts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Sshd(tmp_path) as sshd:
        monkeypatch.setenv("HOME", str(sshd.home()))
        config = sshd.home() / ".ssh/config"
        config.write_text(
            f"Host esx1\nHostname localhost\nPort {sshd.port}\nRemoteCommand id\n"
            "UserKnownHostsFile none\nStrictHostKeyChecking no\n"
        )
        with Sftp(SshHost(host="esx1")) as connection:
            assert "known" in [entry.name for entry in connection.entries(str(tmp_path))]
        (sshd.home() / ".ssh/known_hosts").unlink()
        assert failure(SshHost(host="esx1")).code == "E-LV-HOSTKEY"


def test_a_key_that_is_known_for_the_address_is_not_one_of_the_name(tmp_path: Path) -> None:
    with Sshd(tmp_path) as sshd:
        known = tmp_path / "known"
        known.write_text(known.read_text().replace("localhost", "127.0.0.1"))
        assert failure(sshd.host()).code == "E-LV-HOSTKEY"


def test_a_key_of_another_kind_than_the_known_one_is_another_key(tmp_path: Path) -> None:
    with ssh_server(tmp_path) as host:
        other = asyncssh.generate_private_key("ecdsa-sha2-nistp256").export_public_key()
        known = Path(host.known_hosts)
        known.write_text(f"[127.0.0.1]:{host.port} {other.decode()}")
        assert failure(host).code == "E-LV-HOSTKEY"


def test_names_that_are_none_are_passed_over(tmp_path: Path) -> None:
    with ssh_server(tmp_path, sftp_factory=Hostile) as host, Sftp(host) as connection:
        assert connection.entries("/") == [Entry(name="web", size_bytes=0, is_folder=False)]


def test_what_never_ends_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sftp, "_MAX_ENTRIES", 1000)
    with ssh_server(tmp_path, sftp_factory=Hostile) as host, Sftp(host) as connection:
        with pytest.raises(SourceError) as caught:
            connection.entries("/endless")
        assert caught.value.code == "E-SSH-MANY"
        with pytest.raises(SourceError) as caught:
            connection.read("/file", max_bytes=1 << 20)
        assert caught.value.code == "E-SSH-SIZE"


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("echo Welcome to this host of ours", "E-SSH-PROTOCOL"),
        (VERSION + r"printf '\377\377\377\377'; " + SILENCE, "E-SSH-PROTOCOL"),
        (VERSION + r"printf '\0\0\0\11\146\0\0\0\0\0\0\0\1'; " + SILENCE, "E-SSH-PROTOCOL"),
        (VERSION, "E-SSH-CONNECT"),
    ],
)
def test_a_host_whose_sftp_is_none_is_refused(tmp_path: Path, script: str, code: str) -> None:
    with Sshd(tmp_path, sftp=program(tmp_path, script)) as sshd:
        assert failure(sshd.host()).code == code


def test_a_host_without_sftp_is_refused(tmp_path: Path) -> None:
    with ssh_server(tmp_path) as host:
        error = failure(host)
    assert (error.code, "does not start sftp" in error.message) == ("E-SSH-CONNECT", True)


@pytest.mark.parametrize("answers", ["", VERSION, VERSION + HANDLE])
def test_a_host_that_falls_silent_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answers: str
) -> None:
    monkeypatch.setattr(sftp, "_SECONDS", 1)
    with Sshd(tmp_path, sftp=program(tmp_path, answers + SILENCE)) as sshd:
        begun = time.monotonic()
        error = failure(sshd.host())
        assert time.monotonic() - begun < 5
    assert (error.code, "took longer than 1 s" in error.message) == ("E-SSH-CONNECT", True)


def test_a_wrong_password_lets_nobody_in(tmp_path: Path) -> None:
    with ssh_server(tmp_path, sftp_factory=Hostile) as host:
        wrong = SshHost(
            host=host.host, port=host.port, user="ada", password="?", known_hosts=host.known_hosts
        )
        assert failure(wrong).code == "E-LV-AUTH"


@pytest.mark.parametrize(
    ("said", "then_ends", "code"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", True, "E-SSH-CONNECT"),
        (b"SSH-1.5-old\r\n", False, "E-SSH-CONNECT"),
        (b"SSH-2.0-x\r\n" + b"\377" * 1000, False, "E-SSH-CONNECT"),
        (b"a" * 100_000, False, "E-SSH-CONNECT"),
        (b"", False, "E-LV-TIMEOUT"),
    ],
)
def test_a_host_that_says_nonsense_or_nothing_is_given_up(
    said: bytes, then_ends: bool, code: str
) -> None:
    begun = time.monotonic()
    with tcp_server(said, then_ends=then_ends) as host, pytest.raises(SourceError) as caught:
        access = HostAccess(uri=f"ssh://root@127.0.0.1:{host.port}/x")
        read_host(access, with_domains=True, seconds=4)
    assert caught.value.code == code
    assert time.monotonic() - begun < 8


def test_a_connection_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sftp, "_CONNECT_SECONDS", 1)
    with tcp_server(b"", then_ends=False) as host:
        error = failure(host)
    assert (error.code, "it does not answer" in error.message) == ("E-SSH-CONNECT", True)


def test_a_host_without_an_address_is_told() -> None:
    error = failure(SshHost(host="esx1.invalid"))
    assert (error.code, "esx1.invalid" in error.message) == ("E-SSH-CONNECT", True)
