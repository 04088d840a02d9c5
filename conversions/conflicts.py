"""Which runs cannot be active at once: they would change what is read, or write one result."""

from __future__ import annotations

from django.utils.translation import gettext as _

from conversions.models import Conversion
from conversions.pipeline.job import Job, Mode
from inventory.models import SourceVM


class ConflictError(Exception):
    """A run that is active has to end first; `run` is that one."""

    def __init__(self, message: str, run: Conversion) -> None:
        super().__init__(message)
        self.message = message
        self.run = run


def refuse_conflict(vm: SourceVM, job: Job) -> None:
    """Refuse a run beside one that it cannot be active with.  Raises ConflictError.

    Disks that are changed in place are for one run alone, and so is a name on a target.  Call in
    the transaction that makes the run, with the machine's row locked.
    """
    for run in Conversion.objects.active().select_related("vm"):
        words = {"number": run.pk, "name": run.name, "place": run.place}
        if Mode.IN_PLACE in (job.mode, run.mode) and _share_disks(vm, run.vm):
            text = _(
                "Nothing was started: run #%(number)d uses these disks. They change in place only "
                "while no other run uses them. Wait until it has ended, or stop it."
            )
            raise ConflictError(text % words, run)
        wanted = job.target and (job.target.place, job.name or vm.name)
        if wanted == (run.place, run.name):
            text = _(
                "Nothing was started: run #%(number)d makes %(name)s in %(place)s. Wait until it "
                "has ended, stop it, or choose another name."
            )
            raise ConflictError(text % words, run)


def _share_disks(one: SourceVM, other: SourceVM | None) -> bool:
    if other is None:
        return False
    return one.pk == other.pk or not _files_of(one).isdisjoint(_files_of(other))


def _files_of(vm: SourceVM) -> set[str]:
    """Return the files of this host that hold a machine's disks."""
    return {path for disk in vm.local_disks for path in (disk.path, *disk.other_files)}
