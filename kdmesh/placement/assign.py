"""Which host holds which agents, so that a run takes the least time: a model of the run, and a search over it.

A run is a *workload*: steps of phases, each so many times, and publications, as DAGs of *tasks* on agents' hosts. Where
hosts wait for each other within a step, each crossing costs a hop; where values go one way only, windows of steps are
pipelined and the slower side counts. Stages with no path between them run at the same time on different hosts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import networkx as nx

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from kdmesh.graph.resources import Resources

WIN = 0.05  # of the time: less is not worth a second process
THREADS_WIN = 0.2  # of the time: less is not worth all threads; steps of a millisecond vary by as much
UNROLLED = 4  # steps over which hosts that wait for each other are followed
EVALUATIONS = 2_000  # of assignments, while single moves improve one
TASKS = 2_000_000  # walked through while searching: bounds the search on large meshes


@dataclass(frozen=True)
class CostModel:
    """Seconds that hosts in processes of their own cost: measured, see docs/scaling.md."""

    call: float = 0.0004  # a call that waits for no other host
    hop: float = 0.0018  # a call that waits for another host's result, packed there and unpacked here
    byte: float = 3e-9  # of a value that crosses
    crowd: float = 1.15  # what computing takes where several hosts do, of what it takes alone: caches, memory
    start: float = 2.5  # a process more, which imports torch
    window: int = 16  # steps in a call, where values go one way


@dataclass(frozen=True)
class Task:
    """What an agent computes; ``seconds`` with few threads and with all; ``sends``: bytes, to each host that reads."""

    agent: str
    seconds: tuple[float, float]
    after: tuple[int, ...] = ()  # earlier tasks of the same work
    sends: int = 0


@dataclass(frozen=True)
class Work:
    """Tasks of one stage, in order, done so many times over; ``pipelined``: many of them are one call."""

    stage: str
    times: int
    tasks: tuple[Task, ...]
    pipelined: bool = True


@dataclass(frozen=True)
class Problem:
    """``groups``: agents of which each set stays whole; ``waits``: which stages each stage waits for, in their order.

    ``threads``: of each agent, with few; ``all_threads``: with all, None where their number is not to be chosen.
    ``memory``: bytes of each group; ``process``: of a host before it holds an agent; ``on_gpu``: agents that take one.
    """

    groups: tuple[tuple[str, ...], ...]
    workload: tuple[Work, ...]
    waits: Mapping[str, frozenset[str]]
    resources: Resources
    threads: Mapping[str, int]
    all_threads: int | None = None
    memory: tuple[float, ...] = ()
    process: float = 0.0
    on_gpu: frozenset[str] = frozenset()
    costs: CostModel = CostModel()

    @cached_property
    def group_of(self) -> dict[str, int]:
        """The number of every agent's group."""
        return {agent: number for number, group in enumerate(self.groups) for agent in group}

    @cached_property
    def loads(self) -> list[float]:
        """Seconds that each group computes in the whole run, with few threads."""
        loads = [0.0] * len(self.groups)
        for work in self.workload:
            for task in work.tasks:
                loads[self.group_of[task.agent]] += work.times * task.seconds[0]
        return loads


Assignment = tuple[int, ...]  # the host of every group


@dataclass(frozen=True)
class Option:
    """One way to place everyone: the host of every group, with few threads or with all, and the seconds of the run."""

    assignment: Assignment
    all: bool
    seconds: float

    @property
    def hosts(self) -> int:
        """How many hosts it takes."""
        return len(set(self.assignment))


@dataclass
class Answer:
    """The option that was chosen, and those it was compared with, best of each number of hosts."""

    chosen: Option
    options: list[Option]
    placement: dict[str, list[str]] = field(default_factory=dict)


def solve(problem: Problem) -> Answer | None:
    """Place every group, together and with few threads unless more clearly wins; None where there is no room."""
    model = Model(problem)
    one = (0,) * len(problem.groups)
    options = [Option(one, False, model.seconds(one))] if model.fits(one) else []
    if problem.all_threads is not None and model.fits(one, True):
        options.append(Option(one, True, model.seconds(one, True)))
    together = next(iter(options), None)
    if len(options) > 1 and options[1].seconds < options[0].seconds * (1 - THREADS_WIN):
        together = options[1]
    spreads = []
    for hosts in range(2, min(len(problem.groups), problem.resources.cpus) + 1):
        found = [model.refined(assignment, hosts) for assignment in model.starts(hosts)]
        spreads += [min(found, key=lambda option: option.seconds)] if found else []
    options += spreads
    best = min(spreads, key=lambda option: (option.seconds, option.hosts), default=None)
    if together is not None and (best is None or best.seconds >= together.seconds * (1 - WIN)):
        best = together
    if best is None:
        return None
    return Answer(best, options, placement(problem, best.assignment))


def placement(problem: Problem, assignment: Assignment) -> dict[str, list[str]]:
    """The agents of every host, hosts numbered in the order in which they are met."""
    met = {home: number for number, home in enumerate(dict.fromkeys(assignment))}
    out: dict[str, list[str]] = {f"host{number}": [] for number in range(len(met))}
    for group, home in zip(problem.groups, assignment, strict=True):
        out[f"host{met[home]}"] += group
    return out


class Model:
    """How long a run takes under an assignment, and whether it fits."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self._known: dict[tuple[int, Assignment, bool, bool], tuple[float, dict[int, float]]] = {}
        self._groups = [
            tuple(dict.fromkeys(problem.group_of[task.agent] for task in work.tasks)) for work in problem.workload
        ]
        size = sum(len(work.tasks) for work in problem.workload)
        self._evaluations = min(EVALUATIONS, max(50, TASKS // max(1, size)))

    def fits(self, assignment: Assignment, every: bool = False) -> bool:
        """Whether there are CPUs, GPUs and memory for it."""
        problem, resources = self.problem, self.problem.resources
        cpus: dict[int, int] = {}
        memory: dict[int, float] = {}
        gpus: set[int] = set()
        for number, (group, home) in enumerate(zip(problem.groups, assignment, strict=True)):
            widest = max(problem.threads[agent] for agent in group)
            cpus[home] = max(cpus.get(home, 0), widest, (problem.all_threads or 0) if every else 0)
            memory[home] = memory.get(home, problem.process) + (problem.memory[number] if problem.memory else 0.0)
            if problem.on_gpu & set(group):
                gpus.add(home)
        return (
            sum(cpus.values()) <= resources.cpus
            and max(cpus.values()) <= (resources.node_cpus or resources.cpus)
            and len(gpus) <= resources.gpus
            and sum(memory.values()) <= resources.memory
            and max(memory.values()) <= resources.node_memory
        )

    def seconds(self, assignment: Assignment, every: bool = False) -> float:
        """The whole run: each stage starts when those it waits for are done and its hosts are free.

        Every host but the first takes its time to start, too.
        """
        length: dict[str, float] = dict.fromkeys(self.problem.waits, 0.0)
        busy: dict[str, dict[int, float]] = {stage: {} for stage in length}
        for number, work in enumerate(self.problem.workload):
            once, use = self.once(number, assignment, every)
            length[work.stage] += work.times * once
            for host, part in use.items():
                busy[work.stage][host] = busy[work.stage].get(host, 0.0) + work.times * part
        free: dict[int, float] = {}
        done: dict[str, float] = {}
        for stage, before in self.problem.waits.items():
            start = max([0.0, *(done[other] for other in before), *(free.get(host, 0.0) for host in busy[stage])])
            done[stage] = start + length[stage]
            free.update((host, start + part) for host, part in busy[stage].items())
        return max([0.0, *done.values()]) + self.problem.costs.start * (len(set(assignment)) - 1)

    def once(self, number: int, assignment: Assignment, every: bool = False) -> tuple[float, dict[int, float]]:
        """One time through a work: its seconds, and those in which each host is busy."""
        key = number, tuple(assignment[group] for group in self._groups[number]), every, len(set(assignment)) > 1
        if key not in self._known:
            work = self.problem.workload[number]
            hosts = [assignment[self.problem.group_of[task.agent]] for task in work.tasks]
            factor = self.problem.costs.crowd if key[-1] else 1.0
            seconds = [factor * task.seconds[int(every)] for task in work.tasks]
            self._known[key] = self._once(work, hosts, seconds)
        return self._known[key]

    def _once(self, work: Work, hosts: list[int], seconds: list[float]) -> tuple[float, dict[int, float]]:
        costs = self.problem.costs
        busy: dict[int, float] = dict.fromkeys(hosts, 0.0)
        crossing: dict[tuple[int, int], None] = {}  # (task, the other host that reads it)
        for task, host, part in zip(work.tasks, hosts, seconds, strict=True):
            busy[host] += part
            crossing.update(((before, host), None) for before in task.after if hosts[before] != host)
        if not crossing:
            return max(busy.values(), default=0.0), busy
        window = min(costs.window, work.times)
        for before, host in crossing:
            for end in (hosts[before], host):
                busy[end] += work.tasks[before].sends * costs.byte
        arrows = nx.DiGraph((hosts[before], host) for before, host in crossing)
        if work.pipelined and nx.is_directed_acyclic_graph(arrows):
            busy = {host: part + (costs.call + costs.hop) / window for host, part in busy.items()}
            return max(busy.values()), busy
        return self._followed(work, hosts, seconds), busy

    def _followed(self, work: Work, hosts: list[int], seconds: list[float]) -> float:
        """Hosts that wait for each other: a step's seconds, from several in a row, cut where a value crosses."""
        costs, steps = self.problem.costs, min(UNROLLED, work.times) if work.pipelined else 1
        level = dict.fromkeys(hosts, 0)
        cost: dict[tuple[int, int], float] = {}
        needs: dict[tuple[int, int], dict[tuple[int, int], float]] = {}
        for _ in range(steps):
            fragment_of: list[tuple[int, int]] = []
            for task, host, part in zip(work.tasks, hosts, seconds, strict=True):
                abroad = [before for before in task.after if hosts[before] != host]
                level[host] = max([level[host], *(fragment_of[before][0] + 1 for before in abroad)])
                here = level[host], host
                cost[here] = cost.get(here, 0.0) + part
                for before in abroad:
                    needs.setdefault(here, {})[fragment_of[before]] = costs.hop + work.tasks[before].sends * costs.byte
                fragment_of.append(here)
        end: dict[tuple[int, int], float] = {}
        free: dict[int, float] = {}
        for here in sorted(cost):
            start = max([free.get(here[1], 0.0), *(end[other] + wait for other, wait in needs.get(here, {}).items())])
            end[here] = free[here[1]] = start + costs.call + cost[here]
        return max(end.values()) / steps

    def starts(self, hosts: int) -> Iterable[Assignment]:
        """Longest first onto the least busy host: every group alone, and those of one stage's phase as one."""
        groups = range(len(self.problem.groups))
        whole = nx.utils.UnionFind(groups)
        for work, met in zip(self.problem.workload, self._groups, strict=True):
            if work.times > 1:
                whole.union(*met)
        apart = {group: [group] for group in groups}
        joined: dict[int, list[int]] = {}
        for group in groups:
            joined.setdefault(whole[group], []).append(group)
        candidates = [self._longest_first(list(parts.values()), hosts) for parts in (apart, joined)]
        return dict.fromkeys(
            assignment for assignment in candidates if len(set(assignment)) == hosts and self.fits(assignment)
        )

    def _longest_first(self, parts: list[list[int]], hosts: int) -> Assignment:
        loads = self.problem.loads
        taken, assignment = [0.0] * hosts, [0] * len(loads)
        for part in sorted(parts, key=lambda part: -sum(loads[group] for group in part)):
            home = min(range(hosts), key=lambda host: taken[host])
            for group in part:
                assignment[group] = home
                taken[home] += loads[group]
        return tuple(assignment)

    def refined(self, assignment: Assignment, hosts: int) -> Option:
        """Move single groups for as long as that helps."""
        best, least, left = assignment, self.seconds(assignment), self._evaluations
        improved = True
        while improved and left > 0:
            improved = False
            for group in range(len(assignment)):
                for host in range(hosts):
                    moved = (*best[:group], host, *best[group + 1 :])
                    if moved == best or left <= 0 or len(set(moved)) < hosts or not self.fits(moved):
                        continue
                    left -= 1
                    seconds = self.seconds(moved)
                    if seconds < least * (1 - 1e-6):
                        best, least, improved = moved, seconds, True
        return Option(best, False, least)
