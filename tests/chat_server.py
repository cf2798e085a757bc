"""A judge's endpoint for tests: a real HTTP server on this machine that speaks OpenAI's chat API."""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Sent:
    """What the server answers: a status, headers, a body, and how long it thinks (seconds)."""

    status: int = 200
    body: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    wait: float = 0.0
    drip: float = 0.0  # seconds between the bytes of the body


Behave = Callable[[dict[str, Any], int], Sent | str]  # the request's JSON, how many came before


@dataclass
class Server:
    """Its address and what it was asked."""

    url: str
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0


def completion(text: Any, finish: str = "stop") -> str:
    """The body of a chat completion."""
    message = {"role": "assistant", "content": text}
    return json.dumps({"choices": [{"index": 0, "message": message, "finish_reason": finish}]})


@contextlib.contextmanager
def serving(behave: Behave) -> Iterator[Server]:
    """A server whose answers `behave` gives; a text alone is the model's reply."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            with lock:
                count = len(server.requests)
                server.requests.append(body | {"path": self.path})
                server.headers.append(dict(self.headers.items()))
                server.at_once += 1
                server.most_at_once = max(server.most_at_once, server.at_once)
            told = behave(body, count)
            sent = Sent(body=completion(told)) if isinstance(told, str) else told
            time.sleep(sent.wait)
            with lock:
                server.at_once -= 1
            with contextlib.suppress(OSError):
                self._send(sent)

        def _send(self, sent: Sent) -> None:
            data = sent.body.encode()
            self.send_response(sent.status)
            for name, value in {"content-length": str(len(data)), **sent.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            for start in range(0, len(data), 1 if sent.drip else max(1, len(data))):
                self.wfile.write(data[start : start + (1 if sent.drip else len(data))])
                time.sleep(sent.drip)

        def log_message(self, *arguments: Any) -> None:
            """Say nothing."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    server = Server(f"http://127.0.0.1:{http.server_address[1]}/v1")
    thread = threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


def blocks(body: dict[str, Any]) -> dict[str, str]:
    """The marked texts of a judge's question, by name: what a judge that minds the marks sees."""
    rules, user = (message["content"] for message in body["messages"])
    nonce = re.findall(r"<<<NAME (\w*)>>>", rules)[-1]
    found = re.findall(rf"<<<(\w+) {nonce}>>>\n(.*?)\n<<<END \1 {nonce}>>>", user, flags=re.DOTALL)
    return dict(found)
