"""Asking an endpoint many things at a time: what was answered before is found, the rest is sent, each once."""

from __future__ import annotations

import threading
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Protocol

from kdmesh.endpoints.replies import Reply, digest
from kdmesh.endpoints.served import identity
from kdmesh.errors import RunFailed, RunPaused

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kdmesh.endpoints.client import About, Client
    from kdmesh.endpoints.replies import Question
    from kdmesh.endpoints.served import Served

TOGETHER = 512  # answers that are sent for before those that came are kept


class Memory(Protocol):
    """What was answered before, in other runs too."""

    def find(self, digests: Sequence[str]) -> dict[str, dict[str, object]]:
        """The answers that are known, by their requests' digests."""

    def keep(self, replies: dict[str, dict[str, object]]) -> None:
        """Keep answers."""


class Asker:
    """What an agent is asked, whoever asks. ``served``: what was found there before the run; ``memory``: None: none."""

    def __init__(self, client: Client, served: Served, memory: Memory | None) -> None:
        self.client, self.served, self._memory = client, served, memory
        self.builds: dict[str, None] = {}  # fingerprints of servers that answered here
        self._known: dict[str, Reply] = {}
        self._seen = False  # whether it was looked at whether the server is still the one that was probed
        self._lock = threading.Lock()

    def __call__(self, asks: Sequence[tuple[Question, About]]) -> list[Reply]:
        """Answers to requests, each with what it is about, for errors. See :meth:`Client.post`."""
        names = [digest(self.client.config, ask) for ask, _ in asks]
        self._find(names)
        lacking = {name: pair for name, pair in zip(names, asks, strict=True) if name not in self._known}
        if lacking and not self._seen:
            self._same()
        todo = list(lacking.items())
        for start in range(0, len(todo), TOGETHER):
            self._send(todo[start : start + TOGETHER])
        return [self._known[name] for name in names]

    def _find(self, names: Sequence[str]) -> None:
        unknown, noted = [name for name in dict.fromkeys(names) if name not in self._known], self.client.journal.replies
        found = self._memory.find(unknown) if self._memory is not None and unknown else {}
        lost = {name: noted[name] for name in unknown if name not in found and name in noted}
        self._known.update((name, Reply.restore(one)) for name, one in {**found, **lost}.items())
        self.client.tally.found += len(found) + len(lost)
        if self._memory is not None and lost:  # of a process that was killed before it kept them
            self._memory.keep(lost)

    def _send(self, todo: Sequence[tuple[str, tuple[Question, About]]]) -> None:
        """Send some requests, several at a time; what came is kept also where one of them fails."""
        pool = ThreadPoolExecutor(self.client.config.concurrency, "endpoint")
        came: dict[str, Reply] = {}
        halted = self.client.halted
        halted.clear()

        def one(name: str, ask: Question, about: About) -> None:
            if halted.is_set():
                return
            try:
                reply = self.client.post(ask, about)
                self._refuse_other(reply.model, about)
            except BaseException:
                halted.set()  # what waits its turn is not sent any more
                raise
            if reply.build:
                self.builds[reply.build] = None
            with self._lock:
                came[name] = reply

        try:
            futures = [pool.submit(one, name, *pair) for name, pair in todo]
            done = wait(futures, return_when=FIRST_EXCEPTION).done
            errors = [error for future in done if (error := future.exception()) is not None]
            if errors:  # a spent budget is what halted the others
                raise min(errors, key=lambda error: not isinstance(error, RunPaused))
        finally:
            halted.set()
            pool.shutdown(wait=True, cancel_futures=True)
            self._known.update(came)
            if self._memory is not None and came:
                self._memory.keep({name: reply.record() for name, reply in came.items()})

    def _same(self) -> None:
        """RunFailed where the server is no longer the one that was probed."""
        now = identity(self.client)
        for key, was in self.served.identity.items():
            if key != "model" and now[key] and was and now[key] != was:
                self._changed(was, now[key])
        self._seen = True

    def _refuse_other(self, model: str, about: About) -> None:
        if model and model != self.served.model:
            self._changed(self.served.model, f"{model}{about()}")

    def _changed(self, was: str, now: str) -> None:
        raise RunFailed(
            f"{self.client.whose} at {self.client.config.base_url} serves another model than before: it was {was}, and "
            f"is {now}; answers of both would be mixed",
            where=self.client.where,
            instead="the model that was served; or `kdmesh check`, which looks again, and a new run",
        )
