"""Which converter suits a guest."""

from __future__ import annotations

from dataclasses import asdict
from typing import Protocol

from conversions.pipeline.context import Context
from conversions.pipeline.errors import GuestError
from conversions.pipeline.guestcaps import emulated_guestcaps
from conversions.pipeline.linux.convert import LinuxConverter
from conversions.pipeline.linux.families import family_of
from conversions.pipeline.report import Level
from conversions.pipeline.types import Guestcaps, Inspection
from conversions.pipeline.windows.convert import WindowsConverter


class Converter(Protocol):
    """Changes a mounted guest so that it runs on KVM, and tells what it can do there."""

    def convert(self, c: Context) -> Guestcaps:
        """Convert the guest; with `c.change` false only look, and say what would be.

        Raises GuestError.
        """
        ...


def is_supported(guest: Inspection) -> bool:
    """Tell whether there is a converter for the guest."""
    return guest.type == "windows" or family_of(guest) is not None


def pick_converter(guest: Inspection) -> Converter:
    """Return the converter for the guest; for a guest without one, one that refuses to change."""
    if guest.type == "windows":
        return WindowsConverter()
    return LinuxConverter() if is_supported(guest) else NoConverter()


class NoConverter:
    """Stands for what cannot be converted: an inspection still gets its report."""

    def convert(self, c: Context) -> Guestcaps:
        """Refuse with `c.change`; else say what hardware would surely work.  Raises GuestError."""
        guest = c.guest
        message = (
            f"{guest.product_name} (type {guest.type}, distribution {guest.distro}, packages "
            f"{guest.package_format}) cannot be converted yet."
        )
        if c.change:
            raise GuestError(
                message,
                remedy="Linux guests with rpm, deb or pacman packages can. The report shows what "
                "was found inside.",
                code="E-GUEST-UNSUPPORTED",
            )
        c.report.log(Level.WARNING, message)
        caps = emulated_guestcaps(guest.arch, message)
        c.report.report("guestcaps", asdict(caps))
        return caps
