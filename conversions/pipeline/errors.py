"""What can go wrong in a conversion, as one small tree.

Every error carries a stable `code`, a `message` for the person at the page and a `remedy`, the next
move.  Anything else that escapes a step is a defect of ours and is reported as E-INTERNAL.
"""

from __future__ import annotations


class ConversionError(Exception):
    """A step cannot go on; the source is unchanged."""

    code = "E-CONVERSION"

    def __init__(self, message: str, *, remedy: str = "", code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        if code:
            self.code = code


class JobError(ConversionError):
    """The job or the command line contradicts itself."""

    code = "E-JOB"


class HostError(ConversionError):
    """This host lacks a program, space or a permission."""

    code = "E-HOST"


class ApplianceError(ConversionError):
    """The appliance did not start, did not answer or did not shut down."""

    code = "E-APPLIANCE"


class InspectionError(ConversionError):
    """No operating system, several without a choice, or one that cannot be opened."""

    code = "E-INSPECTION"


class GuestError(ConversionError):
    """Something inside the guest stops the conversion: space, bootloader, kernel, initramfs."""

    code = "E-GUEST"


class CommandError(ConversionError):
    """A program failed; the message names it, its exit status and its last words."""

    code = "E-COMMAND"


class TargetError(ConversionError):
    """The target cannot take the result."""

    code = "E-TARGET"


# Of a target whose server refuses the user or the password: asking again may lock the account.
SIGN_IN_REFUSED = "E-TARGET-AUTH"


class Stopped(ConversionError):  # noqa: N818  a stop is asked for, it is not an error
    """A person or the host asked for the stop."""

    code = "E-STOPPED"
