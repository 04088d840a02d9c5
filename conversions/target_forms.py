"""The form of a target: where it is, what the convert form starts with, what is the limit."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from django import forms
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from conversions import targets
from conversions.disk_choice import disk_problems
from conversions.models import OutputTarget
from conversions.target_parts import COLUMNS, FolderPart, Part, PoolPart
from conversions.target_sign_in import OpenStackPart, OvirtPart

PARTS: tuple[type[Part], ...] = (FolderPart, PoolPart, OpenStackPart, OvirtPart)
Kind = OutputTarget.Kind


def offered_kinds() -> list[tuple[str, str | Promise]]:
    """Return the kinds with their titles; OpenStack where its library is installed."""
    has_library = find_spec("openstack") is not None
    kinds = [kind for kind in Kind if kind is not Kind.OPENSTACK or has_library]
    return [(kind.value, kind.label) for kind in kinds]


def facts_of(target: OutputTarget) -> list[tuple[str, str]]:
    """Return what a target's options say, as label and value."""
    part = next(part for part in PARTS if target.kind in part.kinds)(target=target)
    words = {True: _("yes"), False: _("no")}
    return [
        (str(field.label), str(words.get(value, value)))
        for name, field in part.fields.items()
        if name not in COLUMNS and (value := part.initial.get(name, "")) != ""
    ]


class TargetForm(forms.ModelForm):  # type: ignore[type-arg]
    """What all targets are asked for, and the parts for each kind; one of them counts.

    With `is_look` the place is only looked at: it needs no name then.
    """

    class Meta:
        model = OutputTarget
        fields = ["name", "kind", "format", "allocation", "compressed", "rate_mib",
                  "max_disk_gib"]  # fmt: skip
        help_texts = {
            "name": gettext_lazy("What operators choose it by."),
            "format": gettext_lazy(
                "KubeVirt starts machines from raw files only; volumes of OpenStack are raw."
            ),
            "compressed": gettext_lazy("Smaller files, a slower copy. Only for sparse qcow2."),
            "rate_mib": gettext_lazy("Empty: as fast as it goes."),
            "max_disk_gib": gettext_lazy(
                "Machines with more are refused, counted at their full size. Empty: no limit."
            ),
        }

    def __init__(self, data: Any = None, *, instance: OutputTarget, is_look: bool = False) -> None:
        super().__init__(data, instance=instance)
        self.is_look = is_look
        self.said: dict[str, Any] = {}
        self.parts = [part(data, target=instance, is_look=is_look) for part in PARTS]
        self.fields["name"].required = not is_look
        kind: Any = self.fields["kind"]
        kind.choices = offered_kinds()
        self.fields["compressed"].widget.attrs["class"] = "pf-v6-c-check__input"
        for name in ("rate_mib", "max_disk_gib"):
            self.fields[name].widget.attrs |= {"min": 1}

    @property
    def part(self) -> Part | None:
        """The part of the kind that is chosen; None when there is no such kind."""
        chosen = self["kind"].value()
        return next((part for part in self.parts if chosen in part.kinds), None)

    @property
    def first_fields(self) -> list[forms.BoundField]:
        """The fields before the parts."""
        return [self["name"], self["kind"]]

    @property
    def last_fields(self) -> list[forms.BoundField]:
        """The fields after the parts."""
        return [self[name] for name in self.fields if name not in ("name", "kind")]

    def is_valid(self) -> bool:
        """Tell whether everything fits, the kind's part too."""
        return super().is_valid() and self.part is not None and self.part.is_valid()

    def clean(self) -> dict[str, Any]:
        """Check what concerns several fields, and the place itself when it is a new one."""
        values = super().clean() or {}
        for name in ("rate_mib", "max_disk_gib"):
            if values.get(name) == 0:
                self.add_error(name, _("Zero would let nothing through. Leave it empty instead."))
        if "kind" not in values or self.part is None:
            return values
        if not self.is_look:
            for name, problem in disk_problems(values["kind"], values).items():
                self.add_error(name, problem)
        if not self.errors and self.part.is_valid():
            self._check_place(self.part, values["kind"])
        return values

    def _check_place(self, part: Part, kind: str) -> None:
        """Refuse a place that cannot be used; a server gets ten seconds to answer."""
        target = self.instance
        is_other = part.fill() or target.kind != kind
        target.kind = kind
        if not (self.is_look or is_other or target.pk is None):
            return
        # Of the place it was before.
        target.pool_path, target.free_bytes = "", None
        target.networks, target.bridges = [], []
        self.said = targets.look_at(target)
        if target.problem:
            part.add_problem(target.problem, has_answered=bool(self.said))

    @property
    def storages(self) -> list[dict[str, Any]]:
        """The pools and the like that the place has told of."""
        return list(self.said.get("storages", []))

    @property
    def found(self) -> str:
        """What a look at the place has found, in words; "" without one that went well."""
        if not self.is_look or not self.is_valid():
            return ""
        sentences = [_("%(place)s can be used.") % {"place": self.instance.place}]
        good = [storage["name"] for storage in self.storages if not storage["problem"]]
        if good:
            title = targets.STORAGE_WORDS[Kind(self.instance.kind)][1]
            sentences.append(f"{title}: {', '.join(good)}.")
        if networks := self.instance.networks:
            sentences.append(_("Networks: %(names)s.") % {"names": ", ".join(networks)})
        return " ".join(sentences)
