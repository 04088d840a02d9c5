"""Secrets at rest: sealed with the console's own key, never in clear."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

from cryptography.fernet import Fernet, InvalidToken
from django import forms
from django.conf import settings
from django.core.exceptions import ValidationError
from django.utils.translation import gettext as _

_PREFIX = "sealed:"


def _box() -> Fernet:
    digest = hashlib.sha256(b"v2vweb secrets\0" + settings.SECRET_KEY.encode()).digest()
    return Fernet(base64.urlsafe_b64encode(digest))


def seal(value: Any) -> str:
    """Return a JSON value as text that only consoles with this SECRET_KEY can read."""
    return _PREFIX + _box().encrypt(json.dumps(value).encode()).decode()


def unseal(text: str) -> Any:
    """Return what was sealed.  Raises ValueError when it is damaged or of another SECRET_KEY."""
    try:
        return json.loads(_box().decrypt(text.removeprefix(_PREFIX).encode()))
    except InvalidToken as error:
        raise ValueError("It was sealed with another SECRET_KEY, or is damaged.") from error


def masked(_value: str) -> str:
    """Return what the audit record shows of a secret: nothing of it, not even its length."""
    return "********"


class SealedInput(forms.PasswordInput):
    """A password field that gives back what was typed in sealed form only."""

    def __init__(self) -> None:
        super().__init__(render_value=True, attrs={"autocomplete": "off"})

    def format_value(self, value: Any) -> str | None:
        """Return the value for the page."""
        return value if not value or str(value).startswith(_PREFIX) else seal(value)


class SealedField(forms.CharField):
    """A secret that survives the way through a review page without being shown in its source."""

    widget = SealedInput

    def __init__(self, **options: Any) -> None:
        super().__init__(strip=False, required=False, **options)

    def to_python(self, value: Any) -> str:
        """Return the secret in clear, as typed or as sealed before."""
        text = str(super().to_python(value) or "")
        if not text.startswith(_PREFIX):
            return text
        try:
            return str(unseal(text))
        except ValueError as error:
            raise ValidationError(_("Type it again; it has expired.")) from error
