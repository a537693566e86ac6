"""The documentation builds with every link checked, loads nothing from elsewhere, and its reference is complete."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.management import get_commands

from algotrader.reference import OUR_APPS
from dashboard.shapes import MESSAGES
from risk.config import SETTINGS

ROOT = Path(__file__).parents[2]
LOADED = re.compile(
    r"<(?:script|img|iframe|source)[^>]* src=\"?(https?:)?//|<link[^>]* href=\"?https?://", re.IGNORECASE
)
IMPORTED = re.compile(r"@import|url\((?:https?:)?//")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


def test_it_loads_nothing_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 15
    for page in pages:
        assert not LOADED.search(page.read_text()), page
    for sheet in site.rglob("*.css"):
        assert not IMPORTED.search(sheet.read_text()), sheet


def test_the_reference_has_every_setting_command_message_and_route(site: Path) -> None:
    text = {
        name: (site / "reference" / f"{name}.html").read_text() for name in ("settings", "commands", "api", "messages")
    }
    assert all(setting.variable in text["settings"] for setting in SETTINGS)
    ours = [name for name, app in get_commands().items() if app in OUR_APPS]
    assert all(f'id="{name}"' in text["commands"] for name in ours)
    assert all(f'id="{kind}"' in text["messages"] for kind in MESSAGES)
    for route in ("GET /api/orders", "PUT /api/settings", "POST /api/flatten", "GET /api/metrics"):
        assert route in text["api"]


def test_every_page_can_be_reached_from_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text()
    assert [page.name for page in (ROOT / "docs").glob("*.md") if f": {page.name}" not in navigation] == []
