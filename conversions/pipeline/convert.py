"""Which converter suits a guest."""

from __future__ import annotations

from dataclasses import asdict
from typing import Protocol

from conversions.pipeline.appliance import GuestFS
from conversions.pipeline.errors import GuestError
from conversions.pipeline.guestcaps import emulated_guestcaps
from conversions.pipeline.linux.convert import DebianConverter
from conversions.pipeline.report import Level, Reporter
from conversions.pipeline.types import Guestcaps, Inspection
from inventory.sources.types import Source

DEBIAN_FAMILY = ("debian", "ubuntu", "linuxmint", "kalilinux")


class Converter(Protocol):
    """Changes a mounted guest so that it runs on KVM, and tells what it can do there."""

    def convert(
        self, g: GuestFS, guest: Inspection, source: Source, report: Reporter, *, change: bool
    ) -> Guestcaps:
        """Convert the guest; with `change` false only look, and say what would be.

        Raises GuestError.
        """
        ...


def is_supported(guest: Inspection) -> bool:
    """Tell whether there is a converter for the guest."""
    return guest.type == "linux" and guest.distro in DEBIAN_FAMILY


def pick_converter(guest: Inspection) -> Converter:
    """Return the converter for the guest; for a guest without one, one that refuses to change."""
    return DebianConverter() if is_supported(guest) else NoConverter()


class NoConverter:
    """Stands for what cannot be converted: an inspection still gets its report."""

    def convert(
        self, g: GuestFS, guest: Inspection, source: Source, report: Reporter, *, change: bool
    ) -> Guestcaps:
        """Refuse with `change`; else say what hardware would surely work.  Raises GuestError."""
        message = f"{guest.product_name} ({guest.type}, {guest.distro}) cannot be converted yet."
        if change:
            raise GuestError(
                message,
                remedy="Debian and Ubuntu guests can. The report shows what was found inside.",
                code="E-GUEST-UNSUPPORTED",
            )
        report.log(Level.WARNING, message)
        caps = emulated_guestcaps(guest.arch, message)
        report.report("guestcaps", asdict(caps))
        return caps
