"""Which converter suits a guest."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Protocol

from conversions.pipeline.context import Context
from conversions.pipeline.errors import GuestError
from conversions.pipeline.guestcaps import (
    emulated_guestcaps,
    expected_guestcaps,
    machine_for,
    target_arch,
)
from conversions.pipeline.linux.convert import LinuxConverter
from conversions.pipeline.linux.families import family_of
from conversions.pipeline.report import Level
from conversions.pipeline.types import Guestcaps, Inspection
from conversions.pipeline.windows.convert import WindowsConverter
from conversions.pipeline.windows.guestcaps import machine_for_windows


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


def likely_guestcaps(guest: Inspection) -> Guestcaps:
    """Return what a guest can do when nothing is in the way, on the machine that it will get."""
    machine = (
        machine_for_windows(guest.osinfo, guest.major_version, guest.arch)
        if guest.type == "windows"
        else machine_for(guest.distro, guest.major_version, guest.arch)
    )
    return replace(expected_guestcaps(), machine=machine, arch=target_arch(guest.arch))


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
