"""Where notifications arrive."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SECRET = "hunter2"


class Receiver:
    """An HTTP server that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []
        self.arrived = threading.Condition()
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.status = 200
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with receiver.arrived:
                    receiver.told.append(body)
                    receiver.arrived.notify_all()
                receiver.may_answer.wait(20)
                self.send_response(receiver.status)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"json://user:{SECRET}@127.0.0.1:{self._server.server_port}/"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def wait_for(self, count: int) -> list[dict[str, Any]]:
        with self.arrived:
            assert self.arrived.wait_for(lambda: len(self.told) >= count, timeout=60)
            return list(self.told)

    def first(self, title: str) -> dict[str, Any]:
        """The first message of that title, once it is there."""
        with self.arrived:
            assert self.arrived.wait_for(lambda: title in [each["title"] for each in self.told], timeout=60)
            return next(each for each in self.told if each["title"] == title)

    def close(self) -> None:
        self.may_answer.set()
        self._server.shutdown()
        self._server.server_close()
