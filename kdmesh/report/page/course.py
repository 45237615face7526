"""How the run went: metrics and losses over epochs, rounds, and what happened on which host when."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
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
    StageResumed,
    StageStarted,
    Trained,
)
from kdmesh.report.page.blocks import Block, Lines, Section, Series, Span, Spans, Table, Text, number, plain, thinned
from kdmesh.report.page.known import Known, row
from kdmesh.report.run_folder import RunFolder
from kdmesh.report.words import ended
from kdmesh.tasks import recorded

AGREEING = ("agreement", "churn")
MOST_LANES = 40
MOST_BY_FLOW = 12  # agents whose losses are drawn flow by flow
MOST_EVENTS = 200


def curves(known: Known) -> Section:
    """Metrics of each agent by epoch, means over seeds; losses by flow and rewards by stream where there are some."""
    found: dict[str, dict[str, dict[float, list[float]]]] = {}
    for folder in known.run.runs.values():
        for agent, metrics in _measured(folder).items():
            for name, points in metrics.items():
                for x, y in points:
                    found.setdefault(name, {}).setdefault(agent, {}).setdefault(x, []).append(y)
    roles = {name: str(node.get("role", "")) for name, node in known.nodes.items()}
    order = list(roles)
    blocks: list[Block] = []
    for name, agents in _first(found, known.by.name):
        series = [
            Series(agent, _spread(points), roles.get(agent, ""))
            for agent, points in sorted(agents.items(), key=lambda one: order.index(one[0]) if one[0] in order else 0)
            if len(points) > 1
        ]
        if series:
            blocks.append(
                lines(f"{name.replace('_', ' ')} on validation", "measurement", name.replace("_", " "), series)
            )
    blocks += _losses(known, roles)
    blocks += _rewards(known)
    if not blocks:
        said = "Agents were measured at the end of their stages only: there is no curve. Results has the figures."
        return Section("curves", "Curves", [Text([said])])
    seeds = len(known.run.runs)
    told = f"Means over {seeds} seeds; the band spans all of them. " if seeds > 1 else ""
    return Section(
        "curves",
        "Curves by agent",
        [
            Text([told + "Measurements on validation are in their order; losses and rewards are by step of a stage."]),
            *blocks,
        ],
    )


def _losses(known: Known, roles: dict[str, str]) -> list[Block]:
    """The loss of each agent, and for agents with several flows, of each flow; means over seeds."""
    whole: dict[str, dict[float, list[float]]] = {}
    flows: dict[str, dict[str, dict[float, list[float]]]] = {}
    for folder in known.run.runs.values():
        for (_, step), event in _trained(folder):
            for agent, loss in row(event.losses).items():
                if (y := number(loss)) is not None:
                    whole.setdefault(agent, {}).setdefault(step, []).append(y)
            for agent, of in row(event.flows).items():
                for flow, loss in row(of).items():
                    if (y := number(loss)) is not None:
                        flows.setdefault(agent, {}).setdefault(flow, {}).setdefault(step, []).append(y)
    blocks: list[Block] = []
    order = sorted(whole, key=lambda name: (roles.get(name) == "teacher", name))
    if whole:
        series = [Series(name, _spread(whole[name]), roles.get(name, "")) for name in order]
        blocks.append(lines("Training loss", "step", "loss", series))
    for name in [name for name in order if len(flows.get(name, {})) > 1][:MOST_BY_FLOW]:
        series = [Series(flow, _spread(points)) for flow, points in flows[name].items()]
        blocks.append(lines(f"{name}: loss by flow", "step", "weighted loss", series))
    return blocks


def _rewards(known: Known) -> list[Block]:
    """The mean reward of what agents wrote for each stream; means over seeds."""
    found: dict[str, dict[float, list[float]]] = {}
    for folder in known.run.runs.values():
        told = _trained(folder)
        read = {(stream, stage) for (stage, _), event in told for stream in row(event.rewards)}
        several = [stream for stream, number in Counter(stream for stream, _ in read).items() if number > 1]
        for (stage, step), event in told:
            for stream, reward in row(event.rewards).items():
                if (y := number(reward)) is not None:
                    name = f"{stream}, {stage}" if stream in several else stream
                    found.setdefault(name, {}).setdefault(step, []).append(y)
    series = [Series(name, _spread(points)) for name, points in found.items()]
    return [lines("Mean reward of written texts", "step", "reward", series)] if series else []


def _trained(folder: RunFolder) -> list[tuple[tuple[str, int], Trained]]:
    """Points of curves by stage and step; of what a resumed run told again the last word."""
    found = {(one.stage, one.step): one for one in folder.log.events if isinstance(one, Trained)}
    return sorted(found.items())


def _measured(folder: RunFolder) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """By agent and metric, its figures on validation in the order in which they were taken."""
    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    last: dict[str, tuple[Any, Any]] = {}
    at: dict[str, int] = {}
    for event in folder.log.events:
        if isinstance(event, Evaluated) and event.stream != "test":
            if last.get(event.agent) == (event.epoch, event.metrics):
                continue  # a resumed run measures again what it had
            last[event.agent] = (event.epoch, event.metrics)
            at[event.agent] = at.get(event.agent, 0) + 1
            for name, value in row(event.metrics).items():
                if (y := number(value)) is not None:
                    found.setdefault(event.agent, {}).setdefault(name, []).append((at[event.agent], y))
    return found


def _first(found: dict[str, Any], name: str) -> list[tuple[str, Any]]:
    return sorted(found.items(), key=lambda one: one[0] != name)


def _spread(points: dict[float, list[float]]) -> list[tuple[float, float | None, float | None, float | None]]:
    """The mean at each x, with the lowest and the highest where there are several."""
    return [
        (x, fmean(ys), min(ys) if len(ys) > 1 else None, max(ys) if len(ys) > 1 else None)
        for x, ys in sorted(points.items())
    ]


def lines(title: str, x: str, y: str, series: Sequence[Series]) -> Lines:
    """A chart of lines, thinned where they are too long."""
    few, said = thinned(series)
    if len(series) > 12:
        said += (
            f" {len(series)} lines are drawn alike; the table says of each its first, lowest, highest and last value."
        )
    return Lines(title, x, y, few, said.strip())


def rounds(known: Known) -> Section | None:
    """Agreement, churn, consensus and students by round."""
    found: dict[str, dict[str, dict[float, list[float]]]] = {"agreement": {}, "figures": {}}
    by = known.by
    stages: set[str] = set()
    several = False
    for folder in known.run.runs.values():
        told = _rounds(folder)
        follow = any(event.within for event in told)
        several |= follow
        for place, event in enumerate(told, 1):
            metrics, x = row(event.metrics), float(place if follow else event.round)
            stages.add(event.stage)
            by = recorded(metrics) if metrics else by
            apart = row(metrics.get("agreements"))
            of = {f"{key}, {name}": row(both).get(key) for name, both in apart.items() for key in AGREEING}
            of = of or {key: metrics.get(key) for key in AGREEING}
            pairs = [("agreement", name, value) for name, value in of.items()]
            pairs += [
                ("figures", f"consensus {name}", row(of).get(by.name))
                for name, of in row(metrics.get("consensus")).items()
            ]
            pairs += [("figures", name, value) for name, value in row(metrics.get(by.name)).items()]
            for chart, name, value in pairs:
                if (y := number(value)) is not None:
                    found[chart].setdefault(name, {}).setdefault(x, []).append(y)
    if not any(found.values()):
        return None
    blocks: list[Block] = []
    if found["agreement"]:
        series = [Series(name, _spread(points)) for name, points in found["agreement"].items()]
        blocks.append(lines("Agreement and churn", "round", "share of samples", series))
    if found["figures"]:
        series = [
            Series(name, _spread(points), "consensus" if name.startswith("consensus ") else "student")
            for name, points in found["figures"].items()
        ]
        blocks.append(lines(f"Consensus and students: {by.title}", "round", by.title, series))
    said = (
        "Agreement: the share of samples of which two sources have the same likeliest class, mean over pairs. Churn: "
        "the share whose likeliest class changed since the round before. "
    )
    if len(known.run.runs) > 1:
        said += f"Means over {len(known.run.runs)} seeds; the band spans all of them. "
    if several:
        said += "There are several repetitions: their rounds stand one after the other, as they ended. "
    if len(stages) > 1:
        said += f"Rounds of {len(stages)} stages are laid over each other. "
    return Section("rounds", "Rounds", [Text([said.strip()]), *blocks])


def _rounds(folder: RunFolder) -> list[RoundFinished]:
    """The rounds of a seed, each once: a resumed run may tell of one again, and the last word counts."""
    found = {(one.stage, one.within, one.round): one for one in folder.log.events if isinstance(one, RoundFinished)}
    return list(found.values())


def timeline(known: Known) -> Section:
    """Stages and what befell hosts, of every part that was begun; the log in words below."""
    spans: list[Span] = []
    told: list[list[Any]] = []
    processes = 0
    for name, part in known.run.parts:
        of = _timed(part.log.events)
        processes = max(processes, 1 + sum(new for _, _, new in of))
        one, said = _part(name, of, len(known.run.parts) > 1)
        spans += one
        told += said
    blocks: list[Block] = []
    lanes = list(dict.fromkeys(one.lane for one in spans))
    marked = any(one.begin == one.end for one in spans)
    note = "Diamonds: a host was lost, agents were dropped, the run failed or was resumed. " if marked else ""
    if processes > 1:
        note += "The run was continued by another process: time between the two is not known, and left out. "
    if len(lanes) > MOST_LANES:
        note += f"{MOST_LANES} of {len(lanes)} lanes are drawn. "
    if spans:
        drawn = [one for one in spans if one.lane in lanes[:MOST_LANES]]
        blocks.append(Spans("Stages, failures and recoveries", drawn, note.strip()))
    incidents = [one for one in told if one[2] in INCIDENTS]
    words = f"{len(incidents)} failures and recoveries" if incidents else "No host was lost, and nothing was resumed"
    blocks.insert(0, Text([f"{words}."]))
    if told:
        more = f"The first {MOST_EVENTS} of {len(told)}." if len(told) > MOST_EVENTS else ""
        blocks.append(Table("What happened", ("part", "s", "event", "what"), told[:MOST_EVENTS], more))
    return Section("timeline", "Timeline", blocks)


INCIDENTS = {"host_lost": "lost", "dropped": "lost", "run_failed": "lost", "run_resumed": "resumed"}


def _timed(events: Iterable[Event]) -> list[tuple[Event, float, bool]]:
    """Events with the seconds of all processes laid one after the other, and whether a new process begins."""
    found: list[tuple[Event, float, bool]] = []
    before = last = 0.0
    for event in events:
        t = number(event.t) or 0.0
        new = t < last
        before, last = (before + last, t) if new else (before, t)
        found.append((event, before + t, new))
    return found


def _part(name: str, events: list[tuple[Event, float, bool]], several: bool) -> tuple[list[Span], list[list[Any]]]:
    begun: dict[str, float] = {}
    spans: list[Span] = []
    told: list[list[Any]] = []
    prefix = f"{name}: " if several and name else ""
    end = events[-1][1] if events else 0.0
    for event, t, new in events:
        if new:  # what was at work then stopped with its process
            spans += [
                Span(prefix + stage, "cut off", since, t, "cut off") for stage, since in begun.items() if t > since
            ]
            begun.clear()
        if isinstance(event, StageStarted | StageResumed):
            begun[event.stage] = t
        elif isinstance(event, StageFinished) and t > (since := begun.pop(event.stage, t)):
            spans.append(Span(prefix + event.stage, f"stage, {ended(event.reason)}", since, t, "stage"))
        if (said := _said(event)) is not None:
            if event.kind in INCIDENTS:
                spans.append(Span(prefix + "incidents", said, t, t, INCIDENTS[event.kind]))
            told.append([name or "whole", plain(round(t, 3)), event.kind, said])
    spans += [
        Span(prefix + stage, "not finished", since, end, "cut off") for stage, since in begun.items() if end > since
    ]
    return spans, told


def _said(event: Event) -> str | None:
    """An event in words; None for those that stand elsewhere on the page."""
    match event:
        case HostsOpening():
            return f"{event.backend}: {len(event.hosts)} {'host' if len(event.hosts) == 1 else 'hosts'} open"
        case RunResumed():
            return f"training continues from checkpoints, on {event.backend}"
        case RunStarted():
            return f"training begins, {len(event.stages)} {'stage' if len(event.stages) == 1 else 'stages'}"
        case HostLost():
            return f"host {event.host} is lost: {event.error}"
        case Dropped():
            return f"goes on without {', '.join(event.agents)}"
        case RunFailed():
            return f"{'interrupted' if event.interrupted else 'failed'}: {event.error}"
        case RunFinished():
            return "the run is over"
        case PartStarted():
            return f"{event.part} begins, {event.number} of {event.parts}"
        case Placed():
            return "placement is settled: " + "; ".join(event.lines[:2])
        case StageFinished():
            return f"stage {event.stage} is over: {ended(event.reason)}"
        case Note():
            return event.text
    return None
