"""What VMware leaves beside the VMX file of a machine that runs or is suspended."""

from __future__ import annotations

from collections.abc import Mapping

from inventory.sources.power import Power


def power_beside(vmx_name: str, sizes: Mapping[str, int]) -> tuple[Power, str]:
    """Return what the files in the folder of a VMX file say, and the one that says it or "".

    `sizes` has their bytes by name.  Locks are files on ESXi and folders elsewhere; memory is kept
    while a machine runs or is suspended, an empty .vmss remains of one that went on.
    """
    stem = vmx_name.rpartition(".")[0]
    own = sorted(name for name in sizes if name.startswith((f"{stem}.", f"{stem}-")))
    for name in own:
        if name.endswith(".lck"):
            return Power.RUNNING, name
    for name in own:
        if name.endswith(".vmem") or (name.endswith(".vmss") and sizes[name] > 0):
            return Power.SUSPENDED, name
    return Power.SHUT_OFF, ""
