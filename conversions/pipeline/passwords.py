"""Passwords on their way into a guest, which nobody can read back."""

from __future__ import annotations

import subprocess

from conversions.pipeline.errors import HostError, JobError


def crypted(password: str) -> str:
    """Return a password in the form of crypt(3), SHA-512 with a random salt.

    openssl makes it, for Python's own module of that name is on its way out; the password travels
    on its standard input, where no list of processes shows it.  Raises JobError, HostError.
    """
    if not password or "\n" in password or "\0" in password:
        raise JobError("A password needs at least one character and no line break.")
    try:
        done = subprocess.run(
            ["openssl", "passwd", "-6", "-stdin"],
            input=password, capture_output=True, text=True, check=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError) as error:
        raise HostError("The program openssl, which is needed for passwords, fails.") from error
    return done.stdout.strip()
