"""The images of a machine in Glance, each sent from a file that is deleted then."""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from openstack.connection import Connection
from openstack.exceptions import raise_from_response
from openstack.image.v2.image import Image

from conversions.pipeline.errors import TargetError
from conversions.pipeline.job import Target
from conversions.pipeline.leftovers import Note, Notes, Remove, refuse_other_place
from conversions.pipeline.outputs.openstack_cloud import (
    MARK,
    cloud_errors,
    place_of,
    sign_in,
    wait_for,
)
from conversions.pipeline.report import Level, Reporter
from conversions.pipeline.sizes import human
from conversions.pipeline.stop import check_stop
from conversions.pipeline.types import TargetDisk

_MIB = 1 << 20


class Upload(io.FileIO):
    """A file on its way; remembers the digest of what was read.  Reading raises Stopped."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.sent = 0
        self.digest = hashlib.sha512()

    def read(self, size: int | None = -1, /) -> bytes:
        """Return the next piece, of a size that is worth the trip."""
        check_stop()
        piece = super().read(_MIB if size and size > 0 else -1)
        self.sent += len(piece)
        self.digest.update(piece)
        return piece


class ImageTargets:
    """Images that are made from staged copies; their properties follow when all are there."""

    def __init__(
        self,
        cloud: Connection,
        disks: Sequence[TargetDisk],
        memory_bytes: int,
        notes: Notes,
        report: Reporter,
    ) -> None:
        self.disks = disks
        self.committed = False
        self._cloud = cloud
        self._min_ram_mib = memory_bytes // _MIB
        self._notes = notes
        self._mark = str(uuid4())
        self._report = report
        self._made: list[Image] = []

    def open(self, disk: TargetDisk) -> TargetDisk:
        """Return the disk as it is: its file is made by the copy."""
        return disk

    def close(self, disk: TargetDisk) -> None:
        """Upload the copy and delete it.  Raises TargetError, Stopped."""
        name, staged = disk.final_path, Path(disk.part_path)
        self._notes.add(thing="image", name=name, mark=self._mark)
        with cloud_errors(f"Image {name} could not be made"):
            # Not image.create_image: it takes a name for a path if there is such a file.
            image = Image.new(
                name=name,
                disk_format=disk.format,
                container_format="bare",
                min_ram=self._min_ram_mib,
                **{MARK: self._mark},
            ).create(self._cloud.image)
        self._made.append(image)
        size = staged.stat().st_size
        self._report.log(Level.INFO, f"Uploading image {name} ({human(size)}): {image.id}")
        begun = time.monotonic()
        with Upload(staged) as data, cloud_errors(f"Image {name} could not be uploaded"):
            raise_from_response(image.upload(self._cloud.image, data=data, size=size))
        staged.unlink()
        self._check(name, image.id, data)
        seconds = time.monotonic() - begun
        self._report.log(Level.INFO, f"Image {name} was uploaded in {seconds:.1f} s.")

    def _check(self, name: str, id_: str, sent: Upload) -> None:
        """Wait until Glance has the image, and compare what it has.  Raises TargetError."""
        found = wait_for(f"Storing image {name}", lambda: self._stored(name, id_))
        is_same = found.hash_algo != "sha512" or found.hash_value == sent.digest.hexdigest()
        if found.size != sent.sent or not is_same:
            raise TargetError(
                f"Image {name} is not what was sent: Glance has {found.size} bytes of it, "
                f"{sent.sent} were sent.",
                remedy="Convert again; the network or the store of Glance loses data.",
                code="E-VERIFY",
            )

    def _stored(self, name: str, id_: str) -> Image | None:
        with cloud_errors(f"Image {name} could not be asked for its state"):
            image = Image.new(id=id_).fetch(self._cloud.image)
        if image.status == "active":
            return image
        if image.status not in ("saving", "importing", "uploading"):
            raise TargetError(f"Image {name} ({id_}) is {image.status}, where active was expected.")
        return None

    def describe(self, properties: Mapping[str, str]) -> None:
        """Give every image the properties.  Raises TargetError."""
        for image in self._made:
            with cloud_errors(f"Image {image.name} could not be described"):
                self._cloud.image.update_image(image.id, **properties)

    def commit(self) -> None:
        """Report what was made: nothing is removed from here on."""
        self.committed = True
        self._notes.forget()
        created = [{"path": f"{i.name} ({i.id})", "bytes": 0} for i in self._made]
        self._report.report("files", {"created": created, "removed": []})

    def remove(self) -> None:
        """Delete the images and what is staged; report it."""
        removed = []
        for disk in self.disks:
            Path(disk.part_path).unlink(missing_ok=True)
        for image in self._made:
            try:
                gone = _delete(self._cloud, image.name, image.id)
            except TargetError as error:
                self._report.log(Level.WARNING, f"{error.message} It has to be deleted by hand.")
            else:
                removed.append(gone)
                self._report.log(Level.INFO, f"Removed: image {gone}")
        self._report.report("files", {"created": [], "removed": removed})


def _delete(cloud: Connection, name: str, id_: str) -> str:
    """Delete an image, whatever there is of it, and return what it was.  Raises TargetError."""
    shown = f"{name} ({id_})"
    with cloud_errors(f"Image {shown} could not be deleted"):
        cloud.image.delete_image(id_)
    return shown


@contextmanager
def remover(target: Target, noted: Sequence[Note], report: Reporter) -> Iterator[Remove]:
    """Sign in, and give what deletes an image of a killed run.  Raises TargetError."""
    with sign_in(target, report) as cloud:
        refuse_other_place(noted, place_of(cloud))

        def remove(note: Note) -> str | None:
            name = note["name"]
            with cloud_errors(f"Image {name} could not be looked for"):
                same_name = list(cloud.image.images(name=name))
            ours = [image.id for image in same_name if image.properties.get(MARK) == note["mark"]]
            return _delete(cloud, name, ours[0]) if ours else None

        yield remove
