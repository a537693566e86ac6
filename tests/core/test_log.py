"""Log lines: JSON or text, with time, level, event and correlation id, and never with a secret."""

import json
import logging
import logging.config
import re
from collections.abc import Callable, Iterator
from io import StringIO

import pytest
import structlog

from algotrader import log

Start = Callable[..., structlog.stdlib.BoundLogger]
STAMP = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


@pytest.fixture
def lines() -> StringIO:
    """What was logged."""
    return StringIO()


@pytest.fixture
def start(lines: StringIO) -> Iterator[Start]:
    """Starts logging into `lines` as the settings do; everything is as before afterwards."""
    root = logging.getLogger()
    before = (root.level, root.handlers[:])

    def configured(*, style: str, level: str = "INFO", secrets: tuple[str, ...] = ()) -> structlog.stdlib.BoundLogger:
        described = log.configure(level=level, style=style, secrets=secrets)
        described["handlers"]["stderr"]["stream"] = lines
        logging.config.dictConfig(described)
        logger: structlog.stdlib.BoundLogger = structlog.get_logger("trading.live")
        return logger

    yield configured
    root.setLevel(before[0])
    root.handlers[:] = before[1]


def test_a_json_line_says_when_how_grave_what_and_to_which_signal_it_belongs(start: Start, lines: StringIO) -> None:
    logger = start(style="json")
    with structlog.contextvars.bound_contextvars(correlation_id="signal-1"):
        logger.info("order_submitted", symbol="AAPL", latency_ms=1.5)
    logger.info("later")
    first, second = map(json.loads, lines.getvalue().splitlines())
    assert STAMP.match(first.pop("timestamp"))
    assert first == {
        "level": "info",
        "event": "order_submitted",
        "logger": "trading.live",
        "symbol": "AAPL",
        "latency_ms": 1.5,
        "correlation_id": "signal-1",
    }
    assert "correlation_id" not in second


def test_a_console_line_says_the_same_in_text(start: Start, lines: StringIO) -> None:
    logger = start(style="console")
    with structlog.contextvars.bound_contextvars(correlation_id="signal-1"):
        logger.warning("stop_moved", symbol="AAPL")
    (line,) = lines.getvalue().splitlines()
    assert STAMP.match(line)
    for words in ("warning", "stop_moved", "symbol=AAPL", "correlation_id=signal-1"):
        assert words in line


def test_lines_of_libraries_look_alike(start: Start, lines: StringIO) -> None:
    start(style="json")
    with structlog.contextvars.bound_contextvars(correlation_id="signal-1"):
        logging.getLogger("library").error("lost %s", "connection")
    line = json.loads(lines.getvalue())
    assert (line["event"], line["level"], line["correlation_id"]) == ("lost connection", "error", "signal-1")


def test_nothing_below_the_level_is_logged_and_the_level_can_change_while_running(
    start: Start, lines: StringIO
) -> None:
    logger = start(style="json", level="WARNING")
    logger.info("quiet")
    assert lines.getvalue() == ""
    logging.getLogger().setLevel("DEBUG")
    logger.debug("loud")
    assert json.loads(lines.getvalue())["event"] == "loud"


@pytest.mark.parametrize("style", ["json", "console"])
def test_a_secret_never_appears_wherever_it_comes_from(start: Start, lines: StringIO, style: str) -> None:
    logger = start(style=style, secrets=("hush-hush", ""))
    logger.info("sent", headers={"key": "hush-hush"})
    logging.getLogger("library").warning("refused hush-hush")
    try:
        raise ValueError("hush-hush")
    except ValueError:
        logger.exception("failed")
    assert "hush-hush" not in lines.getvalue()
    assert lines.getvalue().count("********") >= 3
    assert "ValueError" in lines.getvalue()


def test_frames_of_the_streams_are_not_logged_at_debug_level(start: Start, lines: StringIO) -> None:
    start(style="json", level="DEBUG")
    logging.getLogger("websockets.client").debug("> TEXT the whole login")
    assert lines.getvalue() == ""
