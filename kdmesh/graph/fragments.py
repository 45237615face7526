"""Cut a chunk of steps into fragments: the step DAG in order, unrolled over the steps and divided by host.

A fragment is what one host can run without waiting for another: the unrolled ops are levelled so that a level rises
wherever a value crosses between hosts. On one host the whole chunk is a single fragment; two peers that exchange at
every step make one fragment a step each, an update and the next forward.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.graph.fragment import Fragment
from kdmesh.graph.reach import consensus_from

if TYPE_CHECKING:
    from kdmesh.graph.plan import Plan
    from kdmesh.graph.steps import Op, Phase


def whole(host: str, stage: str, first: int, last: int) -> list[Fragment]:
    """A chunk of steps that one host runs alone, as a single fragment."""
    return [Fragment(host, stage, 0, [(step, None) for step in range(first, last)], complete=range(first, last))]


def hosts_of_ops(plan: Plan, phase: Phase) -> dict[Op, list[str]]:
    """The hosts that run each op: an agent's or weights' own; a consensus runs on the host of each reader, also through
    another consensus; a dropped agent's ops run nowhere.
    """
    host_of = plan.host_of
    out: dict[Op, list[str]] = {}
    for op in phase.ops:
        if op.node in host_of:
            out[op] = [host_of[op.node]]
        elif op.node not in plan.consensus:
            out[op] = []
        else:
            nodes = consensus_from(op.node, plan.consensus)
            active = [edge.target for edge in phase.edges if edge.source in nodes and edge.target in host_of]
            readers = active or [edge.target for node in nodes for edge in plan.consensus[node].readers]
            out[op] = list(dict.fromkeys(host_of[reader] for reader in readers if reader in host_of))
    return out


def cut(plan: Plan, stage: str, phase: Phase, first: int, last: int) -> list[Fragment]:
    """Unroll steps ``first .. last - 1`` and cut them into fragments, in an order in which they may be submitted."""
    home = hosts_of_ops(plan, phase)
    lost = {op for op, names in home.items() if not names}
    hosts = list(dict.fromkeys(host for names in home.values() for host in names))
    if len(hosts) == 1:
        return whole(hosts[0], stage, first, last)
    crossing = {op: _readers(op, phase, home) for op in phase.ops}
    level = dict.fromkeys(hosts, 0)
    fragments: dict[tuple[str, int], Fragment] = {}
    for step in range(first, last):
        fragment_of: dict[tuple[Op, str], Fragment] = {}
        ends: dict[str, Fragment] = {}
        for op in phase.ops:
            for host in home[op]:
                abroad = [
                    fragment_of[before, home[before][0]]
                    for before in _sources(op, phase)
                    if host not in home[before] and before not in lost
                ]
                level[host] = max([level[host], *(fragment.level + 1 for fragment in abroad)])
                key = (host, level[host])
                fragment = fragments.setdefault(key, Fragment(host, stage, level[host], complete=set()))
                if not fragment.steps or fragment.steps[-1][0] != step:
                    fragment.steps.append((step, []))
                ops = fragment.steps[-1][1]
                assert ops is not None
                ops.append(op)
                fragment_of[op, host] = ends[host] = fragment
                if crossing[op] - {host} and host == home[op][0] and op.kind != "u":
                    fragment.exports.setdefault(step, []).append(op)
        for fragment in ends.values():
            assert isinstance(fragment.complete, set)
            fragment.complete.add(step)
    ordered = sorted(fragments.values(), key=lambda fragment: (fragment.level, hosts.index(fragment.host)))
    _wire(ordered, phase, home)
    return ordered


def _sources(op: Op, phase: Phase) -> list[Op]:
    """What an op reads: forwards, written streams (an update's order after other updates needs no value)."""
    return [before for before in phase.after[op] if before.kind != "u"] + [
        before for before in phase.after[op] if before.kind == "u" and op.kind != "f+"
    ]


def _readers(op: Op, phase: Phase, home: dict[Op, list[str]]) -> set[str]:
    """The hosts that read an op's value."""
    return {host for after, before in phase.after.items() if op in before for host in home[after]}


def _wire(ordered: list[Fragment], phase: Phase, home: dict[Op, list[str]]) -> None:
    """Note for each fragment which earlier ones' exports it reads."""
    exporter = {
        (step, op): number
        for number, fragment in enumerate(ordered)
        for step, ops in fragment.exports.items()
        for op in ops
    }
    for fragment in ordered:
        needs: dict[int, None] = {}
        for step, ops in fragment.steps:
            for op in ops or ():
                for before in _sources(op, phase):
                    if fragment.host not in home[before] and (step, before) in exporter:
                        needs[exporter[step, before]] = None
        fragment.needs = list(needs)
