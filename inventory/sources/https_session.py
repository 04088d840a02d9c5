"""A session with an ESXi host or a vCenter, renewed for as long as disks are read in it.

The server tells who we are by a cookie, which it forgets after half an hour or when it likes.  The
password stays in this process; nbdkit is given the cookie alone, in a private file.
"""

from __future__ import annotations

import base64
import http.client
import os
import re
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from inventory.sources.certificates import SessionError, connect_pinned, unreachable

_RENEW_SECONDS = 1500  # VMware's sessions end after 1800
_TIMEOUT_SECONDS = 120
# A new connection does not wait for a new session, so what is forgotten is to be seen early.
_LOOK_SECONDS = 60
_PAUSE_SECONDS = 0.25
_MAX_REFUSED = 3  # servers lock accounts after some wrong passwords
_REFUSED = (401, 403)
_COOKIE = re.compile(r"[!#-+\--:<-~]+=[!-+\--:<-~]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """Where to log in and as whom; `user` None means without credentials.

    `verify` False trusts any certificate.  `thumbprint` trusts the one certificate with this
    SHA-1 or SHA-256 digest (hex, with or without colons), whoever signed it.
    """

    host: str
    port: int = 443
    user: str | None = None
    password: str = field(default="", repr=False)
    verify: bool = True
    thumbprint: str = ""


class _PinnedConnection(http.client.HTTPSConnection):
    """A connection to the server with one certificate."""

    def __init__(self, login: Login) -> None:
        super().__init__(login.host, login.port, timeout=_TIMEOUT_SECONDS)
        self._thumbprint = login.thumbprint

    def connect(self) -> None:
        """Connect.  Raises SessionError."""
        self.sock = connect_pinned(self.host, self.port, self._thumbprint)
        self.sock.settimeout(self.timeout)


class HttpsSession:
    """Logs in, keeps the cookie in a file of `folder`, and renews it.

    Leaving the block ends the renewing.
    """

    def __init__(self, login: Login, folder: Path, log: Callable[[str], None]) -> None:
        self._login = login
        self._log = log
        self.cookie_file = folder / "session-cookie"
        self._url_path = ""
        self._cookie = ""
        self._trouble = threading.Event()
        self._ended = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="https-session", daemon=True)
        self._logged_in = 0.0

    def log_in(self, url_path: str) -> int:
        """Ask for a file with the credentials; keep the cookie when it is there.

        Returns the HTTP status.  Raises SessionError when there is none.
        """
        headers = {}
        if self._login.user is not None:
            pair = f"{self._login.user}:{self._login.password}".encode()
            headers["Authorization"] = f"Basic {base64.b64encode(pair).decode()}"
        status, cookies = self._head(url_path, headers)
        if status == 200:
            self._url_path = url_path
            self._logged_in = time.monotonic()
            self._cookie = "; ".join(c for c in cookies if _COOKIE.fullmatch(c))
            fresh = self.cookie_file.with_suffix(".new")
            fresh.touch(mode=0o600)
            fresh.write_text(f"{self._cookie}\n")
            # In one move: nbdkit may read it at any moment.
            fresh.replace(self.cookie_file)
        return status

    def _head(self, url_path: str, headers: dict[str, str]) -> tuple[int, list[str]]:
        link = self._connection()
        try:
            link.request("HEAD", url_path, headers=headers)
            answer = link.getresponse()
            cookies = [v.split(";")[0].strip() for v in answer.headers.get_all("Set-Cookie", [])]
            return answer.status, cookies
        except http.client.HTTPException as error:
            raise SessionError(
                "E-VC-HTTP", f"{self._login.host} did not answer in HTTP: {error!r}."
            ) from error
        except OSError as error:
            raise unreachable(self._login.host, self._login.port, error) from error
        finally:
            link.close()

    def _connection(self) -> http.client.HTTPSConnection:
        if self._login.thumbprint:
            return _PinnedConnection(self._login)
        context = ssl.create_default_context()
        if not self._login.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return http.client.HTTPSConnection(
            self._login.host, self._login.port, timeout=_TIMEOUT_SECONDS, context=context
        )

    def __enter__(self) -> HttpsSession:
        """Begin to renew."""
        self._keeper.start()
        return self

    def __exit__(self, *_error: object) -> None:
        """Renew no more."""
        self._ended.set()
        self._trouble.set()
        self._keeper.join(5)
        self.cookie_file.unlink(missing_ok=True)

    def look(self, line: str) -> None:
        """Take a line of nbdkit: after an error the session is looked at."""
        if "error" in line:
            self._trouble.set()

    def _keep(self) -> None:
        """Log in again when the session is near its end, or when the server has forgotten it."""
        refused = 0
        while refused < _MAX_REFUSED:
            self._trouble.wait(_LOOK_SECONDS)
            if self._ended.is_set():
                return
            self._trouble.clear()
            try:
                old = time.monotonic() - self._logged_in > _RENEW_SECONDS
                if not old and not self._is_forgotten():
                    continue
                status = self.log_in(self._url_path)
            except SessionError as error:
                self._log(f"The session cannot be looked at: {error.message}")
                continue
            finally:
                time.sleep(_PAUSE_SECONDS)
            self._log(f"The session was renewed; the server answered {status}.")
            refused = refused + 1 if status in _REFUSED else 0
        self._log(f"The server refused the password {refused} times; the session is given up.")

    def _is_forgotten(self) -> bool:
        status, _ = self._head(self._url_path, {"Cookie": self._cookie} if self._cookie else {})
        return status in _REFUSED


def first_line(path: Path) -> str:
    """Return the password in a file: its first line.  Raises SessionError."""
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            return stream.readline(os.sysconf("SC_PAGE_SIZE")).rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise SessionError(
            "E-PASSWORD", f"The password file {path} cannot be read: {error}."
        ) from error
