"""A proxy before an S3 server that resets connections, answers 500 and 503, waits, cuts off and repeats."""

from __future__ import annotations

import http.client
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KINDS = ("reset before", "reset after", "500", "503", "slow", "cut off", "repeat")
_ERROR = "<?xml version='1.0'?><Error><Code>{code}</Code><Message>chaos</Message></Error>"
_HOP = {"connection", "transfer-encoding", "keep-alive"}


class Weather:
    """Which share of the requests meets a fault, and how many did."""

    def __init__(self, seed: int) -> None:
        self.share = 0.0
        self.counts: Counter[str] = Counter()
        self._rng, self._lock = random.Random(seed), threading.Lock()

    def next(self) -> str | None:
        """Return the fault of the next request."""
        with self._lock:
            kind = self._rng.choice(KINDS) if self._rng.random() < self.share else None
            self.counts[kind or "none"] += 1
            return kind


@contextmanager
def serve(address: str, weather: Weather) -> Iterator[str]:
    """Yield the address of a proxy before the server at an address."""
    target = address.removeprefix("http://")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _forward(self) -> None:
            kind = weather.next()
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if kind == "slow":
                time.sleep(1.5)
            if kind == "reset before":
                return self._reset()
            if kind in ("500", "503"):
                content = _ERROR.format(code="InternalError" if kind == "500" else "SlowDown").encode()
                return self._answer(int(kind), {}, content)
            status, headers, content = self._ask(body)
            if kind == "repeat":
                status, headers, content = self._ask(body)
            if kind == "reset after":
                return self._reset()
            return self._answer(status, headers, content, cut_off=kind == "cut off")

        def _ask(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
            connection = http.client.HTTPConnection(target, timeout=60)
            try:
                headers = {key: value for key, value in self.headers.items() if key.lower() not in _HOP}
                connection.request(self.command, self.path, body, headers)
                response = connection.getresponse()
                return response.status, dict(response.getheaders()), response.read()
            finally:
                connection.close()

        def _answer(self, status: int, headers: dict[str, str], content: bytes, cut_off: bool = False) -> None:
            size = headers.get("Content-Length", str(len(content)))  # of HEAD: of what GET would give
            self.send_response(status)
            for key, value in headers.items():
                if key.lower() not in {*_HOP, "content-length", "date", "server"}:
                    self.send_header(key, value)
            if status not in (204, 304):
                self.send_header("Content-Length", size)
            self.end_headers()
            self.wfile.write(content[: len(content) // 2] if cut_off else content)
            if cut_off:
                self.wfile.flush()
                self._reset()

        def _reset(self) -> None:
            self.close_connection = True
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

        def log_message(self, *_: object) -> None:
            """Log nothing: the weather counts."""

    for method in ("GET", "HEAD", "PUT", "POST", "DELETE"):
        setattr(Handler, f"do_{method}", Handler._forward)

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """A client that has gone, or a connection that was reset, is no error here."""

    server = Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
