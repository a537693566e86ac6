"""One page's WebSocket: a snapshot first, then the engine's broadcast; never a backlog, never a wait for the page."""

import asyncio
import json
from collections import deque
from datetime import UTC, datetime
from importlib import import_module
from typing import Any

import structlog
from channels.auth import get_user
from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer
from django.conf import settings

from dashboard import store
from trading.live.broadcast import ENGINE_CHANNEL, GROUP, HEARTBEAT_SECONDS, LAYER_ERRORS, timestamp

log = structlog.get_logger("dashboard")

LOGIN_NEEDED = 4401  # the WebSocket close code of a page without login, as HTTP's 401
INTERNAL_ERROR = 1011  # RFC 6455 section 7.4.1
ENGINE_ANSWERS_SECONDS = 1.0
SILENT_BEATS = 1.5  # a running engine says something at least once in a heartbeat's time
LONGEST_OUTBOX = 256


class DashboardConsumer(AsyncWebsocketConsumer):  # type: ignore[misc]  # Channels comes without types
    """`/ws/dashboard` for one page.

    What the engine broadcasts goes into a short outbox, which a task of its own sends. When a slow page lets it fill
    up, everything in it is dropped, and the page gets a fresh snapshot as soon as it reads again. A page that reads
    nothing at all is dropped by the server's pings.
    """

    def __init__(
        self, *, heartbeat_seconds: float = HEARTBEAT_SECONDS, engine_answers_seconds: float = ENGINE_ANSWERS_SECONDS
    ) -> None:
        super().__init__()
        self._heartbeat_seconds = heartbeat_seconds
        self._engine_answers_seconds = engine_answers_seconds

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve the connection, and leave nothing running behind it, however it ends."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._outbox: deque[str] = deque()
        self._filled = asyncio.Event()
        self._deadline: asyncio.Task[None] | None = None  # runs while a snapshot is awaited
        self._follows_run: int | None = None  # the engine whose snapshot the page has
        self._is_behind = False
        self._seq = 0
        self._snapshot_at = ""
        self._engine_spoke_at = 0.0
        try:
            await super().__call__(scope, receive, send)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def connect(self) -> None:
        """Let a logged-in user in, and ask for the first snapshot."""
        user = self.scope.get("user")
        if user is None or not user.is_authenticated:
            await self.close(LOGIN_NEEDED)
            return
        await self.channel_layer.group_add(GROUP, self.channel_name)
        await self.accept()
        self._start(self._send_outbox())
        self._start(self._beat())
        await self._ask_for_snapshot()

    async def disconnect(self, code: int) -> None:
        """Leave the broadcast."""
        await self.channel_layer.group_discard(GROUP, self.channel_name)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """The page saw a gap in the numbers: it gets a fresh snapshot. Nothing else can be asked for here."""
        try:
            message = json.loads(text_data or "")
        except ValueError:
            return
        if isinstance(message, dict) and message.get("type") == "snapshot" and not self._awaits_snapshot:
            await self._ask_for_snapshot()

    async def dashboard_messages(self, event: dict[str, list[str]]) -> None:
        """What the engine says: to everybody, or its snapshot to this page."""
        for text in event["texts"]:
            await self._take(text)

    async def _take(self, text: str) -> None:
        message = json.loads(text)
        self._engine_spoke_at = asyncio.get_running_loop().time()
        if message["type"] == "snapshot":
            self._follows_run = message["run_id"]
            self._snapshot_at = message["timestamp"]
            self._give_snapshot(text, seq=message["seq"])
        elif self._awaits_snapshot or self._is_behind:
            pass  # the snapshot will contain it
        elif message["run_id"] != self._follows_run:
            await self._ask_for_snapshot()  # an engine has started
        elif message["seq"] <= self._seq and message["timestamp"] <= self._snapshot_at:
            pass  # the snapshot has overtaken it
        elif message["seq"] != self._seq + 1:
            await self._ask_for_snapshot()  # the channel layer has dropped something
        elif len(self._outbox) >= LONGEST_OUTBOX:
            self._outbox.clear()
            self._is_behind = True
        else:
            self._seq = message["seq"]
            self._put(text)

    # --- snapshots ----------------------------------------------------------------------------------------------------

    @property
    def _awaits_snapshot(self) -> bool:
        return self._deadline is not None and not self._deadline.done()

    async def _ask_for_snapshot(self) -> None:
        self._deadline = self._start(self._answer_ourselves())
        try:
            await self.channel_layer.send(ENGINE_CHANNEL, {"type": "snapshot.request", "reply": self.channel_name})
        except LAYER_ERRORS:
            log.debug("dashboard.engine_not_reading")  # nobody takes them, or Redis is away: we answer ourselves

    async def _answer_ourselves(self) -> None:
        """When the engine does not answer in time: what the database says."""
        await asyncio.sleep(self._engine_answers_seconds)
        data = await database_sync_to_async(store.snapshot)()
        self._follows_run = None
        self._snapshot_at = ""
        self._give_snapshot(self._envelope("snapshot", data, seq=0), seq=0)

    def _give_snapshot(self, text: str, *, seq: int) -> None:
        if self._deadline is not None and self._deadline is not asyncio.current_task():
            self._deadline.cancel()
        self._deadline = None
        self._outbox.clear()
        self._is_behind = False
        self._seq = seq
        self._put(text)

    # --- sending ------------------------------------------------------------------------------------------------------

    def _put(self, text: str) -> None:
        self._outbox.append(text)
        self._filled.set()

    async def _send_outbox(self) -> None:
        """Send what is there, one message after another; `send` may wait for a slow page."""
        while True:
            await self._filled.wait()
            while self._outbox:
                await self.send(self._outbox.popleft())
            self._filled.clear()
            if self._is_behind:
                self._is_behind = False
                await self._ask_for_snapshot()

    async def _beat(self) -> None:
        """Every 15 seconds: is the user still logged in, does the engine still speak, and a sign of life."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._heartbeat_seconds)
            if not await self._still_logged_in():
                await self.close(LOGIN_NEEDED)
                return
            await self.channel_layer.group_add(GROUP, self.channel_name)  # memberships expire after a day
            if not self._is_behind:
                now = timestamp(datetime.now(UTC))
                self._put(self._envelope("heartbeat", {"server_time": now}, seq=self._seq))
            if (
                loop.time() - self._engine_spoke_at > SILENT_BEATS * self._heartbeat_seconds
                and not self._awaits_snapshot
            ):
                await self._ask_for_snapshot()

    async def _still_logged_in(self) -> bool:
        session = self.scope["session"]
        fresh = import_module(settings.SESSION_ENGINE).SessionStore(session.session_key)
        return bool((await get_user({**self.scope, "session": fresh})).is_authenticated)

    def _envelope(self, kind: str, data: Any, *, seq: int) -> str:
        message = {
            "version": 1,
            "timestamp": timestamp(datetime.now(UTC)),
            "type": kind,
            "run_id": self._follows_run,
            "seq": seq,
            "data": data,
        }
        return json.dumps(message, separators=(",", ":"))

    def _start(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A connection that has lost one of its tasks is of no use: the page makes a new one."""
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("dashboard.connection_failed", exc_info=error)
            self._start(self.close(INTERNAL_ERROR))
