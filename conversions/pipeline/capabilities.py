"""What --machine-readable tells other programs: a word a line for everything this one can do.

The words are virt-v2v's where the thing is the same, so that scripts find it; ours follow them.
Source: the section "Machine readable output" of virt-v2v(1).
"""

from __future__ import annotations

from conversions.pipeline.output_kinds import KINDS
from inventory.sources.input_options import TRANSPORTS

_OPTIONS = (
    "libguestfs-rewrite", "vcenter-https", "xen-ssh", "vddk", "vdsm-compat-option", "io/oo",
    "mac-option", "mac-ip-option", "parallel-option", "block-driver-option", "collect-option",
)  # fmt: skip
_INPUTS = ("disk", "libvirt", "libvirtxml", "ova", "vmx")
_OURS = ("in-place", "output-xml-option")


def capabilities() -> str:
    """Return the list, a word a line; every name of an output is in it, other names too."""
    outputs = sorted({name for kind in KINDS.values() for name in (kind.name, *kind.aliases)})
    return "\n".join(
        (
            "v2vweb",
            "virt-v2v-2.0",
            *_OPTIONS,
            *(f"input:{name}" for name in _INPUTS),
            *(f"output:{name}" for name in outputs),
            "convert:linux",
            "convert:windows",
            "ovf:ovirt",
            "ovf:ovirtexp",
            *_OURS,
            *(f"input-transport:{name}" for name in ("https", *TRANSPORTS)),
        )
    )
