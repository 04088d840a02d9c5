"""Who gets in, who may do what, and what a refusal says."""

from __future__ import annotations

import re

import pytest
from django.contrib.auth.models import Group, Permission, User
from django.core.management import call_command
from django.core.management.base import CommandError
from django.test import Client

from inventory.access import ROLES, create_roles
from tests.demo import make_conversion, make_inspection, make_user, make_vm

pytestmark = pytest.mark.django_db


def signed_in(role: str | None) -> Client:
    client = Client()
    client.force_login(make_user("someone", role))
    return client


def test_the_three_roles_exist_after_migrating_and_build_on_each_other() -> None:
    names = {
        name: set(Group.objects.get(name=name).permissions.values_list("codename", flat=True))
        for name in ROLES
    }
    assert names["Viewers"] < names["Operators"] < names["Administrators"]
    assert "run_conversion" not in names["Viewers"]
    assert "purge_conversion" not in names["Operators"]


def test_creating_the_roles_again_keeps_what_was_granted_besides() -> None:
    viewers = Group.objects.get(name="Viewers")
    extra = Group.objects.get(name="Operators").permissions.get(codename="run_conversion")
    viewers.permissions.add(extra)
    create_roles()
    assert extra in viewers.permissions.all()


def test_what_was_taken_from_a_role_stays_away_and_what_is_new_is_granted() -> None:
    operators = Group.objects.get(name="Operators")
    taken = Permission.objects.get(codename="run_conversion")
    operators.permissions.remove(taken)
    Permission.objects.get(codename="add_sourcevm").delete()  # as if of a new version
    call_command("migrate", verbosity=0)
    names = set(operators.permissions.values_list("codename", flat=True))
    assert "run_conversion" not in names
    assert "add_sourcevm" in names


@pytest.mark.parametrize(
    "path",
    ["/", "/machines/", "/conversions/", "/reports/", "/conversions/export.csv", "/admin/"],
)
def test_nothing_is_shown_without_signing_in(client: Client, path: str) -> None:
    response = client.get(path)
    assert response.status_code == 302
    assert "login" in response["Location"]


@pytest.mark.parametrize(
    ("page", "back"),
    [
        ("http://testserver/sources/?page=2", "/sources/%3Fpage%3D2"),
        ("http://elsewhere.example/x", "/"),
        (None, "/"),
    ],
)
def test_a_page_that_polls_is_led_to_sign_in_as_a_whole(
    client: Client, page: str | None, back: str
) -> None:
    headers = {"HX-Request": "true"} | ({"HX-Current-URL": page} if page else {})
    response = client.get("/sources/list/", headers=headers)
    assert response.status_code == 200
    assert response.content == b""
    assert response["HX-Redirect"] == f"/accounts/login/?next={back}"


def test_the_sign_in_page_leads_to_the_page_that_was_asked_for(client: Client) -> None:
    make_user("ada", "Viewers")
    response = client.post(
        "/accounts/login/", {"username": "ada", "password": "ada", "next": "/reports/"}
    )
    assert response["Location"] == "/reports/"


def test_an_account_without_a_role_is_told_who_can_help() -> None:
    response = signed_in(None).get("/machines/")
    assert response.status_code == 403
    assert "administrator can make you a viewer" in response.content.decode()


@pytest.mark.parametrize("place", ["/", "/machines/", "/conversions/", "/reports/"])
def test_a_viewer_reads_every_place(place: str) -> None:
    assert signed_in("Viewers").get(place).status_code == 200


@pytest.mark.parametrize("verb", ["inspect", "rehearse", "convert", "forget"])
def test_a_viewer_starts_and_deletes_nothing(verb: str) -> None:
    vm = make_vm()
    response = signed_in("Viewers").post(f"{vm.get_absolute_url()}{verb}/")
    assert response.status_code == 403
    assert "Operators" in response.content.decode()
    assert not vm.conversions.exists()


def test_a_viewer_sees_no_buttons_that_would_refuse() -> None:
    vm = make_vm()
    make_inspection(make_conversion(vm))
    page = signed_in("Viewers").get(vm.get_absolute_url()).content.decode()
    assert f"{vm.get_absolute_url()}convert/" not in page
    assert "need the role Operators" in page


def test_too_many_wrong_passwords_close_the_door_with_a_sentence(client: Client) -> None:
    make_user("ada", "Viewers")
    for _attempt in range(5):
        response = client.post("/accounts/login/", {"username": "ada", "password": "wrong"})
    assert response.status_code == 429
    assert "failed 5 times, so it is closed for 15 minutes" in response.content.decode()
    response = client.post("/accounts/login/", {"username": "ada", "password": "ada"})
    assert response.status_code == 429


def test_changing_the_password_takes_the_old_one_and_works() -> None:
    client = signed_in("Viewers")
    form = {
        "old_password": "someone",
        "new_password1": "correct horse 7",
        "new_password2": "correct horse 7",
    }
    response = client.post("/accounts/password/", form, follow=True)
    assert "Your new password is in force" in response.content.decode()
    assert User.objects.get(username="someone").check_password("correct horse 7")


def test_the_first_administrator_gets_a_random_password_shown_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    call_command("create_admin")
    match = re.search(r"Sign in as admin with the password (\S+)", capsys.readouterr().out)
    assert match
    admin = User.objects.get(username="admin")
    assert admin.check_password(match[1])
    assert admin.is_staff
    call_command("create_admin")
    assert capsys.readouterr().out == ""


def test_an_administrator_can_get_a_new_password(capsys: pytest.CaptureFixture[str]) -> None:
    call_command("create_admin")
    old = User.objects.get(username="admin").password
    call_command("create_admin", "--reset")
    assert User.objects.get(username="admin").password != old
    with pytest.raises(CommandError, match="There is no user nobody"):
        call_command("create_admin", "--reset", "--username", "nobody")


def test_the_name_of_someone_else_is_not_taken_over() -> None:
    make_user("admin", "Viewers")
    with pytest.raises(CommandError, match="exists and is no administrator"):
        call_command("create_admin")


def test_pages_allow_no_inline_style_or_script() -> None:
    response = signed_in("Viewers").get("/machines/")
    policy = response["Content-Security-Policy"]
    assert "unsafe" not in policy
    page = response.content.decode()
    assert " style=" not in page
    assert not re.search(r"<script(?![^>]*\ssrc=)", page)
    assert not re.search(r"\son\w+=", page)


def test_an_unknown_address_says_so_with_a_way_back() -> None:
    response = signed_in("Viewers").get("/machines/00000000-0000-0000-0000-000000000000/")
    assert response.status_code == 404
    assert "Go to the overview" in response.content.decode()
