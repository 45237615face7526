"""A small OpenAI-compatible server of the tests, on loopback, that can be told to behave badly.

It answers as ``answer(prompt, choice number, body)`` says, with log-probabilities that ``tops(prompt)`` gives. Tokens
are words. ``faults`` are used up, one a request: a status, or a word for what goes wrong.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Server:
    def __init__(
        self,
        answer: Callable[[str, int, dict[str, Any]], str] = lambda prompt, number, body: "yes",
        tops: Callable[[str], dict[str, float]] | None = None,
        model: str = "tiny",
        port: int = 0,
    ) -> None:
        self.answer, self.tops, self.model = answer, tops, model
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.gets: list[str] = []
        self.faults: list[Any] = []
        self.ignores: set[str] = set()
        self.build = "b1"
        self.score: Callable[[list[int], int], list[tuple[int, str, float]]] | None = None  # of tokens, and how many
        self.reasons: Callable[[str], str] | None = None  # what it thinks of a prompt, apart from its answer
        self.usage = True
        self.under_way = self.most_under_way = 0
        self.before: Callable[[int], None] = lambda number: None
        self.lock = threading.Lock()
        self.headers: dict[str, str] = {}
        self.listed: dict[str, Any] = {}  # more that the list of models says of it
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                pass

            def do_GET(self) -> None:
                outer.gets.append(self.path)
                found = {
                    "/v1/models": {"data": [{"id": outer.model, **outer.listed}]},
                    "/version": {"version": outer.build},
                }.get(self.path)
                self._send(200 if found else 404, json.dumps(found or {}).encode())

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with outer.lock:
                    outer.bodies.append(body)
                    outer.keys.append(self.headers.get("Authorization"))
                    number = len(outer.bodies)
                    fault = outer.faults.pop(0) if outer.faults else None
                    outer.under_way += 1
                    outer.most_under_way = max(outer.most_under_way, outer.under_way)
                try:
                    outer.before(number)
                    self._answer(body, fault)
                finally:
                    with outer.lock:
                        outer.under_way -= 1

            def _answer(self, body: dict[str, Any], fault: Any) -> None:
                if isinstance(fault, int):
                    told = {"error": {"message": f"status {fault}, you sent {self.headers.get('Authorization')}"}}
                    self._send(fault, json.dumps(told).encode())
                elif fault == "broken":
                    self._send(200, b'{"choices": [')
                elif fault == "nested":
                    self._send(200, b"[" * 100_000)
                elif fault == "drop":
                    self.send_response(200)
                    self.send_header("Content-Length", "1000")
                    self.end_headers()
                    self.wfile.write(b'{"choices": ')
                    self.wfile.flush()
                    self.close_connection = True
                elif fault == "slow":
                    outer.stuck.wait(300)
                    self.close_connection = True
                else:
                    self._send(200, json.dumps(outer.reply(self.path, body, fault)).encode())

            def _send(self, status: int, data: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                for name, value in outer.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

        self.stuck = threading.Event()
        self._http = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._http.daemon_threads = True
        self.port = self._http.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def reply(self, path: str, body: dict[str, Any], fault: Any) -> dict[str, Any]:
        chat = path.endswith("/chat/completions")
        prompt = body["messages"][-1]["content"] if chat else str(body["prompt"])
        n = 1 if "n" in self.ignores else body.get("n", 1)
        n = n - 1 if fault == "fewer" else n
        seen = {name: value for name, value in body.items() if name not in self.ignores}
        if self.score is not None and ("prompt_logprobs" in body or path == "/completion"):
            return self.scored(path, body)
        choices: list[dict[str, Any]] = []
        for number in range(n):
            text = self.answer(prompt, number, seen)
            one: dict[str, Any] = {"index": number, "finish_reason": "stop"}
            one |= {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
            if self.reasons is not None:
                one["message"]["reasoning_content"] = self.reasons(prompt)
                one["finish_reason"] = "stop" if text else "length"
            if body.get("logprobs") and "logprobs" not in self.ignores:
                k = body["top_logprobs"] if chat else body["logprobs"]
                one["logprobs"] = self.logprobs(prompt, text, 1 if "top_logprobs" in self.ignores else k)
            choices.append(one)
        if fault == "permuted":
            choices.reverse()
        count = len(prompt.split()) + sum(len(self.words(one, chat)) for one in choices)
        told = {
            "model": "other" if fault == "model" else self.model,
            "choices": choices,
            "system_fingerprint": self.build,
        }
        return {**told, "usage": {"total_tokens": count}} if self.usage else told

    def scored(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """As llama.cpp and vLLM score a text in tokens."""
        assert self.score is not None
        ids = body["prompt"]
        if path == "/completion":
            best = [{"id": n, "token": text, "logprob": value} for n, text, value in self.score(ids, body["n_probs"])]
            listed = [] if "n_probs" in self.ignores else [{**best[0], "top_logprobs": best}]
            return {"content": "x", "completion_probabilities": listed, "model": self.model}
        k = body["prompt_logprobs"]
        places = [
            {str(n): {"decoded_token": text, "logprob": value} for n, text, value in self.score(ids[:end], k + end % 2)}
            for end in range(1, len(ids))
        ]
        told = None if "prompt_logprobs" in self.ignores else [None, *places]
        return {"choices": [{"index": 0, "text": "x", "prompt_logprobs": told}], "model": self.model}

    def words(self, one: dict[str, Any], chat: bool) -> list[str]:
        return (one["message"]["content"] if chat else one["text"]).split()

    def logprobs(self, prompt: str, text: str, k: int) -> dict[str, Any]:
        tops = self.tops(prompt) if self.tops is not None else {f"w{i}": -1.0 - i for i in range(k)}
        best = sorted(tops.items(), key=lambda pair: -pair[1])[:k]
        listed = [{"token": token, "logprob": value} for token, value in best]
        return {"content": [{"token": best[0][0], "logprob": best[0][1], "top_logprobs": listed}]}

    def close(self) -> None:
        self.stuck.set()
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()
