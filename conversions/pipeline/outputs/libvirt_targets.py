"""The volumes of a machine in a libvirt pool, and the domain that is defined last."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import libvirt
from lxml import etree

from conversions.pipeline.errors import TargetError
from conversions.pipeline.job import Target
from conversions.pipeline.leftovers import Note, Notes, Remove, refuse_other_place
from conversions.pipeline.outputs.files import FileTargets
from conversions.pipeline.outputs.libvirt_host import LibvirtHost, Pool, libvirt_errors
from conversions.pipeline.outputs.libvirt_streams import compare, upload
from conversions.pipeline.report import Level, Reporter
from conversions.pipeline.sizes import human
from conversions.pipeline.types import TargetDisk


class PoolTargets:
    """What both ways into a pool share: the domain is defined when every volume is there.

    A domain that libvirt refuses is an error: nothing of the machine stays on the target.
    """

    xml = ""
    verify = "none"

    def __init__(
        self,
        host: LibvirtHost,
        pool: Pool,
        disks: Sequence[TargetDisk],
        target: Target,
        report: Reporter,
    ) -> None:
        self.disks = disks
        self.committed = False
        self._host = host
        self._pool = pool
        self._target = target
        self._report = report

    def refuse_existing(self, *, overwrite: bool) -> None:
        """Refuse names that are taken.  Raises TargetError."""
        raise NotImplementedError

    def remove(self) -> None:
        """Delete whatever has been made; report it."""
        raise NotImplementedError

    def open(self, disk: TargetDisk) -> TargetDisk:
        """Return the disk as it is: its file is made by the copy."""
        return disk

    def close(self, disk: TargetDisk) -> None:
        """Take over a complete copy."""

    def commit(self) -> None:
        """Define the domain.  Raises TargetError with libvirt's words."""
        flags = libvirt.VIR_DOMAIN_DEFINE_VALIDATE
        with libvirt_errors("libvirt refused the machine; its volumes are removed"):
            domain = self._host.connection.defineXMLFlags(self.xml, flags)
        self.committed = True
        self._report.log(Level.INFO, f"Defined: {domain.name()} on {self._host.uri}")

    def _refresh(self) -> None:
        """Make libvirt look at the folder again; a failure only delays what it shows."""
        try:
            pool = self._host.connection.storagePoolLookupByName(self._pool.name)
            pool.refresh()
        except libvirt.libvirtError as error:
            self._report.log(Level.WARNING, f"Pool refresh failed: {error} (ignored).")


class PoolFiles(PoolTargets):
    """Files written straight into the pool's folder, under part names until all are complete."""

    def __init__(
        self,
        host: LibvirtHost,
        pool: Pool,
        disks: Sequence[TargetDisk],
        target: Target,
        report: Reporter,
    ) -> None:
        super().__init__(host, pool, disks, target, report)
        self._files = FileTargets(disks, [], report)

    def refuse_existing(self, *, overwrite: bool) -> None:
        """Refuse files that exist.  Raises TargetError."""
        self._files.refuse_existing(overwrite=overwrite)

    def remove(self) -> None:
        """Delete the files."""
        self._files.remove()
        self._refresh()

    def commit(self) -> None:
        """Rename the files, show them to libvirt and define the domain.  Raises TargetError."""
        self._files.rename_all()
        self._refresh()
        super().commit()
        self._files.settle()


class UploadedVolumes(PoolTargets):
    """Volumes made by libvirt and filled through it, for pools that are not ours to write."""

    def __init__(
        self,
        host: LibvirtHost,
        pool: Pool,
        disks: Sequence[TargetDisk],
        target: Target,
        report: Reporter,
    ) -> None:
        super().__init__(host, pool, disks, target, report)
        # In the work folder, where the copies wait to be sent.
        self._notes = Notes(Path(disks[0].part_path).parent, target, host.uri)
        self._made: list[str] = []

    def refuse_existing(self, *, overwrite: bool) -> None:
        """Refuse volumes that exist: nothing that libvirt owns is replaced.  Raises TargetError."""
        with libvirt_errors(f"The volumes of pool {self._pool.name} could not be listed"):
            pool = self._host.connection.storagePoolLookupByName(self._pool.name)
            taken = {volume.name() for volume in pool.listAllVolumes()}
        names = [Path(disk.final_path).name for disk in self.disks]
        for name in names:
            if name in taken:
                raise TargetError(
                    f"Pool {self._pool.name} has a volume {name} already.",
                    remedy="Give the machine another name, or delete that volume.",
                )
        self._report.report(
            "targets", {"parts": [], "finals": [], "pool": self._pool.name, "volumes": names}
        )

    def close(self, disk: TargetDisk) -> None:
        """Make the volume and send it the copy, which is removed then.

        Raises TargetError, also when the volume is not what was sent.
        """
        source = Path(disk.part_path)
        name = Path(disk.final_path).name
        size = source.stat().st_size
        self._report.log(Level.INFO, f"Uploading {name} ({human(size)}) to pool {self._pool.name}.")
        sparse = self._target.allocation == "sparse"
        with libvirt_errors(f"Volume {name} could not be uploaded"):
            pool = self._host.connection.storagePoolLookupByName(self._pool.name)
            self._notes.add(thing="volume", name=name, pool=self._pool.name)
            volume = pool.createXML(volume_xml(disk, preallocated=not sparse))
            self._made.append(name)
            upload(volume, source, sparse=sparse)
            if self.verify == "quick":
                _check_size(volume, disk, size)
            elif self.verify == "full":
                compare(volume, source, sparse=sparse)
        if self.verify != "none":
            self._report.log(Level.INFO, f"Volume {name}: {self.verify} check passed.")
        source.unlink()

    def commit(self) -> None:
        """Show the volumes to libvirt and define the domain.  Raises TargetError."""
        self._refresh()
        self._notes.add(machine=etree.fromstring(self.xml.encode()).findtext("name", ""))
        super().commit()
        self._notes.forget()
        created = [{"path": f"{self._pool.name}/{name}", "bytes": 0} for name in self._made]
        self._report.report("files", {"created": created, "removed": []})

    def remove(self) -> None:
        """Delete the volumes."""
        removed = []
        for name in self._made:
            try:
                pool = self._host.connection.storagePoolLookupByName(self._pool.name)
                pool.storageVolLookupByName(name).delete()
            except libvirt.libvirtError as error:
                self._report.log(Level.WARNING, f"Volume {name} could not be removed: {error}.")
            else:
                removed.append(f"{self._pool.name}/{name}")
                self._report.log(Level.INFO, f"Removed: volume {name}")
        self._report.report("files", {"created": [], "removed": removed})


@contextmanager
def remover(target: Target, noted: Sequence[Note], report: Reporter) -> Iterator[Remove]:
    """Connect, and give what deletes a volume that a killed run noted.

    Once its machine is defined they are its result, and stay.  Raises TargetError.
    """
    host = LibvirtHost(target.uri)
    connection = host.connection

    def remove(note: Note) -> str | None:
        name = str(note["name"])
        with libvirt_errors(f"Volume {name} could not be removed"):
            pool = connection.storagePoolLookupByName(note["pool"])
            if name not in {volume.name() for volume in pool.listAllVolumes()}:
                return None
            pool.storageVolLookupByName(name).delete()
        return f"{note['pool']}/{name}"

    try:
        refuse_other_place(noted, host.uri)
        with libvirt_errors(f"The machines on {host.uri} could not be listed"):
            domains = {domain.name() for domain in connection.listAllDomains()}
        if defined := [note["machine"] for note in noted if note.get("machine") in domains]:
            report.log(Level.INFO, f"{defined[0]} was defined on {host.uri}; it stays.")
        yield remove if not defined else lambda _note: None
    finally:
        host.close()


def _check_size(volume: libvirt.virStorageVol, disk: TargetDisk, sent: int) -> None:
    """See that a volume has room for the disk and holds as many bytes as were sent.

    More cannot be known without reading it back.  Raises TargetError, libvirtError.
    """
    _type, capacity, _allocation = volume.info()
    _type, _capacity, size = volume.infoFlags(libvirt.VIR_STORAGE_VOL_GET_PHYSICAL)
    wanted = disk.overlay.virtual_size_bytes
    if capacity != wanted or size < sent:
        raise TargetError(
            f"Volume {volume.name()} is not what was sent: {size} bytes of {sent}, for a disk of "
            f"{capacity} bytes where {wanted} were expected.",
            remedy="Look at the storage of the target for faults, then copy again.",
            code="E-VERIFY",
        )


def volume_xml(disk: TargetDisk, *, preallocated: bool) -> str:
    """Return libvirt's description of a volume to be made."""
    volume = etree.Element("volume")
    etree.SubElement(volume, "name").text = Path(disk.final_path).name
    size = str(disk.overlay.virtual_size_bytes)
    etree.SubElement(volume, "capacity", unit="bytes").text = size
    etree.SubElement(volume, "allocation", unit="bytes").text = size if preallocated else "0"
    target = etree.SubElement(volume, "target")
    etree.SubElement(target, "format", type=disk.format)
    text: str = etree.tostring(volume, encoding="unicode")
    return text
