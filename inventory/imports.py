"""The import folder: which entries are offered, and what kind of source each is."""

from __future__ import annotations

from pathlib import Path

from django.conf import settings
from django.utils.translation import gettext as _

from inventory.sources.tar import storable

DISK_SUFFIXES = (".qcow2", ".raw", ".img", ".vmdk", ".vdi", ".vhdx", ".vhd")
VMX_SUFFIX = ".vmx"
_SUFFIXES = (".ova", ".ovf", VMX_SUFFIX, *DISK_SUFFIXES)


def offered() -> list[Path]:
    """Return the entries that may be a machine: files by their names, and folders.

    And links out of the folder, into which nothing looks; see problem_of().
    """
    top = Path(settings.IMPORT_DIR)
    if not top.is_dir():
        return []
    return [
        path
        for path in sorted(top.iterdir())
        if _leads_out(path)
        or (path.exists() and (path.is_dir() or path.name.lower().endswith(_SUFFIXES)))
    ]


def problem_of(entry: Path) -> str:
    """Return why an entry that is offered cannot be registered as it is, "" when it can."""
    if _leads_out(entry):
        return _("This is a link out of the import folder. Move what it leads to here.")
    if storable(entry.name) != entry.name:
        return _("The name is not in UTF-8. Rename it, then it can be registered.")
    return ""


def _leads_out(entry: Path) -> bool:
    return not entry.resolve().is_relative_to(Path(settings.IMPORT_DIR).resolve())


def kind_of(path: Path) -> tuple[str, Path]:
    """Return the kind of source an entry is for the engine, and where that begins.

    A file is told by its name.  A folder is an unpacked OVA unless it holds one VMX file and no
    descriptor: then it is a machine copied from VMware as it stood there.
    """
    if path.is_dir():
        found = [p for p in sorted(path.iterdir()) if p.is_file() and not p.name.startswith(".")]
        machines = [p for p in found if p.suffix.lower() == VMX_SUFFIX]
        if len(machines) == 1 and not any(p.suffix.lower() == ".ovf" for p in found):
            return "vmx", machines[0]
        return "ova", path
    if path.suffix.lower() == VMX_SUFFIX:
        return "vmx", path
    return ("disk" if path.suffix.lower() in DISK_SUFFIXES else "ova"), path
