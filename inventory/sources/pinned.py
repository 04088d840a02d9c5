"""A way to a VMware server with one certificate, for a libvirt that can only trust all or some.

libvirt's driver checks who signed a certificate, or nothing.  Here it speaks plainly with a port of
this machine, from where what it says goes on over TLS, to that one certificate.
"""

from __future__ import annotations

import hashlib
import select
import socket
import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit, urlunsplit

from inventory.sources.https_session import (
    DIGESTS,
    plain_thumbprint,
    refuse_thumbprint,
    unreachable,
)
from inventory.sources.vmware import VmwareServer

_CONNECT_SECONDS = 30
_CHUNK_BYTES = 1 << 16


@contextmanager
def pinned_address(uri: str, thumbprint: str) -> Iterator[str]:
    """Give an address for libvirt behind which the server with that certificate answers.

    Raises SessionError when it shows another one or does not answer.
    """
    server = VmwareServer.from_uri(uri)
    wanted = plain_thumbprint(thumbprint)
    connect_pinned(server, wanted).close()

    class Handler(socketserver.BaseRequestHandler):
        """One connection of libvirt."""

        def handle(self) -> None:
            with connect_pinned(server, wanted) as beyond:
                for link in (self.request, beyond):
                    # What waits for an answer must not wait for its acknowledgement too.
                    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                forward(self.request, beyond)

    with _Server(("127.0.0.1", 0), Handler) as forwarder:
        thread = threading.Thread(target=forwarder.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield _local_address(uri, forwarder.server_address[1])
        finally:
            forwarder.shutdown()


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    # A connection that stays open must not hold up the end.
    block_on_close = False

    def handle_error(self, *_of: object) -> None:
        """Say nothing: libvirt sees that its connection ended."""


def _local_address(uri: str, port: int) -> str:
    parts = urlsplit(uri)
    user = f"{parts.username}@" if parts.username else ""
    others = [pair for pair in parts.query.split("&") if pair.startswith("auto_answer=")]
    query = "&".join(["transport=http", *others])
    return urlunsplit((parts.scheme, f"{user}127.0.0.1:{port}", parts.path, query, ""))


def connect_pinned(server: VmwareServer, wanted: str) -> ssl.SSLSocket:
    """Connect to the certificate with that digest, in plain hex.  Raises SessionError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # The digest says more than a signature and a name do.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        plain = socket.create_connection((server.host, server.port), timeout=_CONNECT_SECONDS)
        link = context.wrap_socket(plain, server_hostname=server.host)
    except OSError as error:
        raise unreachable(server.host, server.port, error) from error
    shown = hashlib.new(DIGESTS[len(wanted)], link.getpeercert(binary_form=True) or b"").hexdigest()
    if shown != wanted:
        link.close()
        raise refuse_thumbprint(server.host, shown, wanted)
    return link


def forward(here: socket.socket, beyond: ssl.SSLSocket) -> None:
    """Carry bytes both ways until one side ends."""
    while True:
        ready = [beyond] if beyond.pending() else select.select([here, beyond], [], [])[0]
        for link in ready:
            if link is here:
                data = here.recv(_CHUNK_BYTES)
                if data:
                    beyond.settimeout(_CONNECT_SECONDS)
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
