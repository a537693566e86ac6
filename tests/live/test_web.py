"""The web server beside the engine in one event loop: real processes, real sockets."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Timer
from typing import Any
from urllib.request import urlopen

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(__file__).with_name("web_program.py")
EXIT_STATUS = 7
PATIENCE_SECONDS = 30


class Program:
    """The running program: its address, and its last words once it was told to stop."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.first_line = self.read_line()
        self.host = f"127.0.0.1:{self.first_line.get('port')}"

    def read_line(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line: dict[str, Any] = json.loads(self.process.stdout.readline())
        return line

    def stop(self) -> dict[str, Any]:
        """Tell it to stop, and wait for its last line and its end."""
        self.tell_to_stop()
        last_line = self.read_line()
        assert self.process.wait(timeout=PATIENCE_SECONDS) == EXIT_STATUS
        return last_line

    def tell_to_stop(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()


@contextmanager
def program(data_dir: Path, host: str = "127.0.0.1", port: int = 0) -> Iterator[Program]:
    """The program on a port of its own, in a data folder of its own."""
    environment = os.environ | {"ALGO_DATA_DIR": str(data_dir), "PYTHONPATH": str(ROOT), "ALGO_ENV_FILE": os.devnull}
    command = [sys.executable, "-W", "error::ResourceWarning", str(PROGRAM), host, str(port)]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        # What hangs fails instead.
        patience = Timer(PATIENCE_SECONDS, process.kill)
        patience.start()
        try:
            yield Program(process)
        finally:
            patience.cancel()
            process.kill()


def test_pages_and_a_websocket_are_served_while_the_engine_works(tmp_path: Path) -> None:
    with program(tmp_path) as running, connect(f"ws://{running.host}/ws/dashboard") as page:
        with urlopen(f"http://{running.host}/api/health", timeout=5) as health:  # it needs no tables, as the login does
            assert json.load(health) == {"status": "ok"}
        with urlopen(f"http://{running.host}/static/admin/css/base.css", timeout=5) as style:
            assert style.headers["content-type"].startswith("text/css")
        ticks = [float(page.recv(timeout=5)) for _ in range(20)]
        last_line = running.stop()
    assert ticks == sorted(set(ticks))
    assert last_line["ticks"] >= len(ticks)


def test_a_page_hears_the_last_words_and_a_polite_goodbye(tmp_path: Path) -> None:
    with program(tmp_path) as running, connect(f"ws://{running.host}/ws/dashboard") as page:
        page.recv(timeout=5)
        running.tell_to_stop()
        heard: list[str | bytes] = []
        with pytest.raises(ConnectionClosed) as closed:
            heard.extend(iter(lambda: page.recv(timeout=5), None))
        running.read_line()
        assert running.process.wait(timeout=PATIENCE_SECONDS) == EXIT_STATUS
    assert heard[-1] == "shutting_down"
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1001


def test_a_request_under_way_is_answered_before_the_end(tmp_path: Path) -> None:
    with program(tmp_path) as running, socket_to(running) as browser:
        browser.sendall(b"GET /slow?0.5 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        time.sleep(0.1)
        running.tell_to_stop()
        answer = read_all(browser)
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"done" in answer


def test_neither_a_request_that_takes_an_hour_nor_a_dead_page_is_waited_for(tmp_path: Path) -> None:
    with program(tmp_path) as running, socket_to(running) as browser, socket_to(running) as dead_page:
        browser.sendall(b"GET /slow?3600 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        dead_page.sendall(
            b"GET /ws/dashboard HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        assert dead_page.recv(12) == b"HTTP/1.1 101"
        assert "ticks" in running.stop()


def test_a_busy_port_is_said_in_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with program(tmp_path, port=port) as refused:
            assert refused.first_line == {
                "error": "PortBusy",
                "text": f"Port {port} on 127.0.0.1 is in use by another program: stop it, or set ALGO_WEB__PORT.",
            }
            assert refused.process.wait(timeout=10) == 1


def test_an_address_of_another_machine_is_said_in_one_line(tmp_path: Path) -> None:
    with program(tmp_path, host="192.0.2.1") as refused:
        assert refused.first_line["error"] == "CannotServe"
        assert refused.first_line["text"].startswith("Cannot serve on 192.0.2.1 port 0 (")
        assert "\n" not in refused.first_line["text"]


def socket_to(running: Program) -> socket.socket:
    host, port = running.host.split(":")
    return socket.create_connection((host, int(port)), timeout=5)


def read_all(connection: socket.socket) -> bytes:
    """Everything until the other side closes."""
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts)
