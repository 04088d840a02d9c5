"""Ways to an https server with one certificate, for programs that can only trust all or some.

libvirt's driver and libcurl check who signed a certificate and which names it has, or nothing.
Here they speak plainly with a socket of this machine, from where what they say goes on over TLS, to
that one certificate.
"""

from __future__ import annotations

import select
import socket
import socketserver
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit, urlunsplit

from inventory.sources.certificates import connect_pinned

_SEND_SECONDS = 30
_CHUNK_BYTES = 1 << 16


@contextmanager
def pinned_address(uri: str, thumbprint: str) -> Iterator[str]:
    """Give an address for libvirt behind which the server of a checked one answers.

    Raises SessionError when it shows another certificate or does not answer.
    """
    parts = urlsplit(uri)
    beyond = partial(connect_pinned, parts.hostname or "", parts.port or 443, thumbprint)
    beyond().close()
    with _Forwarder(("127.0.0.1", 0), beyond) as forwarder:
        yield _local_address(uri, forwarder.server_address[1])


@contextmanager
def pinned_socket(path: Path, host: str, port: int, thumbprint: str) -> Iterator[None]:
    """Have a Unix socket behind which the server with that certificate answers.

    It is as private as its folder; to a port anybody on this machine could connect.
    """
    with _Forwarder(str(path), partial(connect_pinned, host, port, thumbprint)):
        try:
            yield
        finally:
            path.unlink()


def _local_address(uri: str, port: int) -> str:
    parts = urlsplit(uri)
    user = f"{parts.username}@" if parts.username else ""
    others = [pair for pair in parts.query.split("&") if pair.startswith("auto_answer=")]
    query = "&".join(["transport=http", *others])
    return urlunsplit((parts.scheme, f"{user}127.0.0.1:{port}", parts.path, query, ""))


class _Forwarder(socketserver.ThreadingTCPServer):
    """Listens at a port, or at a path as a Unix socket; each connection leads to one `beyond`."""

    daemon_threads = True
    # A connection that stays open must not hold up the end.
    block_on_close = False

    def __init__(self, address: tuple[str, int] | str, beyond: Callable[[], ssl.SSLSocket]) -> None:
        self.address_family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        self.beyond = beyond
        super().__init__(address, _Connection)  # type: ignore[arg-type]  # a path with AF_UNIX

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, *_of: object) -> None:
        """Say nothing: who connected sees that its connection ended."""


class _Connection(socketserver.BaseRequestHandler):
    server: _Forwarder

    def handle(self) -> None:
        here = self.request
        with self.server.beyond() as beyond:
            if here.family != socket.AF_UNIX:
                here.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _forward(here, beyond)


def _forward(here: socket.socket, beyond: ssl.SSLSocket) -> None:
    """Carry bytes both ways until one side ends."""
    while True:
        ready = [beyond] if beyond.pending() else select.select([here, beyond], [], [])[0]
        for link in ready:
            if link is here:
                data = here.recv(_CHUNK_BYTES)
                if data:
                    beyond.settimeout(_SEND_SECONDS)
                    beyond.sendall(data)
            else:
                beyond.settimeout(0)
                try:
                    data = beyond.recv(_CHUNK_BYTES)
                except ssl.SSLWantReadError:
                    continue  # what came is of TLS itself
                if data:
                    here.sendall(data)
            if not data:
                return
