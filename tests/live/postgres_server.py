"""A PostgreSQL server of a test's own, which it may stop, kill and start again."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from django.core.management import call_command

from tests import databases
from tests.requirements_for_tests import require

PATIENCE_SECONDS = 30.0
DEBIAN_KEEPS_THEM_IN = Path("/usr/lib/postgresql")


class PostgresServer:
    """On a port of 127.0.0.1; without fsync, since only its processes die here and never the machine."""

    def __init__(self, programs: Path, folder: Path, user: str | None) -> None:
        self._programs, self._folder, self._user = programs, folder, user
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        self.url = f"postgres://postgres@127.0.0.1:{self._port}/postgres"
        initdb = ("initdb", "--auth=trust", "--username=postgres", "--no-sync", "-D", str(folder / "data"))
        assert self._run(*initdb).wait(PATIENCE_SECONDS) == 0
        self.start()

    def start(self) -> None:
        """Returns when it answers, after a crash with what was committed before."""
        self._server = self._run(
            "postgres", "-D", "data", "-p", str(self._port), "-k", str(self._folder), "-c", "fsync=off"
        )
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self._run("pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self._port)).wait():
            log = (self._folder / "log").read_text()
            assert self._server.poll() is None, log
            assert time.monotonic() < deadline, log
            time.sleep(0.1)

    def stop(self) -> None:
        """It ends in good order; every connection is cut."""
        self._server.send_signal(signal.SIGINT)
        self._server.wait(PATIENCE_SECONDS)

    def kill(self) -> None:
        """Ends the server and all that works for it without a warning; nothing is flushed."""
        main = self._server.pid
        children = [int(word) for word in Path(f"/proc/{main}/task/{main}/children").read_text().split()]
        for process in (main, *children):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self._server.wait(PATIENCE_SECONDS)

    def _run(self, program: str, *arguments: str) -> "subprocess.Popen[bytes]":
        with (self._folder / "log").open("ab") as log:
            return subprocess.Popen(
                [str(self._programs / program), *arguments],
                user=self._user, cwd=self._folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

    @contextmanager
    def gone(self, folder: Path) -> Iterator[None]:
        """The server is not there."""
        self.stop()
        try:
            yield
        finally:
            self.start()


def _programs() -> Path | None:
    """The folder of `initdb` and `postgres`, which Debian does not put on the PATH."""
    debians = sorted(str(folder) for folder in DEBIAN_KEEPS_THEM_IN.glob("*/bin"))
    found = shutil.which("initdb", path=os.pathsep.join([*debians, os.environ["PATH"]]))
    return Path(found).resolve().parent if found else None


@contextmanager
def running() -> Iterator[PostgresServer]:
    """A new server with a migrated ledger."""
    with empty() as server:
        with databases.default_database(server.url):
            call_command("migrate", verbosity=0)
        yield server


@contextmanager
def empty() -> Iterator[PostgresServer]:
    """A new server, as another user where root runs the tests; nothing of it is left behind."""
    programs = _programs()
    require(programs, "PostgreSQL's initdb is not on this machine")
    assert programs is not None
    user = "postgres" if os.geteuid() == 0 else None  # it refuses to be run by root
    folder = Path(tempfile.mkdtemp(prefix="algotrader-postgres-"))
    try:
        if user:
            shutil.chown(folder, user)
        server = PostgresServer(programs, folder, user)
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
