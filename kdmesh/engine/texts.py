"""What agents wrote in a run: counted by stream, told in events, and kept text by text in ``streams/<name>.jsonl``.

A line is a text. What a run repeats, after a loss or resumed from a checkpoint, it writes again; at the end of the run
each text stands once, as it was last written. So the lines, but for their times, are those of an unbroken run.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from kdmesh.contracts.events import TextsWritten
from kdmesh.contracts.run_files import STREAMS
from kdmesh.errors import RunFailed
from kdmesh.files import aside, inside, reason, remedy, to_json
from kdmesh.graph.served import is_served
from kdmesh.hosts.rewarding import UNKNOWN
from kdmesh.hosts.rollouts import ONCE
from kdmesh.plugins import registry
from kdmesh.spec import SamplingSpec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from kdmesh.graph.plan import Plan
    from kdmesh.hosts.step import Line, Wrote

Tally = dict[str, Any]
"""Of a stream: ``agent``, texts ``written`` and ``kept``, how many were ``dropped`` by reason, steps that were left
``empty``, texts of no token (``blank``), those that their writer did not end (``cut``), and where the first of each
came from; whether they are ``pairs`` that a rule made."""
PLACE = ("phase", "step", "number")
"""What tells a line of a file from all others."""
SHOWN, MOST = 60, 8  # characters of a text, and texts, in a message


def count(tallies: dict[str, Tally], wrote: Wrote) -> None:
    """Add what was written to the stream's tally; what is written once, to all stages alike, makes all of it."""
    if wrote.phase == ONCE:
        tallies.pop(wrote.stream, None)
    tally = tallies.setdefault(
        wrote.stream,
        {"agent": wrote.agent, "written": 0, "kept": 0, "dropped": {}, "empty": 0, "blank": 0, "first_blank": ""},
    )
    if wrote.rule:
        noted = tally.setdefault("counted", {})
        if any("rejected" in (line.told or {}) for line in wrote.lines):
            tally["pairs"] = True
        tally["rule"] = wrote.rule
        for name in (name for line in wrote.lines for name in line.counted):
            noted[name] = noted.get(name, 0) + 1
    why = Counter(line.dropped for line in wrote.lines)
    tally["written"] += len(wrote.lines)
    tally["kept"] += why.pop("", 0)
    tally["empty"] += wrote.empty
    if any(line.reward is not None or line.dropped == UNKNOWN for line in wrote.lines):
        _reward(tally.setdefault("reward", {"texts": 0, "average": None, "groups": 0, "equal": 0, "late": {}}), wrote)
    for name in sorted(why):
        tally["dropped"][name] = tally["dropped"].get(name, 0) + why[name]
    for line in wrote.lines:
        if not line.tokens and not (wrote.rule and line.dropped):  # a rule that abstains writes nothing
            tally["blank"] += 1
            tally["first_blank"] = tally["first_blank"] or line.at
        if not line.ended and not wrote.rule:
            tally["cut"] = tally.get("cut", 0) + 1
            tally.setdefault("first_cut", line.at)


def _reward(tally: Tally, wrote: Wrote) -> None:
    """Add what verifiers said to a tally: of so many ``texts`` the ``average``, of so many ``groups`` of several kept
    answers to one prompt how many have ``equal`` rewards, and how many texts were ``late`` for a verifier."""
    numbers = [line.reward for line in wrote.lines if line.reward is not None]
    if numbers:
        before = tally["texts"]
        tally["texts"] += len(numbers)
        tally["average"] = ((tally["average"] or 0.0) * before + math.fsum(numbers)) / tally["texts"]
    groups: dict[tuple[int, int], list[float | None]] = {}
    seen: dict[tuple[int, int], int] = {}  # an epoch that begins within a window asks a prompt again
    for line in wrote.lines:
        again = seen[line.sample, line.draw] = seen.get((line.sample, line.draw), -1) + 1
        if not line.dropped:
            groups.setdefault((line.sample, again), []).append(line.reward)
        for name in line.late:
            tally["late"][name] = tally["late"].get(name, 0) + 1
    several = [one for one in groups.values() if len(one) > 1]
    tally["groups"] += len(several)
    tally["equal"] += sum(len(set(one)) == 1 for one in several)


def _rewarded(name: str, tally: Tally) -> list[str]:
    found = []
    if tally["texts"]:
        found.append(f"{name}: the mean reward of {tally['texts']} texts is {tally['average']:.4g}")
    if tally["equal"]:
        found.append(
            f"{name}: in {tally['equal']} of {tally['groups']} groups of texts to one prompt all rewards are equal, "
            "so that nothing is learned of them by comparison"
        )
    found += [f"{name}: {count} texts were late for {verifier}" for verifier, count in sorted(tally["late"].items())]
    return found


def refuse_nothing(plan: Plan, tallies: dict[str, Tally], wrote: Sequence[Wrote] | None = None) -> None:
    """Raise RunFailed for a stream that is learned and of which nothing was kept in all of a stage.

    ``wrote``: what was just written, of which only that counts which is written once; None: the stage is at its end.
    """
    learned = {edge.stream for edge in plan.edges}
    for name, tally in tallies.items():
        own = None if wrote is None else next((one for one in wrote if (one.stream, one.phase) == (name, ONCE)), None)
        if name not in learned or not tally["written"] or tally["kept"] or (wrote is not None and own is None):
            continue
        why, example = _sums(tally["dropped"]), "" if own is None else _example(plan, own, wrote or ())
        what, field, instead = _nothing(tally, bool(plan.spec.streams[name].pairs))
        noted = f"; counted: {_sums(tally['counted'])}" if tally.get("counted") else ""
        raise RunFailed(
            f"{what} ({why}{noted}), so nothing is learned of them{example}",
            where=f"streams.{name}{field}",
            instead=f"{instead}; every text is in {STREAMS}/ of the run's folder",
        )


def _nothing(tally: Tally, pairs: bool) -> tuple[str, str, str]:
    """What there is none of where nothing is kept, the field of the stream that says so, and what to write instead."""
    if "rule" in tally:
        none, rule = f"none of {tally['written']} prompts has a", repr(tally["rule"])
        if pairs:
            instead = "a rule that finds some texts better than others, filters that keep both, or unlike streams"
            return f"{none} pair that rule {rule} made and that is kept", "", instead
        instead = "a rule that abstains less, or streams that answer better"
        return f"{none} text that rule {rule} chose and that is kept", "", instead
    none = f"none of the {tally['written']} texts that {tally['agent']} wrote is"
    if pairs:
        instead = "a filter that keeps some and drops some, more `samples`, or other sampling"
        return f"{none} in a pair", ".pairs", instead
    return f"{none} kept", ".keep", "filters that keep some, other sampling, or a better writer"


def _sums(counted: dict[str, int]) -> str:
    return ", ".join(f"{reason} {number}" for reason, number in sorted(counted.items()))


def _example(plan: Plan, own: Wrote, wrote: Sequence[Wrote]) -> str:
    """What was said to the first prompt: by those whose texts a rule read, or by the stream's own writer."""
    if not own.lines:
        return ""
    first, spec = own.lines[0], plan.spec.streams[own.stream]
    named = [*(spec.consensus_of or ()), *(spec.reads or {}).values()] if own.rule else [own.stream]
    said = [
        f"{one.stream} says {line.text[:SHOWN]!r}"
        for name in named
        for one in wrote
        if one.stream == name
        for line in one.lines
        if line.sample == first.sample
    ]
    return f". To {first.at} {', '.join(said[:MOST])}" if said else ""


def notes(tallies: dict[str, Tally]) -> list[str]:
    """What to say of streams at the end of a run."""
    found = []
    for name, tally in tallies.items():
        agent = f"rule {tally['rule']!r}" if "rule" in tally else tally["agent"]
        found += _rewarded(name, tally["reward"]) if "reward" in tally else []
        if tally["dropped"]:
            said = _sums(tally["dropped"])
            kept = f"{name}: {tally['kept']} of {tally['written']}"
            if "pairs" in tally:
                found.append(f"{kept} prompts have a pair, by {agent}; none: {said}")
            else:
                found.append(f"{kept} texts of {agent} were kept; dropped: {said}")
        if counted := tally.get("counted"):
            found.append(f"{name}: of {tally['written']} prompts, rule {tally['rule']!r} counted: {_sums(counted)}")
        if tally["empty"]:
            found.append(f"{name}: batches without a text that was kept, which added no loss: {tally['empty']}")
        if tally["blank"]:
            found.append(
                f"{name}: {tally['blank']} of {tally['written']} texts of {agent} have no token before their end, "
                f"first the one to {tally['first_blank']}"
            )
        if tally["written"] and tally.get("cut") == tally["written"]:
            found.append(
                f"{name}: {agent} ended none of its {tally['written']} texts, which were cut at max_new_tokens, "
                f"first the one to {tally['first_cut']}"
            )
    return found


class TextLog:
    """The files of what was written in one run. ``folder``: the run's, None: none are written."""

    def __init__(self, folder: Path | None, plan: Plan) -> None:
        self._folder, self._plan, self._open = folder, plan, dict[str, Any]()

    def add(self, wrote: Iterable[Wrote]) -> None:
        """Append texts. RunFailed where the disk takes no more."""
        for one in wrote:
            path = self._path(one.stream)
            if path is None:
                return
            try:
                if one.stream not in self._open:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    _end_line(path)
                    self._open[one.stream] = path.open("a", encoding="utf-8", errors="backslashreplace")
                self._open[one.stream].writelines(self._lines(one))
                self._open[one.stream].flush()
            except OSError as error:
                raise self._unwritten(error, path) from error

    def sync(self) -> None:
        """Have what was written on disk, before a checkpoint says that it is done."""
        for file in self._open.values():
            os.fsync(file.fileno())

    def finish(self) -> None:
        """Close the files, each with every text once."""
        for file in self._open.values():
            file.close()
        for path in filter(None, map(self._path, self._plan.spec.streams)):
            if not path.is_file():
                continue
            try:
                with aside(path) as draft, draft.open("w", encoding="utf-8") as whole:
                    whole.writelines(_once(path))
            except OSError as error:
                raise self._unwritten(error, path) from error
        self._open = {}

    def names(self) -> list[str]:
        """The files that there are, below the run's folder."""
        found = [self._path(name) for name in self._plan.spec.streams]
        return [f"{STREAMS}/{path.name}" for path in found if path is not None and path.is_file()]

    def _path(self, stream: str) -> Path | None:
        return None if self._folder is None else inside(self._folder, f"{STREAMS}/{stream}.jsonl")

    def _lines(self, wrote: Wrote) -> Iterator[str]:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        for one in records(self._plan, wrote):
            yield to_json({**one, "time": now}) + "\n"

    def _unwritten(self, error: OSError, path: Path) -> RunFailed:
        return RunFailed(
            f"a text that was written could not be kept: {reason(error)}",
            file=str(path),
            instead=remedy(error) or "free disk space, or give the right to write there",
        )


def records(plan: Plan, wrote: Wrote) -> list[dict[str, Any]]:
    """All that is kept of each text, but the time."""
    spec = plan.spec.streams[wrote.stream]
    sampling = None if wrote.rule else (spec.sampling or SamplingSpec()).model_dump(mode="json")
    rule = {} if spec.rule is None else {"rule": spec.rule.model_dump(mode="json")}
    filters = [one.model_dump(mode="json") for one in spec.filters.values()]
    return [
        {
            **_about(plan, wrote, number, line),
            "producer": _producer(wrote, line),
            **_served(plan, _producer(wrote, line), bool(wrote.rule)),
            "updates": wrote.updates,
            "weights_sha256": wrote.weights or None,
            "sampling": sampling,
            "filters": filters,
            **rule,
        }
        for number, line in enumerate(wrote.lines)
    ]


def _about(plan: Plan, wrote: Wrote, number: int, line: Line) -> dict[str, Any]:
    told = line.told
    if told is not None and "rejected" in told:
        told = {**told, "rejected": {**told["rejected"], **_served(plan, told["rejected"]["agent"], chosen=True)}}
    return {
        "prompt": line.prompt,
        "text": line.text,
        "kept": not line.dropped,
        "dropped": line.dropped or None,
        "tokens": line.tokens,
        "ended": line.ended,
        "sample": line.sample,
        "at": line.at,
        "draw": line.draw,
        "phase": wrote.phase,
        "step": wrote.step,
        "number": number,
        **({"label": line.label} if line.label else {}),
        **({} if told is None else {"consensus": told}),
        **({} if line.reward is None and line.dropped != UNKNOWN else {"reward": line.reward}),
        **({"numbers": line.numbers} if line.numbers else {}),
    }


def _producer(wrote: Wrote, line: Line) -> str | None:
    """Who wrote a text: of a consensus the writer of what was chosen, None where nothing was."""
    chosen = {"agent": wrote.agent} if line.told is None else line.told["from"]
    return None if chosen is None else str(chosen["agent"])


def _served(plan: Plan, producer: str | None, chosen: bool) -> dict[str, Any]:
    """Of a writer behind an endpoint, the model and the host that were asked.

    ``chosen``: by a rule, from texts of several agents; every line then says whether its writer is.
    """
    owner = plan.owner.get(producer or "")
    model = None if owner is None else plan.spec.agents[owner].model
    if model is None or not is_served(model, registry()):
        return {"served": None} if chosen else {}
    return {"served": {"model": model.config["model"], "host": urlsplit(model.config["base_url"]).netloc}}


def _end_line(path: Path) -> None:
    """Cut off a last line that was not finished."""
    if path.exists():
        content = path.read_bytes()
        if content and not content.endswith(b"\n"):
            os.truncate(path, content.rfind(b"\n") + 1)


def _once(path: Path) -> Iterator[str]:
    """The lines of a file, of those of one text the last, where the first stood."""
    starts: dict[tuple[Any, ...], int] = {}
    with path.open("rb") as file:
        start = 0
        for line in file:
            known = json.loads(line)
            starts[tuple(known[name] for name in PLACE)] = start
            start += len(line)
        for start in starts.values():
            file.seek(start)
            yield file.readline().decode()


def told(stage: str, wrote: Iterable[Wrote]) -> list[TextsWritten]:
    """An event for each stream, of what was written since the last."""
    found: dict[str, dict[str, Tally]] = {}
    last: dict[str, int] = {}
    for one in wrote:
        count(found.setdefault(one.stream, {}), one)
        last[one.stream] = one.step
    return [
        TextsWritten(
            stage,
            name,
            tally["agent"],
            last[name],
            tally["written"],
            tally["kept"],
            tally["dropped"],
            tally["empty"],
            tally["reward"]["average"] if "reward" in tally else None,
        )
        for name, tallies in found.items()
        for tally in tallies.values()
    ]
