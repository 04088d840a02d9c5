"""The convert form: detected values in, a Job out; every rule about it lives here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from django import forms
from django.conf import settings
from django.utils.text import format_lazy
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from conversions import targets
from conversions.disk_choice import disk_problems
from conversions.inputs import input_of
from conversions.models import Inspection, OutputTarget, SavedMap
from conversions.network_choice import MapRefusedError, entries_of, kind_of, mapped_values
from conversions.pipeline.errors import JobError
from conversions.pipeline.job import Job, Mode, NetworkMap, Target
from conversions.pipeline.outputs.kubevirt_names import (
    POD_NETWORK,
    is_machine_name,
    is_network_name,
)
from conversions.sections import COPY_SECTIONS, sections_for
from conversions.sections.base import Section
from conversions.sections.system import known_roots
from inventory.models import SourceVM
from inventory.sources.types import VnetType, disk_letters
from inventory.templatetags.console import size

# What becomes part of file names and of the domain's name.
SAFE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]*")
KINDS = [("network", gettext_lazy("Network")), ("bridge", gettext_lazy("Bridge"))]
_ENDINGS = {OutputTarget.Kind.QEMU: ".sh", OutputTarget.Kind.KUBEVIRT: ".yaml"}
# Why there is nothing to choose for network cards.
_NO_NETWORKS = {
    OutputTarget.Kind.QEMU: gettext_lazy(
        "A script for QEMU gives every card a network of its own, so there is nothing to choose."
    ),
    OutputTarget.Kind.OPENSTACK: gettext_lazy(
        "A server of OpenStack gets its cards when it is started from the volumes, so there is "
        "nothing to choose."
    ),
}
ROOTS = [
    ("single", gettext_lazy("The only one (stop when there are several)")),
    ("first", gettext_lazy("The first one found")),
]


def suggested_name(vm: SourceVM) -> str:
    """Return the machine's name as the form accepts it: what is not allowed becomes "-"."""
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", vm.name).strip("-.+")[:100] or "machine"


class ConvertForm(forms.Form):
    """What a person may choose for a conversion or a rehearsal of one machine."""

    section_kinds: Sequence[type[Section]] = COPY_SECTIONS

    name = forms.CharField(label=gettext_lazy("Name on the target"), max_length=100)
    target = forms.ChoiceField(label=gettext_lazy("Target"))
    format = forms.ChoiceField(
        label=gettext_lazy("Disk format"),
        choices=[("qcow2", "qcow2"), ("raw", "raw")],
    )
    allocation = forms.ChoiceField(
        label=gettext_lazy("Space"),
        choices=[
            ("sparse", gettext_lazy("Sparse: takes what is used")),
            ("preallocated", gettext_lazy("Preallocated: takes the full size at once")),
        ],
    )
    compressed = forms.BooleanField(
        label=gettext_lazy("Compress"),
        required=False,
        help_text=gettext_lazy("Smaller files, a slower copy. Only for sparse qcow2."),
    )
    root = forms.ChoiceField(label=gettext_lazy("Operating system to convert"), choices=ROOTS)
    trim = forms.BooleanField(
        label=gettext_lazy("Trim file systems before copying"),
        required=False,
        help_text=gettext_lazy("Blocks the guest no longer uses are not copied."),
    )
    verify_digests = forms.BooleanField(
        label=gettext_lazy("Check the source against its manifest first"),
        required=False,
    )
    memory_mib = forms.IntegerField(
        label=gettext_lazy("Memory for the work inside the guest (MiB)"),
        required=False,
        min_value=512,
        max_value=65536,
        help_text=gettext_lazy("Empty: chosen for you. More helps very large guests."),
    )
    map = forms.ChoiceField(label=gettext_lazy("Saved network map"), required=False)
    map_name = forms.CharField(
        label=gettext_lazy("Save these networks as"), required=False, max_length=100
    )
    override_reason = forms.CharField(
        label=gettext_lazy("Reason for starting all the same"),
        required=False,
        max_length=500,
    )

    def __init__(
        self, data: Any = None, *, vm: SourceVM, inspection: Inspection | None = None
    ) -> None:
        self.vm = vm
        self.inspection = inspection
        self.nics = vm.source.nics
        self.sections = sections_for(data, vm, inspection, self.section_kinds)
        self.targets = targets.all_targets()
        self.maps = {str(saved.pk): saved for saved in SavedMap.objects.all()}
        super().__init__(data, initial=self.own_values())
        self._choice("target").choices = [(key, _title(t)) for key, t in self.targets.items()]
        self._choice("map").choices = [
            ("", _("None")),
            *((k, m.name) for k, m in self.maps.items()),
        ]
        self._choice("root").choices = [*ROOTS, *self._roots()]
        self.fields["verify_digests"].disabled = not self._has_digests()
        for index, nic in enumerate(self.nics):
            label = nic.mac or _("network card %(number)d") % {"number": index + 1}
            kind = forms.ChoiceField(
                label=format_lazy(gettext_lazy("Kind for {nic}"), nic=label), choices=KINDS
            )
            # Without a MAC the map is by name, and a name stays of its kind.
            kind.disabled = nic.mac is None
            self.fields[f"nic{index}_kind"] = kind
            name = forms.CharField(
                label=format_lazy(gettext_lazy("Target for {nic}"), nic=label), max_length=200
            )
            name.widget.attrs |= {"list": "target-networks", "autocomplete": "off"}
            self.fields[f"nic{index}_name"] = name
        for field in self.fields.values():
            if isinstance(field, forms.BooleanField):
                field.widget.attrs["class"] = "pf-v6-c-check__input"

    def detected(self) -> dict[str, Any]:
        """Return what the whole form starts with, its sections included."""
        values = self.own_values()
        for section in self.sections:
            for name, field in section.fields.items():
                values[section.add_prefix(name)] = section.get_initial_for_field(field, name)
        return values

    def own_values(self) -> dict[str, Any]:
        """Return what the fields of this form itself start with, from source and settings."""
        values: dict[str, Any] = {
            "name": suggested_name(self.vm),
            "target": str(settings.TARGET_DIRS[0]),
            "format": "qcow2",
            "allocation": "sparse",
            "compressed": False,
            "root": self._root(),
            "trim": True,
            "verify_digests": self._has_digests(),
            "memory_mib": settings.APPLIANCE_MEMORY_MIB,
        }
        for index, nic in enumerate(self.nics):
            values[f"nic{index}_kind"] = kind_of(nic)
            values[f"nic{index}_name"] = nic.vnet
        return values

    def nic_fields(self) -> list[dict[str, Any]]:
        """Return per network card what the page shows: the card, its two fields, who chose them."""
        rows = []
        for index, nic in enumerate(self.nics):
            kind, name = self[f"nic{index}_kind"], self[f"nic{index}_name"]
            is_detected = (kind.value(), name.value()) == (kind_of(nic), nic.vnet)
            rows.append({"nic": nic, "kind": kind, "name": name, "is_detected": is_detected})
        return rows

    def place(self) -> OutputTarget | None:
        """Return the target that is chosen, valid or not in other ways."""
        key = self.data.get("target", "") if self.is_bound else self.initial["target"]
        return self.targets.get(str(key))

    def named_target(self) -> OutputTarget | None:
        """Return the target that is chosen; None for a folder of the settings."""
        place = self.place()
        return place if place and place.pk else None

    def networks(self) -> list[tuple[str, str]]:
        """Return what the chosen target offers for cards: name and kind."""
        place = self.place()
        if place is None:
            return []
        if place.kind == OutputTarget.Kind.KUBEVIRT:
            return [(POD_NETWORK, _("pod network"))]
        pairs = [(name, _("network")) for name in place.networks]
        return [*pairs, *((name, _("bridge")) for name in place.bridges)]

    @property
    def why_no_networks(self) -> str:
        """Why there is nothing to choose for cards with the chosen target, "" where there is."""
        place = self.place()
        return str(_NO_NETWORKS.get(OutputTarget.Kind(place.kind), "")) if place else ""

    def target_values(self) -> dict[str, Any]:
        """Return what the chosen target wants the form to start with."""
        place = self.place()
        if place is None:
            return {}
        return {
            "format": place.format,
            "allocation": place.allocation,
            "compressed": "on" if place.compressed else "",
            "copy-rate_mib": place.rate_mib or "",
        }

    def map_values(self) -> dict[str, Any]:
        """Return what the chosen map makes of the cards."""
        saved = self.maps.get(str(self.data.get("map", "")))
        return mapped_values(saved, self.nics) if saved else {}

    def save_map(self, user: Any) -> SavedMap | None:
        """Save the networks as they are chosen, under the name given; None marks what is wrong."""
        self.is_valid()  # fills cleaned_data; what is wrong elsewhere does not matter here
        values = self.cleaned_data
        name = values.get("map_name", "")
        wrong = [f"nic{i}_{end}" for i in range(len(self.nics)) for end in ("kind", "name")]
        if any(field in self.errors for field in wrong):
            return None
        if not name:
            self.add_error("map_name", _("Type a name for the map."))
            return None
        chosen = [(values[f"nic{i}_kind"], values[f"nic{i}_name"]) for i in range(len(self.nics))]
        try:
            entries = entries_of(self.nics, chosen)
        except MapRefusedError as error:
            self.add_error("map_name", str(error))
            return None
        saved, is_new = SavedMap.objects.get_or_create(
            name=name, defaults={"entries": entries, "created_by": user}
        )
        if not is_new:
            self.add_error("map_name", _("There is a map of that name. Choose another name."))
            return None
        return saved

    def is_valid(self) -> bool:
        """Tell whether everything fits, in all sections too."""
        fits = [section.is_valid() for section in self.sections]
        return super().is_valid() and all(fits)

    def clean_name(self) -> str:
        """Refuse names that could not be file names everywhere."""
        name: str = self.cleaned_data["name"]
        if not SAFE_NAME.fullmatch(name):
            raise forms.ValidationError(
                _(
                    "Use letters, digits and . _ + - only, and begin with a letter, a digit or _. "
                    "The disks and the machine on the target get this name."
                )
            )
        return name

    def clean(self) -> dict[str, Any]:
        """Check what concerns several fields, as the engine would."""
        values = super().clean() or {}
        by_name: dict[tuple[str, str], str] = {}
        for index, nic in enumerate(self.nics):
            chosen = values.get(f"nic{index}_name")
            if nic.mac is None and chosen:
                first = by_name.setdefault((nic.vnet_type, nic.vnet), chosen)
                if first != chosen:
                    self.add_error(
                        f"nic{index}_name",
                        _(
                            "Cards without a MAC address on the same network go to the same "
                            "target; another card on %(network)s goes to %(target)s."
                        )
                        % {"network": nic.vnet, "target": first},
                    )
        place = self.place()
        if place is not None:
            self._check_limits(place, values)
        if not self.errors and place is not None:
            self._check_names(place, values)
        if not self.errors and all(section.is_valid() for section in self.sections):
            try:
                self.job(Mode.COPY)
            except JobError as error:
                raise forms.ValidationError(error.message) from error
        return values

    def _check_limits(self, place: OutputTarget, values: dict[str, Any]) -> None:
        """Refuse what the target does not take: too large a machine, networks it has none of."""
        for field, problem in disk_problems(place.kind, values).items():
            self.add_error(field, problem)
        if place.is_folder and not targets.is_allowed_folder(place.directory):
            self.add_error(
                "target",
                _("%(folder)s is no longer in a target folder of this server.")
                % {"folder": place.directory},
            )
        limit = (place.max_disk_gib or 0) << 30
        if limit and self.vm.disk_bytes > limit:
            self.add_error(
                "target",
                _(
                    "%(target)s takes machines with at most %(limit)s of disks; this one has "
                    "%(size)s. Choose another target, or ask an administrator."
                )
                % {
                    "target": place.name,
                    "limit": size(limit),
                    "size": size(self.vm.disk_bytes),
                },
            )
        if place.kind == OutputTarget.Kind.KUBEVIRT:
            self._check_kubevirt(values)
        why = self.why_no_networks
        if not why:
            return
        for index, nic in enumerate(self.nics):
            chosen = (values.get(f"nic{index}_kind"), values.get(f"nic{index}_name"))
            if None not in chosen and chosen != (kind_of(nic), nic.vnet):
                back = _("Set it back to %(network)s, or choose another target.")
                self.add_error(f"nic{index}_name", f"{why} {back % {'network': nic.vnet}}")

    def _check_kubevirt(self, values: dict[str, Any]) -> None:
        """Refuse names that Kubernetes does not take, of the machine and of its networks."""
        name = values.get("name")
        if name and not is_machine_name(name):
            self.add_error(
                "name",
                _(
                    "KubeVirt takes lower-case letters and digits, with - and . between them "
                    "(%(name)s would do)."
                )
                % {"name": re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:63] or "machine"},
            )
        on_pod = 0
        for index in range(len(self.nics)):
            field = f"nic{index}_name"
            chosen = values.get(field)
            on_pod += chosen == POD_NETWORK
            if chosen and not is_network_name(chosen):
                self.add_error(
                    field,
                    _(
                        "Type default for the pod network, or what the network attachment is "
                        "called in the cluster: NAME or NAMESPACE/NAME."
                    ),
                )
            elif chosen == POD_NETWORK and on_pod > 1:
                self.add_error(
                    field, _("Only one card can be on the pod network; another one is already.")
                )

    def _check_names(self, place: OutputTarget, values: dict[str, Any]) -> None:
        """Refuse a name whose files are there already, as the engine would much later."""
        if not place.is_folder:
            return  # only the server can tell; the engine asks it first of all
        folder = Path(place.directory)
        letters = [disk_letters(disk.id) for disk in self.vm.source.disks]
        end = _ENDINGS.get(OutputTarget.Kind(place.kind), ".xml")
        for ending in [end, *(f"-sd{letter}" for letter in letters)]:
            taken = folder / (values["name"] + ending)
            if taken.exists():
                self.add_error(
                    "name",
                    _("%(file)s is there already. Choose another name, or remove the old result.")
                    % {"file": taken},
                )
                return

    def job(self, mode: Mode) -> Job:
        """Return the job these settings make.  Call on a valid form.  Raises JobError."""
        values = self.cleaned_data
        job = Job(
            mode=mode,
            source=input_of(self.vm),
            target=self.engine_target() if mode is Mode.COPY else None,
            name=values["name"],
            root=values["root"],
            network_map=self._network_map(),
            trim=values["trim"],
            verify_digests=values["verify_digests"],
            memory_mib=values["memory_mib"],
        )
        for section in self.sections:
            job = section.apply(job)
        return job

    def engine_target(self) -> Target:
        """Return where the result goes.  Call on a valid form.  Raises JobError."""
        values = self.cleaned_data
        return self.targets[values["target"]].engine_target(
            format=values["format"],
            allocation=values["allocation"],
            compressed=values["compressed"],
        )

    def changes(self) -> list[tuple[str, str, str]]:
        """Return what was changed from the detected values: label, before, after."""
        found = []
        for name, before in self.own_values().items():
            after = self.cleaned_data.get(name)
            if after != before:
                label = str(self.fields[name].label)
                found.append((label, self._words(name, before), self._words(name, after)))
        return [*found, *(change for section in self.sections for change in section.changes())]

    def _words(self, name: str, value: Any) -> str:
        field = self.fields[name]
        if isinstance(field, forms.BooleanField):
            return _("yes") if value else _("no")
        if isinstance(field, forms.ChoiceField):
            choices: Any = field.choices
            return str(dict(choices).get(value, value))
        return _("chosen for you") if value in (None, "") else str(value)

    def _network_map(self) -> NetworkMap:
        """Return the map of what differs from the source; the rest stays as it is."""
        networks: dict[str, str] = {}
        bridges: dict[str, str] = {}
        macs: dict[str, tuple[str, str]] = {}
        for index, nic in enumerate(self.nics):
            kind = self.cleaned_data[f"nic{index}_kind"]
            name = self.cleaned_data[f"nic{index}_name"]
            if (kind, name) == (kind_of(nic), nic.vnet):
                continue
            if nic.mac is not None:
                macs[nic.mac.lower()] = (kind, name)
            elif nic.vnet_type is VnetType.NETWORK:
                networks[nic.vnet] = name
            else:
                bridges[nic.vnet] = name
        return NetworkMap(networks=networks, bridges=bridges, macs=macs)

    def _roots(self) -> list[tuple[str, str]]:
        """Return the systems that were found; before there was a list of them, what could be."""
        if (known := known_roots(self.vm)) or self.inspection is None:
            return known
        if "roots" in self.inspection.conversion.reports:
            return []
        report = self.inspection.conversion.reports.get("inspection", {})
        return [
            (device, f"{device} ({kind})")
            for device, kind in report.get("filesystems", [])
            if kind not in ("swap", "unknown", "vfat", "") and str(device).startswith("/dev/")
        ]

    def _root(self) -> str:
        """Return the system that was looked into when there are several."""
        looked = str(self.inspection.conversion.job.get("root")) if self.inspection else ""
        return looked if looked in dict(self._roots()) else "single"

    def _has_digests(self) -> bool:
        upload = self.vm.upload
        return bool(upload and upload.digests)

    def _choice(self, name: str) -> forms.ChoiceField:
        field = self.fields[name]
        assert isinstance(field, forms.ChoiceField)  # noqa: S101  declared so above
        return field


def _title(target: OutputTarget) -> str:
    """Return how a target stands in the list of choices."""
    if target.pk is None:
        return target.name
    if target.problem:
        return _("%(name)s (cannot be used at the moment)") % {"name": target.name}
    if target.free_bytes is None:
        return target.name
    return _("%(name)s (%(free)s free)") % {"name": target.name, "free": size(target.free_bytes)}


class HistoryFilter(forms.Form):
    """The filters of the history, as they stand in the address; what is wrong is ignored."""

    q = forms.CharField(label=gettext_lazy("Search"), required=False, max_length=200)
    mode = forms.CharField(label=gettext_lazy("What"), required=False)
    status = forms.CharField(label=gettext_lazy("Result"), required=False)
    who = forms.CharField(label=gettext_lazy("Who"), required=False)
    since = forms.DateField(
        label=gettext_lazy("From"),
        required=False,
        widget=forms.DateInput(attrs={"type": "date"}, format="%Y-%m-%d"),
    )
    until = forms.DateField(
        label=gettext_lazy("To"),
        required=False,
        widget=forms.DateInput(attrs={"type": "date"}, format="%Y-%m-%d"),
    )
