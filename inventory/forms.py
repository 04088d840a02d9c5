"""The form of a libvirt host; every rule about it lives here."""

from __future__ import annotations

from django import forms
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from inventory.models import LibvirtHost
from inventory.sources.errors import SourceError
from inventory.sources.uris import MAX_CHARACTERS, checked_uri

_PLAIN = {"autocomplete": "off", "autocapitalize": "off", "spellcheck": "false"}


class HostForm(forms.Form):
    """A host to be tested or added."""

    uri = forms.CharField(
        label=gettext_lazy("Address"),
        max_length=MAX_CHARACTERS,
        help_text=gettext_lazy(
            "As libvirt writes it: qemu:///system for this machine, qemu+ssh://user@host/system "
            "for another one. The user that runs the workers needs a key that the host accepts, "
            "and must know the host's own. Machines whose disks lie on this server, or on storage "
            "it shares, can be converted."
        ),
        widget=forms.TextInput(attrs={**_PLAIN, "placeholder": "qemu+ssh://root@kvm1/system"}),
    )
    name = forms.CharField(
        label=gettext_lazy("Name"),
        max_length=100,
        help_text=gettext_lazy("What it is called on these pages."),
        widget=forms.TextInput(attrs=_PLAIN),
    )

    def clean_uri(self) -> str:
        """Let only addresses pass that run no program and read no file, each once."""
        uri: str = self.cleaned_data["uri"]
        try:
            checked_uri(uri)
        except SourceError as error:
            raise forms.ValidationError(f"{error.message} {error.remedy}") from error
        known = LibvirtHost.objects.filter(uri=uri).first()
        if known is not None:
            raise forms.ValidationError(
                _("%(uri)s is in the inventory already, as %(name)s.")
                % {"uri": uri, "name": known.name}
            )
        return uri

    def clean_name(self) -> str:
        """Refuse a name that another host has."""
        name: str = self.cleaned_data["name"]
        if LibvirtHost.objects.filter(name=name).exists():
            raise forms.ValidationError(_("Another host is called that; choose another name."))
        return name
