"""Describe a place for results as one line of JSON; runs as a program of its own.

A connection, or a folder on a network file system, can hang; a program can be given up and killed.
It reads a Target as one line of JSON from standard input, where nobody else sees its secrets.

The answer is {"problem", "free_bytes", "storages": [{"name", "path", "free_bytes", "problem"}],
"networks", "bridges", "is_local"}; a kind of place leaves out what it has none of.  Ends with 1 and
{"code", "message", "remedy"} when it cannot tell.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from conversions.pipeline.errors import ConversionError
from conversions.pipeline.job import Target

# Loaded when wanted: each needs a library of its own.
_MODULES = {
    "libvirt": "describe_libvirt",
    "openstack": "describe_openstack",
    "ovirt-upload": "describe_ovirt",
}


def describe(target: Target) -> dict[str, Any]:
    """Return what there is at the place of a target.  Raises JobError, TargetError, OSError."""
    if target.kind not in _MODULES:
        return describe_folder(Path(target.directory))
    module = import_module(f"conversions.pipeline.outputs.{_MODULES[target.kind]}")
    found: dict[str, Any] = module.describe(target)
    return found


def describe_folder(path: Path) -> dict[str, Any]:
    """Return how much is free there, and what stops this user from writing into it."""
    problem = ""
    if not path.is_dir():
        return {"free_bytes": None, "problem": f"{path} is no folder on this server."}
    if not os.access(path, os.W_OK | os.X_OK):
        problem = f"The user that runs v2vweb may not write into {path}."
    return {"free_bytes": shutil.disk_usage(path).free, "problem": problem}


def main() -> int:
    """Read the target and print the line."""
    target = Target.from_dict(json.loads(sys.stdin.readline()))
    try:
        found = describe(target)
    except ConversionError as error:
        return _say({"code": error.code, "message": error.message, "remedy": error.remedy}, 1)
    except OSError as error:
        message = f"{target.place} cannot be read: {error}."
        return _say({"code": "", "message": message, "remedy": ""}, 1)
    return _say(found, 0)


def _say(answer: dict[str, Any], code: int) -> int:
    sys.stdout.write(json.dumps(answer) + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
