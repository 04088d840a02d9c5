"""What libguestfs says when a file of the guest cannot be read or changed, in a person's words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from conversions.pipeline.errors import GuestError


@contextmanager
def naming(path: str, done: str) -> Iterator[None]:
    """Turn errors of libguestfs into one that names the guest's file.  Raises GuestError."""
    try:
        yield
    except RuntimeError as error:
        raise GuestError(
            f"{path} of the guest could not be {done}: {error}.",
            remedy="In the guest on its source, see that the filesystem has room and is not "
            "damaged, and that the file is not protected (lsattr); then export it again.",
            code="E-GUEST-FILE",
        ) from error
