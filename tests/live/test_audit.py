"""The audit of what is locked, against an advisory service of this machine, and without one."""

import gzip
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.live.engine_process import free_port

ROOT = Path(__file__).resolve().parents[2]
TODAY = datetime.now(UTC).date()
YESTERDAY = TODAY - timedelta(days=1)
FLAW = {
    "schema_version": "1.0.0", "id": "PYSEC-1", "aliases": ["CVE-1"], "summary": "Opens the door",
    "affected": [
        {
            "package": {"name": "lamp", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "1.1"}]}],
        }
    ],
}  # fmt: skip
NPM_FLAW = {
    "id": 1, "url": "https://advisories.example/GHSA-chart", "title": "Draws too much", "severity": "high",
    "vulnerable_versions": "<2.0.0", "cwe": [], "cvss": {"score": 8, "vectorString": None},
}  # fmt: skip


class Advisories:
    """Speaks OSV and npm's audit; `asked` are the packages that were asked for."""

    def __init__(self) -> None:
        self.of_python: dict[str, Any] = {}
        self.of_npm: dict[str, Any] = {}
        self.asked: set[str] = set()
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                question = json.loads(gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body)
                if self.path == "/osv":
                    service.asked.add(question["package"]["name"])
                    self._answer(service.of_python)
                else:
                    service.asked |= question.keys()
                    self._answer(service.of_npm)

            def do_GET(self) -> None:
                self._answer(
                    {"name": self.path[1:], "versions": {"1.0.0": {"name": self.path[1:], "version": "1.0.0"}}}
                )

            def _answer(self, content: object) -> None:
                text = json.dumps(content).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def advisories() -> Iterator[Advisories]:
    running = Advisories()
    yield running
    running.close()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project that has locked one package of each kind."""
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements" / "base.txt").write_text(f"lamp==1.0 --hash=sha256:{'0' * 64}\n")
    (tmp_path / "requirements" / "audit-ignored.toml").write_text("")
    (tmp_path / "package.json").write_text('{"name": "p", "version": "1.0.0", "dependencies": {"chart": "1.0.0"}}')
    packages = {
        "": {"name": "p", "version": "1.0.0", "dependencies": {"chart": "1.0.0"}},
        "node_modules/chart": {"version": "1.0.0"},
    }
    lock = {"name": "p", "version": "1.0.0", "lockfileVersion": 3, "requires": True, "packages": packages}
    (tmp_path / "package-lock.json").write_text(json.dumps(lock))
    return tmp_path


def audited(project: Path, url: str) -> tuple[int, list[str]]:
    """The exit status and the lines, errors too."""
    variables = {"npm_config_registry": url, "npm_config_fetch_retries": "0", "HOME": str(project)}
    done = subprocess.run(
        [sys.executable, "-m", "tests.audit", "--folder", str(project), "--osv-url", f"{url}/osv"],
        cwd=ROOT, env=os.environ | variables, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    return done.returncode, [*done.stdout.splitlines(), *done.stderr.splitlines()]


def let_pass(project: Path, number: str, *, reason: str, until: str) -> None:
    entry = f'[[ignored]]\nid = "{number}"\nreason = "{reason}"\nuntil = {until}\n'
    with (project / "requirements" / "audit-ignored.toml").open("a") as file:
        file.write(entry)


def test_everything_that_is_locked_is_asked_for_and_nothing_is_known(project: Path, advisories: Advisories) -> None:
    assert audited(project, advisories.url) == (
        0,
        ["Python: no known vulnerabilities", "npm: no known vulnerabilities"],
    )
    assert advisories.asked == {"lamp", "chart"}


def test_a_known_vulnerability_fails_the_audit_until_it_is_let_pass(project: Path, advisories: Advisories) -> None:
    advisories.of_python, advisories.of_npm = {"vulns": [FLAW]}, {"chart": [NPM_FLAW]}
    status, lines = audited(project, advisories.url)
    assert status == 1
    assert lines == [
        "Python: VULNERABLE: lamp 1.0, PYSEC-1 CVE-1, fixed in 1.1",
        "npm: VULNERABLE: chart <2.0.0, GHSA-chart, high: Draws too much",
    ]
    for number in ("CVE-1", "GHSA-chart"):
        let_pass(project, number, reason="not reached from here", until=str(TODAY))
    status, lines = audited(project, advisories.url)
    assert status == 0
    assert [line.split(": ")[1] for line in lines] == [f"let pass until {TODAY}"] * 2


@pytest.mark.parametrize(
    ("reason", "until", "said"),
    [
        (" ", str(TODAY), "an entry needs id, reason and until"),
        ("not reached from here", '"soon"', "an entry needs id, reason and until"),
        ("not reached from here", str(YESTERDAY), f"PYSEC-1 was let pass until {YESTERDAY}"),
    ],
)
def test_what_is_let_pass_needs_a_reason_and_a_day_to_come(
    project: Path, advisories: Advisories, reason: str, until: str, said: str
) -> None:
    let_pass(project, "PYSEC-1", reason=reason, until=until)
    status, (line,) = audited(project, advisories.url)
    assert status == 1
    assert said in line


def test_a_service_that_cannot_be_reached_is_a_line_and_no_failure(project: Path) -> None:
    status, (python, npm) = audited(project, f"http://127.0.0.1:{free_port()}")
    assert status == 0
    assert python.startswith("Python: NOT AUDITED, the advisories cannot be reached (")
    assert npm.startswith("npm: NOT AUDITED, the advisories cannot be reached (")


def test_a_lock_that_cannot_be_read_is_a_failure(project: Path, advisories: Advisories) -> None:
    (project / "requirements" / "base.txt").write_text("lamp>=1.0\n")
    status, (line,) = audited(project, advisories.url)
    assert status == 1
    assert line.startswith("The audit failed: ")
