"""The source VMs and where they came from."""

from __future__ import annotations

import uuid
from datetime import timedelta

from django.conf import settings
from django.db import models
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from inventory.sealing import unseal
from inventory.sources import types
from inventory.sources.errors import SourceError
from inventory.sources.host_access import OVER_SSH, SSH, VMWARE, HostAccess, scheme_of
from inventory.sources.power import BUSY, Power

# Longer than the pause between two signs of a host that is followed.
FOLLOWED_FOR = timedelta(seconds=90)


class OvaUpload(models.Model):
    """An OVA on its way in through the browser, or registered from the import folder.

    receiving -> checking -> ready
        |           |
        +-----------+--> refused | cancelled      (nothing is left on disk)
    """

    class Status(models.TextChoices):
        RECEIVING = "receiving", _("Receiving")
        CHECKING = "checking", _("Checking")
        READY = "ready", _("Ready")
        REFUSED = "refused", _("Refused")
        CANCELLED = "cancelled", _("Cancelled")

    class Origin(models.TextChoices):
        BROWSER = "browser", _("Uploaded")
        IMPORT = "import", _("Import folder")

    uuid = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    filename = models.CharField(_("file name"), max_length=255)
    origin = models.CharField(max_length=10, choices=Origin.choices, default=Origin.BROWSER)
    path = models.CharField(max_length=4096, blank=True)
    size_bytes = models.BigIntegerField(_("size"))
    received_bytes = models.BigIntegerField(_("received"), default=0)
    checked_bytes = models.BigIntegerField(_("checked"), default=0)
    status = models.CharField(max_length=10, choices=Status.choices, default=Status.RECEIVING)
    code = models.CharField(max_length=40, blank=True)
    message = models.TextField(_("reason"), blank=True)
    warnings = models.JSONField(default=list, blank=True)
    # One {"file", "algorithm", "status"} per manifest record.
    digests = models.JSONField(default=list, blank=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, related_name="uploads"
    )
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["-created_at"]
        indexes = [
            # The Sources page: what is on its way, newest first.
            models.Index(fields=["status", "-created_at"], name="upload_status_created"),
        ]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(received_bytes__lte=models.F("size_bytes")),
                name="upload_received_within_size",
            ),
        ]

    def __str__(self) -> str:
        return self.filename


class LibvirtHost(models.Model):
    """A host whose machines are listed; read again in the background.

    They are libvirt's domains, or the VMX files of a folder that is reached over ssh.

    never -> fresh <-> failed     (failed: the rows of its domains stay as they were last seen)

    `wanted_at` is set while somebody waits for a reading, `refreshing_since` while a worker reads.
    """

    class Transport(models.TextChoices):
        HTTPS = "https", _("https, which needs nothing else")
        VDDK = "vddk", _("VDDK, VMware's library: faster, must be installed on this server")

    class State(models.TextChoices):
        NEVER = "never", _("Not read yet")
        FRESH = "fresh", _("Read")
        FAILED = "failed", _("Not reachable")

    uuid = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    name = models.CharField(max_length=100, unique=True)
    uri = models.CharField(_("address"), max_length=500, unique=True)
    # See sealing.py; "" for none.
    sealed_password = models.TextField(blank=True, editable=False)
    password_set_at = models.DateTimeField(_("password set"), null=True)
    # Only for VMware: which certificate is trusted, and how disks are read.
    thumbprint = models.CharField(max_length=95, blank=True)
    transport = models.CharField(max_length=10, choices=Transport.choices, default=Transport.HTTPS)
    # A folder below VDDK_DIR; "" for what is installed.
    vddk_folder = models.CharField(max_length=255, blank=True)
    # Only for KVM hosts over ssh: their disks are here too, under the same paths.
    shares_disks = models.BooleanField(default=False)
    state = models.CharField(max_length=10, choices=State.choices, default=State.NEVER)
    # What the host says it is: "QEMU 7.2.22 on kvm1".
    description = models.CharField(max_length=300, blank=True)
    code = models.CharField(max_length=40, blank=True)
    message = models.TextField(_("reason"), blank=True)
    wanted_at = models.DateTimeField(null=True)
    # When it last showed that its changes are told as they happen.
    followed_at = models.DateTimeField(null=True)
    # When a row of its machines last became another.
    changed_at = models.DateTimeField(null=True)
    refreshing_since = models.DateTimeField(null=True)
    # When its domains were last read well, and when that was last tried.
    refreshed_at = models.DateTimeField(null=True)
    tried_at = models.DateTimeField(null=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        verbose_name = _("libvirt host")
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return reverse("host", args=[self.uuid])

    @property
    def scheme(self) -> str:
        """The driver and the way of its address, such as qemu+ssh."""
        return scheme_of(self.uri)

    @property
    def is_vmware(self) -> bool:
        """Tell whether it is an ESXi host or a vCenter."""
        return self.scheme in VMWARE

    @property
    def is_folder(self) -> bool:
        """Tell whether it is a folder of VMX files over ssh, and not one of libvirt's."""
        return self.scheme == SSH

    @property
    def reads_over_ssh(self) -> bool:
        """Tell whether the disks of its domains are read by the way that leads to it."""
        return self.scheme == "xen+ssh" or (self.scheme in OVER_SSH and not self.shares_disks)

    @property
    def tells_changes(self) -> bool:
        """Tell whether it can be followed; what cannot is only read again and again."""
        return not (self.is_vmware or self.is_folder)

    def access(self) -> HostAccess:
        """How it is reached, with the password in clear.  Raises SourceError."""
        password = ""
        if self.sealed_password:
            try:
                password = unseal(self.sealed_password)
            except ValueError as error:
                raise SourceError(
                    "E-LV-SEALED",
                    f"The password of the host {self.name} cannot be read: {error}",
                    remedy="An administrator can type it again on the page of the host.",
                ) from error
        return HostAccess(
            uri=self.uri,
            password=password,
            thumbprint=self.thumbprint,
            over_ssh=self.reads_over_ssh,
        )

    @property
    def access_problem(self) -> str:
        """Why it cannot be reached with what is known of it, in sentences; empty when it can."""
        try:
            self.access()
        except SourceError as error:
            return f"{error.message} {error.remedy}"
        return ""

    @property
    def is_awaited(self) -> bool:
        """Tell whether a reading is under way or asked for."""
        return self.wanted_at is not None or self.refreshing_since is not None

    @property
    def list_version(self) -> str:
        """A text that is another whenever the list of its machines is."""
        return f"{self.changed_at.timestamp() if self.changed_at else ''} {self.state}"

    @property
    def is_followed(self) -> bool:
        """Tell whether what changes on it shows at once."""
        return self.followed_at is not None and self.followed_at > timezone.now() - FOLLOWED_FOR


POWER_CHOICES = [
    (Power.RUNNING.value, _("Running")),
    (Power.PAUSED.value, _("Paused")),
    (Power.SUSPENDED.value, _("Suspended")),
    (Power.SHUTTING_DOWN.value, _("Shutting down")),
    (Power.SHUT_OFF.value, _("Shut off")),
    (Power.CRASHED.value, _("Crashed")),
    (Power.UNKNOWN.value, _("Not known")),
]


class SourceVMQuerySet(models.QuerySet["SourceVM"]):
    """Named choices of machines."""

    def available(self) -> SourceVMQuerySet:
        """Keep what can be inspected and converted now; see SourceVM.refusal."""
        rows = self.filter(status=SourceVM.Status.READY, problem="", has_saved_memory=False)
        return rows.exclude(power__in=list(BUSY))


class SourceVM(models.Model):
    """One virtual machine as found in a source; `record` is the whole Source as JSON.

    arriving -> ready -> gone         (gone: its file or domain is; history keeps the row)
    """

    class Status(models.TextChoices):
        ARRIVING = "arriving", _("Arriving")
        READY = "ready", _("Ready")
        GONE = "gone", _("Gone")

    # Kinds of machines on hosts; other kinds are those of the engine.
    DOMAIN, VMX_OVER_SSH = "libvirt", "vmx-ssh"

    uuid = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    name = models.CharField(max_length=255)
    kind = models.CharField(max_length=20, default="ova")
    location = models.CharField(max_length=4096, blank=True)
    upload = models.OneToOneField(
        OvaUpload, on_delete=models.SET_NULL, null=True, blank=True, related_name="vm"
    )
    # Of a domain, whose location is its UUID, or of a VMX file there, whose location is its path;
    # the two are of one host only once.
    host = models.ForeignKey(
        LibvirtHost, on_delete=models.SET_NULL, null=True, blank=True, related_name="vms"
    )
    # "" for what never runs, such as an OVA.
    power = models.CharField(_("power state"), max_length=20, choices=POWER_CHOICES, blank=True)
    has_saved_memory = models.BooleanField(default=False)
    snapshots = models.JSONField(default=list, blank=True)
    pools = models.JSONField(_("storage pools"), default=list, blank=True)
    # Why a domain cannot be used at all; its record is then a bare one.
    problem = models.TextField(blank=True)
    warnings = models.JSONField(default=list, blank=True)
    # What differed between readings, newest first; changes.py says what an entry holds.
    changes = models.JSONField(default=list, blank=True)
    seen_at = models.DateTimeField(_("last seen"), null=True)
    status = models.CharField(max_length=10, choices=Status.choices, default=Status.ARRIVING)
    hypervisor = models.CharField(max_length=40)
    os_hint = models.CharField(_("operating system"), max_length=200, blank=True)
    firmware = models.CharField(max_length=10)
    memory_bytes = models.BigIntegerField(_("memory"))
    vcpus = models.IntegerField(_("vCPUs"))
    disk_bytes = models.BigIntegerField(_("disk capacity"), default=0)
    record = models.JSONField()
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)

    objects = SourceVMQuerySet.as_manager()

    class Meta:
        verbose_name = _("machine")
        verbose_name_plural = _("machines")
        ordering = ["name", "pk"]
        indexes = [
            # The Machines page, default order and newest first.
            models.Index(fields=["name"], name="vm_name"),
            models.Index(fields=["-created_at"], name="vm_created"),
        ]
        constraints = [
            models.UniqueConstraint(fields=["host", "location"], name="vm_host_location"),
        ]

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return reverse("machine", args=[self.uuid])

    @property
    def is_domain(self) -> bool:
        """Tell whether it is, or was, a domain of a libvirt host."""
        return self.kind == self.DOMAIN

    @property
    def is_of_host(self) -> bool:
        """Tell whether it is, or was, on a host of the inventory."""
        return self.kind in (self.DOMAIN, self.VMX_OVER_SSH)

    @property
    def local_disks(self) -> list[types.SourceDisk]:
        """Return those of its disks that this server opens itself."""
        if self.host is not None and self.host.reads_over_ssh:
            return []
        return [disk for disk in self.source.disks if not disk.remote]

    @property
    def may_change_in_place(self) -> bool:
        """Tell whether its disks are where this server can write to them."""
        if self.host is not None and (self.host.is_vmware or self.host.reads_over_ssh):
            return False
        return self.kind in ("disk", self.DOMAIN)

    @property
    def shown_state(self) -> str:
        """The one state that matters most to a reader: a key of the states' look."""
        if self.is_of_host and self.status == self.Status.GONE:
            return "vanished"
        if self.problem and self.status == self.Status.READY:
            return "unreadable"
        return self.power if self.power and self.status == self.Status.READY else self.status

    @property
    def refusal(self) -> str:
        """Why it cannot be opened now, and what to do, in sentences; empty when it can."""
        if self.status == self.Status.ARRIVING:
            text = _(
                "The disks of %(name)s are still arriving. It can be inspected and converted when "
                "the upload is complete."
            )
        elif self.status == self.Status.GONE and not self.is_of_host:
            text = _(
                "The files of %(name)s were deleted; what was found and done stays readable. "
                "Upload it again to convert it."
            )
        elif self.status == self.Status.GONE and self.host is not None:
            text = _(
                "%(name)s is no longer on the host %(host)s; what was found and done stays "
                "readable. When it is there again, it comes back."
            )
        elif self.status == self.Status.GONE:
            text = _("%(problem)s What was found and done with %(name)s stays readable.")
        elif self.problem:
            text = _("%(name)s cannot be used as it is: %(problem)s")
        elif self.power in BUSY:
            text = _(
                "%(name)s is %(power)s on %(host)s; its disks change while they are read. Shut it "
                "down from inside, then read the host again."
            )
        elif self.has_saved_memory:
            text = _(
                "The memory of %(name)s was saved while it ran, so its disks miss what was not "
                "written yet. Start it on %(host)s, shut it down from inside, then read the host "
                "again."
            )
        elif self.host is not None and (why := self.host.access_problem):
            return why
        else:
            return ""
        return str(text) % {
            "name": self.name, "host": self.host, "power": self.power, "problem": self.problem,
        }  # fmt: skip

    @property
    def source(self) -> types.Source:
        """The record as the engine's type."""
        return types.Source.from_dict(self.record)


class SourceDisk(models.Model):
    """One fixed disk of a source VM, for lists and search; the record has the rest."""

    vm = models.ForeignKey(SourceVM, on_delete=models.CASCADE, related_name="disks")
    index = models.PositiveIntegerField()
    controller = models.CharField(max_length=20, blank=True)
    format = models.CharField(max_length=20)
    file = models.CharField(max_length=1024)
    capacity_bytes = models.BigIntegerField(null=True)

    class Meta:
        ordering = ["index"]
        constraints = [
            models.UniqueConstraint(fields=["vm", "index"], name="sourcedisk_vm_index"),
        ]

    def __str__(self) -> str:
        return self.file


class SourceNic(models.Model):
    """One network card of a source VM."""

    vm = models.ForeignKey(SourceVM, on_delete=models.CASCADE, related_name="nics")
    index = models.PositiveIntegerField()
    vnet = models.CharField(_("network"), max_length=255)
    vnet_type = models.CharField(max_length=10)
    mac = models.CharField(_("MAC address"), max_length=20, blank=True)
    model = models.CharField(max_length=40, blank=True)

    class Meta:
        ordering = ["index"]
        constraints = [
            models.UniqueConstraint(fields=["vm", "index"], name="sourcenic_vm_index"),
        ]

    def __str__(self) -> str:
        return self.vnet
