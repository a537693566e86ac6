"""`enginestatus` and `stopengine`, over real HTTP and over the rows of the database."""

import io
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest
from django.core.management import call_command
from django.core.wsgi import get_wsgi_application
from django.db import connection

from orders.command import UserError
from orders.fields import utc_now
from risk.models import TradingSession
from tests.db.samples import ACCOUNT
from tests.web.conftest import History
from trading import store
from trading.models import OperatorRequest


@pytest.fixture(autouse=True)
def free_port(settings: Any) -> int:
    """The dashboard's address of these tests: a port on which nobody listens yet."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        settings.WEB_PORT = free.getsockname()[1]
    return int(settings.WEB_PORT)


@pytest.fixture
def pages(ledger: str, free_port: int) -> Iterator[None]:
    """The dashboard answers over HTTP at the address of the settings."""
    server = make_server("127.0.0.1", free_port, get_wsgi_application(), handler_class=Quiet)
    thread = threading.Thread(target=serve, args=(server,))
    thread.start()
    yield
    server.shutdown()
    thread.join()
    server.server_close()


class Quiet(WSGIRequestHandler):
    """Does not write a line for every request."""

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


def serve(server: Any) -> None:
    server.serve_forever(poll_interval=0.01)
    connection.close()


@contextmanager
def engine_that_obeys(token: str, *, outcome: str = "stopped", reason: str = "asked to") -> Iterator[list[Any]]:
    """An engine that does nothing but stop when it is asked to; yields the requests it has taken."""
    taken: list[Any] = []
    done = threading.Event()

    def work() -> None:
        while not done.wait(0.02):
            for request in store.claim_requests(token):
                taken.append(request)
                store.finish_request(request.id)
                run = store.last_run()
                assert run is not None
                store.end_run(run.id, outcome=outcome, reason=reason, real_at=utc_now())
                store.drop_lease(token)
        connection.close()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield taken
    finally:
        done.set()
        thread.join()


def run(name: str, *args: str) -> str:
    output = io.StringIO()
    call_command(name, *args, stdout=output)
    return output.getvalue()


# --- no engine --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["enginestatus", "stopengine"])
def test_without_an_engine_both_say_so_in_the_same_words(history: History, free_port: int, command: str) -> None:
    with pytest.raises(UserError) as error:
        run(command)
    assert str(error.value) == f"Engine is not running (could not connect to 127.0.0.1:{free_port})."


@pytest.mark.parametrize("command", ["enginestatus", "stopengine"])
def test_pages_that_answer_without_an_engine_are_no_engine(
    history: History, pages: None, free_port: int, command: str
) -> None:
    with pytest.raises(UserError, match="Engine is not running"):
        run(command)


@pytest.mark.parametrize("command", ["enginestatus", "stopengine"])
def test_another_program_on_the_port_is_no_engine(history: History, free_port: int, command: str) -> None:
    with socket.create_server(("127.0.0.1", free_port)) as other:

        def answer() -> None:
            visitor, _ = other.accept()
            visitor.recv(65536)
            visitor.sendall(b"220 mail.example ESMTP\r\n")
            visitor.close()

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(UserError, match="Engine is not running"):
            run(command)
        thread.join()


# --- status -----------------------------------------------------------------------------------------------------------


def test_an_engine_without_pages_is_seen_by_its_rows(lease: str, capsys: pytest.CaptureFixture[str]) -> None:
    run("enginestatus")
    shown = capsys.readouterr().out
    assert f"Engine on the built-in market ({ACCOUNT}): running without pages" in shown
    (row,) = [line.split() for line in shown.splitlines() if "TSLA" in line]
    assert row == ["TSLA", "long", "10", "100.03", "–", "99.50", "–"]  # noqa: RUF001


def test_the_status_as_json_is_the_dashboards_state(lease: str, pages: None) -> None:
    state = json.loads(run("enginestatus", "--json"))
    assert [position["symbol"] for position in state["positions"]] == ["TSLA"]
    assert state["account"]["account_id"] == ACCOUNT


def test_a_halt_and_a_tripped_breaker_are_said(lease: str, capsys: pytest.CaptureFixture[str]) -> None:
    TradingSession.objects.update(halted=True, breaker="daily_loss")
    run("enginestatus")
    shown = capsys.readouterr().out
    assert "Trading is HALTED" in shown
    assert "Circuit breaker: daily loss." in shown


# --- stopping ---------------------------------------------------------------------------------------------------------


def test_an_engine_with_pages_is_asked_over_http(lease: str, pages: None) -> None:
    with engine_that_obeys(lease) as taken:
        output = run("stopengine")
    assert [(request.kind, request.payload, request.requested_by) for request in taken] == [
        ("shutdown", {"flatten": False}, "command line")
    ]
    assert output.splitlines() == ["Engine stopped.", "Left open: 10 TSLA long, with its stop at 99.50."]


def test_an_engine_without_pages_is_asked_by_a_row(lease: str) -> None:
    with engine_that_obeys(lease) as taken:
        run("stopengine", "--flatten")
    assert [(request.kind, request.payload, request.requested_by) for request in taken] == [
        ("shutdown", {"flatten": True}, "stopengine")
    ]


def test_an_engine_that_stopped_for_a_bad_reason_makes_the_command_fail(lease: str) -> None:
    with (
        engine_that_obeys(lease, outcome="failed", reason="the broker refuses our keys"),
        pytest.raises(UserError, match="not in good order: the broker refuses our keys"),
    ):
        run("stopengine")


def test_an_engine_that_does_not_stop_in_time_is_a_failure(lease: str) -> None:
    with pytest.raises(UserError, match=r"has not stopped within 0\.3 s"):
        run("stopengine", "--timeout", "0.3")
    assert OperatorRequest.objects.count() == 1
