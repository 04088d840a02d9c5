"""The disks that an engine makes for a machine, the transfers into them, and the machine itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from conversions.pipeline.errors import TargetError
from conversions.pipeline.leftovers import Notes
from conversions.pipeline.outputs import ovirt_api as api
from conversions.pipeline.outputs.ovirt_prechecks import Place
from conversions.pipeline.outputs.ovirt_xml import GENERATOR, Volume, random_uuid
from conversions.pipeline.report import Level, Reporter
from conversions.pipeline.types import TargetDisk

_WAIT_SECONDS = 300
_INACTIVITY_SECONDS = 3600
JOB_SECONDS = 180
_JOB_POLLS = 10  # times the ordinary pause
# A stop has to be done before the supervisor's patience of 30 s ends.
_CLEAN_UP_SECONDS = 20


@dataclass(slots=True)
class _Made:
    """A disk in the making; `transfer_id` is empty while nothing can be sent."""

    disk_id: str
    transfer_id: str = ""
    url: str = ""


class UploadTargets:
    """Disks of a storage domain; the machine is made when all of them are complete.

    A machine that oVirt refuses is an error: nothing of it stays there.
    """

    name = ""
    ovf = ""

    def __init__(
        self,
        engine: api.Engine,
        place: Place,
        disks: Sequence[TargetDisk],
        uuids: Sequence[str],
        notes: Notes,
        report: Reporter,
        *,
        by_proxy: bool,
    ) -> None:
        self.disks = disks
        self.committed = False
        self._engine = engine
        self._place = place
        self._uuids = {d.overlay.sd: u for d, u in zip(disks, uuids, strict=True)}
        self._notes = notes
        self._mark = random_uuid()
        self._report = report
        self._url_key = "proxy_url" if by_proxy else "transfer_url"
        self._lock = threading.Lock()
        self._made: dict[str, _Made] = {}
        self._vm_id = ""

    def open(self, disk: TargetDisk) -> TargetDisk:
        """Make the disk and begin a transfer into it.  Raises TargetError, Stopped."""
        size = str(disk.overlay.virtual_size_bytes)
        name = disk.final_path.partition("/")[2]
        identity = self._uuids[disk.overlay.sd]
        body = {
            "id": identity,
            "name": name,
            # A second run may be given the same identities; this tells whose disk it is.
            "description": f"{GENERATOR}, run {self._mark}",
            "format": "cow" if disk.format == "qcow2" else "raw",
            "sparse": "true",
            "initial_size": size,
            "provisioned_size": size,
            "storage_domains": {"storage_domain": [{"id": self._place.storage_id}]},
        }
        self._notes.add(thing="disk", name=disk.final_path, id=identity, mark=self._mark)
        made = _Made(self._engine.make("disks", body))
        with self._lock:
            self._made[disk.overlay.sd] = made
        api.wait_until(f"Disk {name}", lambda: self._is_ok(made, name), seconds=_WAIT_SECONDS)
        self._begin(made, name)
        return disk

    def _is_ok(self, made: _Made, name: str) -> bool:
        found = self._engine.get(f"disks/{made.disk_id}")
        if found.get("status") == "illegal":
            raise TargetError(f"oVirt could not make the disk {name}.")
        return found.get("status") == "ok"

    def _begin(self, made: _Made, name: str) -> None:
        """Begin a transfer: raw, whatever the disk is, so that the server knows zeros."""
        body = {
            "disk": {"id": made.disk_id},
            "direction": "upload",
            "format": "raw",
            "inactivity_timeout": str(_INACTIVITY_SECONDS),
        }
        made.transfer_id = self._engine.make("imagetransfers", body)

        def is_ready() -> bool:
            found = self._engine.get(f"imagetransfers/{made.transfer_id}")
            phase = found.get("phase")
            if phase == "transferring":
                made.url = str(found.get(self._url_key) or "")
                return True
            if phase in ("initializing", "resuming"):
                return False
            raise TargetError(
                f"oVirt does not begin the transfer into {name}: it is {phase}.",
                remedy="See that ovirt-imageio runs on the hosts of the data centre.",
            )

        api.wait_until(f"The transfer into {name}", is_ready, seconds=_WAIT_SECONDS)

    def url_of(self, disk: TargetDisk) -> str:
        """Return where the disk is sent to."""
        return self._made[disk.overlay.sd].url

    def volumes(self) -> list[Volume]:
        """Return the disks with their identities; that of a volume only ties the OVF together."""
        return [
            Volume(disk=disk, image=self._made[disk.overlay.sd].disk_id, volume=random_uuid())
            for disk in self.disks
        ]

    def close(self, disk: TargetDisk) -> None:
        """End the transfer: oVirt looks at the disk and takes it over.  Raises TargetError."""
        made = self._made[disk.overlay.sd]
        self._engine.post(f"imagetransfers/{made.transfer_id}/finalize", {})

        def is_done() -> bool:
            try:
                phase = self._engine.get(f"imagetransfers/{made.transfer_id}").get("phase")
            except api.NotThereError:
                # Gone some time after its end, however that was: the disk tells.
                status = self._engine.get(f"disks/{made.disk_id}").get("status")
                if status == "locked":
                    return False
                phase = "finished_success" if status == "ok" else f"gone, its disk {status}"
            if phase == "finished_success":
                return True
            if phase in ("transferring", "finalizing_success"):
                return False
            raise TargetError(
                f"oVirt does not accept the disk {disk.final_path}: the transfer is {phase}.",
                remedy="The engine's events say why.",
            )

        api.wait_until(f"Disk {disk.final_path}", is_done, seconds=_WAIT_SECONDS)
        made.transfer_id = ""

    def commit(self) -> None:
        """Make the machine and wait for the engine's job.  Raises TargetError, Stopped."""
        job = random_uuid()
        body = {
            "cluster": {"id": self._place.cluster_id},
            "initialization": {"configuration": {"type": "ova", "data": self.ovf}},
        }
        self._notes.add(machine=self.name, job=job)
        self._vm_id = self._engine.make("vms", body, correlation_id=job)

        def is_done() -> bool:
            states = self._engine.states_of(job)
            if states & {"failed", "aborted"}:
                raise TargetError(
                    "oVirt could not make the machine; its disks are removed.",
                    remedy="The engine's events say why.",
                )
            return "started" not in states

        api.wait_until(
            "The new machine", is_done, seconds=JOB_SECONDS, pause=_JOB_POLLS * api.POLL_SECONDS
        )
        self.committed = True
        self._notes.forget()
        created = [{"path": disk.final_path, "bytes": 0} for disk in self.disks]
        self._report.report("files", {"created": created, "removed": []})
        self._report.log(Level.INFO, f"Made: machine {self._vm_id} in {self._engine.url}")

    def remove(self) -> None:
        """Cancel transfers, then delete the machine and the disks; report it.  Raises nothing."""
        end = time.monotonic() + _CLEAN_UP_SECONDS
        for transfer_id in [made.transfer_id for made in self._made.values() if made.transfer_id]:
            self._works(
                "A transfer could not be cancelled", partial(self._engine.cancel, transfer_id)
            )
        removed = []
        if self._vm_id:
            # The disks stay, for they are deleted one by one.
            self._delete(f"vms/{self._vm_id}", end, detach_only="true")
        for disk in self.disks:
            found = self._made.get(disk.overlay.sd)
            if found and self._delete(f"disks/{found.disk_id}", end):
                removed.append(disk.final_path)
                self._report.log(Level.INFO, f"Removed: disk {disk.final_path}")
        self._report.report("files", {"created": [], "removed": removed})

    def _delete(self, path: str, end: float, **query: str) -> bool:
        attempt = partial(self._engine.remove, path, seconds=end - time.monotonic(), **query)
        return self._works(f"{path} could not be removed from oVirt", attempt)

    def _works(self, failing: str, attempt: Callable[[], None]) -> bool:
        """Tell whether an attempt succeeds; the log says why it does not."""
        try:
            attempt()
        except api.EngineError as error:
            self._report.log(Level.WARNING, f"{failing}: {error}")
            return False
        return True
