"""The systemd units start what we have, end it in time, and let it do little else."""

import configparser
from pathlib import Path

import pytest
from django.core.management import get_commands, load_command_class

UNITS = Path(__file__).parents[2] / "deploy" / "systemd"
SERVICES = sorted(path.name for path in UNITS.glob("*.service"))
HARDENED = {
    "NoNewPrivileges": "yes", "ProtectSystem": "strict", "ProtectHome": "yes", "PrivateTmp": "yes",
    "CapabilityBoundingSet": "", "UMask": "0077", "StateDirectoryMode": "0700", "User": "algo-trader",
}  # fmt: skip


class _Lists(dict[str, str]):
    """Keys that come again, such as ExecStartPre, are joined."""

    def __setitem__(self, key: str, value: object) -> None:
        if isinstance(value, list) and isinstance(self.get(key), list):
            value = [*self[key], *value]
        super().__setitem__(key, value)  # type: ignore[assignment]


def unit(name: str) -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser(strict=False, dict_type=_Lists)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(UNITS / name)
    return parser


def test_there_is_one_for_each_process_of_both_layouts() -> None:
    assert SERVICES == [
        "algo-trader-engine.service", "algo-trader-web@.service", "algo-trader-worker.service", "algo-trader.service",
    ]  # fmt: skip


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_starts_a_command_with_options_that_it_knows(name: str) -> None:
    service = unit(name)["Service"]
    commands = [service["ExecStart"], *service.get("ExecStartPre", "").splitlines()]
    for program, *words in (command.split() for command in commands if command):
        assert program.startswith(f"{service['WorkingDirectory']}/.venv/bin/")
        if words[0] != "manage.py":
            assert words == ["-v", "0", "--fd", "3", "algotrader.asgi:application"]
            continue
        command = load_command_class(get_commands()[words[1]], words[1])
        assert vars(command.create_parser("manage.py", words[1]).parse_args(words[2:]))


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_has_time_to_end_in_good_order_and_few_rights(name: str) -> None:
    service = unit(name)["Service"]
    assert int(service["TimeoutStopSec"]) >= 30
    assert (service["KillMode"], service["KillSignal"]) == ("mixed", "SIGTERM")
    assert {key: service.get(key) for key in HARDENED} == HARDENED


def test_the_web_processes_share_a_port_of_this_machine_alone() -> None:
    assert unit("algo-trader-web.socket")["Socket"]["ListenStream"] == "127.0.0.1:8000"
    web = unit("algo-trader-web@.service")
    assert web["Service"]["Sockets"] == web["Unit"]["Requires"] == "algo-trader-web.socket"
