"""Viewer, trader and admin: who may look, act, and change settings."""

import json

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client

from tests.web.conftest import signed_in


def member(group: str) -> Client:
    user = User.objects.create_user(group)
    user.groups.add(Group.objects.get(name=group))
    return signed_in(user)


def changes_a_setting(browser: Client) -> int:
    body = json.dumps({"risk.max_open_positions": 4})
    return browser.put("/api/settings", body, content_type="application/json").status_code


ANSWERS = [("viewer", 403, 403), ("trader", 202, 403), ("admin", 202, 200)]


@pytest.mark.parametrize(("group", "halts", "changes"), ANSWERS)
def test_a_viewer_looks_a_trader_acts_and_an_admin_changes_settings(
    lease: str, group: str, halts: int, changes: int
) -> None:
    browser = member(group)
    assert browser.get("/").status_code == 200
    assert browser.post("/api/halt").status_code == halts
    assert changes_a_setting(browser) == changes
    assert ('id="halt"' in browser.get("/").content.decode()) == (halts == 202)


def test_only_an_admin_enters_the_admin_and_can_save_settings_there(ledger: str) -> None:
    page = "/admin/risk/settingsoverride/"
    assert [member(group).get(page).status_code for group in ("viewer", "trader", "admin")] == [302, 302, 200]


def test_a_staff_user_without_a_group_counts_as_admin_and_with_one_as_that(ledger: str) -> None:
    user = User.objects.create_user("old hand", is_staff=True)
    browser = signed_in(user)
    assert changes_a_setting(browser) == 200
    user.groups.add(Group.objects.get(name="viewer"))
    assert changes_a_setting(browser) == 403


def test_a_refusal_says_which_group_is_needed(lease: str) -> None:
    answer = member("viewer").post("/api/halt").json()
    assert answer["detail"] == "This needs the group trader or admin."
