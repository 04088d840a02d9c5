"""The parts of a target's form for servers that ask for a password: OpenStack and oVirt."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from django import forms
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from conversions.models import OutputTarget
from conversions.target_parts import Part
from inventory.sealing import SealedField, seal

_SECRET_KEPT = gettext_lazy(
    "What is kept is shown nowhere. Empty leaves it, unless the address, the user or what is "
    "trusted become others: it is sent to no place that it was not typed for."
)
_VERIFY_HELP = gettext_lazy("Off: whoever answers at the address is given the password.")


def check_https(address: str) -> None:
    """Refuse what is no plain address of an https server.  Raises ValidationError."""
    try:
        parts = urlsplit(address)
        host, _port = parts.hostname, parts.port
    except ValueError as error:
        raise forms.ValidationError(_("This is no address: %s.") % error) from error
    if parts.scheme == "http":
        raise forms.ValidationError(
            _("Over http everybody on the way could read the password. Write https://.")
        )
    if parts.username is not None:
        raise forms.ValidationError(
            _("Leave user and password out of the address; there are fields for them.")
        )
    # Braces would be filled in by a client library, from its own settings.
    if parts.scheme != "https" or not host or re.search(r"[?#{}\\]|[^!-~]", address):
        raise forms.ValidationError(
            _("Write it as https://HOST:PORT/PATH, without spaces and with nothing after the path.")
        )


def check_file(path: str) -> None:
    """Refuse what is no file on this server.  Raises ValidationError."""
    if "\0" in path or not Path(path).is_absolute() or not Path(path).is_file():
        raise forms.ValidationError(_("There is no such file on this server."))


class SignInPart(Part):
    """A server that asks for what the field `password` holds, which is kept sealed."""

    # What says who is given the password: with another value it has to be typed again.
    trusted: tuple[str, ...]

    def __init__(self, data: Any = None, *, target: OutputTarget, is_look: bool = False) -> None:
        super().__init__(data, target=target, is_look=is_look)
        self.has_kept = target.kind in self.kinds and bool(target.sealed_secrets)
        self.fields["password"].widget.attrs["autocomplete"] = "new-password"
        if self.has_kept:
            self.fields["password"].help_text = _SECRET_KEPT

    def keeps(self) -> bool:
        """Tell whether the password that is kept may be used: where it was typed for."""
        return self.has_kept and all(
            self.initial.get(name, "") == self.cleaned_data.get(name, "") for name in self.trusted
        )

    def needs_password(self) -> None:
        """Mark the password when none was typed, nor is one kept for this place."""
        if not self.errors and not self.cleaned_data["password"] and not self.keeps():
            self.add_error("password", _("Nobody is let in without one. Type it."))

    def secret_key(self) -> str:
        """Return what the engine calls the password.  Call when valid."""
        return self.kind.op_key

    def secrets(self) -> dict[str, Any]:
        """Return the password that was typed, sealed; or what is kept of the one before."""
        if typed := self.cleaned_data["password"]:
            sealed = seal({self.secret_key(): typed})
            return {"sealed_secrets": sealed, "secrets_set_at": timezone.now()}
        return {} if self.keeps() else super().secrets()


class OpenStackPart(SignInPart):
    """A project of OpenStack."""

    kinds = (OutputTarget.Kind.OPENSTACK,)
    title = gettext_lazy("OpenStack")
    hint = gettext_lazy(
        "Conversions have to run on a server of that very cloud, as root: each volume is attached "
        "to it while it is filled."
    )
    trusted = (
        "uri", "os_cloud", "os_username", "os_application_credential_id", "os_cacert",
        "verify_server_certificate",
    )  # fmt: skip

    uri = forms.CharField(
        label=gettext_lazy("Address of Keystone"),
        max_length=500,
        required=False,
        help_text=gettext_lazy("As https://cloud.example:5000/v3."),
        validators=[check_https],
    )
    os_cloud = forms.RegexField(
        r"^[\w.-]+$",
        label=gettext_lazy("Or the name of an entry of clouds.yaml"),
        max_length=100,
        required=False,
        help_text=gettext_lazy(
            "Of the user that runs the workers. It says everything about signing in; leave the "
            "fields for that empty."
        ),
    )
    os_username = forms.CharField(label=gettext_lazy("User"), max_length=255, required=False)
    os_user_domain_name = forms.CharField(
        label=gettext_lazy("Domain of the user"), max_length=255, required=False, initial="Default"
    )
    os_project_name = forms.CharField(label=gettext_lazy("Project"), max_length=255, required=False)
    os_project_domain_name = forms.CharField(
        label=gettext_lazy("Domain of the project"), max_length=255, required=False,
        initial="Default",
    )  # fmt: skip
    os_application_credential_id = forms.CharField(
        label=gettext_lazy("Or the id of an application credential"),
        max_length=255,
        required=False,
        help_text=gettext_lazy("It stands for user and project."),
    )
    password = SealedField(
        label=gettext_lazy("Password, or secret of the application credential"), max_length=512
    )
    os_region_name = forms.CharField(label=gettext_lazy("Region"), max_length=255, required=False)
    os_cacert = forms.CharField(
        label=gettext_lazy("File of certificates to trust"),
        max_length=1000,
        required=False,
        help_text=gettext_lazy(
            "PEM, the same on every conversion host; /etc/ssl/certs/ca-certificates.crt is what "
            "the system trusts. Empty: the public authorities."
        ),
        validators=[check_file],
    )
    verify_server_certificate = forms.BooleanField(
        label=gettext_lazy("Check the certificate"), required=False, initial=True,
        help_text=_VERIFY_HELP,
    )  # fmt: skip
    server_id = forms.RegexField(
        r"^[0-9A-Za-z-]+$",
        label=gettext_lazy("Id of the server that conversions run on"),
        max_length=64,
        help_text=gettext_lazy(
            "In small letters what /sys/class/dmi/id/product_uuid says there, or openstack server "
            "list."
        ),
    )
    storage = forms.CharField(
        label=gettext_lazy("Volume type"),
        max_length=255,
        required=False,
        help_text=gettext_lazy("Empty: what the cloud takes when none is named."),
    )

    def clean(self) -> dict[str, Any]:
        """Ask for one way to sign in, and all of it."""
        values = super().clean() or {}
        if self.errors:
            return values
        user, credential = values["os_username"], values["os_application_credential_id"]
        if bool(values["uri"]) == bool(values["os_cloud"]):
            self.add_error(
                "uri", _("Give either the address of Keystone or an entry of clouds.yaml.")
            )
        elif values["os_cloud"]:
            for name in ("os_username", "os_application_credential_id", "password"):
                if values[name]:
                    self.add_error(name, _("The entry of clouds.yaml says it. Leave it empty."))
        elif bool(user) == bool(credential):
            self.add_error("os_username", _("Give either a user or an application credential."))
        else:
            if user and not values["os_project_name"]:
                self.add_error("os_project_name", _("A user is let into a project. Name it."))
            self.needs_password()
        return values

    def place(self) -> dict[str, Any]:
        """Return the columns, without domains that belong to no user."""
        place = super().place()
        options = place["options"]
        if "os-username" not in options:
            for name in ("os-user-domain-name", "os-project-name", "os-project-domain-name"):
                options.pop(name, None)
        if "os-application-credential-id" in options:
            options["os-auth-type"] = "v3applicationcredential"
        return place

    def secret_key(self) -> str:
        """Return what the engine calls the password, or the secret."""
        is_user = bool(self.cleaned_data["os_username"])
        return super().secret_key() if is_user else "os-application-credential-secret"


class OvirtPart(SignInPart):
    """A storage domain and a cluster of oVirt."""

    kinds = (OutputTarget.Kind.OVIRT,)
    title = gettext_lazy("oVirt")
    trusted = ("uri", "user", "ovirt_cafile", "ovirt_verifypeer")

    uri = forms.CharField(
        label=gettext_lazy("Address of the engine"),
        max_length=400,
        help_text=gettext_lazy("As https://engine.example/ovirt-engine/api."),
        validators=[check_https],
    )
    user = forms.CharField(
        label=gettext_lazy("User"),
        max_length=100,
        initial="admin@internal",
        help_text=gettext_lazy("With its domain or profile."),
    )
    password = SealedField(label=gettext_lazy("Password"), max_length=512)
    ovirt_cafile = forms.CharField(
        label=gettext_lazy("File of certificates to trust"),
        max_length=1000,
        required=False,
        help_text=gettext_lazy(
            "PEM, the same on every conversion host; an engine gives its own at "
            "/ovirt-engine/services/pki-resource?resource=ca-certificate&format=X509-PEM-CA. "
            "Empty: what the system trusts."
        ),
        validators=[check_file],
    )
    ovirt_verifypeer = forms.BooleanField(
        label=gettext_lazy("Check certificates"), required=False, initial=True,
        help_text=_VERIFY_HELP,
    )  # fmt: skip
    storage = forms.RegexField(
        r"^[A-Za-z0-9_-]+$",
        label=gettext_lazy("Storage domain"),
        max_length=255,
        help_text=gettext_lazy("One for data. Look at the place to see them."),
    )
    ovirt_cluster = forms.CharField(
        label=gettext_lazy("Cluster"), max_length=255, initial="Default"
    )
    ovirt_proxy = forms.BooleanField(
        label=gettext_lazy("Send the disks through the engine"),
        required=False,
        help_text=gettext_lazy("Where the hosts themselves cannot be reached; slower."),
    )

    def known(self) -> dict[str, Any]:
        """Return what the target has; the user stands in its address."""
        values = super().known()
        parts = urlsplit(values["uri"])
        address = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
        return values | {"uri": address, "user": unquote(parts.username or "")}

    def clean(self) -> dict[str, Any]:
        """Ask for the password."""
        values = super().clean() or {}
        self.needs_password()
        return values

    def place(self) -> dict[str, Any]:
        """Return the columns, the user in the address as the engine takes it."""
        parts = urlsplit(self.cleaned_data["uri"])
        user = quote(self.cleaned_data["user"], safe="")
        uri = parts._replace(netloc=f"{user}@{parts.netloc}").geturl()
        return super().place() | {"uri": uri}
