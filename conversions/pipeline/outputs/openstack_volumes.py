"""The volumes of a machine in Cinder, each lent to this server while it is filled."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from uuid import uuid4

from openstack.connection import Connection

from conversions.pipeline.errors import TargetError
from conversions.pipeline.inspector_xml import PACKAGE, VERSION
from conversions.pipeline.job import Target
from conversions.pipeline.leftovers import Notes
from conversions.pipeline.outputs.folder import check_device_size
from conversions.pipeline.outputs.openstack_cloud import MARK, cloud_errors, wait_for
from conversions.pipeline.outputs.openstack_lending import Lender, Volume
from conversions.pipeline.outputs.openstack_properties import image_properties
from conversions.pipeline.report import Level, Reporter
from conversions.pipeline.types import TargetDisk, TargetMeta

DEV_DISK_BY_ID = "/dev/disk/by-id"
_GIB = 1 << 30
# A disk's serial number is cut: virtio-blk has room for 20 characters of the volume's id.
_SERIAL_LENGTH = 16
_PARTITION = re.compile(r"-part[0-9]+")


def gib_of(size_bytes: int) -> int:
    """Return the size of the volume that holds so many bytes."""
    return max(1, -(-size_bytes // _GIB))


class VolumeTargets:
    """Volumes, each attached to this server from `open` to `close`.

    They are taken off as soon as they are full: a server can have some 25 disks at a time.
    """

    def __init__(
        self,
        cloud: Connection,
        target: Target,
        name: str,
        disks: Sequence[TargetDisk],
        notes: Notes,
        report: Reporter,
    ) -> None:
        self.disks = disks
        self.committed = False
        self._cloud = cloud
        self._target = target
        self._server = target.option("server-id")
        self._lender = Lender(cloud, self._server, report)
        self._name = name
        self._notes = notes
        self._mark = str(uuid4())
        self._report = report
        self._made: dict[str, Volume] = {}

    def open(self, disk: TargetDisk) -> TargetDisk:
        """Make the volume and attach it to this server; return its device.

        Raises TargetError, Stopped.
        """
        volume = self._create(disk)
        self._lender.attach(volume)
        device = wait_for(
            f"Volume {volume.name} did not appear in {self._folder}. It is attached to server "
            f"{self._server}; is that the one this program runs on? Waiting for it",
            lambda: self._device_of(volume),
        )
        if not os.access(device, os.W_OK):
            raise TargetError(
                f"Volume {volume.name} appeared as {device}, which may not be written.",
                remedy="Run v2vweb as root or in the group that owns disks.",
            )
        check_device_size(device, disk)
        return replace(disk, part_path=str(device))

    def close(self, disk: TargetDisk) -> None:
        """Take the full volume off this server.  Raises TargetError, Stopped."""
        volume = self._made[disk.overlay.sd]
        self._lender.take_off(volume)
        self._lender.wait_until_off(volume)

    def describe(self, meta: TargetMeta) -> Mapping[str, str]:
        """Say on the volumes what they are, and on the boot disk's how to start it.

        Returns the image properties.  Raises TargetError.
        """
        properties = image_properties(meta)
        volumes = [self._made[disk.overlay.sd] for disk in self.disks]
        boot = volumes[meta.boot_disk or 0]
        storage = self._cloud.block_storage
        with cloud_errors(f"Volume {boot.name} could not be made bootable"):
            storage.set_volume_bootable_status(boot.id, True)
            storage.set_volume_image_metadata(boot.id, **properties)
        now = datetime.now(UTC).strftime("%Y/%m/%d %H:%M:%S")
        for number, volume in enumerate(volumes, 1):
            index = f"{number}/{len(volumes)}"
            metadata = {
                MARK: self._mark,
                "virt_v2v_version": f"{PACKAGE} {VERSION}",
                "virt_v2v_conversion_date": now,
                "virt_v2v_guest_name": meta.name,
                "virt_v2v_disk_index": index,
                "virt_v2v_vm_generation_id": meta.source.genid or "",
                "virt_v2v_guest_id": self._target.option("guest-id"),
            }
            with cloud_errors(f"Volume {volume.name} could not be described"):
                storage.update_volume(
                    volume.id,
                    description=f"{meta.name}: disk {index}, converted by {PACKAGE}",
                    metadata={key: value for key, value in metadata.items() if value},
                )
        return properties

    def commit(self) -> None:
        """Report what was made: nothing is removed from here on."""
        self.committed = True
        self._notes.forget()
        created = [{"path": str(v), "bytes": v.gib * _GIB} for v in self._made.values()]
        self._report.report("files", {"created": created, "removed": []})

    def remove(self) -> None:
        """Take every volume off this server and delete it; report it.

        Goes on after a failure, also while this process is being stopped.
        """
        removed = []
        attached = [volume for volume in self._made.values() if volume.attached]
        for volume in attached:
            self._works(partial(self._lender.take_off, volume, stoppable=False))
        for volume in attached:  # all at once, since a stop has to be quick
            self._works(partial(self._lender.wait_until_off, volume, stoppable=False))
        for volume in self._made.values():
            if self._works(partial(self._lender.delete, volume)):
                removed.append(str(volume))
                self._report.log(Level.INFO, f"Removed: volume {volume}")
        self._report.report("files", {"created": [], "removed": removed})

    def _works(self, attempt: Callable[[], None]) -> bool:
        """Tell whether an attempt succeeds; the log says why it does not."""
        try:
            attempt()
        except TargetError as error:
            self._report.log(Level.WARNING, error.message)
            return False
        return True

    @property
    def _folder(self) -> Path:
        return Path(self._target.option("dev-disk-by-id", DEV_DISK_BY_ID))

    def _create(self, disk: TargetDisk) -> Volume:
        name = disk.final_path
        self._notes.add(thing="volume", name=name, mark=self._mark)
        volume = self._made[disk.overlay.sd] = self._lender.create(
            name,
            gib_of(disk.overlay.virtual_size_bytes),
            type_=self._target.storage,
            description=f"Temporary volume of {self._name}, being converted",
            mark=self._mark,
        )
        self._lender.wait_until_made(volume)
        return volume

    def _device_of(self, volume: Volume) -> Path | None:
        """Return the device whose name has the start of the volume's id, once it is there."""
        serial = volume.id[:_SERIAL_LENGTH]
        found = sorted(
            path
            for path in (self._folder.iterdir() if self._folder.is_dir() else ())
            if serial in path.name and not _PARTITION.search(path.name) and path.exists()
        )
        return found[0] if found else None
