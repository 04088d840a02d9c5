"""Send a disk to oVirt's image server, ovirt-imageio, over several connections.

The transfer is of format raw: the server converts to what the disk is.  Zeros are told, not sent.
Source: the images API of ovirt-imageio; qemu-nbd serves the disk that is read.
"""

from __future__ import annotations

import logging
import signal
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx
import nbd

from conversions.pipeline.commands import Siblings
from conversions.pipeline.errors import TargetError
from conversions.pipeline.job import CopyOptions
from conversions.pipeline.stop import check_stop
from conversions.pipeline.types import Overlay
from inventory.sources.programs import WITH_US

REQUEST_BYTES = 4 << 20
# A server without fast zeroing writes them, and has to answer before the timeout.
ZERO_BYTES = 128 << 20
MAX_CONNECTIONS = 4
_TIMEOUT = httpx.Timeout(60, connect=10)
_FLUSH_TIMEOUT = httpx.Timeout(600, connect=10)
_ATTEMPTS = 4
_PAUSE_SECONDS = 0.5

# It logs every address, and whoever knows that of a transfer may write into it.
logging.getLogger("httpx").setLevel(logging.WARNING)


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a disk: what one request carries."""

    offset: int
    length: int
    is_zero: bool


def pieces(stretches: Iterable[Mapping[str, Any]]) -> Iterator[Piece]:
    """Cut the stretches of a disk map, neighbours of one kind together, for single requests."""
    begin = end = 0
    zero = False
    for stretch in stretches:
        is_zero = bool(stretch["zero"])
        if is_zero != zero:
            yield from _cut(begin, end, zero)
            begin, zero = end, is_zero
        end = int(stretch["start"]) + int(stretch["length"])
    yield from _cut(begin, end, zero)


def _cut(begin: int, end: int, zero: bool) -> Iterator[Piece]:
    step = ZERO_BYTES if zero else REQUEST_BYTES
    for offset in range(begin, end, step):
        yield Piece(offset, min(step, end - offset), zero)


class ImageServer:
    """One transfer on an image server; its address is its own password."""

    def __init__(self, url: str, context: ssl.SSLContext) -> None:
        parts = urlsplit(url)
        if parts.scheme != "https" or not parts.hostname:
            raise TargetError("The engine names an image server that is not reached by https.")
        self._url = url
        self.name = parts.netloc
        self._client = httpx.Client(
            verify=context,
            timeout=_TIMEOUT,
            trust_env=False,
            limits=httpx.Limits(max_connections=MAX_CONNECTIONS),
        )
        self._features: frozenset[str] = frozenset()

    def close(self) -> None:
        """Close the connections; the transfer can be finalized only then."""
        self._client.close()

    def connections(self) -> int:
        """Ask what the server can and return how many may write at once.  Raises TargetError.

        Servers that know no OPTIONS answer 405 or 204; they can only take bytes, from one writer.
        """
        response = self._request("OPTIONS", accepted=(204, 405))
        if response.status_code != httpx.codes.OK:
            return 1
        try:
            answer = response.json()
            self._features = frozenset(answer["features"])
            most = min(int(answer.get("max_readers", 1)), int(answer.get("max_writers", 1)))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise TargetError(f"The image server {self.name} gives no sensible answer.") from error
        return max(1, min(most, MAX_CONNECTIONS))

    def write(self, offset: int, data: bytes) -> None:
        """Write bytes; they are on storage after `flush`."""
        query = {"flush": "n"} if "flush" in self._features else None
        headers = {"Content-Range": f"bytes {offset}-{offset + len(data) - 1}/*"}
        self._request("PUT", params=query, headers=headers, content=data)

    def zero(self, offset: int, length: int) -> None:
        """Make a stretch read as zeros; an old server is sent them."""
        if "zero" in self._features:
            body = {"op": "zero", "offset": offset, "size": length, "flush": False}
            self._request("PATCH", json=body)
            return
        for start in range(offset, offset + length, REQUEST_BYTES):
            check_stop()
            self.write(start, bytes(min(REQUEST_BYTES, offset + length - start)))

    def flush(self) -> None:
        """Wait until everything is on storage; an old server does so after every request."""
        if "flush" in self._features:
            self._request("PATCH", json={"op": "flush"}, timeout=_FLUSH_TIMEOUT)

    def read(self, offset: int, length: int) -> bytes:
        """Read bytes back: who may write may read."""
        headers = {"Range": f"bytes={offset}-{offset + length - 1}"}
        return self._request("GET", headers=headers).content

    def _request(
        self, method: str, *, accepted: tuple[int, ...] = (), **values: Any
    ) -> httpx.Response:
        """Send a request, again after the line went dead: all of them may come twice.

        Raises TargetError, Stopped.
        """
        for attempt in range(1, _ATTEMPTS + 1):
            check_stop()
            try:
                response = self._client.request(method, self._url, **values)
            except httpx.TransportError as error:
                if attempt == _ATTEMPTS:
                    raise TargetError(
                        f"The image server {self.name} cannot be reached: {error}.",
                        remedy="See that this host reaches it, or send the disks through the "
                        "engine with -oo ovirt-proxy.",
                    ) from error
                time.sleep(_PAUSE_SECONDS * attempt)
                continue
            if not response.is_success and response.status_code not in accepted:
                words = response.text.strip()[:300] if not response.is_redirect else "a redirect"
                raise TargetError(
                    f"The image server {self.name} refuses {method} "
                    f"({response.status_code}): {words or 'it gives no reason'}",
                    remedy="The log of ovirt-imageio on that host says more.",
                )
            return response
        raise AssertionError("not reached")


class DiskReader:
    """Reads an overlay through a qemu-nbd of its own; for one thread."""

    def __init__(self, overlay: Overlay, siblings: Siblings) -> None:
        self._sd = overlay.sd
        self._handle: Any = nbd.NBD()
        serve = ["qemu-nbd", "--read-only", "-f", "qcow2", overlay.path]
        try:
            self._handle.connect_systemd_socket_activation([*WITH_US, *serve])
        except nbd.Error as error:
            raise self._broken(error) from error
        siblings.started(self)

    def read(self, offset: int, length: int) -> bytes:
        """Return bytes of the disk.  Raises TargetError, Stopped."""
        try:
            return bytes(self._handle.pread(length, offset))
        except nbd.Error as error:
            raise self._broken(error) from error

    def kill(self) -> None:
        """End the server, from any thread; what is being read fails."""
        if handle := self._handle:
            with suppress(nbd.Error):  # it may have ended
                handle.kill_subprocess(signal.SIGKILL)

    def close(self) -> None:
        """End the server; the handle waits for it when nobody holds it any more."""
        self.kill()
        self._handle = None

    def _broken(self, error: nbd.Error) -> TargetError:
        """Return what to raise; whoever holds the error must not hold the handle by its frames."""
        error.with_traceback(None)
        self.close()
        check_stop()
        return TargetError(f"The converted disk {self._sd} cannot be read: {error}")


class Throttle:
    """Lets so many bytes a second pass, from all threads together; None lets all pass."""

    def __init__(self, rate_bytes: int | None) -> None:
        self._rate = rate_bytes
        self._lock = threading.Lock()
        self._free_at = time.monotonic()

    def take(self, count: int) -> None:
        """Wait for one's turn.  Raises Stopped."""
        if not self._rate:
            return
        with self._lock:
            turn = max(self._free_at, time.monotonic())
            self._free_at = turn + count / self._rate
        while (left := turn - time.monotonic()) > 0:
            check_stop()
            time.sleep(min(left, 0.2))


class Sender:
    """Sends the pieces of one disk from several threads."""

    def __init__(
        self,
        server: ImageServer,
        overlay: Overlay,
        options: CopyOptions,
        siblings: Siblings,
        on_bytes: Callable[[int], None],
    ) -> None:
        self._server = server
        self._overlay = overlay
        self._full = options.verify == "full"
        self._throttle = Throttle(options.rate_bytes)
        self._siblings = siblings
        self._on_bytes = on_bytes
        self._lock = threading.Lock()
        self._failed = threading.Event()
        self._sent = 0

    def send(self, found: list[Piece]) -> None:
        """Write everything, wait until it is on storage, and check it where that is wanted.

        Raises TargetError, Stopped.
        """
        count = self._server.connections()
        self._spread(found, self._put, count)
        self._server.flush()
        if self._full:
            self._spread(found, self._compare, count)

    def _spread(
        self, found: list[Piece], work: Callable[[DiskReader, Piece], None], count: int
    ) -> None:
        waiting = iter(found)
        with ThreadPoolExecutor(count, thread_name_prefix="imageio") as pool:
            futures = [pool.submit(self._work, waiting, work) for _ in range(count)]
        failures = [error for future in futures if (error := future.exception())]
        if failures:
            check_stop()
            raise failures[0]

    def _work(self, waiting: Iterator[Piece], work: Callable[[DiskReader, Piece], None]) -> None:
        try:
            reader = DiskReader(self._overlay, self._siblings)
            try:
                while (piece := self._next(waiting)) is not None:
                    work(reader, piece)
            finally:
                reader.close()
        except BaseException:
            self._failed.set()
            raise

    def _next(self, waiting: Iterator[Piece]) -> Piece | None:
        check_stop()
        with self._lock:
            return None if self._failed.is_set() else next(waiting, None)

    def _put(self, reader: DiskReader, piece: Piece) -> None:
        if piece.is_zero:
            self._server.zero(piece.offset, piece.length)
            return
        self._throttle.take(piece.length)
        self._server.write(piece.offset, reader.read(piece.offset, piece.length))
        with self._lock:
            self._sent += piece.length
            self._on_bytes(self._sent)

    def _compare(self, reader: DiskReader, piece: Piece) -> None:
        for offset in range(piece.offset, piece.offset + piece.length, REQUEST_BYTES):
            length = min(REQUEST_BYTES, piece.offset + piece.length - offset)
            there = self._server.read(offset, length)
            if there != reader.read(offset, length):
                raise TargetError(
                    f"The disk {self._overlay.sd} that was sent is not what was converted: bytes "
                    f"{offset} to {offset + length - 1} differ.",
                    remedy="Look at the storage of the target for faults, then copy again.",
                    code="E-VERIFY",
                )
