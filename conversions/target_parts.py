"""The parts of a target's form that only some kinds have: a folder, a pool of a libvirt host.

A field is a column of OutputTarget, or an option of the engine: os_username is os-username there.
Servers that ask for a password are in target_sign_in.py.
"""

from __future__ import annotations

from typing import Any

from django import forms
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy

from conversions.models import OutputTarget
from conversions.pipeline.errors import JobError
from conversions.pipeline.output_kinds import kind_of
from conversions.pipeline.outputs.libvirt_host import check_uri
from inventory.sealing import SealedField

COLUMNS = ("directory", "uri", "storage")
_PLAIN = {"autocomplete": "off", "autocapitalize": "off", "spellcheck": "false"}


class Part(forms.Form):
    """What a kind of target, or some, are asked for; `target` is what they are about.

    With `is_look` the place may be named in part, since looking is how the rest is found out.
    """

    kinds: tuple[OutputTarget.Kind, ...]
    title: str | Promise
    hint: str | Promise = ""

    def __init__(self, data: Any = None, *, target: OutputTarget, is_look: bool = False) -> None:
        self.target = target
        self.kind = kind_of(self.kinds[0])
        super().__init__(data, prefix=self.kind.name)
        self.initial = self.known() if target.kind in self.kinds else {}
        for name, field in self.fields.items():
            if isinstance(field, forms.BooleanField):
                field.widget.attrs["class"] = "pf-v6-c-check__input"
            elif not isinstance(field, SealedField):
                field.widget.attrs |= _PLAIN
            if name in ("directory", "storage"):
                field.widget.attrs["list"] = f"{self.prefix}-{name}-list"
        if "storage" in self.fields:
            self.fields["storage"].required &= not is_look

    def known(self) -> dict[str, Any]:
        """Return what the target has, as the fields hold it, but for what is secret."""
        values: dict[str, Any] = {name: getattr(self.target, name) for name in COLUMNS}
        for name, field in self.fields.items():
            if (value := self.target.options.get(option_key(name))) is not None:
                values[name] = value == "true" if isinstance(field, forms.BooleanField) else value
        return values

    def place(self) -> dict[str, Any]:
        """Return the target's columns that say where it is.  Call when valid."""
        values = self.cleaned_data
        options = {}
        for name, field in self.fields.items():
            value = values[name]
            if isinstance(field, forms.BooleanField):
                value = "true" if value else "false"
            if value and option_key(name) in self.kind.options:
                options[option_key(name)] = value
        return {name: values.get(name, "") for name in COLUMNS} | {"options": options}

    def fill(self) -> bool:
        """Set the place on the target; tell whether it is another than before.

        Call when valid.
        """
        place = self.place() | self.secrets()
        is_other = any(getattr(self.target, name) != value for name, value in place.items())
        for name, value in place.items():
            setattr(self.target, name, value)
        return is_other

    def secrets(self) -> dict[str, Any]:
        """Return the target's columns that hold what is secret.  Call when valid."""
        return {"sealed_secrets": "", "secrets_set_at": None}

    def add_problem(self, problem: str, *, has_answered: bool) -> None:
        """Mark the field that is to blame for a place that cannot be used."""
        self.add_error("storage" if has_answered else "uri", problem)


def option_key(name: str) -> str:
    """Return what the engine calls the option of a field."""
    return name.replace("_", "-")


class FolderPart(Part):
    """A folder on this server."""

    kinds = tuple(OutputTarget.FOLDERS)
    title = gettext_lazy("Folder")

    directory = forms.CharField(
        label=gettext_lazy("Folder on this server"),
        max_length=1000,
        help_text=gettext_lazy(
            "It has to be there already, in a target folder of the settings or below."
        ),
    )

    def add_problem(self, problem: str, *, has_answered: bool) -> None:
        """Mark the folder."""
        self.add_error("directory", problem)


class PoolPart(Part):
    """A pool of a libvirt host."""

    kinds = (OutputTarget.Kind.LIBVIRT,)
    title = gettext_lazy("Libvirt host")

    uri = forms.CharField(
        label=gettext_lazy("Address of the libvirt host"),
        max_length=500,
        help_text=gettext_lazy(
            "qemu:///system for this server, or qemu+ssh://user@host/system for another one."
        ),
    )
    storage = forms.CharField(
        label=gettext_lazy("Pool"),
        max_length=255,
        help_text=gettext_lazy("One the host has. Look at the place to see them."),
    )

    def clean_uri(self) -> str:
        """Refuse addresses that are not on the engine's list of what is harmless."""
        uri: str = self.cleaned_data["uri"]
        try:
            check_uri(uri)
        except JobError as error:
            raise forms.ValidationError(f"{error.message} {error.remedy}") from error
        return uri
