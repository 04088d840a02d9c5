"""The parts of the convert form that only some machines have, and the secrets they take."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.test import Client, override_settings

from conversions import actions
from conversions.forms import ConvertForm
from conversions.models import Conversion
from conversions.pipeline.job import GuestFile, Job, Key, Mode
from inventory.models import SourceVM
from inventory.sealing import seal, unseal
from tests.demo import make_conversion, make_inspection, make_user, make_vm

pytestmark = pytest.mark.django_db
PASSPHRASE = "correct horse battery"


@pytest.fixture
def operator(client: Client) -> Client:
    client.force_login(make_user("ada", "Operators"))
    return client


def send(client: Client, vm: SourceVM, action: str, **changes: Any) -> Any:
    form = ConvertForm(vm=vm, inspection=vm.inspections.first())
    sent = form.detected() | changes
    values = {name: value for name, value in sent.items() if value not in (None, False)}
    return client.post(f"{vm.get_absolute_url()}convert/", values | {"action": action})


def encrypted_vm(code: str = "E-ENCRYPTED") -> SourceVM:
    """Return a machine whose inspection ended at an encrypted device."""
    vm = make_vm()
    make_conversion(vm, mode=Mode.INSPECT, status="failed", result={"code": code})
    return vm


def met(*found: tuple[str, str]) -> dict[str, Any]:
    """Return the reports of a run that met these devices, opened or not."""
    return {"encrypted": [{"device": d, "kind": kind, "uuid": ""} for d, kind in found]}


def everything_stored() -> str:
    """Return all that is stored of the conversions, as one text."""
    return json.dumps([list(map(str, row)) for row in Conversion.objects.values_list()])


def test_the_adjustments_reach_the_job(operator: Client) -> None:
    vm = make_vm()
    send(
        operator,
        vm,
        "start",
        **{
            "guest-hostname": "web01.example",
            "guest-timezone": "Europe/Berlin",
            "guest-root_password": PASSPHRASE,
            "guest-ssh_keys": "ssh-ed25519 AAAAC3Nza ada@desk\nssh-ed25519 AAAAC3Nzb bob@desk\n",
            "guest-update": "on",
            "guest-install": "htop, tmux",
            "guest-uninstall": "telnet",
            "guest-file_path": "/etc/motd",
            "guest-file_mode": "600",
            "guest-file_content": "Hello\r\n",
            "guest-firstboot": "#!/bin/sh\r\necho hello\r\n",
            "guest-block_driver": "virtio-scsi",
            "guest-guest_agent": "",
        },
    )
    job = actions.job_of(Conversion.objects.get())
    wishes = job.customize
    assert (wishes.hostname, wishes.timezone) == ("web01.example", "Europe/Berlin")
    assert [key.split()[2] for key in wishes.ssh_keys] == ["ada@desk", "bob@desk"]
    assert wishes.update
    assert job.windows.block_driver == "virtio-scsi"
    assert (wishes.install, wishes.uninstall) == (("htop", "tmux"), ("telnet",))
    assert wishes.firstboot == ("#!/bin/sh\necho hello\n",)
    assert wishes.files == (GuestFile(path="/etc/motd", content="Hello\n", mode=0o600),)
    assert wishes.root_password_hash.startswith("$6$")
    assert (job.guest_agent, job.keep_nic_names, job.fsck) == (False, True, True)


@pytest.mark.rows("4-T116")
def test_neither_a_password_nor_its_hash_is_stored_in_clear(operator: Client) -> None:
    send(operator, make_vm(), "start", **{"guest-root_password": PASSPHRASE})
    stored = everything_stored()
    assert PASSPHRASE not in stored
    assert "$6$" not in stored
    page = operator.get(Conversion.objects.get().get_absolute_url()).content.decode()
    assert "$6$" not in page


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("hostname", "-x", "no host name"),
        ("timezone", "Mars/Olympus", "no time zone"),
        ("ssh_keys", "hello", "no SSH key"),
        ("install", "a;b", "no package name"),
        ("file_path", "motd", "no path of a file"),
        ("file_content", "Hello", "no path of a file"),
    ],
)
def test_what_no_guest_could_have_is_refused_at_its_field(
    operator: Client, field: str, value: str, words: str
) -> None:
    response = send(operator, make_vm(), "start", **{f"guest-{field}": value})
    page = response.content.decode()
    assert words in page
    assert '<details class="form-section" open>' in page
    assert not Conversion.objects.exists()


def test_a_windows_guest_has_no_adjustments_for_linux(operator: Client) -> None:
    vm = make_vm()
    vm.os_hint = "Microsoft Windows Server 2019 (64-bit)"
    vm.save()
    assert "guest-hostname" not in operator.get(f"{vm.get_absolute_url()}convert/").content.decode()


def test_a_passphrase_travels_sealed_from_the_form_over_the_review_to_the_engine(
    operator: Client,
) -> None:
    vm = encrypted_vm()
    review = send(operator, vm, "review", **{"encryption-every": PASSPHRASE})
    assert PASSPHRASE not in review.content.decode()
    hidden = dict(review.context["hidden"])
    operator.post(f"{vm.get_absolute_url()}convert/", hidden | {"action": "start"})
    conversion = Conversion.objects.get(mode=Mode.COPY)
    assert PASSPHRASE not in everything_stored()
    assert actions.job_of(conversion).keys == (Key(selector="all", passphrase=PASSPHRASE),)


def test_a_retry_has_the_passphrase_and_a_success_forgets_it(operator: Client) -> None:
    vm = encrypted_vm()
    send(operator, vm, "start", **{"encryption-every": PASSPHRASE})
    first = Conversion.objects.get(mode=Mode.COPY)
    Conversion.objects.filter(pk=first.pk).update(status="running")
    actions.finish_conversion(first, Conversion.Status.FAILED, {})
    second = actions.retry_conversion(first, user=None)
    assert actions.job_of(second).keys[0].passphrase == PASSPHRASE
    Conversion.objects.filter(pk=second.pk).update(status="running")
    actions.finish_conversion(second, Conversion.Status.DONE, {})
    second.refresh_from_db()
    assert second.sealed_secrets == ""


def test_each_device_an_inspection_has_opened_has_its_own_field(operator: Client) -> None:
    vm = make_vm()
    reports = met(("/dev/sda5", "crypto_LUKS"), ("/dev/sdb2", "BitLocker"))
    make_inspection(make_conversion(vm, mode=Mode.INSPECT, reports=reports))
    # A run that was stopped before it came so far tells nothing.
    make_conversion(vm, mode=Mode.REHEARSE, status="stopped")
    fields = ("device0", "device1", "every")
    send(operator, vm, "start", **{f"encryption-{name}": name for name in fields})
    keys = actions.job_of(Conversion.objects.get(mode=Mode.COPY)).keys
    assert [(k.selector, k.passphrase) for k in keys] == [
        ("/dev/sda5", "device0"), ("/dev/sdb2", "device1"), ("all", "every"),
    ]  # fmt: skip


def test_a_machine_that_is_no_longer_encrypted_is_not_asked_for_passphrases(
    operator: Client,
) -> None:
    vm = make_vm()
    for found in ([("/dev/sda5", "crypto_LUKS")], []):
        make_inspection(make_conversion(vm, mode=Mode.INSPECT, reports=met(*found)))
    page = operator.get(f"{vm.get_absolute_url()}convert/").content.decode()
    assert "encryption-every" not in page


@pytest.mark.parametrize("code", ["E-ENCRYPTED", "E-KEY"])
def test_an_encrypted_machine_is_inspected_with_a_passphrase(operator: Client, code: str) -> None:
    vm = encrypted_vm(code)
    page = operator.get(vm.get_absolute_url()).content.decode()
    assert "Inspect with a passphrase" in page
    form = operator.get(f"{vm.get_absolute_url()}inspect/").content.decode()
    assert 'name="encryption-every"' in form
    operator.post(f"{vm.get_absolute_url()}inspect/", {"encryption-every": PASSPHRASE})
    started = Conversion.objects.filter(status="waiting").get()
    assert actions.job_of(started).keys[0].passphrase == PASSPHRASE


def test_what_was_sealed_with_another_key_has_to_be_typed_again(
    operator: Client,
) -> None:
    with override_settings(SECRET_KEY="another"):
        sealed = seal(PASSPHRASE)
    with pytest.raises(ValueError, match="SECRET_KEY"):
        unseal(sealed)
    response = send(operator, encrypted_vm(), "start", **{"encryption-every": sealed})
    assert "Type it again" in response.content.decode()


def test_a_job_without_secrets_is_stored_as_it_is() -> None:
    vm = make_vm()
    conversion = make_conversion(vm)
    assert conversion.sealed_secrets == ""
    assert actions.job_of(conversion) == Job.from_dict(conversion.job)
