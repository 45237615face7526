"""Events of a run as lines of text (kinds and fields: ``kdmesh/contracts/events.py``)."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean
from typing import Any

from kdmesh.contracts.events import (
    Dropped,
    Evaluated,
    Event,
    HostLost,
    HostsOpening,
    Note,
    PartStarted,
    Placed,
    RoundFinished,
    RunFailed,
    RunFinished,
    RunResumed,
    RunStarted,
    StageFinished,
    StageFinishedBefore,
    StageResumed,
    StageStarted,
)
from kdmesh.tasks import recorded

SHOWN = 4  # losses that one line names


def ended(reason: str) -> str:
    """Why a stage ended, in words; plugins and programs have reasons of their own."""
    return "budget spent" if reason == "spent" else reason


def say(event: Event) -> str:
    """Return an event as one line of text, or several; empty for what is not worth one."""
    match event:
        case PartStarted():
            return f"{event.part} ({event.number} of {event.parts})"
        case HostsOpening():
            return f"opening {_count(len(event.hosts), 'host')} on {event.backend}"
        case Placed():
            return "\n".join(event.lines)
        case RunStarted():
            return _run_begins(event)
        case HostLost():
            return f"{event.error}; its hosts are built anew from the last checkpoints"
        case Dropped():
            return f"going on without {', '.join(event.agents)}"
        case StageStarted():
            steps = f", {event.steps:,} steps" if event.steps else ""
            how = "goes on" if isinstance(event, StageResumed) else "started"
            return f"stage {event.stage} {how}: {', '.join(event.agents)}{steps}"
        case Evaluated():
            inside = f"stage {event.stage}, " if event.stage else ""
            return f"{inside}{event.agent} on {event.stream}: {_scores(event.metrics)}"
        case RoundFinished():
            who = f", of {', '.join(event.attended)}" if event.attended else ""
            return f"stage {event.stage}, round {event.round}/{event.rounds}{who}: {_round(event.metrics)}"
        case StageFinished():
            return f"stage {event.stage} finished in {clock(event.seconds)}: {ended(event.reason)}"
        case Note():
            return f"note: {event.text}"
        case StageFinishedBefore():
            return f"stage {event.stage} had finished"
        case RunFailed():
            return "" if event.interrupted else f"failed: {event.error}"
        case RunFinished():
            folder = f": {event.folder}" if event.folder else ""
            return f"finished in {clock(event.seconds)}{folder}"
    return ""


def _run_begins(event: RunStarted) -> str:
    """The first line of a run: what trains, where, and how long."""
    again = ", going on" if isinstance(event, RunResumed) else ""
    agents = _count(sum(map(len, event.hosts.values())), "agent")
    stages = _count(len(event.stages), "stage")
    steps = _count(sum(row["steps"] for row in event.stages), "step")
    where = f"on {event.backend}{again}"
    return f"{event.name}, seed {event.seed} {where}: {agents} on {_count(len(event.hosts), 'host')}, {stages}, {steps}"


def _round(metrics: dict[str, Any]) -> str:
    """What was measured in a round, on one line."""
    gains = [gain for gain in (metrics.get("gain") or {}).values() if gain is not None]
    consensus = {
        f"consensus {name}": recorded(metrics).of(values) for name, values in (metrics.get("consensus") or {}).items()
    }
    of = {f"{key} {name}": both[key] for name, both in (metrics.get("agreements") or {}).items() for key in both}
    of = of or {key: metrics.get(key) for key in ("agreement", "churn")}
    scores = _scores({**of, **consensus})
    gain = f"mean gain {fmean(gains):+.4f}" if gains else ""
    return ", ".join(part for part in (scores, gain) if part)


def clock(seconds: float | None) -> str:
    """Return seconds as ``0:42`` or ``1:02:03``, and ``?`` where they are not known."""
    if seconds is None:
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def losses_text(losses: Mapping[str, float | None]) -> str:
    """Return the losses by agent in one short text, the first few by name."""
    known = [f"{name} {value:.3g}" for name, value in losses.items() if value is not None]
    return f"loss {' '.join(known[:SHOWN])}{' ...' if len(known) > SHOWN else ''}" if known else ""


def _scores(values: Mapping[str, float | None]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in values.items() if isinstance(value, float | int))


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
