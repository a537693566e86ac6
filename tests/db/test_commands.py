"""Commands as a user runs them: settings shown, bad ones refused, the first login, errors in plain words."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command

from risk.config import SETTINGS
from risk.models import SettingsOverride

ROOT = Path(__file__).parents[2]


@pytest.fixture
def data_folder(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "data"


def manage(*arguments: str, data_folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """What `manage.py` does in a process of its own, with ALGO_ variables given without that prefix."""
    environment = {name: text for name, text in os.environ.items() if not name.startswith(("ALGO_", "DJANGO_"))}
    environment |= {"ALGO_ENV_FILE": os.devnull, "ALGO_DATA_DIR": str(data_folder)}
    environment |= {f"ALGO_{name}": text for name, text in variables.items()}
    command = [sys.executable, str(ROOT / "manage.py"), *arguments]
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def shown(capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, Any]]:
    call_command("showconfig", "--json")
    rows: dict[str, dict[str, Any]] = json.loads(capsys.readouterr().out)
    return rows


def change(key: str, value: str) -> None:
    SettingsOverride.objects.create(key=key, value=value)


# --- showconfig -------------------------------------------------------------------------------------------------------


def test_showconfig_lists_every_setting_with_value_source_and_bounds(
    each_ledger: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = shown(capsys)
    assert list(rows) == [setting.key for setting in SETTINGS]
    limit = rows["risk.max_daily_loss_pct"]
    assert (limit["value"], limit["source"], limit["bounds"]) == ("0.03", "default", "a number from 0.01 to 0.10")
    assert limit["variable"] == "ALGO_RISK__MAX_DAILY_LOSS_PCT"
    assert rows["data_dir"]["source"] == "env"


def test_showconfig_shows_what_the_settings_page_changed(each_ledger: str, capsys: pytest.CaptureFixture[str]) -> None:
    change("risk.max_daily_loss_pct", "0.02")
    rows = shown(capsys)
    assert (rows["risk.max_daily_loss_pct"]["value"], rows["risk.max_daily_loss_pct"]["source"]) == ("0.02", "override")
    assert rows["risk.max_open_positions"]["source"] == "default"


def test_showconfig_ignores_an_override_of_a_setting_that_the_page_cannot_change(
    each_ledger: str, capsys: pytest.CaptureFixture[str]
) -> None:
    change("allow_live_trading", "true")
    assert (row := shown(capsys)["allow_live_trading"])["value"] == "false"
    assert row["source"] == "default"


def test_showconfig_works_before_the_first_migrate_and_never_prints_a_secret(data_folder: Path) -> None:
    secrets = {"BROKER__API_KEY": "PK-known", "BROKER__SECRET_KEY": "hush-hush", "SECRET_KEY": "signing-signing"}
    for arguments in (["showconfig"], ["showconfig", "--json"]):
        done = manage(*arguments, data_folder=data_folder, RISK__MAX_OPEN_POSITIONS="7", **secrets)
        assert done.returncode == 0
        assert "no such table" in done.stderr
        assert not [secret for secret in secrets.values() if secret in done.stdout + done.stderr]
        for setting in SETTINGS:
            assert setting.key in done.stdout
        if "--json" not in arguments:
            row = next(line.split() for line in done.stdout.splitlines() if "max_open_positions" in line)
            assert row[:3] == ["risk.max_open_positions", "7", "env"]
            assert "********" in done.stdout


# --- what every command does ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [["showconfig"], ["check"], ["migrate"], ["help"]])
def test_a_bad_setting_stops_every_command_with_one_line(data_folder: Path, command: list[str]) -> None:
    done = manage(*command, data_folder=data_folder, RISK__MAX_DAILY_LOSS_PCT="0.5")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == (
        "ALGO_RISK__MAX_DAILY_LOSS_PCT='0.5' is not allowed: it must be a number from 0.01 to 0.10\n"
    )


def test_a_data_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = manage("check", data_folder=tmp_path / "file" / "data")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("ALGO_DATA_DIR=")


def test_bad_usage_is_status_2(data_folder: Path) -> None:
    assert manage("showconfig", "--colour", data_folder=data_folder).returncode == 2


def test_a_database_without_tables_is_one_line_that_says_what_to_do(data_folder: Path) -> None:
    done = manage("ensureadmin", data_folder=data_folder)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "manage.py migrate" in done.stderr


def test_a_database_server_that_does_not_answer_is_one_line(data_folder: Path) -> None:
    done = manage("ensureadmin", data_folder=data_folder, DATABASE_URL="postgres://me:hush@127.0.0.1:1/x")
    assert done.returncode == 1
    assert "ALGO_DATABASE_URL" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "hush" not in done.stderr


def test_the_data_folder_is_made_with_keys_for_its_owner_alone(data_folder: Path) -> None:
    assert manage("check", data_folder=data_folder).returncode == 0
    first = {}
    for name in ("secret_key", "api_token"):
        assert stat.S_IMODE((data_folder / name).stat().st_mode) == 0o600
        first[name] = (data_folder / name).read_text()
        assert len(first[name]) > 50
    assert manage("check", data_folder=data_folder).returncode == 0
    assert {name: (data_folder / name).read_text() for name in first} == first
    assert sorted(path.name for path in data_folder.iterdir()) == ["api_token", "secret_key"]


def test_processes_that_start_at_once_agree_on_the_keys(data_folder: Path) -> None:
    data_folder.mkdir(parents=True)
    program = (
        "import sys; from pathlib import Path; from algotrader.keys import kept_key; "
        "sys.stdin.read(1); print(kept_key(Path(sys.argv[1])))"
    )
    command = [sys.executable, "-c", program, str(data_folder / "key")]
    children = [
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(8)
    ]
    keys = {child.communicate("x")[0] for child in children}
    assert keys == {(data_folder / "key").read_text()}


# --- ensureadmin ------------------------------------------------------------------------------------------------------


def test_the_first_start_makes_one_login_and_says_its_password_once(
    each_ledger: str, capsys: pytest.CaptureFixture[str]
) -> None:
    call_command("ensureadmin")
    line = capsys.readouterr().out.splitlines()[0]
    admin = User.objects.get()
    assert (admin.username, admin.is_staff, admin.is_superuser) == ("admin", True, True)
    assert admin.check_password(line.rpartition(" ")[2])
    call_command("ensureadmin")
    assert capsys.readouterr().out == ""
    assert User.objects.count() == 1


def test_no_login_is_made_where_there_is_one(ledger: str, capsys: pytest.CaptureFixture[str]) -> None:
    User.objects.create_user("operator")
    call_command("ensureadmin")
    assert capsys.readouterr().out == ""
    assert User.objects.count() == 1
