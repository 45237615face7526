"""How right the texts are that an agent wrote: verifiers at work on the writer's host, and what they say in one number.

A verifier with a time limit is asked in a process of its own (:mod:`kdmesh.hosts.verifier`), so that one that hangs can
be ended.
"""

from __future__ import annotations

import json
import math
import os
import select
import subprocess
import sys
import weakref
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from kdmesh.contracts.metric import Answers
from kdmesh.errors import FAULTS, MeshError, RunFailed, text_of
from kdmesh.graph.rewards import keys
from kdmesh.hosts.verifier import number_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kdmesh.contracts.filter import WrittenText
    from kdmesh.contracts.metric import Metric
    from kdmesh.hosts.state import HostState
    from kdmesh.spec import RewardRef

UNKNOWN = "no reward"
"""Why a text is dropped of which a verifier says that it does not count."""
START, GRACE = 120.0, 5.0  # seconds that a process may take to begin, and that it has beyond a text's limit
GONE = 60.0  # seconds until a process that closed its pipe has a status


@dataclass(frozen=True)
class Verdict:
    """Of one text: the sum of what verifiers said, by their weights; each one's number, None: the text does not count.

    ``late``: those that took too long.
    """

    total: float
    numbers: dict[str, float | None]
    late: tuple[str, ...] = ()

    @property
    def known(self) -> bool:
        """Whether all of them gave a number."""
        return None not in self.numbers.values()


class TooLong(Exception):  # not an error of its own: it is told, or counted
    """A verifier took longer than it may."""


class Failed(ValueError):
    """What a verifier's process says of a failure, in words."""


class Rewarding:
    """The verifiers of one stream. Called with texts it gives a :class:`Verdict` of each."""

    def __init__(self, host: HostState, stream: str, agent: str) -> None:
        self._host, self._stream, self.agent = host, stream, agent
        refs = host.plan.spec.streams[stream].reward or []
        self._asked = [
            (key, ref, f"streams.{stream}.reward.{number}", self._made(ref, f"streams.{stream}.reward.{number}"))
            for number, (key, ref) in enumerate(zip(keys(refs), refs, strict=True))
        ]

    def __call__(self, texts: Sequence[WrittenText]) -> list[Verdict]:
        """Ask each verifier of each text. RunFailed, or MeshError, for one that fails, hangs or gives no number."""
        numbers: list[dict[str, float | None]] = [{} for _ in texts]
        late: list[tuple[str, ...]] = [()] * len(texts)
        for key, ref, where, ask in self._asked:
            for at, text in enumerate(texts):
                try:
                    numbers[at][key] = ask(text)
                except TooLong:
                    if ref.late is None:
                        self._refuse(ref, text, where, f"did not answer within {ref.time_limit:g} s")
                    numbers[at][key], late[at] = ref.late, (*late[at], key)
                except FAULTS as error:
                    self._blame(ref, text, where, error)
        weights = {key: ref.weight for key, ref, *_ in self._asked}
        return [
            Verdict(math.fsum(weights[key] * (number or 0.0) for key, number in one.items()), one, slow)
            for one, slow in zip(numbers, late, strict=True)
        ]

    def _made(self, ref: RewardRef, where: str) -> Callable[[WrittenText], float | None]:
        if ref.time_limit is not None:
            factory = ref.name
            if not ref.is_import:
                factory = self._host.registry.find("metrics", ref.name, where).factory
                self._metric(ref, where)  # a metric of all texts together is refused at once
            return Apart(factory, self._settings(ref), ref.is_import, ref.time_limit, where)
        metric = self._metric(ref, where)
        return lambda text: number_of(metric, text)

    def _settings(self, ref: RewardRef) -> dict[str, Any]:
        """What the thing itself is made with: of an offer all its settings, with those that have a default."""
        if ref.is_import:
            return ref.settings
        made = self._host.registry.find("metrics", ref.name).config.model_validate(ref.settings)
        return made.model_dump(mode="json")

    def _metric(self, ref: RewardRef, where: str) -> Metric:
        registry = self._host.registry
        try:
            metric: Metric = registry.find("metrics", ref.name, where).make(ref.settings)
            single = metric.each(Answers(*_nothing(), texts=[])) is not None
        except MeshError as error:
            error.where = where
            raise
        except FAULTS as error:
            registry.attribute_error("metrics", ref.name, error, f"to be made for {self._stream!r}", where)
        if not single:
            what = f"the metric {ref.name!r} is of all texts together, so it says of none how right it is"
            raise MeshError(what, where=where, instead="a metric that is a mean over texts, or a function")
        return metric

    def _blame(self, ref: RewardRef, text: WrittenText, where: str, error: BaseException) -> NoReturn:
        if isinstance(error, MeshError):
            error.where = error.where or where
            raise error
        doing = f"on what {self.agent} wrote for {self._stream!r} to {text.at}, {text.text!r:.60}"
        if not ref.is_import and ref.time_limit is None:
            self._host.registry.attribute_error("metrics", ref.name, error, doing, where)
        said = str(error) if isinstance(error, Failed) else text_of(error)
        self._refuse(ref, text, where, f"failed: {said}", error)

    def _refuse(
        self, ref: RewardRef, text: WrittenText, where: str, what: str, error: BaseException | None = None
    ) -> NoReturn:
        on = f"on what {self.agent} wrote for {self._stream!r} to {text.at}, {text.text!r:.60}"
        slow = "a larger `time_limit`, or `late`, the number of such a text; or mend it"
        raise RunFailed(
            f"{ref.name} {what}, {on}", where=where, instead=slow if error is None else "mend it, or leave it out"
        ) from error


def _nothing() -> tuple[Any, Any]:
    import torch

    return torch.zeros(0, 0), torch.zeros(0, dtype=torch.int64)


class Apart:
    """A verifier in a process of its own, which is ended where it takes longer for a text than ``limit`` seconds.

    ``factory``: an import path, of a function of texts (``function``), or of the class of a metric with ``settings``.
    """

    def __init__(self, factory: str, settings: dict[str, Any], function: bool, limit: float, where: str) -> None:
        self._asked = {"factory": factory, "settings": settings, "function": function, "limit": limit, "where": where}
        self._limit, self._process, self._end = limit, None, None
        self._begin()

    _process: subprocess.Popen[bytes] | None
    _end: weakref.finalize[Any, Any] | None

    def __call__(self, text: WrittenText) -> float | None:
        """Its number for a text; None: it does not count. TooLong; Failed with what it raised."""
        if self._process is None:
            self._begin()
        about = {**asdict(text), "columns": dict(text.columns)}
        return self._told(about, self._limit + GRACE)

    def _begin(self) -> None:
        path = os.pathsep.join(one or os.getcwd() for one in sys.path)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "kdmesh.hosts.verifier"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
        )
        self._end = weakref.finalize(self, _ended, self._process)
        self._told(self._asked, START)

    def _told(self, message: dict[str, Any], seconds: float) -> float | None:
        """Send a line, and read the one that answers it."""
        process = self._process
        assert process is not None and process.stdin is not None and process.stdout is not None
        line, silent = b"", False
        try:
            process.stdin.write(json.dumps(message).encode() + b"\n")
            process.stdin.flush()
            silent = not select.select([process.stdout], [], [], seconds)[0]
            if not silent:
                line = process.stdout.readline()
        except OSError:
            pass  # it is gone
        if line.endswith(b"\n"):
            found = json.loads(line)
            if "refused" in found:
                raise MeshError(found["refused"], where=found["where"], instead=found["instead"])
            if "error" in found:
                raise Failed(found["error"])
            number: float | None = found["number"]
            return number
        # Its pipe is closed some time before there is a status to read: a process that is gone is waited for.
        slow = silent or _wait(process) in (None, -ALARM)
        assert self._end is not None
        self._end()
        self._process = None
        if slow:
            raise TooLong
        raise Failed(f"its process ended with {process.returncode}")


ALARM = 14  # SIGALRM, by which the process ends itself


def _wait(process: subprocess.Popen[bytes]) -> int | None:
    try:
        return process.wait(GONE)
    except subprocess.TimeoutExpired:
        return None


def _ended(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(OSError):  # what was not sent yet goes nowhere
                pipe.close()
