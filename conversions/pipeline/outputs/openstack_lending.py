"""Volumes of Cinder that are lent to a server: made, attached to it, taken off again, deleted."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from openstack.connection import Connection

from conversions.pipeline.errors import TargetError
from conversions.pipeline.job import Target
from conversions.pipeline.leftovers import Note, Remove, refuse_other_place
from conversions.pipeline.outputs.openstack_cloud import (
    MARK,
    cloud_errors,
    place_of,
    sign_in,
    wait_for,
)
from conversions.pipeline.report import Level, Reporter

_ID = re.compile(r"[0-9A-Za-z-]{16,64}")
_ATTACHING = ("reserved", "attaching")
# In these Cinder and Nova refuse whatever is asked for.
_BUSY = ("creating", *_ATTACHING, "detaching")


@dataclass(slots=True)
class Volume:
    """One volume that was made; `attached` from the request on."""

    name: str
    id: str
    gib: int
    attached: bool = False

    def __str__(self) -> str:
        """Return what tells it from others of its name."""
        return f"{self.name} ({self.id})"


class Lender:
    """Makes volumes and lends them to one server; every method raises TargetError.

    What waits raises Stopped, unless it is told that it is not stoppable.
    """

    def __init__(self, cloud: Connection, server: str, report: Reporter) -> None:
        self._cloud = cloud
        self._server = server
        self._report = report

    def create(self, name: str, gib: int, *, type_: str, description: str, mark: str) -> Volume:
        """Ask for a volume, of Cinder's own choice of type for ""; it is not there yet."""
        kind = {"volume_type": type_} if type_ else {}
        with cloud_errors(f"Volume {name} of {gib} GiB could not be made"):
            made = self._cloud.block_storage.create_volume(
                name=name, size=gib, description=description, metadata={MARK: mark}, **kind
            )
        if not _ID.fullmatch(made.id or ""):
            raise TargetError(f"Cinder gave volume {name} the impossible id {made.id!r}.")
        self._report.log(Level.INFO, f"Made volume {name} ({gib} GiB): {made.id}")
        return Volume(name=name, id=made.id, gib=gib)

    def wait_until_made(self, volume: Volume) -> None:
        """Wait until a volume that was asked for is there."""
        wait_for(
            f"Making volume {volume.name}",
            lambda: self._reached(volume, "available", "creating"),
        )

    def attach(self, volume: Volume) -> None:
        """Attach it to the server, and wait for that."""
        self._report.log(Level.INFO, f"Attaching volume {volume.name} to server {self._server}.")
        volume.attached = True
        with cloud_errors(f"Volume {volume.name} could not be attached to server {self._server}"):
            self._cloud.compute.create_volume_attachment(self._server, volume.id)
        wait_for(
            f"Attaching volume {volume.name}",
            lambda: self._reached(volume, "in-use", *_ATTACHING),
        )

    def take_off(self, volume: Volume, *, stoppable: bool = True) -> None:
        """Ask for the end of the loan; nothing is to be ended where attaching has failed."""
        self._settled(volume, stoppable=stoppable)
        with cloud_errors(f"Volume {volume.name} could not be taken off server {self._server}"):
            self._cloud.compute.delete_volume_attachment(self._server, volume.id)

    def wait_until_off(self, volume: Volume, *, stoppable: bool = True) -> None:
        """Wait until the server has it no more."""
        wait_for(
            f"Taking volume {volume.name} off server {self._server}",
            lambda: self._reached(volume, "available", "in-use", "detaching"),
            stoppable=stoppable,
        )
        volume.attached = False

    def delete(self, volume: Volume) -> None:
        """Delete a volume that is attached nowhere."""
        with cloud_errors(f"Volume {volume.name} has to be deleted by hand ({volume.id})"):
            self._cloud.block_storage.delete_volume(volume.id)

    def remove_marked(self, name: str, mark: str) -> str | None:
        """Take the volume of that name and mark off the server and delete it; return its name.

        None when there is no such volume.
        """
        with cloud_errors(f"Volume {name} could not be looked for"):
            same_name = list(self._cloud.block_storage.volumes(name=name))
        for found in same_name:
            if (found.metadata or {}).get(MARK) == mark and found.status != "deleting":
                volume = Volume(name=name, id=found.id, gib=found.size)
                if self._settled(volume) == "in-use":
                    self.take_off(volume)
                    self.wait_until_off(volume)
                self.delete(volume)
                return str(volume)
        return None

    def _settled(self, volume: Volume, *, stoppable: bool = True) -> str:
        """Wait until nothing is being done to the volume; return its status."""

        def settled() -> str | None:
            status = self._status(volume)
            return None if status in _BUSY else status

        doing = f"What is being done to volume {volume.name}"
        return wait_for(doing, settled, stoppable=stoppable)

    def _reached(self, volume: Volume, wanted: str, *waiting: str) -> bool | None:
        """Tell whether the volume has the wanted status; None while there is hope."""
        status = self._status(volume)
        if status == wanted:
            return True
        if status not in waiting:
            raise TargetError(
                f"Volume {volume} is {status}, where {wanted} was expected.",
                remedy="Cinder's and Nova's logs of that moment say why.",
            )
        return None

    def _status(self, volume: Volume) -> str:
        with cloud_errors(f"Volume {volume.name} could not be asked for its state"):
            return str(self._cloud.block_storage.get_volume(volume.id).status)


@contextmanager
def remover(target: Target, noted: Sequence[Note], report: Reporter) -> Iterator[Remove]:
    """Sign in, and give what deletes a volume of a killed run.  Raises TargetError."""
    with sign_in(target, report) as cloud:
        refuse_other_place(noted, place_of(cloud))
        lender = Lender(cloud, target.option("server-id"), report)
        yield lambda note: lender.remove_marked(note["name"], note["mark"])
