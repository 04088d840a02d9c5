"""The source VMs and where they came from."""

from __future__ import annotations

import uuid

from django.conf import settings
from django.db import models
from django.urls import reverse
from django.utils.translation import gettext_lazy as _

from inventory.sources.types import Source

POWER_OFF = "shut off"


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
    """A host whose domains are listed; read again in the background.

    never -> fresh <-> failed     (failed: the rows of its domains stay as they were last seen)
    """

    class State(models.TextChoices):
        NEVER = "never", _("Not read yet")
        FRESH = "fresh", _("Read")
        FAILED = "failed", _("Not reachable")

    uuid = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    name = models.CharField(max_length=100, unique=True)
    uri = models.CharField(_("address"), max_length=500, unique=True)
    state = models.CharField(max_length=10, choices=State.choices, default=State.NEVER)
    message = models.TextField(_("reason"), blank=True)
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


class SourceVM(models.Model):
    """One virtual machine as found in a source; `record` is the whole Source as JSON.

    arriving -> ready -> gone         (gone: its file or domain is; history keeps the row)
    """

    class Status(models.TextChoices):
        ARRIVING = "arriving", _("Arriving")
        READY = "ready", _("Ready")
        GONE = "gone", _("Gone")

    uuid = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    name = models.CharField(max_length=255)
    kind = models.CharField(max_length=20, default="ova")
    location = models.CharField(max_length=4096, blank=True)
    upload = models.OneToOneField(
        OvaUpload, on_delete=models.SET_NULL, null=True, blank=True, related_name="vm"
    )
    # Of a domain, whose location is its UUID; the two are of one host only once.
    host = models.ForeignKey(
        LibvirtHost, on_delete=models.CASCADE, null=True, blank=True, related_name="vms"
    )
    power = models.CharField(_("power state"), max_length=20, blank=True)
    # Why a domain cannot be used at all, and what changed when it was last read.
    problem = models.TextField(blank=True)
    changes = models.JSONField(default=list, blank=True)
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
    def refusal(self) -> str:
        """Why it cannot be opened now, as a sentence; empty when it can."""
        if self.status != self.Status.READY:
            return _("%(name)s cannot be opened: %(state)s.") % {
                "name": self.name, "state": self.get_status_display().lower(),
            }  # fmt: skip
        if self.problem:
            return self.problem
        if self.power not in ("", POWER_OFF):
            return _(
                "%(name)s is %(power)s on %(host)s; its disks change while they are read. Shut it "
                "down from inside, then read the host again."
            ) % {"name": self.name, "power": self.power, "host": self.host}
        return ""

    @property
    def source(self) -> Source:
        """The record as the engine's type."""
        return Source.from_dict(self.record)


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
