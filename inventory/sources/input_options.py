"""The words for sources on other hosts: how they are reached, and the keys of -io."""

TRANSPORTS = ("ssh", "vddk")
HTTPS_OPTIONS = ("https-thumbprint",)
SSH_OPTIONS = ("ssh-identity", "ssh-known-hosts")
# Parameters of nbdkit's vddk plugin, in the order they are given to it.
VDDK_BEFORE = ("compression", "config", "cookie", "libdir", "nfchostport", "port", "snapshot")
VDDK_AFTER = ("transports",)
VDDK_OPTIONS = tuple(f"vddk-{name}" for name in (*VDDK_BEFORE, "thumbprint", *VDDK_AFTER, "file"))
