"""The reference pages of the documentation, written from the code each time the site is built.

mkdocs calls `on_files`, see `mkdocs.yml`.
"""

import json
import os
from collections.abc import Iterator
from typing import Any

OUR_APPS = ("trading", "backtests", "dashboard", "orders", "risk")
WRITTEN_FROM = "Written from the code when this site is built."


def on_files(files: Any, config: Any) -> Any:
    """Adds the pages to those of `docs/`."""
    import django
    from mkdocs.structure.files import File  # a tool for building, which the product runs without

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "algotrader.settings")
    django.setup()
    for name, text in pages().items():
        files.append(File.generated(config, f"reference/{name}.md", content=text))
    return files


def pages() -> dict[str, str]:
    """The text of each page by its name. Django must be set up."""
    writers = {"settings": _settings, "commands": _commands, "api": _api, "messages": _messages}
    return {name: "\n".join([*write(), ""]) for name, write in writers.items()}


def _settings() -> Iterator[str]:
    from risk.config import SETTINGS

    yield f"# Settings\n\n{WRITTEN_FROM} Set them in the environment or in `.env`."
    yield "`manage.py showconfig` shows those in effect."
    yield "The key of a setting elsewhere is its variable without `ALGO_`, in lower case, with a dot for `__`.\n"
    yield "| variable | default | allowed | meaning |\n|---|---|---|---|"
    for setting in SETTINGS:
        applies = " Settings page, applies at once." if setting.ui else ""
        secret = " Secret: never shown." if setting.secret else ""
        default = f"`{setting.default}`" if setting.default else "empty"
        yield f"| `{setting.variable}` | {default} | {_cell(setting.bounds)} | {_cell(setting.help)}{applies}{secret} |"


def _commands() -> Iterator[str]:
    from django.core.management import get_commands, load_command_class

    yield f"# Commands\n\n{WRITTEN_FROM} Exit status: 0 done, 1 failed with one line that says why, 2 bad usage."
    for name, app in sorted(get_commands().items()):
        if app in OUR_APPS:
            parser = load_command_class(app, name).create_parser("manage.py", name)
            own = [action for action in parser._actions if action.option_strings not in _DJANGOS_OPTIONS]
            yield f"\n## {name}\n\n{parser.description}\n"
            if len(own):
                yield "| option | meaning |\n|---|---|"
            for action in own:
                shown = ", ".join(action.option_strings) or str(action.metavar or action.dest)
                value = f" {action.metavar or ''}".rstrip() if action.option_strings and action.nargs != 0 else ""
                yield f"| `{shown}{value}` | {_cell((action.help or '') % vars(action))} |"


_DJANGOS_OPTIONS = [
    ["-h", "--help"], ["--version"], ["-v", "--verbosity"], ["--settings"], ["--pythonpath"], ["--traceback"],
    ["--no-color"], ["--force-color"], ["--skip-checks"],
]  # fmt: skip


def _api() -> Iterator[str]:
    from algotrader.api import api

    document: Any = json.loads(json.dumps(api.get_openapi_schema(path_prefix="/api/"), default=str))
    yield f"# API\n\n{WRITTEN_FROM} A running installation shows it at `/api/docs`.\n"
    yield "All but health need a login, with its CSRF token for what changes something, or a bearer token"
    yield "(`manage.py apitoken`). Viewers may look, traders act, admins change settings. What is not done is answered"
    yield "with a problem of RFC 9457. An action sent again with the same `Idempotency-Key` is carried out once. Lists"
    yield "name the pages beside them in the header `Link`.\n"
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"## {method.upper()} {path}\n\n{operation['description']}\n"
            if operation["parameters"]:
                yield "| parameter | in | values |\n|---|---|---|"
            for parameter in operation["parameters"]:
                yield f"| `{parameter['name']}` | {parameter['in']} | {_cell(_type_of(parameter['schema']))} |"
            answers = ", ".join(sorted(operation["responses"]))
            yield f"\nAnswers: {answers}.\n"
    yield "## Examples\n"
    for name, schema in document["components"]["schemas"].items():
        if "example" in schema:
            yield f"### {name}\n\n{schema.get('description', '')}\n"
            yield f"```json\n{json.dumps(schema['example'], indent=2)}\n```\n"


def _messages() -> Iterator[str]:
    from dashboard.shapes import MESSAGES

    yield f"# Messages\n\n{WRITTEN_FROM} The WebSocket is `/ws/dashboard`; it needs a login and the same origin.\n"
    yield "Every message is an envelope. `seq` counts an engine's messages; `run_id` names the engine's run, and is"
    yield "null when the database answers for an engine that does not:\n"
    envelope = {"version": 1, "timestamp": "2026-03-02T15:04:05.000000Z", "type": "heartbeat", "run_id": 12, "seq": 40}
    yield f"```json\n{json.dumps({**envelope, 'data': {'server_time': envelope['timestamp']}})}\n```\n"
    shown = set()
    for kind, (shape, when) in MESSAGES.items():
        schema = shape.model_json_schema()
        yield f"## {kind}\n\nSent {when}. {schema.get('description', '')}\n"
        yield from _fields(schema)
        for name, part in schema.get("$defs", {}).items():
            if name not in shown:
                shown.add(name)
                yield f"\n**{name}**: {part.get('description', '')}\n"
                yield from _fields(part)
        yield ""


def _fields(schema: dict[str, Any]) -> Iterator[str]:
    yield "| field | values | meaning |\n|---|---|---|"
    for name, field in schema["properties"].items():
        yield f"| `{name}` | {_cell(_type_of(field))} | {_cell(field.get('description', ''))} |"


def _type_of(schema: dict[str, Any]) -> str:
    """A JSON schema in a few words."""
    if "$ref" in schema:
        return str(schema["$ref"].rpartition("/")[2])
    if "enum" in schema:
        return ", ".join(map(str, schema["enum"]))
    if "anyOf" in schema:
        return " or ".join(_type_of(each) for each in schema["anyOf"])
    if schema.get("type") == "array":
        return f"list of {_type_of(schema['items'])}"
    low, high = schema.get("minimum"), schema.get("maximum")
    span = f" from {low}" * (low is not None) + f" to {high}" * (high is not None)
    return f"{schema.get('format') or schema.get('type', 'anything')}{span}"


def _cell(text: str) -> str:
    """Text that does not end its cell."""
    return " ".join(text.split()).replace("|", "\\|")
