"""A server of the tests' own on a port of 127.0.0.1, for what speaks a foreign API."""

from __future__ import annotations

import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self


class LocalServer:
    """Runs within a `with` block, over https with a certificate; its handlers' `server_side`."""

    def __init__(self, handler: type[LocalHandler], certificate: Path | None) -> None:
        bound = type("Handler", (handler,), {"server_side": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), bound)
        self._server.daemon_threads = True
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            # The handshake belongs to the thread of the connection, not to the one that accepts.
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    def show(self, certificate: Path) -> None:
        """Show another certificate from now on, to who connects."""
        self._server.socket.context.load_cert_chain(certificate)  # type: ignore[attr-defined]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class LocalHandler(BaseHTTPRequestHandler):
    """Answers requests; connections that break are no error."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else each answer waits for the client's delayed ACK
    server_side: Any

    def handle(self) -> None:
        """Answer until the connection ends."""
        try:
            super().handle()
        except (OSError, ssl.SSLError):
            self.close_connection = True

    def log_message(self, *_args: object) -> None:
        """Say nothing."""
