"""What a killed run has left in oVirt: transfers, disks, and a machine that is not whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from conversions.pipeline.job import Target
from conversions.pipeline.leftovers import Note, Remove, refuse_other_place
from conversions.pipeline.outputs import ovirt_api as api
from conversions.pipeline.outputs.ovirt_transfers import JOB_SECONDS
from conversions.pipeline.report import Level, Reporter

# An engine is busy with the disk of a cancelled transfer for a while.
_BUSY_SECONDS = 60


@contextmanager
def remover(target: Target, noted: Sequence[Note], report: Reporter) -> Iterator[Remove]:
    """Connect, and give what deletes a disk that a killed run noted.

    Once its machine is made they are its result, and stay.  Raises EngineError, JobError.
    """
    with api.connected(target, api.trust_of(target), report) as engine:
        refuse_other_place(noted, engine.url)
        disks = {str(note["id"]) for note in noted if "thing" in note}
        machine = next((note for note in noted if "machine" in note), None)
        if machine and _was_made(engine, machine, disks):
            report.log(Level.INFO, f"{machine['machine']} was made in {engine.url}; it stays.")
            yield lambda _note: None
        else:
            yield lambda note: _remove(engine, note)


def _was_made(engine: api.Engine, note: Note, disks: set[str]) -> bool:
    """Tell whether the machine was made, and delete what there is of one that failed.

    It is ours when it has one of our disks.
    """
    api.wait_until(
        f"Machine {note['machine']}",
        lambda: "started" not in engine.states_of(note["job"]),
        seconds=JOB_SECONDS,
    )
    failed = engine.states_of(note["job"]) & {"failed", "aborted"}
    search = f"name={note['machine']}"
    for vm in engine.all_of("vms", "vm", search=search, case_sensitive="true"):
        attached = engine.all_of(f"vms/{vm['id']}/diskattachments", "disk_attachment")
        if disks & {str(entry["id"]) for entry in attached}:
            if not failed:
                return True
            engine.remove(f"vms/{vm['id']}", seconds=_BUSY_SECONDS, detach_only="true")
    return False


def _remove(engine: api.Engine, note: Note) -> str | None:
    """Cancel the transfers into a disk and delete it; return its name.

    None when it is gone, or the identity is that of another run's disk.
    """
    try:
        disk = engine.get(f"disks/{note['id']}")
    except api.NotThereError:
        return None
    if note["mark"] not in str(disk.get("description")):
        return None
    for transfer in engine.all_of("imagetransfers", "image_transfer"):
        # Older engines name the image, which has the disk's identity.
        if note["id"] in [transfer.get(key, {}).get("id") for key in ("disk", "image")]:
            engine.cancel(transfer["id"])
    engine.remove(f"disks/{note['id']}", seconds=_BUSY_SECONDS)
    return str(note["name"])
