"""Reading libvirt hosts into the inventory."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from django.conf import settings
from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from inventory.machine_rows import BATCH, columns_of, store_parts
from inventory.models import LibvirtHost, SourceVM
from inventory.sources.errors import SourceError
from inventory.sources.types import Source
from inventory.templatetags.console import size

REFRESH_SECONDS = 120
_PYTHON = [sys.executable, "-m", "inventory.sources.list_domains"]


def read_domains(uri: str, *, seconds: float) -> list[dict[str, Any]]:
    """Return the lines of list_domains.  Raises SourceError, also when it takes too long."""
    process = subprocess.Popen(
        [*_PYTHON, uri],
        cwd=settings.BASE_DIR,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # an ssh that it has started goes with it
    )
    try:
        stdout, stderr = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired as error:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise SourceError(
            "E-LV-TIMEOUT",
            _("%(uri)s did not answer within %(seconds)d s.") % {"uri": uri, "seconds": seconds},
            remedy=_("Check the name of the host, its firewall, and that libvirt runs there."),
        ) from error
    try:
        lines = [json.loads(line) for line in stdout.splitlines()]
    except ValueError:
        lines = []
    if process.returncode or not lines:
        said = lines[-1] if lines and "error" in lines[-1] else {}
        raise SourceError(
            said.get("error", "E-LV-LIST"),
            said.get("message")
            or _("%(uri)s could not be read: %(why)s")
            % {"uri": uri, "why": stderr.strip()[-300:] or process.returncode},
            remedy=said.get("remedy", ""),
        )
    return lines


def refresh(host: LibvirtHost, *, seconds: float = REFRESH_SECONDS) -> None:
    """Read a host and store its domains; when it fails the old rows stay, and the reason shows."""
    try:
        lines = read_domains(host.uri, seconds=seconds)
    except SourceError as error:
        host.state = LibvirtHost.State.FAILED
        host.message = f"{error.message} {error.remedy}".strip()
    else:
        store_domains(host, lines[1:])
        host.state, host.message = LibvirtHost.State.FRESH, ""
        host.refreshed_at = timezone.now()
    host.tried_at = timezone.now()
    host.save(update_fields=["state", "message", "refreshed_at", "tried_at"])


def store_domains(host: LibvirtHost, lines: Iterable[Mapping[str, Any]]) -> None:
    """Store what a host has: new rows, changed ones, and those that are gone, in a few queries."""
    known = {vm.location: vm for vm in host.vms.all()}
    seen: set[str] = set()
    new: list[SourceVM] = []
    changed: list[SourceVM] = []
    for line in lines:
        seen.add(line["uuid"])
        vm = known.get(line["uuid"])
        if vm is None:
            vm = SourceVM(host=host, kind="libvirt", location=line["uuid"])
            _fill(vm, line)
            new.append(vm)
        elif _differs(vm, line):
            vm.changes = changes_between(vm, line)
            _fill(vm, line)
            changed.append(vm)
    gone = [vm.pk for vm in known.values() if vm.location not in seen]
    fields = ["name", "power", "problem", "changes", "status", "hypervisor", "firmware",
              "os_hint", "memory_bytes", "vcpus", "disk_bytes", "record"]  # fmt: skip
    with transaction.atomic():
        SourceVM.objects.bulk_create(new, batch_size=BATCH)
        SourceVM.objects.bulk_update(changed, fields, batch_size=BATCH)
        SourceVM.objects.filter(pk__in=gone).update(status=SourceVM.Status.GONE)
        store_parts([*new, *changed])


def _record(line: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record; of a domain that cannot be read, one with its name and nothing else."""
    if line["source"]:
        return dict(line["source"])
    name = line["name"]
    return Source(
        name=name, original_name=name, hypervisor="libvirt", memory_bytes=0, vcpus=0, disks=()
    ).to_dict()  # fmt: skip


def _differs(vm: SourceVM, line: Mapping[str, Any]) -> bool:
    return (vm.record, vm.power, vm.problem, vm.status) != (
        _record(line), line["power"], line["problem"], SourceVM.Status.READY,
    )  # fmt: skip


def _fill(vm: SourceVM, line: Mapping[str, Any]) -> None:
    for name, value in columns_of(Source.from_dict(_record(line))).items():
        setattr(vm, name, value)
    vm.power, vm.problem = line["power"], line["problem"]
    vm.status = SourceVM.Status.READY


def changes_between(vm: SourceVM, line: Mapping[str, Any]) -> list[str]:
    """Return in words what is new since a domain was last read."""
    before, after = vm.record, _record(line)
    found = []
    if vm.power != line["power"]:
        found.append(f"{vm.power or '?'} → {line['power']}")
    if before["memory_bytes"] != after["memory_bytes"]:
        sizes = size(before["memory_bytes"]), size(after["memory_bytes"])
        found.append(_("memory %(before)s → %(after)s") % {"before": sizes[0], "after": sizes[1]})
    for key, words in (("name", _("name")), ("vcpus", _("vCPUs")), ("firmware", _("firmware"))):
        if before[key] != after[key]:
            found.append(f"{words} {before[key]} → {after[key]}")
    for key, field, words in (("disks", "path", _("disk")), ("nics", "mac", _("network card"))):
        old, now = ({str(row[field]) for row in r[key]} for r in (before, after))
        found += [f"{words} + {item}" for item in sorted(now - old)]
        found += [f"{words} - {item}" for item in sorted(old - now)]
    return found
