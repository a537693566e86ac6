"""Daphne in the engine's event loop: `run_with_twisted` runs the program, `WebServer` serves the pages beside it."""

import asyncio
import errno
import warnings
from collections.abc import Callable, Coroutine
from typing import Any

from channels.routing import get_default_application

# Importing Daphne's server installs Twisted's reactor on `twisted_loop`, so this import comes before any of Twisted's.
from daphne.server import Server, twisted_loop  # isort: split

from daphne.http_protocol import HTTPFactory
from daphne.ws_protocol import WebSocketFactory, WebSocketProtocol
from twisted.internet import reactor as asyncio_reactor
from twisted.internet.defer import maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.logger import FilteringLogObserver, LogLevel, LogLevelFilterPredicate, STDLibLogObserver, globalLogBeginner

reactor: Any = asyncio_reactor

GOING_AWAY = 1001  # the WebSocket close code of a server that shuts down, RFC 6455 section 7.4.1
LAST_WORDS_SECONDS = 0.1
# Autobahn's timers round down to whole seconds: 1 could mean at once.
CLOSE_HANDSHAKE_SECONDS = 2
REQUESTS_UNDER_WAY_SECONDS = 0.6
CANCELED_REQUESTS_SECONDS = 0.2
# A client that stops reading is dropped after both, which bounds what is buffered for it.
PING_INTERVAL_SECONDS = 15
PING_TIMEOUT_SECONDS = 10
# Browsers send next to nothing over the WebSocket.
MAX_MESSAGE_BYTES = 64 * 1024


class CannotServe(Exception):
    """The address cannot be listened on; the text is one line for the user."""


class PortBusy(CannotServe):
    """Another program listens on the port."""


def run_with_twisted(main: Callable[[], Coroutine[Any, Any, int]]) -> int:
    """Run `main()` to its end in the event loop that Daphne can serve in, and return its exit status.

    The reactor only starts: its own `run` would take the loop and the signals, its `stop` would end the loop under the
    engine. Works once in a process, since the loop is closed at the end.
    """

    async def run() -> int:
        reactor.startRunning(installSignalHandlers=False)
        return await main()

    warnings_and_worse: Any = LogLevelFilterPredicate(defaultLogLevel=LogLevel.warn)
    to_our_log: Any = STDLibLogObserver("twisted")
    observer: Any = FilteringLogObserver(to_our_log, [warnings_and_worse])
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False, discardBuffer=True)
    # WhiteNoise gives its files to Django this way; they are read whole, in a thread, and they are small.
    warnings.filterwarnings("ignore", message="StreamingHttpResponse must consume synchronous iterators")
    with asyncio.Runner(loop_factory=lambda: twisted_loop) as runner:
        return runner.run(run())


class WebServer:
    """Serves an ASGI application, by default the project's, over HTTP and WebSocket; only inside `run_with_twisted`."""

    def __init__(self, application: Any = None) -> None:
        self.port = 0
        self._application = application or get_default_application()
        self._server: _Server | None = None

    async def start(self, host: str, port: int) -> None:
        """Listen on the address; with port 0 the system chooses one, and `port` says which.

        Raises PortBusy when another program listens there, CannotServe when the address cannot be used at all.
        """
        server = _Server(self._application)
        try:
            self.port = server.listen(host, port)
        except CannotListenError as error:
            problem: OSError = error.socketError
            if problem.errno == errno.EADDRINUSE:
                raise PortBusy(
                    f"Port {port} on {host} is in use by another program: stop it, or set ALGO_WEB__PORT."
                ) from error
            raise CannotServe(
                f"Cannot serve on {host} port {port} ({problem.strerror}): see ALGO_WEB__HOST and ALGO_WEB__PORT."
            ) from error
        self._server = server

    async def stop(self) -> None:
        """Take no more connections, let messages and requests under way finish, close WebSockets; within a second.

        Connections that are idle end with the process.
        """
        if self._server is not None:
            await self._server.close()
            self._server = None


class _Server(Server):  # type: ignore[misc]  # Daphne comes without types
    """Daphne's server without its own main loop, and with an end."""

    def __init__(self, application: Any) -> None:
        super().__init__(
            application,
            endpoints=["see listen"],
            ping_interval=PING_INTERVAL_SECONDS,
            ping_timeout=PING_TIMEOUT_SECONDS,
            websocket_max_message_size=MAX_MESSAGE_BYTES,
            websocket_max_frame_size=MAX_MESSAGE_BYTES,
        )
        self.is_open = True

    def listen(self, host: str, port: int) -> int:
        """What `Server.run` does before it runs the reactor; returns the port. Raises CannotListenError."""
        self.connections: dict[Any, dict[str, Any]] = {}
        self.http_factory = HTTPFactory(self)
        self.ws_factory = WebSocketFactory(self, server=self.server_name)
        self.ws_factory.setProtocolOptions(
            autoPingTimeout=self.ping_timeout,
            allowNullOrigin=True,
            openHandshakeTimeout=self.websocket_handshake_timeout,
            closeHandshakeTimeout=CLOSE_HANDSHAKE_SECONDS,
            maxMessagePayloadSize=self.websocket_max_message_size,
            maxFramePayloadSize=self.websocket_max_frame_size,
        )
        self.listener = reactor.listenTCP(port, self.http_factory, interface=host)
        self.application_checker()
        self.timeout_checker()
        return int(self.listener.getHost().port)

    async def close(self) -> None:
        await maybeDeferred(self.listener.stopListening).asFuture(asyncio.get_running_loop())
        # What was sent to the pages just now ("shutting down") is still on its way through the channel layer.
        await asyncio.sleep(LAST_WORDS_SECONDS)
        for protocol in list(self.connections):
            if isinstance(protocol, WebSocketProtocol) and protocol.state == protocol.STATE_OPEN:
                protocol.sendCloseFrame(code=GOING_AWAY)
        await self._finish_applications()
        self.is_open = False

    async def _finish_applications(self) -> None:
        tasks = {details["application_instance"] for details in self.connections.values() if _is_running(details)}
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=REQUESTS_UNDER_WAY_SECONDS)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=CANCELED_REQUESTS_SECONDS)

    def application_checker(self) -> None:
        """Reap finished requests, once a second until the server is closed."""
        if self.is_open:
            super().application_checker()

    def timeout_checker(self) -> None:
        """Ping WebSockets, every two seconds until the server is closed."""
        if self.is_open:
            super().timeout_checker()

    def stop(self) -> None:
        """Daphne would stop the reactor here, and with it the engine's loop; the engine alone decides when to stop."""


def _is_running(details: dict[str, Any]) -> bool:
    task = details.get("application_instance")
    return task is not None and not task.done()
