"""An https server that behaves like an ESXi host's web folder on a bad day."""

from __future__ import annotations

import base64
import datetime
import hashlib
import ipaddress
import re
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.local_server import LocalHandler, LocalServer


@dataclass(kw_only=True)
class Mood:
    """How it misbehaves; counts are of GET requests, 0 means never.

    After `expire_after` requests a session is forgotten and answered with `refusal`; of every
    `drop_every` answers one is cut in the middle.
    """

    user: str = "root"
    password: str = "pass:word"
    expire_after: int = 0
    drop_every: int = 0
    refusal: int = 401
    status: int = 0
    no_status_line: bool = False
    logins: int = 0
    with_password: int = 0
    gets: int = 0
    drops: int = 0
    refused: int = 0
    requests: list[str] = field(default_factory=list)
    sessions: dict[str, int] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)


def make_certificate(folder: Path, *names: str) -> tuple[Path, str]:
    """Write a self-signed certificate with its key; return the file and its SHA-1 thumbprint."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "esx")])
    now = datetime.datetime.now(datetime.UTC)
    alternatives = [x509.IPAddress(ipaddress.ip_address(n)) if n[0].isdigit() else x509.DNSName(n)
                    for n in names or ("localhost", "127.0.0.1")]  # fmt: skip
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = folder / "server.pem"
    file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    der = certificate.public_bytes(serialization.Encoding.DER)
    digest = hashlib.sha1(der, usedforsecurity=False).hexdigest().upper()
    return file, ":".join(re.findall("..", digest))


class HttpsServer(LocalServer):
    """Serves files by their raw request path on a port of localhost; a context manager.

    `post` answers POST requests: it gets their body and cookies, and gives a status, a body and a
    cookie to set or "".
    """

    def __init__(
        self,
        files: dict[str, Path],
        certificate: Path,
        mood: Mood | None = None,
        post: Callable[[bytes, str], tuple[int, bytes, str]] | None = None,
    ) -> None:
        self.files = files
        self.post = post
        self.mood = mood or Mood()
        super().__init__(_Handler, certificate)


class _Handler(LocalHandler):
    server_side: HttpsServer

    def _head(self) -> None:
        self._answer(body=False)

    def _get(self) -> None:
        self._answer(body=True)

    def _post(self) -> None:
        given = self.rfile.read(int(self.headers["Content-Length"]))
        if self.server_side.post is None:
            return self._empty(405)
        status, answer, cookie = self.server_side.post(given, self.headers.get("Cookie", ""))
        self.send_response(status)
        self.send_header("Content-Length", str(len(answer)))
        if cookie:
            self.send_header("Set-Cookie", f"{cookie}; Path=/; HttpOnly; Secure")
        self.end_headers()
        self.wfile.write(answer)
        return None

    do_HEAD, do_GET, do_POST = _head, _get, _post  # noqa: N815  the names http.server calls

    def _answer(self, *, body: bool) -> None:
        mood = self.server_side.mood
        with mood.lock:
            mood.requests.append(f"{self.command} {self.path}")
            if mood.no_status_line:
                self.wfile.write(b"nonsense\r\n\r\n")
                self.close_connection = True
                return
            cookie = self._session(mood)
        if cookie is None:
            return self._empty(mood.refusal)
        if mood.status:
            return self._empty(mood.status)
        file = self.server_side.files.get(self.path)
        if file is None:
            return self._empty(404)
        size = file.stat().st_size
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        first, last = (int(match[1]), min(int(match[2]), size - 1)) if match else (0, size - 1)
        self.send_response(206 if match else 200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(last - first + 1))
        if match:
            self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
        if cookie:
            self.send_header(
                "Set-Cookie", f"vmware_soap_session={cookie}; Path=/; HttpOnly; Secure"
            )
        self.end_headers()
        if not body:
            return None
        with mood.lock:
            mood.gets += 1
            cut = bool(mood.drop_every) and mood.gets % mood.drop_every == 0
            mood.drops += cut
        with file.open("rb") as stream:
            stream.seek(first)
            left = (last - first + 1) // (2 if cut else 1)
            while left > 0 and (chunk := stream.read(min(left, 1 << 20))):
                self.wfile.write(chunk)
                left -= len(chunk)
        self.close_connection = cut
        return None

    def _session(self, mood: Mood) -> str | None:
        """Return a new cookie, "" for a session that goes on, None for nobody."""
        given = re.search(r'vmware_soap_session=("[0-9a-f]+")', self.headers.get("Cookie", ""))
        if given and given[1] in mood.sessions:
            used = mood.sessions[given[1]] = mood.sessions[given[1]] + (self.command == "GET")
            if not mood.expire_after or used <= mood.expire_after:
                return ""
            del mood.sessions[given[1]]
        mood.with_password += "Authorization" in self.headers
        pair = f"{mood.user}:{mood.password}".encode()
        if self.headers.get("Authorization") == f"Basic {base64.b64encode(pair).decode()}":
            mood.logins += 1
            cookie = f'"{secrets.token_hex(16)}"'
            mood.sessions[cookie] = 0
            return cookie
        mood.refused += 1
        return None

    def _empty(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()


def path_of(url: str) -> str:
    """Return what a request line has for a URL."""
    parts = urlsplit(url)
    return f"{parts.path}?{parts.query}" if parts.query else parts.path
