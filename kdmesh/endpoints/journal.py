"""What was sent to an endpoint and what came back, line by line: how a budget holds, and nothing is sent twice.

A line is written before a request leaves, and one when its answer is there. Whoever goes on with a run reads them. A
process that is killed loses nothing of them.
"""

from __future__ import annotations

import json
import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from kdmesh.errors import RunFailed, RunPaused
from kdmesh.files import lock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kdmesh.endpoints.settings import BudgetConfig


class Journal:
    """Requests and tokens that an endpoint was sent in a run, and its answers by their requests' digests.

    Tokens of a request count as many as it can cost at most until its answer tells how many it did. ``path``: its
    file, None: it is kept in memory. Several processes may write to one file.
    """

    def __init__(self, path: Path | None, budget: BudgetConfig, whose: str) -> None:
        """``whose``: the agent's name."""
        self.path, self._budget, self._whose = path, budget, whose
        self.requests = self.tokens = 0
        self.replies: dict[str, dict[str, Any]] = {}
        self._served: dict[str, str] = {}
        self.looks: dict[str, dict[str, Any]] = {}  # what was found there before the run, by what was looked for
        self._looks: set[str] = set()
        self._more = {"requests": 0, "tokens": 0}
        self._at, self._here = 0, threading.RLock()
        with self._held():
            pass

    def sent(self, digest: str, most: int) -> None:
        """Note a request that is about to leave. RunPaused where the budget has no room for it."""
        with self._held() as write:
            for name, had, asks in (("requests", self.requests, 1), ("tokens", self.tokens, most)):
                limit = getattr(self._budget, name)
                if limit is not None and had + asks > limit + self._more[name]:
                    raise self._spent(name, limit + self._more[name], asks)
            write({"sent": digest, "most": most})

    def got(self, digest: str, most: int, tokens: int | None, reply: dict[str, Any] | None) -> None:
        """Note what an answer cost, None: as much as it could, and keep it; ``reply`` None: it cannot be used."""
        with self._held() as write:
            write({"got": digest, "most": most, "tokens": most if tokens is None else tokens, "reply": reply})

    def void(self, digest: str, most: int) -> None:
        """Note that a server has refused a request, which then cost no tokens."""
        with self._held() as write:
            write({"got": digest, "most": most, "tokens": 0, "reply": None})

    def serves(self, identity: dict[str, str]) -> None:
        """Note what is served there, once. RunFailed where another model was asked in this run."""
        with self._held() as write:
            if not self._served:
                write({"served": identity})
        if self._served != identity:
            what = (
                f"{self._whose} serves another model than when this run began: it was {self._served}, and is {identity}"
            )
            where = f"agents.{self._whose}.model.api"
            raise RunFailed(what, where=where, instead="the model that was served, or a new run")

    def before(self, found: dict[str, Any]) -> None:
        """Note what a look at the endpoint has found and cost, once; see :meth:`Served.record`."""
        with self._held() as write:
            if found["look"] not in self._looks:
                write({"before": [found["requests"], found["tokens"]], "look": found["look"], "found": found})

    def more(self, requests: int, tokens: int) -> None:
        """Raise the budget by so much, from here on."""
        with self._held() as write:
            write({"more": {"requests": requests, "tokens": tokens}})

    def told(self) -> str:
        """The sum, in words."""
        parts = []
        for name, had in (("requests", self.requests), ("tokens", self.tokens)):
            limit = getattr(self._budget, name)
            parts.append(f"{had:,} {name}" + ("" if limit is None else f" of {limit + self._more[name]:,}"))
        return ", ".join(parts)

    def _spent(self, name: str, limit: int, asks: int) -> RunPaused:
        need = "" if name == "requests" else f", and the next request may take {asks:,}"
        flag = f"{self._whose}.{name}={max(asks, limit)}"
        return RunPaused(
            f"the budget of {self._whose} is spent: {self.told()}{need}",
            where=f"agents.{self._whose}.model.api.budget.{name}",
            instead=f"kdmesh resume FOLDER --more {flag}, which adds so many; all answers so far are kept",
        )

    @contextmanager
    def _held(self) -> Iterator[Any]:
        """Alone with the file, after reading what others have written: gives what writes a line."""
        with self._here:
            if self.path is None:
                yield self._count
                return
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "a+b") as file:
                while not lock(file):
                    threading.Event().wait(0.01)
                self._read(file)

                def write(line: dict[str, Any]) -> None:
                    file.write(json.dumps(line).encode() + b"\n")
                    file.flush()
                    self._at = file.tell()
                    self._count(line)

                yield write

    def _read(self, file: Any) -> None:
        file.seek(self._at)
        data = file.read()
        for line in data.split(b"\n"):
            try:
                found = json.loads(line) if line else None
            except ValueError:  # of a process that was killed while it wrote
                found = None
            if isinstance(found, dict):
                self._count(found)
        if data and not data.endswith(b"\n"):
            file.write(b"\n")
            file.flush()
        file.seek(0, os.SEEK_END)
        self._at = file.tell()

    def _count(self, line: dict[str, Any]) -> None:
        if "sent" in line:
            self.requests += 1
            self.tokens += line["most"]
        elif "got" in line:
            self.tokens += line["tokens"] - line["most"]
            if line["reply"] is not None:
                self.replies[line["got"]] = line["reply"]
        elif "served" in line:
            self._served = line["served"]
        elif "before" in line:
            self.requests += line["before"][0]
            self.tokens += line["before"][1]
            self._looks.add(line["look"])
            if "found" in line:  # earlier versions told only what it cost
                self.looks[line["found"]["sign"]] = line["found"]
        elif "more" in line:
            for name in self._more:
                self._more[name] += line["more"][name]
