"""The pure modules, as the project's import contract lists them, read no clock, throw no dice and touch no file."""

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
(CONTRACT,) = (contract for contract in CONTRACTS["contracts"] if contract.get("id") == "pure")
APPS = {"orders", "risk", "trading", "backtests"}
FORBIDDEN_MODULES = {*CONTRACT["forbidden_modules"], "tempfile", "socket", "subprocess", "sys", "shutil", "io"}
FORBIDDEN_CALLS = {
    "now", "today", "utcnow", "monotonic", "perf_counter", "uuid1", "uuid4", "urandom", "getenv", "print", "input",
}  # fmt: skip
FORBIDDEN_BUILTINS = {"open", "exec", "eval", "globals", "__import__"}
# What a file's name says of it: the rest of an app's own files are pure, and so in the contract.
NOT_PURE = {
    "__init__", "admin", "api", "apps", "command", "consumers", "fields", "guards", "models", "store", "tasks", "urls",
    "views", "rows", "execution", "fetching", "report", "terminal", "sweep_store", "workers", "roles", "symbols",
    "tokens", "notification_store",
    "walkforward_store",
}  # fmt: skip


def files() -> dict[str, Path]:
    """Every pure module with its file; of a package, the modules in it."""
    found: dict[str, Path] = {}
    for name in CONTRACT["source_modules"]:
        path = ROOT.joinpath(*name.split("."))
        if path.is_dir():
            found |= {f"{name}.{file.stem}": file for file in path.rglob("*.py")}
        else:
            found[name] = path.with_suffix(".py")
    return found


PURE = files()


def faults(source: str) -> Iterator[str]:
    """What a pure module must not do, by line."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [node.module or "."] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            for name in modules:
                top = name.split(".")[0]
                if top in FORBIDDEN_MODULES or (top in APPS and not is_pure(name)):
                    yield f"line {node.lineno} imports {name}"
        elif isinstance(node, ast.Call):
            called = node.func
            name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            builtin = isinstance(called, ast.Name) and name in FORBIDDEN_BUILTINS
            if builtin or name in FORBIDDEN_CALLS:
                yield f"line {node.lineno} calls {name}"


def is_pure(module: str) -> bool:
    return any(module == name or name.startswith(f"{module}.") for name in PURE)


@pytest.mark.parametrize("module", sorted(PURE))
def test_a_pure_module_reads_no_clock_and_imports_only_its_like(module: str) -> None:
    assert list(faults(PURE[module].read_text())) == []


@pytest.mark.parametrize(
    "source",
    [
        "import os",
        "import random as dice",
        "from asyncio import sleep",
        "from django.db import models",
        "from orders.models import OrderState",
        "from trading.live.engine import Engine",
        "started = datetime.now(UTC)",
        "day = date.today()",
        "name = uuid4()",
        "name = uuid.uuid4()",
        "def told(x):\n    print(x)",
        "text = open('bars.csv').read()",
    ],
)
def test_what_is_forbidden_is_found(source: str) -> None:
    assert list(faults(source))


@pytest.mark.parametrize(
    "source",
    ["from orders.lifecycle import Order", "from decimal import Decimal", "now = event.now", "uuid5(space, name)"],
)
def test_what_is_allowed_is_not_found(source: str) -> None:
    assert list(faults(source)) == []


def test_every_plainly_named_file_of_an_app_is_under_the_contract() -> None:
    plain = {f"{app}.{file.stem}" for app in APPS for file in (ROOT / app).glob("*.py") if file.stem not in NOT_PURE}
    assert plain <= set(PURE)
