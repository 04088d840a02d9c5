"""The certificates that https servers show, and trust in one of them by its thumbprint."""

from __future__ import annotations

import hashlib
import re
import socket
import ssl

from inventory.sources.errors import SourceError

_CONNECT_SECONDS = 30
_DIGESTS = {40: "sha1", 64: "sha256"}


class SessionError(SourceError):
    """An https server does not let us in or does not answer as it should."""


def plain_thumbprint(text: str) -> str:
    """Return a thumbprint as lower-case hex digits.  Raises SessionError."""
    plain = text.replace(":", "").lower()
    if len(plain) not in _DIGESTS or not re.fullmatch("[0-9a-f]+", plain):
        raise SessionError(
            "E-VC-THUMBPRINT",
            f"{text[:100]!r} is no thumbprint: {len(plain)} hex digits, 40 or 64 are needed.",
            remedy="Write the SHA-1 or SHA-256 fingerprint of the server's certificate.",
        )
    return plain


def shown_certificate(host: str, port: int) -> str:
    """Return the certificate that a server shows now, as PEM.  Raises OSError."""
    return ssl.get_server_certificate((host, port), timeout=_CONNECT_SECONDS)


def connect_pinned(host: str, port: int, thumbprint: str) -> ssl.SSLSocket:
    """Connect to the server with that certificate, whoever signed it and whatever names it has.

    Nothing is said before it has been looked at.  Raises SessionError.
    """
    wanted = plain_thumbprint(thumbprint)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # The digest says more than a signature and a name do.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        plain = socket.create_connection((host, port), timeout=_CONNECT_SECONDS)
        # What waits for an answer must not wait for its acknowledgement too.
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link = context.wrap_socket(plain, server_hostname=host)
    except OSError as error:
        raise unreachable(host, port, error) from error
    certificate = link.getpeercert(binary_form=True) or b""
    shown = hashlib.new(_DIGESTS[len(wanted)], certificate).hexdigest()
    if shown != wanted:
        link.close()
        raise SessionError(
            "E-VC-THUMBPRINT",
            f"The certificate of {host} has the thumbprint {shown}, not {wanted}.",
            remedy="Compare it on the server itself: somebody may be between.",
        )
    return link


def unreachable(host: str, port: int, error: Exception) -> SessionError:
    """Return the error of a server that cannot be asked."""
    why = getattr(error, "verify_message", "") or getattr(error, "strerror", "") or str(error)
    bad_certificate = isinstance(error, ssl.SSLCertVerificationError)
    return SessionError(
        "E-VC-CERTIFICATE" if bad_certificate else "E-VC-CONNECT",
        f"{host}:{port} cannot be asked: {why}.",
        remedy="State the thumbprint of its certificate, or add ?no_verify=1 to the address."
        if bad_certificate
        else "Check the name of the server and that its port answers.",
    )
