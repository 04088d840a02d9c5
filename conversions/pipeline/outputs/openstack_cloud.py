"""A cloud of OpenStack: signing in, its errors as ours, waiting for what it does on its own."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import openstack
import requests
import yaml
from keystoneauth1.exceptions import ClientException, Unauthorized
from openstack.connection import Connection
from openstack.exceptions import HttpException, SDKException

from conversions.pipeline.errors import SIGN_IN_REFUSED, JobError, TargetError
from conversions.pipeline.job import Target
from conversions.pipeline.report import Level, Reporter
from conversions.pipeline.stop import check_stop
from inventory.sources.https_session import first_line

LIMIT_SECONDS = 300
POLL_SECONDS = 1.0
# For one answer.  After the last byte of an image a store may work on it for a while.
_ANSWER_SECONDS = 600
_MAX_WORDS = 500
# A property of everything that is made, by which it is known after a kill: names are not unique.
MARK = "v2vweb_run"
# Of what signing in takes, all that is not for Keystone.
_SETTINGS = frozenset({"auth_type", "cacert", "cert", "cloud", "identity_api_version", "interface",
                       "key", "region_name"})  # fmt: skip
_Found = TypeVar("_Found")


def check_sign_in(target: Target) -> None:
    """Refuse an address that cannot be meant.  Raises JobError."""
    if target.uri:
        parts = urlsplit(target.uri)
        # Braces would be filled in by the library, from its own settings.
        if (
            parts.scheme not in ("http", "https")
            or not parts.hostname
            or parts.username is not None
            or re.search(r"[{}\s]", target.uri)
        ):
            raise JobError(
                "The address of Keystone (-oc) is not one like https://cloud.example:5000/v3.",
                remedy="Give user and password with -oo os-username and -op.",
            )


def sign_in(target: Target, report: Reporter) -> Connection:
    """Return a connection that has a token.  Raises TargetError, SessionError.

    What the target does not say comes from OS_* of the environment or from clouds.yaml.
    """
    values: dict[str, Any] = {}
    auth: dict[str, str] = {}
    for key in (*target.options, *target.secrets):
        if key.startswith("os-"):
            name = key.removeprefix("os-").replace("-", "_")
            (values if name in _SETTINGS else auth)[name] = target.option(key)
    if target.uri:
        auth["auth_url"] = target.uri
    if target.password_file:
        auth["password"] = first_line(Path(target.password_file))
    if not target.flag("verify-server-certificate", default=True):
        values["verify"] = False
        report.log(Level.WARNING, "The cloud's certificate is not verified, as asked.")
    remedy = "Check the address, the user and the project: -oc, -oo os-..., OS_* or clouds.yaml."
    with cloud_errors("Signing in to OpenStack failed", remedy=remedy):
        cloud = openstack.connect(
            app_name="v2vweb",
            api_timeout=_ANSWER_SECONDS,
            image_status_code_retries=0,  # a second try would send what is left of the file
            auth=auth,
            **values,
        )
        by_password = str(cloud.config.config.get("auth_type", "")).endswith("password")
        used = cloud.config.get_auth_args()
        if by_password and not used.get("password"):
            raise TargetError("No password for OpenStack was given.", remedy=f"Add -op. {remedy}")
        if address := str(used.get("auth_url") or ""):
            _check_answer(cloud, address)
        cloud.authorize()
        report.log(Level.INFO, f"Signed in to {place_of(cloud)}.")
    return cloud


def place_of(cloud: Connection) -> str:
    """Return where a connection leads: the same project, whatever it was reached with."""
    where = urlsplit(str(cloud.config.get_auth_args().get("auth_url", ""))).hostname
    return f"OpenStack at {where}, project {cloud.current_project_id}"


def _check_answer(cloud: Connection, address: str) -> None:
    """Refuse a Keystone that leads elsewhere; raise what the library's discovery keeps quiet."""
    if cloud.session.get(address, authenticated=False, redirect=False).is_redirect:
        raise TargetError(
            f"Keystone at {address} sends us elsewhere, which is not followed.",
            remedy="Give the address that it has itself (-oc).",
        )


@contextmanager
def cloud_errors(doing: str, *, remedy: str = "") -> Iterator[None]:
    """Turn what the library raises into TargetError with the cloud's words."""
    try:
        yield
    except (SDKException, ClientException, requests.RequestException, yaml.YAMLError) as error:
        # The library wraps what signing in raises.
        is_refused = isinstance(error.__context__ or error, Unauthorized)
        code = SIGN_IN_REFUSED if is_refused else None
        raise TargetError(f"{doing}: {_words(error)}", remedy=remedy, code=code) from error


def _words(error: Exception) -> str:
    text = str(error)
    if isinstance(error, HttpException):
        text = f"{error.details or error} (HTTP {error.status_code})"
    return " ".join(text.split())[:_MAX_WORDS]


def wait_for(what: str, probe: Callable[[], _Found | None], *, stoppable: bool = True) -> _Found:
    """Ask until the probe returns something, and return that.

    Raises TargetError after five minutes, Stopped.
    """
    deadline = time.monotonic() + LIMIT_SECONDS
    while (found := probe()) is None:
        if stoppable:
            check_stop()
        if time.monotonic() >= deadline:
            raise TargetError(f"{what} took more than {LIMIT_SECONDS} seconds.")
        time.sleep(POLL_SECONDS)
    return found
