"""One endpoint over HTTP: requests that are counted before they leave, repeated with backoff, and read with care."""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from kdmesh.endpoints.replies import Unsound, digest
from kdmesh.errors import MeshError, RunFailed, printable

if TYPE_CHECKING:
    from kdmesh.endpoints.journal import Journal
    from kdmesh.endpoints.replies import Question, Reply
    from kdmesh.endpoints.settings import EndpointConfig

FIRST_WAIT, DOUBLES = 0.5, 2.0  # seconds before the first repetition; each further one waits so many times as long
AGAIN = (408, 409, 425, 429, 500, 502, 503, 504, 529)  # statuses by which a server asks to come again
KEYS = (401, 403)
About = Callable[[], str]
"""Says of what stream and sample a request is, for errors: ``, for train.jsonl, line 7, of the stream 'train'``."""
SHOWN = 200  # characters of what a server says of an error
LARGEST = 2**26  # bytes of an answer at most


@dataclass
class Tally:
    """What was asked of an endpoint since this process began: requests that left, those that repeated another, and
    answers that were found and not asked for."""

    requests: int = 0
    repeated: int = 0
    found: int = 0
    tokens: int = 0
    seconds: float = 0.0


class _Again(Exception):
    """A try that may be repeated: ``wait`` seconds if the server says so; ``void``: it cost no tokens."""

    def __init__(self, what: str, wait: float | None = None, void: bool = False) -> None:
        super().__init__(what)
        self.wait, self.void = wait, void


class Client:
    """Sends requests of one agent. ``whose``: its name; ``sleep``: how it waits between tries."""

    def __init__(
        self, config: EndpointConfig, journal: Journal, whose: str, sleep: Callable[[float], object] = time.sleep
    ) -> None:
        import httpx2

        self.config, self.journal, self.whose, self.tally = config, journal, whose, Tally()
        self.where = f"agents.{whose}.model.api"
        self._sleep, self._lock = sleep, threading.Lock()
        self.halted = threading.Event()  # set where another request failed, or somebody interrupts: nothing is repeated
        self._jitter = random.Random(whose)
        limits = httpx2.Limits(max_connections=config.concurrency, max_keepalive_connections=config.concurrency)
        tls = config.base_url.startswith("https:")  # else no certificates are read, which takes its time
        # A proxy of the environment has no business between this process and its own machine.
        self._http = httpx2.Client(verify=tls, timeout=config.timeout, limits=limits, trust_env=not config.here)

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def refuse_keyless(self) -> None:
        """MeshError where the environment lacks the key."""
        self._headers()

    def get(self, path: str, root: bool = False) -> Any:
        """What stands at a path of the server as JSON; None where nothing does. ``root``: not below the base URL."""
        import httpx2

        base = self.config.root if root else self.config.base_url
        try:
            answer = self._http.get(f"{base}/{path}", headers=self._headers())
            return answer.json() if answer.status_code == 200 else None
        except (httpx2.HTTPError, ValueError, RecursionError):
            return None

    def post(self, ask: Question, about: About = str) -> Reply:
        """Send a request until it is answered well. ``about``: see :data:`About`.

        RunPaused where the budget has no room for it, RunFailed where no try was answered.
        """
        name, most, wait, began = digest(self.config, ask), ask.most(self.config), FIRST_WAIT, time.perf_counter()
        for left in reversed(range(self.config.retries + 1)):
            self.journal.sent(name, most)
            with self._lock:
                self.tally.requests += 1
            try:
                return self._once(ask, name, most, began, about)
            except _Again as error:
                if error.void:
                    self.journal.void(name, most)
                if not left or self.halted.is_set():
                    count = self.config.retries + 1 - left
                    tries = f"{count} tries" if count > 1 else "one try"
                    self._fail(f"{error}, after {tries}{about()}", "a server that answers, or more `retries`")
                pause = error.wait if error.wait is not None else wait * (1 + self._jitter.random()) / 2
                if pause > self.config.longest_wait:
                    self._fail(
                        f"{error}, and is to be asked again only after {pause:,.0f} s{about()}",
                        f"go on later, or longest_wait: {pause:.0f}",
                    )
                wait = min(wait * DOUBLES, self.config.longest_wait)
                with self._lock:
                    self.tally.repeated += 1
                self._sleep(pause)
        raise AssertionError("a try returns or raises")

    def _once(self, ask: Question, name: str, most: int, began: float, about: About) -> Reply:
        value = self._send(ask, about)
        try:
            reply = ask.read(self.config, value)
        except Unsound as error:
            self.journal.got(name, most, None, None)
            raise _Again(str(error)) from None
        self.journal.got(name, most, reply.tokens, reply.record())
        with self._lock:
            self.tally.tokens += most if reply.tokens is None else reply.tokens
            self.tally.seconds += time.perf_counter() - began
        return reply

    def _send(self, ask: Question, about: About) -> Any:
        import httpx2

        url, body = ask.url(self.config), ask.body(self.config)
        try:
            with self._http.stream("POST", url, json=body, headers=self._headers()) as answer:
                data, size = [], 0
                for part in answer.iter_bytes():
                    data.append(part)
                    size += len(part)
                    if size > LARGEST:
                        self._fail(f"it answers with more than {LARGEST:,} bytes", "a smaller request")
        except httpx2.TimeoutException:
            raise _Again(f"it has not answered for {self.config.timeout:g} s") from None
        except httpx2.ConnectError as error:
            raise _Again(f"nothing answers there ({self._plain(str(error))})", void=True) from None
        except httpx2.HTTPError as error:
            raise _Again(f"it broke off its answer ({type(error).__name__})") from None
        if answer.status_code != 200:
            self._refused(answer.status_code, answer.headers.get("retry-after"), b"".join(data), about)
        try:
            return json.loads(b"".join(data))
        except (ValueError, RecursionError):  # also brackets in brackets without end
            raise _Again("its answer is no JSON") from None

    def _refused(self, status: int, after: str | None, data: bytes, about: About) -> None:
        """Raise what a status other than 200 is."""
        if status in KEYS:
            said = "no key was sent" if self.config.key_env is None else f"${self.config.key_env} holds another"
            instead = "key_env: the variable with the key" if self.config.key_env is None else "the key that it knows"
            raise MeshError(f"{self._named()} wants a key (status {status}): {said}", where=self.where, instead=instead)
        said = self._plain(data.decode("utf-8", "replace"))
        what = f"it answers with status {status}" + (f" ({said})" if said else "")
        if status in AGAIN:
            raise _Again(what, _seconds(after), void=True)
        raise MeshError(
            f"{self._named()}: {what}{about()}",
            where=self.where,
            instead="a request that it takes, or another `model`",
        )

    def _headers(self) -> dict[str, str]:
        name = self.config.key_env
        if name is None:
            return {}
        key = os.environ.get(name, "")
        if not key:
            raise MeshError(
                f"the environment has no {name}", where=f"{self.where}.key_env", instead=f"export {name}=..."
            )
        if not key.isascii() or not key.isprintable():
            raise MeshError(f"${name} holds what no header can", where=f"{self.where}.key_env", instead="the key alone")
        return {"Authorization": f"Bearer {key}"}

    def _plain(self, text: str) -> str:
        """A server's words on one line, short, and without the key, which some repeat."""
        key = os.environ.get(self.config.key_env or "", "")
        text = text.replace(key, "[key]") if key else text
        text = printable(" ".join(text.split()), breaks=False)
        return text if len(text) <= SHOWN else f"{text[:SHOWN]} ..."

    def _named(self) -> str:
        return f"{self.whose} at {self.config.base_url}"

    def _fail(self, what: str, instead: str) -> None:
        raise RunFailed(f"{self._named()}: {what}", where=self.where, instead=instead)


def _seconds(after: str | None) -> float | None:
    """What a server's Retry-After asks for: seconds, or a date."""
    if after is None:
        return None
    try:
        return max(0.0, float(after))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(after).timestamp() - time.time())
    except ValueError:
        return None
