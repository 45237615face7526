"""Events of a run as lines of text (kinds and fields: ``kdmesh/engine/events.py``)."""

from __future__ import annotations

from statistics import fmean
from typing import Any

from kdmesh.tasks import recorded

Event = dict[str, Any]
SHOWN = 4  # losses that one line names


def say(event: Event) -> str:
    """Return an event as one line of text, empty for what is not worth one."""
    stage, metrics = f"stage {event.get('stage', '?')}", event.get("metrics") or {}
    match event.get("event"):
        case "part_started":
            return f"{event.get('part', '?')} ({event.get('number', '?')} of {event.get('parts', '?')})"
        case "hosts_opening":
            return f"opening {_count(len(event.get('hosts') or {}), 'host')} on {event.get('backend', '?')}"
        case "placed":
            return "\n".join(map(str, event.get("lines") or []))
        case "run_started" | "run_resumed":
            hosts, stages = event.get("hosts") or {}, event.get("stages") or []
            where = f"on {event['backend']}" if event.get("backend") else ""
            sizes = f"{_count(len(stages), 'stage')}, {_count(sum(row.get('steps') or 0 for row in stages), 'step')}"
            who = f"{_count(sum(map(len, hosts.values())), 'agent')} on {_count(len(hosts), 'host')}"
            again = ", going on" if event["event"] == "run_resumed" else ""
            return f"{event.get('name', 'mesh')}, seed {event.get('seed', '?')} {where}{again}: {who}, {sizes}"
        case "host_lost":
            return f"{event.get('error', 'a host was lost')}; its hosts are built anew from the last checkpoints"
        case "dropped":
            return f"going on without {', '.join(map(str, event.get('agents') or []))}"
        case "stage_started" | "stage_resumed":
            steps = f", {event['steps']:,} steps" if event.get("steps") else ""
            how = "goes on" if event["event"] == "stage_resumed" else "started"
            return f"{stage} {how}: {', '.join(map(str, event.get('agents') or []))}{steps}"
        case "evaluated":
            scores = _scores(metrics)
            inside = f"{stage}, " if event.get("stage") else ""
            return f"{inside}{event.get('agent', '?')} on {event.get('stream', '?')}: {scores}"
        case "round_finished":
            gains = [gain for gain in (metrics.get("gain") or {}).values() if gain is not None]
            consensus = {
                f"consensus {name}": recorded(metrics).of(values)
                for name, values in (metrics.get("consensus") or {}).items()
            }
            scores = _scores({"agreement": metrics.get("agreement"), "churn": metrics.get("churn"), **consensus})
            gain = f", mean gain {fmean(gains):+.4f}" if gains else ""
            return f"{stage}, round {event.get('round', '?')}/{event.get('rounds', '?')}: {scores}{gain}"
        case "stage_finished":
            return f"{stage} finished in {clock(event.get('seconds'))}: {event.get('reason', 'done')}"
        case "note":
            return f"note: {event.get('text', '')}"
        case "stage_finished_before":
            return f"{stage} had finished"
        case "run_failed":
            return "" if event.get("interrupted") else f"failed: {event.get('error', '')}"
        case "run_finished":
            folder = f": {event['folder']}" if event.get("folder") else ""
            return f"finished in {clock(event.get('seconds'))}{folder}"
    return ""


def clock(seconds: float | None) -> str:
    """Return seconds as ``0:42`` or ``1:02:03``, and ``?`` where they are not known."""
    if seconds is None:
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def losses_text(losses: dict[str, float | None]) -> str:
    """Return the losses by agent in one short text, the first few by name."""
    known = [f"{name} {value:.3g}" for name, value in losses.items() if value is not None]
    return f"loss {' '.join(known[:SHOWN])}{' ...' if len(known) > SHOWN else ''}" if known else ""


def _scores(values: dict[str, float | None]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in values.items() if isinstance(value, float | int))


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
