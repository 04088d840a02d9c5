"""A client for the REST API of oVirt's engine, version 4, in JSON.

Source: the engine's REST API guide: single sign-on by OAuth, faults, searches.  The official SDK is
not used, for it is built from C at installation.
"""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import httpx

from conversions.pipeline.errors import SIGN_IN_REFUSED, JobError, TargetError
from conversions.pipeline.job import Target
from conversions.pipeline.report import Level, Reporter
from conversions.pipeline.stop import check_stop

DEFAULT_USER = "admin@internal"
POLL_SECONDS = 1.0
_TIMEOUT = httpx.Timeout(30, connect=10)
_MAX_ANSWER_BYTES = 16 << 20
_QUESTIONS = 3  # a conversion of hours must not end because one look failed
_SSO = "/ovirt-engine/sso/oauth/token"
_LOGOUT = "/ovirt-engine/services/sso-logout"
_CA = "/ovirt-engine/services/pki-resource?resource=ca-certificate&format=X509-PEM-CA"


class EngineError(TargetError):
    """The engine cannot be reached, or refuses what was asked."""

    code = "E-OVIRT"


class NotThereError(EngineError):
    """The engine has no such object, or has it no longer."""


class BusyError(EngineError):
    """The object is locked by something that the engine is still doing."""


def trust_of(target: Target) -> ssl.SSLContext:
    """Return how the certificates of a target are checked.  Raises JobError."""
    return trust(
        target.option("ovirt-cafile"), verify=target.flag("ovirt-verifypeer", default=True)
    )


def trust(ca_file: str, *, verify: bool) -> ssl.SSLContext:
    """Return how certificates are checked: by the system's authorities, or those of a file.

    Raises JobError.
    """
    try:
        context = ssl.create_default_context(cafile=ca_file or None)
    except (OSError, ssl.SSLError) as error:
        raise JobError(f"The certificates in {ca_file} cannot be read: {error}.") from error
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def split_url(url: str) -> tuple[str, str]:
    """Return the address of the API without a user, and the user.  Raises JobError."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise JobError(f"The address of the engine is none: {error} (-oc).") from error
    if parts.password is not None:
        raise JobError(
            "The address of the engine holds a password (-oc), which others could see.",
            remedy="Write it into a file and name that with -op.",
        )
    if parts.scheme != "https" or not host or parts.query or parts.fragment:
        raise JobError(
            f"{url!r} is no address of an engine (-oc).",
            remedy="Write it as https://[USER@]HOST/ovirt-engine/api",
        )
    shown = f"[{host}]" if ":" in host else host
    where = f"https://{shown}" + (f":{port}" if port else "") + parts.path.rstrip("/")
    return where, unquote(parts.username or "") or DEFAULT_USER


def read_password(path: Path) -> str:
    """Return what a file holds, without the white space at its end.  Raises JobError."""
    try:
        password = path.read_text(encoding="utf-8").rstrip()
    except (OSError, UnicodeDecodeError) as error:
        raise JobError(f"The password file {path} cannot be read: {error}.") from error
    if not password:
        raise JobError(f"The password file {path} is empty.")
    return password


class Engine:
    """Asks one engine; safe to use from several threads.

    Signs in with the first request, and again when the session has expired: the engine forgets one
    that is idle, as ours is while a disk is being sent.
    """

    def __init__(
        self,
        url: str,
        user: str,
        password: str,
        context: ssl.SSLContext,
        log: Callable[[str], None],
    ) -> None:
        self.url = url
        self.user = user
        self._secrets = [password]
        self._log = log
        self._lock = threading.Lock()
        self._token = ""
        # No proxies and no .netrc: what is meant is said in the job.
        self._client = httpx.Client(verify=context, timeout=_TIMEOUT, trust_env=False)

    def close(self) -> None:
        """Sign out; that it fails harms nobody."""
        if self._token:
            try:
                self._client.post(self._root(_LOGOUT), data={"scope": "", "token": self._token})
            except httpx.HTTPError as error:
                self._log(f"Signing out of the engine failed: {error} (ignored).")
        self._client.close()

    def get(self, path: str, **query: str) -> dict[str, Any]:
        """Return an object, or a list as {name: [...]}.  Raises EngineError."""
        return self._ask("GET", path, None, query)

    def all_of(self, path: str, name: str, **query: str) -> list[dict[str, Any]]:
        """Return the objects of a collection; the engine leaves the list out when it is empty."""
        found = self.get(path, **query).get(name)
        entries = found if isinstance(found, list) else []
        return [entry for entry in entries if isinstance(entry, dict) and "id" in entry]

    def post(self, path: str, body: Mapping[str, Any], **query: str) -> dict[str, Any]:
        """Have something done.  Raises EngineError."""
        return self._ask("POST", path, body, query)

    def make(self, path: str, body: Mapping[str, Any], **query: str) -> str:
        """Make an object and return its identity.  Raises EngineError."""
        identity = self.post(path, body, **query).get("id")
        if not isinstance(identity, str):
            raise EngineError(f"The engine's answer to POST {path} names nothing that was made.")
        return identity

    def delete(self, path: str, **query: str) -> None:
        """Delete an object.  Raises EngineError."""
        self._ask("DELETE", path, None, query)

    def remove(self, path: str, *, seconds: float, **query: str) -> None:
        """Delete an object that may be gone, again while the engine is busy with it.

        Raises EngineError.
        """
        end = time.monotonic() + seconds
        while True:
            try:
                self.delete(path, **query)
            except NotThereError:
                return  # an engine deletes the disk of a cancelled transfer itself
            except BusyError:
                if time.monotonic() > end:
                    raise
            else:
                return
            time.sleep(POLL_SECONDS)

    def cancel(self, transfer_id: str) -> None:
        """Cancel a transfer that may have ended.  Raises EngineError."""
        with suppress(NotThereError):
            self.post(f"imagetransfers/{transfer_id}/cancel", {})

    def states_of(self, job: str) -> set[str]:
        """Return the states of what the engine does for a job of ours.  Raises EngineError."""
        found = self.all_of("jobs", "job", search=f"correlation_id={job}")
        return {str(entry.get("status")) for entry in found}

    def _root(self, path: str) -> str:
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}{path}"

    def _ask(
        self, method: str, path: str, body: Mapping[str, Any] | None, query: Mapping[str, str]
    ) -> dict[str, Any]:
        self._log(f"Engine: {method} {path}")
        token = self._token or self._sign_in("")
        response, text = self._send(method, path, body, query, token)
        if response.status_code == httpx.codes.UNAUTHORIZED:
            response, text = self._send(method, path, body, query, self._sign_in(token))
        return self._answer(f"{method} {path}", response, text)

    def _send(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        query: Mapping[str, str],
        token: str,
    ) -> tuple[httpx.Response, bytes]:
        headers = {"Authorization": f"Bearer {token}", "Accept": "application/json", "Version": "4"}
        return self._exchange(
            method, f"{self.url}/{path}", params=dict(query), json=body, headers=headers
        )

    def _exchange(self, method: str, url: str, **values: Any) -> tuple[httpx.Response, bytes]:
        """Send a request and return its answer; questions are asked again.  Raises EngineError."""
        left = _QUESTIONS if method == "GET" else 1
        while True:
            left -= 1
            try:
                response, text = self._once(method, url, values)
                break
            except httpx.HTTPError as error:
                if not left:
                    raise EngineError(
                        f"The engine at {self.url} cannot be reached: {self.clean(str(error))}.",
                        remedy=self._remedy(str(error)),
                    ) from error
                check_stop()
                time.sleep(POLL_SECONDS)
        if response.is_redirect:
            raise EngineError(
                f"The engine at {self.url} sends us elsewhere, which is not followed.",
                remedy="Give the address that it has itself (-oc).",
            )
        return response, text

    def _once(
        self, method: str, url: str, values: Mapping[str, Any]
    ) -> tuple[httpx.Response, bytes]:
        with self._client.stream(method, url, **values) as response:
            text = b""
            for chunk in response.iter_bytes():
                text += chunk
                if len(text) > _MAX_ANSWER_BYTES:
                    raise EngineError("The engine's answer is too long to be one.")
        return response, text

    def _remedy(self, words: str) -> str:
        if "CERTIFICATE" in words.upper():
            return (
                f"Download the engine's certificate from {self._root(_CA)}, compare it with the "
                "engine's, and name the file with -oo ovirt-cafile=."
            )
        return "Check the address (-oc), and that the engine runs."

    def _sign_in(self, expired: str) -> str:
        """Return a token; another thread may have got one meanwhile.  Raises EngineError."""
        with self._lock:
            if self._token != expired:
                return self._token
            form = {
                "grant_type": "password",
                "scope": "ovirt-app-api",
                "username": self.user,
                "password": self._secrets[0],
            }
            headers = {"Accept": "application/json"}
            response, text = self._exchange("POST", self._root(_SSO), data=form, headers=headers)
            answer = self._parsed(text)
            token = answer.get("access_token")
            if not isinstance(token, str) or not token.isascii() or not token.isprintable():
                words = answer.get("error") or f"status {response.status_code}"
                raise EngineError(
                    f"The engine at {self.url} does not let {self.user} in: "
                    f"{self.clean(str(words))}.",
                    remedy="Check the user in the address (-oc), with its domain as in "
                    "admin%40internal, and the password (-op).",
                    code=SIGN_IN_REFUSED if response.is_client_error else None,
                )
            self._secrets.append(token)
            self._token = token
            return token

    def _answer(self, what: str, response: httpx.Response, text: bytes) -> dict[str, Any]:
        answer = self._parsed(text)
        if response.is_success:
            return answer
        fault = answer.get("fault", answer)
        words = " ".join(str(fault[key]) for key in ("reason", "detail") if fault.get(key))
        kinds: dict[int, type[EngineError]] = {404: NotThereError, 409: BusyError}
        raise kinds.get(response.status_code, EngineError)(
            f"The engine refuses {what} ({response.status_code}): "
            f"{self.clean(words) or 'it gives no reason'}"
        )

    @staticmethod
    def _parsed(text: bytes) -> dict[str, Any]:
        """Return the object in an answer, empty for one that is none: proxies send pages."""
        try:
            answer = json.loads(text)
        except ValueError:
            return {}
        return answer if isinstance(answer, dict) else {}

    def clean(self, words: str) -> str:
        """Return a short text of the engine's without secrets that it may repeat."""
        for secret in self._secrets:
            words = words.replace(secret, "***")
        return words.strip().rstrip(".")[:500]


@contextmanager
def connected(target: Target, context: ssl.SSLContext, report: Reporter) -> Iterator[Engine]:
    """Return an engine that is ready to sign in; sign out at the end.  Raises JobError."""
    url, user = split_url(target.uri)
    password = target.option("ovirt-password") or read_password(Path(target.password_file))
    if context.verify_mode is ssl.CERT_NONE:
        report.log(Level.WARNING, "Certificates are not checked, as asked.")
    engine = Engine(url, user, password, context, lambda line: report.log(Level.DEBUG, line))
    try:
        yield engine
    finally:
        engine.close()


def wait_until(
    what: str, look: Callable[[], bool], *, seconds: float, pause: float | None = None
) -> None:
    """Look until something is so.  Raises EngineError after a while, Stopped."""
    end = time.monotonic() + seconds
    while not look():
        if time.monotonic() > end:
            raise EngineError(
                f"{what} is not ready after {seconds:.0f} s.",
                remedy="Look at the engine's events for what it is doing.",
            )
        rest = time.monotonic() + (POLL_SECONDS if pause is None else pause)
        while (left := rest - time.monotonic()) > 0:
            check_stop()
            time.sleep(min(left, 0.2))
