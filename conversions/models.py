"""Runs of the engine and what they left: steps, disks, log lines, reports, concerns."""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import models
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from conversions.pipeline.errors import JobError
from conversions.pipeline.job import Mode, Target
from conversions.pipeline.steps import TITLES, Step
from inventory.models import SourceVM
from inventory.sealing import unseal


class ConversionQuerySet(models.QuerySet["Conversion"]):
    """Queries with a name."""

    def active(self) -> ConversionQuerySet:
        """Return those that wait, run or are being stopped."""
        return self.filter(status__in=Conversion.ACTIVE)

    def waiting(self) -> ConversionQuerySet:
        """Return those that wait for a worker, first come first."""
        return self.filter(status=Conversion.Status.WAITING).order_by("created_at", "pk")

    def on_worker(self) -> ConversionQuerySet:
        """Return those that a worker holds."""
        return self.filter(status__in=[Conversion.Status.RUNNING, Conversion.Status.STOPPING])

    def for_worker(self, name: str) -> ConversionQuerySet:
        """Return those that the worker may take: what is for all, and what is for its host."""
        return self.filter(worker__in=["", name])


class Conversion(models.Model):
    """One run of the engine: a conversion, a rehearsal or an inspection.

    waiting -> running -> done | warned | failed
       |          |
       |          +--> stopping -> stopped
       |          +--> lost            (no heartbeat; set by the periodic task)
       +--> stopped

    The row is the truth: claimed, renewed and ended by conditional updates only.
    """

    class Status(models.TextChoices):
        WAITING = "waiting", _("Waiting")
        RUNNING = "running", _("Running")
        STOPPING = "stopping", _("Stopping")
        STOPPED = "stopped", _("Stopped")
        DONE = "done", _("Done")
        WARNED = "warned", _("Done with warnings")
        FAILED = "failed", _("Failed")
        LOST = "lost", _("Lost")

    ACTIVE = [Status.WAITING, Status.RUNNING, Status.STOPPING]
    MODES = [
        (Mode.COPY, _("Conversion")),
        (Mode.IN_PLACE, _("Conversion in place")),
        (Mode.REHEARSE, _("Rehearsal")),
        (Mode.INSPECT, _("Inspection")),
    ]

    uuid = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    vm = models.ForeignKey(
        SourceVM, on_delete=models.SET_NULL, null=True, related_name="conversions"
    )
    # History outlives the machine.
    vm_name = models.CharField(_("machine"), max_length=255)
    name = models.CharField(_("name on the target"), max_length=255)
    mode = models.CharField(max_length=10, choices=MODES)
    status = models.CharField(max_length=10, choices=Status.choices, default=Status.WAITING)
    # The Job as JSON, without work_dir and secrets.
    job = models.JSONField()
    # Where its result goes, while that is a named target.
    target = models.ForeignKey(
        "OutputTarget", on_delete=models.SET_NULL, null=True, related_name="conversions"
    )
    # Its keys and password hashes, see secrets.py; gone once it is done.
    sealed_secrets = models.TextField(blank=True, editable=False)
    retry_of = models.ForeignKey(
        "self", on_delete=models.SET_NULL, null=True, blank=True, related_name="retries"
    )
    # The kept files it goes on with from the copy, while they are there.
    continues = models.ForeignKey(
        "KeptWork", on_delete=models.SET_NULL, null=True, blank=True, related_name="tries"
    )
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, related_name="conversions"
    )
    created_at = models.DateTimeField(_("asked for"), auto_now_add=True)
    started_at = models.DateTimeField(_("started"), null=True)
    finished_at = models.DateTimeField(_("ended"), null=True)
    # Set before a worker takes it where only the worker of one host can.
    worker = models.CharField(_("conversion host"), max_length=255, blank=True)
    pid = models.IntegerField(null=True)
    heartbeat_at = models.DateTimeField(null=True)
    last_output_at = models.DateTimeField(null=True)
    # Head of the log: the highest LogLine.seq of this conversion.
    last_seq = models.BigIntegerField(default=0)
    # Rises with every stored batch, so a page knows whether it has seen all there is.
    revision = models.BigIntegerField(default=0)
    step = models.CharField(max_length=20, blank=True)
    warnings = models.IntegerField(default=0)
    stop_requested_at = models.DateTimeField(null=True)
    stop_requested_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, related_name="+"
    )
    force_stop = models.BooleanField(default=False)
    # The engine's result: code, message, remedy, step; empty on success.
    result = models.JSONField(default=dict, blank=True)
    # The engine's reports by name: source, inspection, guestcaps, mpstats, ...
    reports = models.JSONField(default=dict, blank=True)

    objects = ConversionQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at", "-pk"]
        permissions = [
            ("run_conversion", _("Can start and stop conversions")),
            ("convert_in_place", _("Can change the disks of a source")),
            ("manage_drivers", _("Can add and remove drivers for Windows")),
            ("manage_targets", _("Can add, change and remove targets")),
            ("purge_conversion", _("Can purge conversions and their evidence")),
        ]
        indexes = [
            # History, newest first, and by status for the chips and the workers.
            models.Index(fields=["-created_at"], name="conversion_created"),
            models.Index(fields=["status", "created_at"], name="conversion_status_created"),
        ]

    def __str__(self) -> str:
        return f"#{self.pk} {self.vm_name}"

    def get_absolute_url(self) -> str:
        return reverse("conversion", args=[self.uuid])

    @property
    def is_active(self) -> bool:
        """Tell whether it can still change."""
        return self.status in self.ACTIVE

    @property
    def is_success(self) -> bool:
        """Tell whether it reached its end."""
        return self.status in (self.Status.DONE, self.Status.WARNED)

    @property
    def place(self) -> str:
        """Where its result goes, in a few words; "" for one that has none."""
        target = self.job.get("target")
        return Target.from_dict(target).place if target else ""

    @property
    def kept(self) -> KeptWork | None:
        """What can be continued from the copy: its own kept files, or those it goes on with."""
        own: KeptWork | None = getattr(self, "own_kept", None)
        return own or self.continues

    @property
    def elapsed(self) -> timedelta | None:
        """Time from start to end, or until now; None before the start."""
        if self.started_at is None:
            return None
        return (self.finished_at or timezone.now()) - self.started_at


class KeptWorkQuerySet(models.QuerySet["KeptWork"]):
    """Queries with a name."""

    def due(self) -> KeptWorkQuerySet:
        """Return what is to be deleted and not in use: asked for, too old, of no more use.

        A machine that is gone from its host comes back when the next reading finds it again.
        """
        return self.filter(
            models.Q(discarding=True)
            | models.Q(keep_until__lte=timezone.now())
            | models.Q(conversion__vm=None)
            | models.Q(conversion__vm__status=SourceVM.Status.GONE, conversion__vm__host=None)
        ).exclude(tries__status__in=Conversion.ACTIVE)


class KeptWork(models.Model):
    """The converted disks of a run whose copy failed or was stopped, on one conversion host.

    The row lives as long as the folder; the worker of that host deletes both.
    """

    # None once the run was purged: the folder is deleted then.
    conversion = models.OneToOneField(
        Conversion, on_delete=models.SET_NULL, null=True, related_name="own_kept"
    )
    worker = models.CharField(_("conversion host"), max_length=255)
    folder = models.CharField(_("folder"), max_length=4096)
    bytes = models.BigIntegerField(_("bytes"))
    kept_at = models.DateTimeField(_("kept since"), auto_now_add=True)
    keep_until = models.DateTimeField(_("kept until"))
    # Someone has asked for it, or its time is over; its host has yet to do it.
    discarding = models.BooleanField(_("being deleted"), default=False)

    objects = KeptWorkQuerySet.as_manager()

    class Meta:
        verbose_name = _("kept work")
        ordering = ["-kept_at"]

    def __str__(self) -> str:
        return f"{self.worker}:{self.folder}"

    @property
    def is_in_use(self) -> bool:
        """Tell whether a run that continues it waits or runs."""
        return self.tries.filter(status__in=Conversion.ACTIVE).exists()


class ConversionStep(models.Model):
    """One of the fifteen steps of a conversion; rows are made when it is asked for."""

    class Status(models.TextChoices):
        WAITING = "waiting", _("Waiting")
        RUNNING = "running", _("Running")
        DONE = "done", _("Done")
        WARNED = "warned", _("Done with warnings")
        SKIPPED = "skipped", _("Skipped")
        FAILED = "failed", _("Failed")
        CANCELLED = "cancelled", _("Cancelled")

    conversion = models.ForeignKey(Conversion, on_delete=models.CASCADE, related_name="steps")
    position = models.PositiveSmallIntegerField()
    name = models.CharField(max_length=20, choices=[(s.value, TITLES[s]) for s in Step])
    status = models.CharField(max_length=10, choices=Status.choices, default=Status.WAITING)
    started_at = models.DateTimeField(null=True)
    seconds = models.FloatField(null=True)
    reason = models.CharField(max_length=255, blank=True)
    warnings = models.IntegerField(default=0)
    # Where its lines begin in the log, for links.
    first_seq = models.BigIntegerField(null=True)

    class Meta:
        ordering = ["position"]
        constraints = [
            models.UniqueConstraint(fields=["conversion", "name"], name="step_conversion_name"),
        ]

    def __str__(self) -> str:
        return self.name


class ConversionDisk(models.Model):
    """Progress and result of one disk; overwritten at most twice a second while copying."""

    conversion = models.ForeignKey(Conversion, on_delete=models.CASCADE, related_name="disks")
    index = models.PositiveIntegerField()
    name = models.CharField(max_length=20)
    virtual_bytes = models.BigIntegerField(null=True)
    estimated_bytes = models.BigIntegerField(null=True)
    done_bytes = models.BigIntegerField(default=0)
    total_bytes = models.BigIntegerField(null=True)
    actual_bytes = models.BigIntegerField(null=True)
    seconds = models.FloatField(null=True)
    path = models.CharField(max_length=4096, blank=True)
    started_at = models.DateTimeField(null=True)
    at = models.DateTimeField(null=True)
    rate = models.FloatField(_("bytes a second"), null=True)

    class Meta:
        ordering = ["index"]
        constraints = [
            models.UniqueConstraint(fields=["conversion", "name"], name="disk_conversion_name"),
        ]

    def __str__(self) -> str:
        return self.name


class LogLine(models.Model):
    """One line of a conversion's log; `seq` from 1 without gaps, given by the supervisor."""

    class Level(models.TextChoices):
        ERROR = "error", _("Error")
        WARNING = "warning", _("Warning")
        INFO = "info", _("Info")
        DEBUG = "debug", _("Debug")
        TRACE = "trace", _("Trace")

    conversion = models.ForeignKey(Conversion, on_delete=models.CASCADE, related_name="lines")
    seq = models.BigIntegerField()
    at = models.DateTimeField()
    step = models.CharField(max_length=20)
    level = models.CharField(max_length=10, choices=Level.choices)
    text = models.TextField()

    class Meta:
        ordering = ["seq"]
        constraints = [
            models.UniqueConstraint(fields=["conversion", "seq"], name="line_conversion_seq"),
        ]
        indexes = [
            # The level filter of the log panel.
            models.Index(fields=["conversion", "level", "seq"], name="line_conversion_level"),
        ]

    def __str__(self) -> str:
        return f"{self.seq} {self.text}"


class Inspection(models.Model):
    """What is in a guest: the report of one run, of whatever mode, that got so far."""

    uuid = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    conversion = models.OneToOneField(
        Conversion, on_delete=models.CASCADE, related_name="inspection"
    )
    vm = models.ForeignKey(
        SourceVM, on_delete=models.SET_NULL, null=True, related_name="inspections"
    )
    product_name = models.CharField(_("operating system"), max_length=255, blank=True)
    distro = models.CharField(max_length=60, blank=True)
    arch = models.CharField(max_length=20, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return self.product_name or self.distro

    def get_absolute_url(self) -> str:
        return reverse("inspection", args=[self.uuid])


class Concern(models.Model):
    """Something to know before converting: what was found, what it means, what to do."""

    class Level(models.TextChoices):
        BLOCKS = "blocks", _("Blocks")
        WARNING = "warning", _("Warning")
        NOTE = "note", _("Note")

    inspection = models.ForeignKey(Inspection, on_delete=models.CASCADE, related_name="concerns")
    position = models.PositiveSmallIntegerField()
    level = models.CharField(max_length=10, choices=Level.choices)
    code = models.CharField(max_length=60)
    title = models.CharField(max_length=255)
    found = models.TextField()
    meaning = models.TextField()
    remedy = models.TextField(blank=True)

    class Meta:
        ordering = ["position"]

    def __str__(self) -> str:
        return self.title


class ConversionHost(models.Model):
    """A host that runs conversions and what it last said about itself; see health.py."""

    name = models.CharField(max_length=255, unique=True)
    seen_at = models.DateTimeField()
    health = models.JSONField(default=dict)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class OutputTarget(models.Model):
    """A place for results that an administrator has named: a folder, or on a server.

    The folders of the setting V2VWEB_TARGETS are targets too, without a row; see targets.py.
    """

    class Kind(models.TextChoices):
        """The engine's names for them."""

        LOCAL = "local", _("Folder: disks and libvirt XML")
        QEMU = "qemu", _("Folder: disks and a script for QEMU")
        KUBEVIRT = "kubevirt", _("Folder: disks and a manifest for KubeVirt")
        LIBVIRT = "libvirt", _("Pool of a libvirt host: the machine is defined there")
        OPENSTACK = "openstack", _("OpenStack: volumes that a server can be started from")
        OVIRT = "ovirt-upload", _("oVirt: the machine is made there")

    FOLDERS = [Kind.LOCAL, Kind.QEMU, Kind.KUBEVIRT]

    uuid = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    name = models.CharField(_("name"), max_length=100, unique=True)
    kind = models.CharField(_("kind"), max_length=20, choices=Kind.choices, default=Kind.LOCAL)
    # The place; which of them a kind has is said by the parts of its form.
    directory = models.CharField(_("folder on this server"), max_length=1000, blank=True)
    uri = models.CharField(_("address"), max_length=500, blank=True)
    storage = models.CharField(_("pool, volume type or storage domain"), max_length=255, blank=True)
    # The engine's options by name, each once, and those that are secret; see sealing.py.
    options = models.JSONField(default=dict, blank=True)
    sealed_secrets = models.TextField(blank=True, editable=False)
    secrets_set_at = models.DateTimeField(_("password set"), null=True, editable=False)
    # What the convert form starts with.
    format = models.CharField(
        _("disk format"), max_length=10, default="qcow2",
        choices=[("qcow2", "qcow2"), ("raw", "raw")],
    )  # fmt: skip
    allocation = models.CharField(
        _("space"), max_length=15, default="sparse",
        choices=[("sparse", _("Sparse")), ("preallocated", _("Preallocated"))],
    )  # fmt: skip
    compressed = models.BooleanField(_("compress"), default=False)
    rate_mib = models.PositiveIntegerField(_("rate limit (MiB a second)"), null=True, blank=True)
    # What nobody may exceed: the disks of one machine at their full size.
    max_disk_gib = models.PositiveIntegerField(
        _("largest machine (GiB of disks)"), null=True, blank=True
    )
    # What the last check found; `problem` is "" when the place can be used.
    checked_at = models.DateTimeField(null=True, editable=False)
    problem = models.TextField(blank=True, editable=False)
    # The server refuses the password: only a person may try it again, before the account is locked.
    is_locked_out = models.BooleanField(default=False, editable=False)
    free_bytes = models.BigIntegerField(null=True, editable=False)
    # Of a pool: its folder where that is on this server, and the networks and bridges there.
    pool_path = models.CharField(max_length=4096, blank=True, editable=False)
    networks = models.JSONField(default=list, blank=True, editable=False)
    bridges = models.JSONField(default=list, blank=True, editable=False)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, related_name="+",
        editable=False,
    )  # fmt: skip
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        verbose_name = _("target")
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name

    @property
    def is_folder(self) -> bool:
        """Tell whether results are files on this server."""
        return self.kind in self.FOLDERS

    @property
    def place(self) -> str:
        """Where it is, in a few words."""
        return self._without_secrets().place

    def engine_target(self, **choices: Any) -> Target:
        """Return it for the engine with what was chosen besides, its secrets in clear.

        Raises JobError.
        """
        target = self._without_secrets(**choices)
        if not self.sealed_secrets:
            return target
        try:
            secrets = unseal(self.sealed_secrets)
        except ValueError as error:
            raise JobError(
                f"The password of the target {self.name} cannot be read: {error}",
                remedy="An administrator can type it again where the target is changed.",
            ) from error
        return replace(target, secrets={key: (value,) for key, value in secrets.items()})

    def _without_secrets(self, **choices: Any) -> Target:
        return Target(
            kind=self.kind,
            directory=self.directory,
            uri=self.uri,
            storage=self.storage,
            options={key: (value,) for key, value in self.options.items()},
            **choices,
        )


class SavedMap(models.Model):
    """A network map with a name; `entries` are {from_kind, from_name, kind, name}."""

    name = models.CharField(_("name"), max_length=100, unique=True)
    entries = models.JSONField()
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        verbose_name = _("network map")
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class DriverFile(models.Model):
    """Drivers or a program for Windows guests, as the audit record names them.

    There is no table: what lies in the folder is what there is, see drivers.py.
    """

    name = models.CharField(_("name"), max_length=255, primary_key=True)

    class Meta:
        verbose_name = _("Windows driver file")
        managed = False
        default_permissions = ()

    def __str__(self) -> str:
        return self.name
