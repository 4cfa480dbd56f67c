"""A small OpenAI-compatible chat server that also fails; run as a process of its own.

python server.py PORT LOG [RULE ...]: the first requests follow the rules in order, all later ones
the last rule. LOG gets a JSON line per request: its rule, its Authorization and its body.
"""

import hashlib
import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


def answer(body: dict[str, Any]) -> str:
    """Return an answer that depends on the messages alone."""
    return "answer " + hashlib.sha256(json.dumps(body["messages"]).encode()).hexdigest()[:8]


STATUSES = {
    "400": (400, "max_tokens is too large"),
    "401": (401, "bad key: {key}"),
    "404": (404, "The model `tiny` does not exist."),
    "500": (500, "your header is {key}"),
    "503": (503, "loading the model"),
}
CHOICES: dict[str, dict[str, Any]] = {
    "refusal": {"message": {"content": None, "refusal": "I cannot help with that."}},
    "filtered": {"message": {"content": ""}, "finish_reason": "content_filter"},
    "empty": {"message": {"content": ""}, "finish_reason": "stop"},
    "no-text": {"message": {"content": None}, "finish_reason": "length"},
    "no-message": {},
}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        key = self.headers.get("Authorization", "")
        rule = self.server.take(key, body)  # type: ignore[attr-defined]
        if rule in STATUSES:
            status, message = STATUSES[rule]
            return self.send(status, {"error": {"message": message.format(key=key)}})
        if rule == "hang":
            time.sleep(30)
        if rule == "slow":
            time.sleep(0.05)
        if rule == "html":
            return self.send(200, "<html>gateway</html>")
        if rule == "reset":
            self.close_connection = True
            return None
        text = f"I was sent {key.split()[-1]}" if rule == "tell" else answer(body)
        plain = {"message": {"content": text}, "finish_reason": "stop"}
        model = "tiny-next" if rule == "other-model" else "tiny-2026"
        self.send(200, {"model": model, "choices": [CHOICES.get(rule, plain)]})

    def send(self, status: int, body: Any) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, port: int, log: Path, rules: list[str]) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self._log, self._rules, self._lock = log, rules, threading.Lock()

    def take(self, key: str, body: dict[str, Any]) -> str:
        with self._lock:
            rule = self._rules.pop(0) if len(self._rules) > 1 else self._rules[0]
            with self._log.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"rule": rule, "key": key, "body": body}) + "\n")
        return rule


if __name__ == "__main__":
    server = Server(int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:] or ["ok"])
    print(server.server_address[1], flush=True)
    server.serve_forever()
