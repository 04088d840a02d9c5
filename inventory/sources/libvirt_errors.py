"""Why there is no connection to a libvirt host, in words for the person at the page."""

from __future__ import annotations

import hashlib
import re
import ssl
from urllib.parse import unquote, urlsplit

import libvirt

from inventory.sources.certificates import shown_certificate
from inventory.sources.host_access import VMWARE, scheme_of
from inventory.sources.ssh_errors import SSH_CAUSES, Reason

_REFUSED = (libvirt.VIR_ERR_AUTH_FAILED, libvirt.VIR_ERR_AUTH_CANCELLED)
_MISSING = (libvirt.VIR_ERR_CONFIG_UNSUPPORTED, libvirt.VIR_ERR_NO_SUPPORT)


# What libvirt says, since its error codes do not tell these apart.
_CAUSES = (
    (
        # The fault that follows is in the server's language.
        re.compile(r"call to 'Login'"),
        Reason(
            code="E-LV-AUTH",
            message="{host} refuses the user {user} or the password: {error}.",
            remedy="Check both by signing in to its own web page. After some wrong passwords "
            "VMware locks an account for a quarter of an hour.",
        ),
    ),
    (
        re.compile(r"Could not find (datacenter|compute|host system)|specify (a|the) (data|comp)"),
        Reason(
            code="E-LV-VPX-PATH",
            message="{host} answers, but has nothing at the path of {uri}: {error}.",
            remedy="Write vpx://user@vcenter/Datacenter/host, or .../Datacenter/cluster/host for a "
            "host of a cluster, with the folders before the datacenter if there are any, as the "
            "vSphere client shows the names; a blank is %20.",
        ),
    ),
    (
        re.compile(r"host but found a|server but found|but found (an? )?(ESX|vCenter|VPX)"),
        Reason(
            code="E-LV-VPX-OR-ESX",
            message="{host} is not what its address says: {error}.",
            remedy="esx:// is for an ESXi host, vpx:// for a vCenter.",
        ),
    ),
    *SSH_CAUSES,
)
_CERTIFICATE = re.compile(r"SSL peer certificate|\((51|60)\)")


def why_no_connection(uri: str, error: libvirt.libvirtError) -> Reason:
    """Return why a checked address gives no connection.

    Asks VMware's servers for their certificate when that is what is wrong.
    """
    parts = urlsplit(uri)
    words = {
        "uri": uri,
        "host": parts.hostname or "This machine",
        "user": unquote(parts.username or "") or "(none)",
        "error": str(error),
    }
    reason = _reason(uri, error)
    return Reason(
        code=reason.code,
        message=reason.message.format(**words),
        remedy=reason.remedy,
    )


def _reason(uri: str, error: libvirt.libvirtError) -> Reason:
    text = str(error)
    if scheme_of(uri) in VMWARE and _CERTIFICATE.search(text):
        return _unknown_certificate(uri)
    for pattern, reason in _CAUSES:
        if pattern.search(text):
            return reason
    if error.get_error_code() in _REFUSED:
        return Reason(
            code="E-LV-AUTH",
            message="{host} refuses the user {user} or the password: {error}.",
            remedy="Check both; the user is part of the address.",
        )
    if error.get_error_code() in _MISSING:
        return Reason(
            code="E-LV-DRIVER",
            message="libvirt on this machine cannot speak with {uri}: {error}.",
            remedy="Install a libvirt that has the driver, on every machine that runs workers.",
        )
    return Reason(
        code="E-LV-CONNECT",
        message="There is no connection to {uri}: {error}.",
        remedy="Check that libvirt runs there, and that this user may connect to it."
        if scheme_of(uri) not in VMWARE
        else "Check the name of the server and that its port answers.",
    )


def _unknown_certificate(uri: str) -> Reason:
    """Return what to compare: the thumbprint that the server shows now."""
    parts = urlsplit(uri)
    shown = ""
    try:
        pem = shown_certificate(parts.hostname or "", parts.port or 443)
        digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest().upper()
        shown = f"; its SHA-256 thumbprint is {':'.join(re.findall('..', digest))}"
    except OSError:
        pass
    return Reason(
        code="E-LV-CERTIFICATE",
        message=f"The certificate of {{host}} is signed by nobody that this machine trusts{shown}.",
        remedy="Compare it on the server itself and give it as the thumbprint, or have this "
        "machine trust who signed it.",
    )
