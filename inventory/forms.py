"""The form of a host; every rule about it lives here."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

from django import forms
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from inventory.models import LibvirtHost
from inventory.sealing import SealedField
from inventory.sources.certificates import plain_thumbprint
from inventory.sources.errors import SourceError
from inventory.sources.host_access import OVER_SSH, VMWARE, HostAccess, checked_address, scheme_of
from inventory.sources.uris import MAX_CHARACTERS
from inventory.vddk import vddk_names

_PLAIN = {"autocomplete": "off", "autocapitalize": "off", "spellcheck": "false"}
# Ways that ask for a password; over ssh itself nobody is there to type one.
_WITH_PASSWORD = (*VMWARE, "xen+ssh")
_WAYS_WITH_PASSWORD = ("tls", "libssh", "libssh2")
_SHA1_DIGITS = 40


def takes_password(scheme: str) -> bool:
    """Tell whether hosts of such addresses can be given a password."""
    return scheme in _WITH_PASSWORD or scheme.partition("+")[2] in _WAYS_WITH_PASSWORD


class HostForm(forms.Form):
    """A host to be tested and added, or changed."""

    uri = forms.CharField(
        label=gettext_lazy("Address"),
        max_length=MAX_CHARACTERS,
        help_text=gettext_lazy(
            "As libvirt writes it: qemu:///system for this machine, qemu+ssh://user@host/system "
            "or xen+ssh://root@host/ for another one, esx://root@host/ for an ESXi host, "
            "vpx://user@vcenter/Datacenter/host for a host of a vCenter. Or VMX files that ssh "
            "leads to: ssh://root@host/vmfs/volumes/datastore, or the file of one machine. Over "
            "ssh the user that runs the workers needs a key that the host accepts, and must know "
            "the host's own, and reads the disks there as the user of the address. Disks of "
            "qemu+tls:// must lie on storage that this server shares."
        ),
        widget=forms.TextInput(attrs={**_PLAIN, "placeholder": "qemu+ssh://root@kvm1/system"}),
    )
    name = forms.CharField(
        label=gettext_lazy("Name"),
        max_length=100,
        help_text=gettext_lazy("What it is called on these pages."),
        widget=forms.TextInput(attrs=_PLAIN),
    )
    shares_disks = forms.BooleanField(
        label=gettext_lazy("This server has the disks of the host too, under the same paths"),
        required=False,
        help_text=gettext_lazy(
            "For qemu+ssh:// with storage that both share: disks are then opened here, which is "
            "faster, and they can be converted in place. Otherwise they are read over ssh."
        ),
        widget=forms.CheckboxInput(attrs={"class": "pf-v6-c-check__input"}),
    )
    password = SealedField(label=gettext_lazy("Password"), max_length=512)
    thumbprint = forms.CharField(
        label=gettext_lazy("Thumbprint of its certificate"),
        max_length=95,
        required=False,
        help_text=gettext_lazy(
            "SHA-1 or SHA-256, as the server itself shows it. Then this certificate counts, and "
            "not who signed it. Empty: it must be signed by somebody whom this server trusts."
        ),
        widget=forms.TextInput(attrs=_PLAIN),
    )
    transport = forms.ChoiceField(
        label=gettext_lazy("Disks are read over"),
        choices=LibvirtHost.Transport.choices,
        required=False,
    )
    vddk_folder = forms.ChoiceField(label=gettext_lazy("VDDK"), required=False)
    vmware_names = ("thumbprint", "transport", "vddk_folder")

    def __init__(self, data: Any = None, *, host: LibvirtHost | None = None) -> None:
        self.host = host
        known = {} if host is None else {name: getattr(host, name) for name in self.own_names()}
        super().__init__(data, initial=known)
        kept = gettext_lazy(
            "One is kept, and shown nowhere. Empty leaves it, unless the address or the thumbprint "
            "become others: it is sent to no place that it was not typed for."
        )
        needed = gettext_lazy(
            "For esx:// and vpx://, where it is needed, and if the host asks for one, for xen+ssh, "
            "qemu+tls and qemu+libssh2. It is kept sealed, and shown nowhere."
        )
        has_one = host is not None and bool(host.sealed_password)
        self.fields["password"].help_text = kept if has_one else needed
        self.fields["password"].widget.attrs["autocomplete"] = "new-password"
        folder: Any = self.fields["vddk_folder"]
        found = [(name, name) for name in vddk_names()]
        folder.choices = [("", _("As installed on this server")), *found]
        folder.help_text = _(
            "Only with VDDK: what was unpacked into the folder of V2VWEB_VDDK; %(count)d found."
        ) % {"count": len(found)}

    @classmethod
    def own_names(cls) -> tuple[str, ...]:
        """Return the fields that the model has under the same name."""
        return ("uri", "name", "shares_disks", *cls.vmware_names)

    @property
    def plain_fields(self) -> list[forms.BoundField]:
        """The fields of every host."""
        return [self[name] for name in self.fields if name not in self.vmware_names]

    @property
    def vmware_fields(self) -> list[forms.BoundField]:
        """The fields of VMware's hosts alone."""
        return [self[name] for name in self.vmware_names]

    @property
    def is_vmware(self) -> bool:
        """Tell whether the address is one of VMware's, or something only for them is given."""
        given = self["thumbprint"].value() or self["transport"].value() == "vddk"
        return scheme_of(str(self["uri"].value() or "")) in VMWARE or bool(given)

    def clean_uri(self) -> str:
        """Let only addresses pass that run no program and read no file, each once."""
        uri: str = self.cleaned_data["uri"]
        try:
            checked_address(uri)
        except SourceError as error:
            raise forms.ValidationError(f"{error.message} {error.remedy}") from error
        known = self._others().filter(uri=uri).first()
        if known is not None:
            raise forms.ValidationError(
                _("%(uri)s is in the inventory already, as %(name)s.")
                % {"uri": uri, "name": known.name}
            )
        parts = urlsplit(uri)
        if parts.scheme in VMWARE and not parts.username:
            raise forms.ValidationError(_("Put the user into the address, as in esx://root@host/."))
        if parts.scheme in VMWARE and parse_qs(parts.query).get("transport") == ["http"]:
            raise forms.ValidationError(
                _("Over http everybody on the way could read the password. Leave transport= out.")
            )
        return uri

    def clean_name(self) -> str:
        """Refuse a name that another host has."""
        name: str = self.cleaned_data["name"]
        if self._others().filter(name=name).exists():
            raise forms.ValidationError(_("Another host is called that; choose another name."))
        return name

    def clean_thumbprint(self) -> str:
        """Write it as VMware does: pairs of digits between colons."""
        text: str = self.cleaned_data["thumbprint"]
        if not text:
            return ""
        try:
            plain = plain_thumbprint(text).upper()
        except SourceError as error:
            raise forms.ValidationError(f"{error.message} {error.remedy}") from error
        return ":".join(plain[at : at + 2] for at in range(0, len(plain), 2))

    def clean_transport(self) -> str:
        """Take https when nothing was chosen."""
        return self.cleaned_data["transport"] or LibvirtHost.Transport.HTTPS

    def clean(self) -> dict[str, Any]:
        """Check what concerns several fields."""
        values = super().clean() or {}
        if "uri" not in values:
            return values
        scheme = scheme_of(values["uri"])
        is_vddk = values.get("transport") == LibvirtHost.Transport.VDDK
        if values.get("password") and not takes_password(scheme):
            self.add_error(
                "password",
                _(
                    "Hosts at %(scheme)s:// take no password from here; over ssh a key is needed. "
                    "Leave it empty."
                )
                % {"scheme": scheme},
            )
        if values.get("shares_disks") and scheme not in OVER_SSH:
            self.add_error(
                "shares_disks",
                _("Only for qemu+ssh:// and the like. Untick it."),
            )
        if scheme not in VMWARE:
            only = _("Only for ESXi hosts and vCenters. Leave it as it was.")
            for name, given in (("thumbprint", values.get("thumbprint")), ("transport", is_vddk)):
                if given:
                    self.add_error(name, only)
        elif not values.get("password") and not self._keeps(values):
            self.add_error("password", _("This host is read with a password. Type it."))
        if values.get("vddk_folder") and not is_vddk:
            self.add_error("vddk_folder", _("Only with VDDK. Choose it above, or leave this."))
        digits = len(values.get("thumbprint", "").replace(":", ""))
        if is_vddk and digits > _SHA1_DIGITS:
            self.add_error("thumbprint", _("VDDK takes the SHA-1 thumbprint, of 40 digits."))
        return values

    def _others(self) -> Any:
        others = LibvirtHost.objects.all()
        return others if self.host is None else others.exclude(pk=self.host.pk)

    def _keeps(self, values: dict[str, Any]) -> bool:
        """Tell whether the password that is known may be used: where it was typed for."""
        if self.host is None or not self.host.sealed_password:
            return False
        before = (self.host.uri, self.host.thumbprint)
        return before == (values.get("uri"), values.get("thumbprint"))

    def values(self) -> dict[str, Any]:
        """Return the fields of the model.  Call when valid."""
        return {name: self.cleaned_data[name] for name in self.own_names()}

    def new_password(self) -> str | None:
        """Return the password from now on, "" for none, or None for the one that is kept."""
        typed: str = self.cleaned_data["password"]
        return None if not typed and self._keeps(self.cleaned_data) else typed

    def access(self) -> HostAccess:
        """Return how the host is reached.  Call when valid.  Raises SourceError."""
        password = self.new_password()
        if password is None and self.host is not None:
            password = self.host.access().password
        values = self.cleaned_data
        return HostAccess(
            uri=values["uri"], password=password or "", thumbprint=values["thumbprint"]
        )
