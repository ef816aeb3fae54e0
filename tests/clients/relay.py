"""Stands between a facilitator and its chain: JSON-RPC passes through, and a test says what goes wrong on the way.

Knows methods by name and nothing of what they mean, but for the broadcast: which transactions have reached the chain is what tests ask.
"""

from __future__ import annotations

import json
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Callable

from stack.process import free_port

BROADCAST = "eth_sendRawTransaction"


class Relay:
    """One facilitator's way to the chain."""

    def __init__(self, rpc_url: str) -> None:
        self.target = rpc_url
        # Transactions that the chain has taken.
        self.sent: list[str] = []
        # No call gets through, and none is answered.
        self.down = False
        # It goes down once a broadcast has been answered.
        self.down_after_broadcast = False
        # Called once, before the next broadcast goes on its way.
        self.before_broadcast: Callable[[], None] | None = None
        # The next broadcast gets through, and its answer does not.
        self.lose_answer = False
        self.broadcast = threading.Event()
        self._lock = threading.Lock()
        relay = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                answer = relay.pass_on(self.rfile.read(int(self.headers["content-length"])))
                if answer is None:
                    self.close_connection = True
                    return
                self.send_response_only(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                pass

        self.port = free_port()
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        """What the facilitator takes for the chain."""
        return f"http://127.0.0.1:{self.port}"

    def pass_on(self, body: bytes) -> bytes | None:
        """The chain's answer, or nothing where the connection is to break."""
        if self.down:
            return None
        called = json.loads(body)
        calls = called if isinstance(called, list) else [called]
        broadcasts = any(call["method"] == BROADCAST for call in calls)
        lose = False
        if broadcasts:
            with self._lock:
                before, self.before_broadcast = self.before_broadcast, None
                lose, self.lose_answer = self.lose_answer, False
            if before is not None:
                before()
        request = urllib.request.Request(self.target, data=body, headers={"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as response:
            answer = response.read()
        if broadcasts:
            self._note(calls, json.loads(answer))
            self.down = self.down or self.down_after_broadcast
        return None if lose else answer

    def _note(self, calls: list[Any], answered: Any) -> None:
        answers = {answer["id"]: answer for answer in (answered if isinstance(answered, list) else [answered])}
        for call in calls:
            answer = answers.get(call["id"], {})
            if call["method"] == BROADCAST and "result" in answer:
                self.sent.append(answer["result"])
                self.broadcast.set()

    def stop(self) -> None:
        """Ends it."""
        self._server.shutdown()
        self._server.server_close()
