"""Targets on servers that ask for a password: OpenStack and oVirt, from the form to the engine."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from auditlog.models import LogEntry
from django.core import serializers
from django.test import Client
from django.utils import timezone

from conversions import leftovers, targets
from conversions.actions import (
    claim_conversion,
    finish_conversion,
    job_of,
    record_events,
    retry_conversion,
)
from conversions.models import Conversion, KeptWork, OutputTarget
from conversions.pipeline.leftovers import Notes
from conversions.pipeline.outputs.openstack import OpenStackOutput
from conversions.pipeline.outputs.ovirt_upload import OvirtUploadOutput
from conversions.tasks import check_targets
from inventory.sealing import seal
from tests.demo import GIB, make_conversion, make_user, make_vm
from tests.https_server import make_certificate
from tests.openstack_server import PROJECT, SERVER, Mood, OpenStackServer
from tests.ovirt_server import OvirtServer, State
from tests.unit.pipeline import test_openstack_output, test_ovirt_upload
from tests.unit.pipeline.samples import make_source, source_disk
from tests.web.test_convert import send

pytestmark = pytest.mark.django_db
SECRETS = {"openstack": Mood().password, "ovirt-upload": State().password}
KINDS = pytest.mark.parametrize("kind", list(SECRETS))
ADD = "/targets/add/"
DAY = timedelta(days=1)


@pytest.fixture
def admin(client: Client) -> Client:
    client.force_login(make_user("root", "Administrators"))
    return client


@pytest.fixture
def operator(client: Client) -> Client:
    client.force_login(make_user("ada", "Operators"))
    return client


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenStackServer]:
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(tmp_path / "clouds.yaml"))
    certificate, _thumbprint = make_certificate(tmp_path)
    with OpenStackServer(tmp_path / "cloud", certificate) as server:
        yield server


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[OvirtServer]:
    with OvirtServer(tmp_path) as server:
        yield server


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give a server more than its ten seconds: these hosts are busy with other tests."""
    ask = targets.ask
    monkeypatch.setattr("conversions.targets.ask", lambda target, **_o: ask(target, seconds=60))


def fields(kind: str, **changes: Any) -> dict[str, Any]:
    """Return what a browser sends; changes are of the kind's own fields, None leaves one out."""
    own: dict[str, dict[str, Any]] = {
        "openstack": {
            "uri": "https://cloud.example:5000/v3", "os_username": Mood().user,
            "os_user_domain_name": "Default", "os_project_name": "moves",
            "os_project_domain_name": "Default", "verify_server_certificate": "on",
            "server_id": SERVER, "storage": "fast",
        },
        "ovirt-upload": {
            "uri": "https://engine.example/ovirt-engine/api", "user": "admin@internal",
            "ovirt_verifypeer": "on", "storage": "data", "ovirt_cluster": "Default",
        },
    }  # fmt: skip
    values = {"password": SECRETS[kind]} | own[kind] | changes
    return {
        "name": "far", "kind": kind, "format": "raw", "allocation": "sparse",
        **{f"{kind}-{name}": value for name, value in values.items() if value is not None},
    }  # fmt: skip


def of_server(server: OpenStackServer | OvirtServer, **changes: Any) -> dict[str, Any]:
    """Return what a browser sends for a server of the tests."""
    if isinstance(server, OpenStackServer):
        trust = {"os_cacert": str(server.certificate), "uri": server.auth_url}
        return fields("openstack", **trust | changes)
    trust = {"ovirt_cafile": str(server.certificate), "uri": server.url}
    return fields("ovirt-upload", **trust | changes)


def errors_of(response: Any) -> dict[str, list[str]]:
    """Return what is marked in the kind's own fields."""
    found: dict[str, list[str]] = response.context["form"].part.errors
    return found


@pytest.fixture
def saved(monkeypatch: pytest.MonkeyPatch) -> Callable[..., OutputTarget]:
    """Make a target without asking anybody."""

    def make(kind: str, **values: Any) -> OutputTarget:
        key = {"openstack": "os-password", "ovirt-upload": "ovirt-password"}[kind]
        place: dict[str, dict[str, Any]] = {
            "openstack": {
                "uri": "https://cloud.example:5000/v3", "storage": "fast", "free_bytes": 40 * GIB,
                "options": {"server-id": SERVER, "os-username": "mover",
                            "os-user-domain-name": "Default", "os-project-name": "moves",
                            "os-project-domain-name": "Default",
                            "verify-server-certificate": "true"},
            },
            "ovirt-upload": {
                "uri": "https://admin%40internal@engine.example/ovirt-engine/api",
                "storage": "data", "free_bytes": 40 * GIB, "networks": ["lab", "ovirtmgmt"],
                "options": {"ovirt-cluster": "Default", "ovirt-verifypeer": "true",
                            "ovirt-proxy": "false"},
            },
        }  # fmt: skip
        base = {"name": "far", "kind": kind, "format": "raw"} | place[kind]
        secrets = seal({key: SECRETS[kind]})
        return OutputTarget.objects.create(**base | {"sealed_secrets": secrets} | values)

    return make


# --- The form -------------------------------------------------------------------------------------


@pytest.mark.parametrize("server", ["cloud", "engine"])
def test_a_server_is_looked_at_then_added_and_its_password_is_nowhere_in_clear(
    admin: Client, request: pytest.FixtureRequest, patient: None, server: str
) -> None:
    form = of_server(request.getfixturevalue(server))
    secret, kind = SECRETS[form["kind"]], form["kind"]
    page = admin.post(ADD, form | {"action": "look", f"{kind}-storage": ""}).content.decode()
    found = {"openstack": "Volume types: fast.", "ovirt-upload": "Storage domains: data."}
    assert found[kind] in page
    assert secret not in page
    assert 'value="sealed:' in page  # what was typed goes on with the next button
    assert not OutputTarget.objects.exists()
    assert admin.post(ADD, form).status_code == 302
    target = OutputTarget.objects.get()
    assert target.problem == ""
    assert target.free_bytes == {"openstack": 1000 * GIB, "ovirt-upload": 100 * GIB}[kind]
    assert target.networks == {"openstack": [], "ovirt-upload": ["lab", "ovirtmgmt"]}[kind]
    assert secret in json.dumps(target.engine_target().secrets)
    pages = [
        admin.get(address).content.decode()
        for address in ("/targets/", f"/targets/{target.uuid}/",
                        f"/admin/conversions/outputtarget/{target.pk}/change/")
    ]  # fmt: skip
    assert "Can be used" in pages[0]
    assert "kept sealed since" in pages[0]
    entries = [json.dumps(entry.changes) for entry in LogEntry.objects.all()]
    assert any("secrets_set_at" in entry for entry in entries)
    for text in (*pages, *entries, serializers.serialize("json", [target])):
        assert secret not in text
    for text in (*pages, *entries):
        assert "sealed:" not in text


@pytest.mark.parametrize("server", ["cloud", "engine"])
@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"password": "wrong"}, "uri", {
            "openstack": "Signing in to OpenStack failed",
            "ovirt-upload": "does not let admin@internal in: Cannot authenticate user. Check the",
        }),
        ({"storage": "slow"}, "storage", {
            "openstack": "has no volume type slow. It has: fast.",
            "ovirt-upload": "has no storage domain slow. It has: data.",
        }),
        ({"server_id": "x", "ovirt_cluster": "x"}, "uri", {
            "openstack": "Server x was not found in the project",
            "ovirt-upload": "has no cluster x. It has: Default, Other.",
        }),
        ({"os_cacert": None, "ovirt_cafile": None}, "uri", {
            "openstack": "certificate verify failed",
            "ovirt-upload": "CERTIFICATE_VERIFY_FAILED",
        }),
    ],
)  # fmt: skip
@pytest.mark.parametrize("action", ["look", "save"])
def test_what_the_server_refuses_is_said_at_the_form(
    admin: Client, request: pytest.FixtureRequest, patient: None, server: str,
    changes: dict[str, Any], field: str, words: dict[str, str], action: str,
) -> None:  # fmt: skip
    form = of_server(request.getfixturevalue(server), **changes) | {"action": action}
    response = admin.post(ADD, form)
    [error] = errors_of(response)[field]
    assert words[form["kind"]] in error
    assert " -o" not in error
    assert "(-o" not in error
    assert SECRETS[form["kind"]] not in response.content.decode()
    assert not OutputTarget.objects.exists()


@pytest.mark.parametrize("server", ["cloud", "engine"])
def test_a_server_that_leads_elsewhere_is_not_followed(
    admin: Client, request: pytest.FixtureRequest, patient: None, server: str
) -> None:
    running = request.getfixturevalue(server)
    mood = running.cloud.mood if isinstance(running, OpenStackServer) else running.trouble
    mood.redirect = "http://127.0.0.1:9/"
    [error] = errors_of(admin.post(ADD, of_server(running)))["uri"]
    assert "sends us elsewhere, which is not followed" in error


@KINDS
@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"uri": "file:///etc/passwd"}, "uri", "https://HOST:PORT/PATH"),
        ({"uri": "http://cloud.example/v3"}, "uri", "everybody on the way could read"),
        ({"uri": "https://u:geheim@cloud.example/v3"}, "uri", "Leave user and password out"),
        ({"uri": "https://u@cloud.example/v3"}, "uri", "Leave user and password out"),
        ({"uri": "https://cloud.exam ple/v3"}, "uri", "without spaces"),
        ({"uri": "https://cloud.example/v3?x=1"}, "uri", "nothing after the path"),
        ({"uri": "https://cloud.example/v3#x"}, "uri", "nothing after the path"),
        ({"uri": "https://{auth}/v3"}, "uri", "https://HOST:PORT/PATH"),
        ({"uri": "https://cloud.example:http/v3"}, "uri", "This is no address"),
        ({"uri": "https://[::1/v3"}, "uri", "This is no address"),
        ({"uri": "https:///v3"}, "uri", "https://HOST:PORT/PATH"),
        ({"uri": "cloud.example"}, "uri", "https://HOST:PORT/PATH"),
        ({"uri": "-oc"}, "uri", "https://HOST:PORT/PATH"),
        ({"password": ""}, "password", "Nobody is let in without one"),
    ],
)
@pytest.mark.parametrize("action", ["look", "save"])
def test_what_cannot_be_meant_is_refused_and_nobody_is_asked(
    admin: Client, monkeypatch: pytest.MonkeyPatch, kind: str, changes: dict[str, Any],
    field: str, words: str, action: str,
) -> None:  # fmt: skip
    monkeypatch.setattr("conversions.targets.ask", None)
    response = admin.post(ADD, fields(kind, **changes) | {"action": action})
    assert words in errors_of(response)[field][0]
    assert not OutputTarget.objects.exists()


@pytest.mark.parametrize(
    ("kind", "changes", "field"),
    [
        ("openstack", {"uri": ""}, "uri"),
        ("openstack", {"os_cloud": "lab"}, "uri"),
        ("openstack", {"os_cloud": "../x", "uri": ""}, "os_cloud"),
        ("openstack", {"os_cloud": "lab", "uri": "", "password": ""}, "os_username"),
        ("openstack", {"os_application_credential_id": "id"}, "os_username"),
        ("openstack", {"os_username": ""}, "os_username"),
        ("openstack", {"os_project_name": ""}, "os_project_name"),
        ("openstack", {"server_id": ""}, "server_id"),
        ("openstack", {"server_id": "../x"}, "server_id"),
        ("openstack", {"os_cacert": "/etc"}, "os_cacert"),
        ("openstack", {"os_cacert": "etc/hosts"}, "os_cacert"),
        ("ovirt-upload", {"ovirt_cafile": "/no/such"}, "ovirt_cafile"),
        ("ovirt-upload", {"user": ""}, "user"),
        ("ovirt-upload", {"storage": ""}, "storage"),
        ("ovirt-upload", {"storage": "a b"}, "storage"),
        ("ovirt-upload", {"ovirt_cluster": ""}, "ovirt_cluster"),
    ],
)
def test_what_is_missing_or_too_much_is_marked(
    admin: Client, monkeypatch: pytest.MonkeyPatch, kind: str, changes: dict[str, Any], field: str
) -> None:
    monkeypatch.setattr("conversions.targets.ask", None)
    response = admin.post(ADD, fields(kind, **changes))
    assert list(errors_of(response)) == [field]
    assert not OutputTarget.objects.exists()


@pytest.mark.parametrize(
    ("kind", "changes", "field"),
    [("openstack", {"format": "qcow2"}, "format"),
     ("openstack", {"allocation": "preallocated"}, "allocation"),
     ("ovirt-upload", {"allocation": "preallocated"}, "allocation"),
     ("ovirt-upload", {"format": "qcow2", "compressed": "on"}, "compressed")],
)  # fmt: skip
def test_disks_that_the_kind_does_not_take_are_refused(
    operator: Client, saved: Callable[..., OutputTarget], kind: str, changes: dict[str, Any],
    field: str,
) -> None:  # fmt: skip
    target = saved(kind)
    response = send(operator, make_vm(), "start", target=str(target.uuid), **changes)
    # The convert form starts with qcow2, so what is not said is that.
    assert "This target takes" in response.context["form"].errors[field][0]
    assert not Conversion.objects.exists()
    operator.force_login(make_user("root", "Administrators"))
    response = operator.post(ADD, fields(kind) | {"name": "new"} | changes)
    assert "This target takes" in response.context["form"].errors[field][0]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"os_username": "", "os_application_credential_id": "id"},
            {"os-application-credential-id", "os-auth-type"},
        ),
        (
            {"uri": "", "os_username": "", "password": "", "os_cloud": "lab"},
            {"os-cloud"},
        ),
    ],
)
def test_other_ways_to_sign_in(
    admin: Client, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], expected: set[str]
) -> None:
    storage = {"name": "fast", "path": "", "free_bytes": 1, "problem": ""}
    answer = {"problem": "", "free_bytes": None, "storages": [storage]}
    monkeypatch.setattr("conversions.targets.ask", lambda *_a, **_o: answer)
    admin.post(ADD, fields("openstack", **changes))
    target = OutputTarget.objects.get().engine_target(format="raw")
    assert {key for key in target.options if key.startswith("os-")} == expected
    secrets = {"os-application-credential-secret": (Mood().password,)} if target.uri else {}
    assert target.secrets == secrets


# --- Changing -------------------------------------------------------------------------------------


@KINDS
def test_an_empty_password_keeps_the_one_that_is_known_and_asks_nobody(
    admin: Client, saved: Callable[..., OutputTarget], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr("conversions.targets.ask", None)
    before = saved(kind)
    admin.post(f"/targets/{before.uuid}/", fields(kind, password="") | {"name": "renamed"})
    target = OutputTarget.objects.get()
    assert target.name == "renamed"
    assert target.engine_target().secrets == before.engine_target().secrets


@pytest.mark.parametrize(
    ("kind", "changes"),
    [("openstack", {"uri": "https://evil.example/v3"}),
     ("openstack", {"os_username": "other"}),
     ("openstack", {"verify_server_certificate": None}),
     ("openstack", {"os_cacert": "/etc/hosts"}),
     ("ovirt-upload", {"uri": "https://evil.example/ovirt-engine/api"}),
     ("ovirt-upload", {"user": "other@internal"}),
     ("ovirt-upload", {"ovirt_verifypeer": None}),
     ("ovirt-upload", {"ovirt_cafile": "/etc/hosts"})],
)  # fmt: skip
@pytest.mark.parametrize("action", ["look", "save"])
def test_a_password_goes_to_no_place_that_it_was_not_typed_for(
    admin: Client, saved: Callable[..., OutputTarget], monkeypatch: pytest.MonkeyPatch,
    kind: str, changes: dict[str, Any], action: str,
) -> None:  # fmt: skip
    monkeypatch.setattr("conversions.targets.ask", None)
    target = saved(kind)
    form = fields(kind, password="", **changes) | {"action": action}
    response = admin.post(f"/targets/{target.uuid}/", form)
    assert "Type it" in errors_of(response)["password"][0]


def test_a_target_that_becomes_another_kind_loses_its_password(
    admin: Client, saved: Callable[..., OutputTarget], tmp_path: Path
) -> None:
    target = saved("openstack")
    folder = str(tmp_path / "targets")
    form = fields("openstack") | {"kind": "local", "local-directory": folder}
    admin.post(f"/targets/{target.uuid}/", form)
    target.refresh_from_db()
    assert (target.kind, target.directory) == ("local", folder)
    assert (target.uri, target.storage, target.options, target.sealed_secrets) == ("", "", {}, "")


def test_a_kind_is_offered_only_where_its_library_is(
    admin: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert 'value="openstack"' in admin.get(ADD).content.decode()
    monkeypatch.setattr("conversions.target_forms.find_spec", lambda _name: None)
    page = admin.get(ADD).content.decode()
    assert '<option value="openstack"' not in page
    response = admin.post(ADD, fields("openstack"))
    assert response.context["form"].errors["kind"]


# --- The background check -------------------------------------------------------------------------


@pytest.mark.parametrize("server", ["cloud", "engine"])
def test_a_check_tells_when_the_password_was_changed_there_and_tries_it_once(
    admin: Client, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, patient: None,
    server: str,
) -> None:  # fmt: skip
    running = request.getfixturevalue(server)
    admin.post(ADD, of_server(running))
    target = OutputTarget.objects.get()
    if isinstance(running, OpenStackServer):
        running.cloud.mood.password = "another"
    else:
        running.state.password = "another"
    OutputTarget.objects.update(checked_at=None)
    check_targets()
    target.refresh_from_db()
    assert target.problem
    assert target.free_bytes
    page = admin.get("/targets/").content.decode()
    assert "Cannot be used" in page
    assert "It is not tried again" in page
    assert SECRETS[target.kind] not in page
    # Or the account would be locked there.
    monkeypatch.setattr("conversions.targets.ask", None)
    OutputTarget.objects.update(checked_at=None)
    check_targets()


def test_a_server_that_is_only_away_is_asked_again(
    admin: Client, engine: OvirtServer, patient: None
) -> None:
    admin.post(ADD, of_server(engine))
    for redirect, problem in (("https://elsewhere.example/", True), ("", False)):
        engine.trouble.redirect = redirect
        OutputTarget.objects.update(checked_at=None)
        check_targets()
        assert bool(OutputTarget.objects.get().problem) is problem


def test_a_quota_that_is_used_up_leaves_nothing_free(
    admin: Client, cloud: OpenStackServer, patient: None
) -> None:
    cloud.cloud.mood.quota_gib = 0
    admin.post(ADD, of_server(cloud))
    assert OutputTarget.objects.get().free_bytes == 0


def test_a_password_of_another_key_is_a_problem_and_starts_nothing(
    operator: Client, saved: Callable[..., OutputTarget]
) -> None:
    target = saved("openstack", sealed_secrets="sealed:damaged")
    targets.check(target)
    assert "cannot be read" in target.problem
    response = send(operator, make_vm(), "start", target=str(target.uuid), format="raw")
    assert "cannot be read" in response.content.decode()
    assert not Conversion.objects.exists()


# --- Conversions ----------------------------------------------------------------------------------


@KINDS
def test_it_reaches_the_engine_with_its_secrets_and_no_page_or_row_has_them(
    operator: Client, saved: Callable[..., OutputTarget], kind: str
) -> None:
    target, vm = saved(kind), make_vm("web01")
    form = send(operator, vm, "target", target=str(target.uuid)).context["form"]
    assert form["format"].value() == "raw"
    names = {"openstack": [], "ovirt-upload": ["lab", "ovirtmgmt"]}[kind]
    assert [name for name, _kind in form.networks()] == names
    chosen = {"target": str(target.uuid), "format": "raw"}
    review = send(operator, vm, "review", **chosen)
    page = review.content.decode()
    assert "40.0 GiB" in page
    assert {"openstack": "Quota of the project", "ovirt-upload": "Storage domain"}[kind] in page
    assert {"openstack": "hw_disk_bus=virtio", "ovirt-upload": "<Name>web01</Name>"}[
        kind
    ] in review.context["preview"].text
    again = dict(review.context["hidden"])
    operator.post(f"{vm.get_absolute_url()}convert/", again | {"action": "start"})
    run = Conversion.objects.get()
    assert run.target == target
    assert job_of(run).target == target.engine_target(format="raw")
    shown = operator.get(run.get_absolute_url()).content.decode()
    assert f"{target.uri}, {target.storage}" in shown.replace("&#x27;", "'")
    for text in (page, shown, json.dumps(run.job), run.sealed_secrets):
        assert SECRETS[kind] not in text


def test_a_server_of_openstack_has_no_networks_to_choose(
    operator: Client, saved: Callable[..., OutputTarget]
) -> None:
    chosen = {"target": str(saved("openstack").uuid), "format": "raw", "nic0_name": "lan"}
    response = send(operator, make_vm(), "start", **chosen)
    assert "nothing to choose" in response.context["form"].errors["nic0_name"][0]


@KINDS
@pytest.mark.parametrize("status", ["failed", "done"])
def test_a_retry_takes_the_password_of_now(
    operator: Client, saved: Callable[..., OutputTarget], kind: str, status: str
) -> None:
    target, vm = saved(kind), make_vm("web01")
    send(operator, vm, "start", target=str(target.uuid), format="raw")
    run = Conversion.objects.get()
    Conversion.objects.update(status=status)
    if status == "done":
        Conversion.objects.update(sealed_secrets="")
    [(key, _old)] = target.engine_target().secrets.items()
    OutputTarget.objects.update(sealed_secrets=seal({key: "another"}))
    run.refresh_from_db()
    job = job_of(retry_conversion(run, user=run.created_by))
    assert job.target
    assert job.target.secrets == {key: ("another",)}
    assert (job.target.uri, job.target.format) == (target.uri, "raw")


@KINDS
def test_a_copy_is_continued_into_it_with_the_password_of_now(
    operator: Client, saved: Callable[..., OutputTarget], kind: str
) -> None:
    target, vm = saved(kind), make_vm("web01")
    send(operator, vm, "start", target=str(target.uuid), format="raw")
    run = Conversion.objects.get()
    Conversion.objects.update(status="failed")
    KeptWork.objects.create(
        conversion=run, worker="here", folder="/kept", bytes=1, keep_until=timezone.now() + DAY
    )
    [(key, _old)] = target.engine_target().secrets.items()
    OutputTarget.objects.update(sealed_secrets=seal({key: "another"}))
    address = f"{run.get_absolute_url()}continue/"
    form = operator.get(address).context["form"]
    assert (form["target"].value(), form["format"].value()) == (str(target.uuid), "raw")
    values = {name: value for name, value in form.detected().items() if value not in (None, False)}
    operator.post(address, values)
    begun = Conversion.objects.exclude(pk=run.pk).get()
    job = job_of(begun)
    assert (begun.target, begun.worker, job.resume) == (target, "here", "/kept")
    assert job.target
    assert job.target.secrets == {key: ("another",)}


def test_a_retry_that_its_target_no_longer_takes_says_why(
    operator: Client, saved: Callable[..., OutputTarget]
) -> None:
    target = saved("ovirt-upload", format="qcow2")
    run = make_conversion(make_vm(), status="failed", target=target)
    OutputTarget.objects.update(kind="openstack", options={"server-id": SERVER}, sealed_secrets="")
    response = operator.post(f"{run.get_absolute_url()}retry/", follow=True)
    assert "cannot have format qcow2" in response.content.decode()
    assert Conversion.objects.count() == 1


@pytest.mark.parametrize(
    ("kind", "words"), [("openstack", "bootable volume"), ("ovirt-upload", "machine of oVirt")]
)
def test_the_page_of_a_run_says_where_the_result_is(
    operator: Client, saved: Callable[..., OutputTarget], kind: str, words: str
) -> None:
    created = {"openstack": [{"path": "web01-sda (0f3c)", "bytes": 8 * GIB}],
               "ovirt-upload": [{"path": "data/web01-000", "bytes": 0}]}[kind]  # fmt: skip
    described = {"image_properties": {"os_type": "linux"}, "ovf": {"text": "<Envelope/>"}}
    name = {"openstack": "image_properties", "ovirt-upload": "ovf"}[kind]
    reports = {"files": {"created": created, "removed": []}, name: described[name]}
    run = make_conversion(make_vm(), target=saved(kind), reports=reports)
    run.job["target"] |= {"kind": kind, "directory": ""}
    run.save()
    page = operator.get(run.get_absolute_url())
    assert words in page.context["sentence"]
    assert created[0]["path"] in page.content.decode()
    text = operator.get(f"{run.get_absolute_url()}description/").content.decode()
    assert text == {"openstack": "os_type=linux", "ovirt-upload": "<Envelope/>"}[kind]


def begun(client: Client, server: OpenStackServer | OvirtServer) -> Conversion:
    """Add a server as a target, start a conversion into it by the pages, and take it."""
    client.post(ADD, of_server(server))
    target = OutputTarget.objects.get()
    send(client, make_vm("web01"), "start", target=str(target.uuid), format="raw")
    run = claim_conversion(str(Conversion.objects.get().uuid))
    assert run
    return run


def page_after(client: Client, run: Conversion, events: list[dict[str, Any]]) -> str:
    """Store what an output has told, end the run well, and return its page."""
    record_events(run, events)
    finish_conversion(run, "done", {})
    run.refresh_from_db()
    secret = SECRETS[str(run.job["target"]["kind"])]
    log = client.get(f"{run.get_absolute_url()}log.txt")
    lines = "".join(line.text for line in run.lines.all())
    page = client.get(run.get_absolute_url()).content.decode()
    assert log.status_code == 200
    for text in (page, lines, json.dumps(run.reports), json.dumps(events)):
        assert secret not in text
    assert run.sealed_secrets == ""
    return page


def test_a_job_of_the_console_makes_volumes_that_its_page_names(
    admin: Client, cloud: OpenStackServer, patient: None, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("conversions.pipeline.outputs.openstack_cloud.POLL_SECONDS", 0.01)
    run = begun(admin, cloud)
    raw = tmp_path / "source0.raw"
    raw.write_bytes(b"data" * 1024)
    report = test_openstack_output.RecordingReporter()
    source = make_source(name="web01", disks=(replace(source_disk(0), path=str(raw)),))
    overlays = test_openstack_output.create_overlays(source, tmp_path, report)
    scene = test_openstack_output.Scene(cloud, tmp_path, source, overlays, report)
    target = job_of(run).target
    assert target
    by_id = {"dev-disk-by-id": (str(cloud.cloud.by_id),)}
    here = replace(target, options={**target.options, **by_id})
    scene.convert(OpenStackOutput(here, "web01", report))
    volume = cloud.cloud.volume("web01-sda")
    assert volume["volume_type"] == "fast"
    with cloud.cloud.data_of(volume["id"]).open("rb") as written:
        assert written.read(4096) == b"data" * 1024
    page = page_after(admin, run, report.events)
    assert f"web01-sda ({volume['id']})" in page
    assert "Properties that OpenStack starts the machine by" in page


def test_a_job_of_the_console_makes_a_machine_of_ovirt(
    admin: Client, engine: OvirtServer, patient: None, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("conversions.pipeline.outputs.ovirt_api.POLL_SECONDS", 0.01)
    run = begun(admin, engine)
    disks = test_ovirt_upload.Disks(tmp_path)
    scene = test_ovirt_upload.Scene(engine, tmp_path, disks, 1)
    target = job_of(run).target
    assert target
    scene.convert(OvirtUploadOutput(target, "web01", scene.report))
    [disk] = engine.state.disks.values()
    assert disk.data == scene.expected[0]
    assert len(engine.state.vms) == 1
    page = page_after(admin, run, scene.report.events)
    assert "data/web01-000" in page
    assert "OVF of the machine for oVirt" in page


@pytest.mark.parametrize("server", ["cloud", "engine"])
def test_what_a_killed_run_left_is_looked_for_with_the_password_of_now(
    admin: Client, request: pytest.FixtureRequest, patient: None, server: str
) -> None:
    running = request.getfixturevalue(server)
    run = begun(admin, running)
    work = leftovers.work_dir(run)
    work.mkdir()
    target = job_of(run).target
    assert target
    if isinstance(running, OpenStackServer):
        place, thing = f"OpenStack at 127.0.0.1, project {PROJECT}", "volume"
        mood, logins = running.cloud.mood, lambda: running.cloud.calls.count("token issue")
    else:
        place, thing = running.url, "disk"
        mood, logins = running.state, lambda: running.state.logins
    Notes(work, target, place).add(
        thing=thing, name="web01-sda", id=str(uuid.UUID(int=1)), mark="x"
    )
    mood.password = "another"
    leftovers.clean_up_after(run)
    assert run.reports["leftovers"]["state"] == "unfinished"
    [key] = target.secrets
    OutputTarget.objects.update(sealed_secrets=seal({key: "another"}))
    before = logins()
    run.refresh_from_db()
    leftovers.clean_up_after(run)
    assert logins() == before + 1
    assert "leftovers" not in run.reports
    assert not work.exists()
