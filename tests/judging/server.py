"""A small OpenAI-compatible server that can fail in every way; run as a process of its own.

python server.py PORT LOG [RULE ...]: the first requests follow the rules in order, all later ones
the last rule. LOG gets a line per request: the rule and the SHA-256 of the prompt. A list of rules
posted to /rules starts over with these and an empty log.
"""

import hashlib
import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


def scores(prompt: str) -> str:
    """Return a reply that depends on the prompt alone."""
    digest = hashlib.sha256(prompt.encode()).digest()
    return f"{5 + digest[0] % 6} {1 + digest[1] % 10}\nBecause."


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "Server"  # type: ignore[assignment]

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        content = json.loads(self.rfile.read(length))
        if self.path == "/rules":
            self.server.start_over(content)
            return self.send(200, {})
        prompt = content["messages"][1]["content"]
        rule = self.server.next_rule(hashlib.sha256(prompt.encode()).hexdigest())
        getattr(self, f"do_{rule.replace('-', '_')}")(prompt, content)

    def do_ok(self, prompt: str, content: dict[str, Any]) -> None:
        self.reply(scores(prompt), content)

    def do_slow(self, prompt: str, content: dict[str, Any]) -> None:
        time.sleep(0.1)
        self.reply(scores(prompt), content)

    def do_unparsable(self, prompt: str, content: dict[str, Any]) -> None:
        self.reply("Both answers are wonderful.", content)

    def do_refusal(self, prompt: str, content: dict[str, Any]) -> None:
        self.reply(None, content, refusal="I cannot help with that.")

    def do_filtered(self, prompt: str, content: dict[str, Any]) -> None:
        self.reply("", content, finish_reason="content_filter")

    def do_empty(self, prompt: str, content: dict[str, Any]) -> None:
        self.reply("", content)

    def do_out_of_range(self, prompt: str, content: dict[str, Any]) -> None:
        self.reply("85 90\n", content)

    def do_429(self, prompt: str, content: dict[str, Any]) -> None:
        self.send(429, {"error": {"message": "slow down"}}, {"Retry-After": "1"})

    def do_500(self, prompt: str, content: dict[str, Any]) -> None:
        self.send(500, {"error": {"message": "internal error"}})

    def do_400(self, prompt: str, content: dict[str, Any]) -> None:
        self.send(400, {"error": {"message": "max_tokens is too large"}})

    def do_404(self, prompt: str, content: dict[str, Any]) -> None:
        self.send(404, {"error": {"message": "no such model"}})

    def do_redirect(self, prompt: str, content: dict[str, Any]) -> None:
        self.send(302, {}, {"Location": "http://127.0.0.1:9/elsewhere"})

    def do_echo_401(self, prompt: str, content: dict[str, Any]) -> None:
        self.send(401, {"error": {"message": f"bad: {self.headers['Authorization']}"}})

    def do_echo_400(self, prompt: str, content: dict[str, Any]) -> None:
        self.send(400, {"error": {"message": f"bad: {self.headers['Authorization']}"}})

    def do_echo_reply(self, prompt: str, content: dict[str, Any]) -> None:
        self.reply(f"8 7\nYour header is {self.headers['Authorization']}", content)

    def do_hang(self, prompt: str, content: dict[str, Any]) -> None:
        time.sleep(30)

    def do_trickle(self, prompt: str, content: dict[str, Any]) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "100000")
        self.end_headers()
        for _ in range(300):
            self.wfile.write(b" ")
            self.wfile.flush()
            time.sleep(0.1)

    def do_garbage(self, prompt: str, content: dict[str, Any]) -> None:
        self.send_bytes(200, b"\xff\xfe<html>gateway</html>")

    def do_wrong_json(self, prompt: str, content: dict[str, Any]) -> None:
        self.send(200, {"choices": []})

    def do_json_list(self, prompt: str, content: dict[str, Any]) -> None:
        self.send_bytes(200, b"[1, 2]")

    def do_half(self, prompt: str, content: dict[str, Any]) -> None:
        body = json.dumps(self.body(scores(prompt), content)).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2])
        self.wfile.flush()
        self.close_connection = True

    def do_reset(self, prompt: str, content: dict[str, Any]) -> None:
        self.close_connection = True

    def body(self, text: str | None, content: dict[str, Any], **extra: Any) -> dict[str, Any]:
        refusal = extra.pop("refusal", None)
        message = {"role": "assistant", "content": text, "refusal": refusal}
        choice = {"index": 0, "message": message, "finish_reason": "stop", **extra}
        usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
        return {"model": f"{content['model']}-0314", "choices": [choice], "usage": usage}

    def reply(self, text: str | None, content: dict[str, Any], **extra: Any) -> None:
        self.send(200, self.body(text, content, **extra))

    def send(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        self.send_bytes(status, json.dumps(body).encode(), headers)

    def send_bytes(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, port: int, log: Path, rules: list[str]) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self._log, self._rules, self._lock = log, rules, threading.Lock()

    def start_over(self, rules: list[str]) -> None:
        with self._lock:
            self._rules = rules
            self._log.write_text("", encoding="utf-8")

    def next_rule(self, digest: str) -> str:
        with self._lock:
            rule = self._rules.pop(0) if len(self._rules) > 1 else self._rules[0]
            with self._log.open("a", encoding="utf-8") as file:
                file.write(f"{rule} {digest}\n")
        return rule


if __name__ == "__main__":
    server = Server(int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:] or ["ok"])
    print(server.server_address[1], flush=True)
    server.serve_forever()
