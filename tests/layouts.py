"""Each layout of docs/deploy.md in a clean copy, by that page's own commands: `make layouts`, or ARGS="laptop".

A clone of what is committed, an empty home, and the page's blocks in their order with the placeholders filled in. Then
readiness, the login, a position on the built-in market, `check --deploy`, the orderly end, and that no process is left.
A line a step, with its seconds; exit status 1 at the first step that fails.
"""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from uuid import uuid4

import requests

from tests.core.test_container_files import BUILD, RESULT, arguments
from tests.live import postgres_server
from tests.live.engine_process import free_port

ROOT = Path(__file__).resolve().parents[1]
HOST = "trader.example.com"
PATIENCE_SECONDS = 300.0
INSTALLING_SECONDS = 1800.0
LOOK_SECONDS = 0.5
OF_THE_MACHINE = ("PATH", "LANG", "TZ")
WAY_TO_PACKAGES = ("PIP_", "SSL_", "REQUESTS_", "NODE_", "npm_", "http_", "https_", "HTTP_", "HTTPS_", "no_", "NO_")
PASSWORD = re.compile(r"user admin, password (\S+)")


class Failed(Exception):
    """A step did not do what the page says; the text is what there is to see."""


def blocks(section: str) -> list[list[str]]:
    """The lines of each code block below that heading of the page, without comments."""
    page = (ROOT / "docs" / "deploy.md").read_text()
    text = page.split(f"\n## {section}\n")[1].split("\n## ")[0]
    found = re.findall(r"^```\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [[line.partition("  #")[0].strip() for line in block.splitlines()] for block in found]


def table(section: str) -> list[list[str]]:
    """The cells of the rows of the table below that heading, without its head."""
    page = (ROOT / "docs" / "deploy.md").read_text()
    text = page.split(f"\n## {section}\n")[1].split("\n## ")[0]
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows[2:]]


class Place:
    """A clean copy of the program, a home without anything in it, and what runs there."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder
        self.program, self.data = folder / "program", folder / "data"
        (folder / "home").mkdir()
        self.port = free_port()
        self.mark = f"ALGO_TRADER_TRIAL={uuid4()}"
        mark, _, value = self.mark.partition("=")
        kept = {
            key: text for key, text in os.environ.items() if key in OF_THE_MACHINE or key.startswith(WAY_TO_PACKAGES)
        }
        self.environment = {**kept, mark: value, "HOME": str(folder / "home"), "ALGO_WEB__PORT": str(self.port)}
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def step(self, what: str, work: Callable[..., object], *args: object) -> None:
        """Does it, and says how long it took."""
        started = time.monotonic()
        try:
            work(*args)
        except (Failed, requests.RequestException, subprocess.SubprocessError, OSError) as error:
            sys.stdout.write(f"{self.name}: {what}: FAILED after {time.monotonic() - started:.1f} s: {error}\n")
            raise SystemExit(1) from error
        sys.stdout.write(f"{self.name}: {what}: ok in {time.monotonic() - started:.1f} s\n")
        sys.stdout.flush()

    def clone(self) -> None:
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(self.program)], check=True)

    def run(self, command: str) -> str:
        """What the command of the page printed. Raises Failed if it does not exit with 0."""
        done = subprocess.run(
            command, shell=True, cwd=self.program, env=self.environment, text=True, check=False,
            timeout=INSTALLING_SECONDS, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        with (self.folder / "commands.log").open("a") as log:
            log.write(done.stdout)
        if done.returncode:
            raise Failed(done.stdout[-2000:])
        return done.stdout

    def start(self, name: str, command: str) -> None:
        """Runs it on; what it says is in a file."""
        with (self.folder / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                shlex.split(command), cwd=self.program, env=self.environment,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def stop(self, name: str) -> None:
        """Its orderly end: exit status 0."""
        process = self.running.pop(name)
        process.terminate()
        if status := process.wait(PATIENCE_SECONDS):
            raise Failed(f"{name} ended with {status}: {self.log(name)[-2000:]}")

    def interrupt(self, name: str) -> None:
        """Ctrl-C reaches make and the engine; make dies of it once the engine has ended in good order."""
        process = self.running.pop(name)
        os.killpg(process.pid, signal.SIGINT)
        status = process.wait(PATIENCE_SECONDS)
        if status != -signal.SIGINT or "outcome=stopped" not in self.log(name):
            raise Failed(f"{name} ended with {status}: {self.log(name)[-2000:]}")

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def until(self, condition: Callable[[], object]) -> None:
        """Returns when it holds. Raises Failed when it takes too long or something that should run has ended."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            ended = [name for name, process in self.running.items() if process.poll() is not None]
            if ended or time.monotonic() > deadline:
                raise Failed(f"ended: {ended}; {[self.log(name)[-1500:] for name in self.running]}")
            time.sleep(LOOK_SECONDS)

    def left_behind(self) -> list[str]:
        """Processes that were started here and still run."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if self.mark.encode() in (process / "environ").read_bytes().split(b"\0"):
                    found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:  # it has just ended, or is not ours to look at
                continue
        return found

    def close(self) -> None:
        for process in self.running.values():
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


class Browser:
    """Somebody at the pages; behind a proxy that speaks TLS if `https`."""

    def __init__(self, port: int, *, https: bool) -> None:
        self._url = f"http://127.0.0.1:{port}"
        self._cookies: dict[str, str] = {}
        self._headers: dict[str, str] = {}
        if https:
            self._headers = {"Host": HOST, "X-Forwarded-Proto": "https", "Origin": f"https://{HOST}"}

    def ask(self, method: str, path: str, **form: str) -> requests.Response:
        """The answer, redirects not followed. The cookies are kept as a browser does, `Secure` ones too."""
        headers = self._headers | {"Cookie": "; ".join(f"{name}={value}" for name, value in self._cookies.items())}
        answer = requests.request(
            method, f"{self._url}{path}", headers=headers, data=form or None, timeout=30, allow_redirects=False
        )
        self._cookies |= {cookie.name: cookie.value or "" for cookie in answer.cookies}
        return answer

    def is_ready(self) -> bool:
        try:
            return self.ask("GET", "/api/health/ready").status_code == 200
        except requests.ConnectionError:
            return False

    def sign_in(self, password: str) -> None:
        page = self.ask("GET", "/login/")
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page.text)
        if token is None:
            raise Failed(f"no login: {page.status_code} {page.text[:500]}")
        self.ask("POST", "/login/", username="admin", password=password, csrfmiddlewaretoken=token[1])
        if (dashboard := self.ask("GET", "/")).status_code != 200:
            raise Failed(f"no dashboard: {dashboard.status_code} {dashboard.text[:500]}")

    def holds_something(self) -> bool:
        answer = self.ask("GET", "/api/dashboard")
        return answer.status_code == 200 and bool(answer.json()["positions"])

    def is_sent_to_tls(self) -> None:
        """Without the proxy's word for TLS nothing is shown, and no cookie of a session goes over plain HTTP."""
        plain = requests.get(f"{self._url}/login/", headers={"Host": HOST}, timeout=30, allow_redirects=False)
        if plain.headers.get("Location") != f"https://{HOST}/login/":
            raise Failed(f"plain HTTP is answered: {plain.status_code}")
        secure = requests.get(f"{self._url}/login/", headers=self._headers, timeout=30)
        if not all(cookie.secure for cookie in secure.cookies) or "Strict-Transport-Security" not in secure.headers:
            raise Failed(f"no secure cookies, or no HSTS: {secure.headers}")


def used(place: Place, password_in: Callable[[], str], *, https: bool) -> None:
    """What somebody does with a new installation."""
    browser = Browser(place.port, https=https)
    place.step("ready", place.until, browser.is_ready)

    def sign_in() -> None:
        place.until(lambda: PASSWORD.search(password_in()))
        found = PASSWORD.search(password_in())
        browser.sign_in(found[1] if found else "")

    place.step("login and dashboard", sign_in)
    place.step("a position on the built-in market", place.until, browser.holds_something)
    if https:
        place.step("plain HTTP is refused", browser.is_sent_to_tls)
        check = ".venv/bin/python manage.py check --deploy --fail-level WARNING"
        place.step("manage.py check --deploy", place.run, check)


def nothing_left(place: Place) -> None:
    if left := place.left_behind():
        raise Failed(f"still running: {left}")


# --- the layouts ------------------------------------------------------------------------------------------------------


def laptop(place: Place) -> None:
    ((command,),) = blocks("Laptop")
    place.step(f"`{command}`", place.start, "run", command)
    place.step("it says where its pages are", place.until, lambda: "Dashboard: http" in place.log("run"))
    used(place, lambda: place.log("run"), https=False)
    place.step("Ctrl-C", place.interrupt, "run")


def small_server(place: Place) -> None:
    settings, commands = blocks("Small server")
    take(place, settings, {})
    for command in commands:
        enabled = re.fullmatch(r"systemctl enable --now (\S+)", command)
        if enabled is None and not command.startswith("cp deploy/systemd/"):
            place.step(f"`{command}`", place.run, command)
        elif enabled is not None:
            as_systemd_would(place, enabled[1])
    used(place, lambda: place.log("commands"), https=True)
    place.step("systemctl stop", place.stop, "algo-trader")


def as_systemd_would(place: Place, unit: str) -> None:
    """Carries out the unit of the copy: its environment, what comes before, and what it starts."""
    text = (place.program / "deploy" / "systemd" / f"{unit}.service").read_text()
    (home,) = re.findall(r"^WorkingDirectory=(.*)$", text, re.MULTILINE)
    for line in re.findall(r"^Environment=(.*)$", text, re.MULTILINE):
        place.environment |= dict(pair.split("=", 1) for pair in shlex.split(line))
    place.environment["ALGO_DATA_DIR"] = str(place.data)  # StateDirectory, for this user
    for before in re.findall(r"^ExecStartPre=(.*)$", text, re.MULTILINE):
        command = before.replace(home, str(place.program))
        place.step(f"`{before}`", place.run, command)
    (start,) = re.findall(r"^ExecStart=(.*)$", text, re.MULTILINE)
    place.step(f"`{start}`", place.start, unit, start.replace(home, str(place.program)))


def split(place: Place) -> None:
    settings, commands = blocks("Several processes")
    with ExitStack() as services:
        database = services.enter_context(postgres_server.empty())
        redis = services.enter_context(redis_server(place.folder))
        filled_in = {
            "ALGO_DATABASE_URL": database.url, "ALGO_REDIS_URL": redis,
            "ALGO_SECRET_KEY": uuid4().hex * 2, "ALGO_DATA_DIR": str(place.data),
        }  # fmt: skip
        take(place, settings, filled_in)
        place.data.mkdir()
        for command in commands:
            place.step(f"`{command}`", place.run, command)
        for name, command, _ in table("Several processes"):
            command = re.findall(r"`([^`]+)`", command)[0].replace("-p 8000", f"-p {place.port}")
            place.step(f"`{command}`", place.start, name, command)
        used(place, lambda: place.log("commands"), https=True)
        for name in reversed(list(place.running)):
            place.step(f"end of the {name}", place.stop, name)


def container(place: Place) -> None:
    """The Dockerfile's own steps, the system's packages excepted, and what the image runs; no engine is needed.

    The folder of the copy is both stages' /app.
    """
    source = place.program.rename(place.folder / "source")
    place.program.mkdir()
    for names in arguments(BUILD, "COPY"):
        for name in names.split()[:-1]:
            bring(source, place.program, name)
    for command in arguments(BUILD, "RUN"):
        if "apt-get" not in command:
            place.step(f"`{command}`", place.run, command)
    ignored = (source / ".dockerignore").read_text().splitlines()
    for name in (line[1:] for line in ignored if line.startswith("!")):
        if f"{name}/*" not in ignored and (source / name).exists():
            bring(source, place.program, name)
    variables = dict(pair.split("=", 1) for pair in " ".join(arguments(RESULT, "ENV")).split())
    path = variables.pop("PATH").replace("/app", str(place.program)).replace("$PATH", place.environment["PATH"])
    place.environment |= variables | {
        "PATH": path,
        "ALGO_SECRET_KEY": uuid4().hex * 2,
        "ALGO_DATA_DIR": str(place.data),
    }
    ((entry,), (default,)) = arguments(RESULT, "ENTRYPOINT"), arguments(RESULT, "CMD")
    place.step("the image's command", place.start, "run", shlex.join(json.loads(entry) + json.loads(default)))
    used(place, lambda: place.log("run"), https=False)
    (health,) = arguments(RESULT, "HEALTHCHECK")
    place.step("HEALTHCHECK", place.run, shlex.join(json.loads(health[health.index("[") :])))
    place.step("docker stop", place.stop, "run")


def bring(source: Path, target: Path, name: str) -> None:
    """Copies a file or a folder, as COPY does."""
    if (source / name).is_dir():
        shutil.copytree(source / name, target / name, dirs_exist_ok=True)
    else:
        shutil.copy(source / name, target / name)


def take(place: Place, settings: list[str], filled_in: Mapping[str, str]) -> None:
    """The page's settings; those that are different everywhere as they are here."""
    for line in settings:
        name, _, value = line.partition("=")
        place.environment[name] = filled_in.get(name, value)


@contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    port = free_port()
    process = subprocess.Popen(
        ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)],
        stdout=subprocess.DEVNULL,
    )
    try:
        yield f"redis://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


LAYOUTS: Mapping[str, Callable[[Place], None]] = {
    "laptop": laptop,
    "small-server": small_server,
    "split": split,
    "container": container,
}


def main(names: list[str]) -> None:
    for name in names or LAYOUTS:
        folder = Path(tempfile.mkdtemp(prefix=f"algo-trader-{name}-"))
        place = Place(name, folder)
        try:
            place.step("git clone", place.clone)
            LAYOUTS[name](place)
            place.step("no process is left", nothing_left, place)
        finally:
            place.close()
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1:])
