"""Secrets on their way to the engine: kept apart from the job, and sealed."""

from __future__ import annotations

from typing import Any

from conversions.pipeline.errors import JobError
from conversions.pipeline.job import Job
from inventory.sealing import seal, unseal


def take_secrets(job: Job) -> tuple[dict[str, Any], str]:
    """Split a job into JSON values that anyone may read, and its secrets, sealed; "" for none."""
    values = job.to_dict()
    secrets = {"keys": values.pop("keys")}
    secrets["source_password"] = values["source"].pop("password")
    secrets["root_password_hash"] = values["customize"].pop("root_password_hash")
    secrets["target"] = values["target"].pop("secrets") if values["target"] else {}
    return values, seal(secrets) if any(secrets.values()) else ""


def with_secrets(values: dict[str, Any], sealed: str) -> Job:
    """Return the job that `take_secrets` split.  Raises JobError.

    A target that comes with secrets, as one that was reached anew, keeps them.
    """
    if not sealed:
        return Job.from_dict(values)
    try:
        secrets = unseal(sealed)
    except ValueError as error:
        raise JobError(
            f"The passwords and passphrases of this run cannot be read: {error}",
            remedy="Convert the machine anew from its page, and type them again.",
        ) from error
    customize = values.get("customize", {})
    customize = {**customize, "root_password_hash": secrets["root_password_hash"]}
    # Jobs of before knew no password of the source.
    source = {**values["source"], "password": secrets.get("source_password", "")}
    target = values.get("target")
    if target is not None:  # jobs of before knew no secrets of a target either
        target = {"secrets": secrets.get("target", {}), **target}
    return Job.from_dict(
        {**values, "source": source, "target": target, "keys": secrets["keys"],
         "customize": customize}
    )  # fmt: skip
