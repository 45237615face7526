"""A run as the workload that its placement is solved for: steps and publications, with measured seconds and bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.checks.budget import epoch_steps, phase_steps
from kdmesh.graph import hosts
from kdmesh.graph.program import Publish, Repeat, Train
from kdmesh.graph.reach import behind
from kdmesh.graph.resources import Resources
from kdmesh.placement.assign import CostModel, Problem, Task, Work
from kdmesh.placement.sizes import FLOAT, memory, process
from kdmesh.placement.timing import trains

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kdmesh.checks.checked import Checked
    from kdmesh.graph.plan import Plan, Stage
    from kdmesh.graph.steps import Op, Phase
    from kdmesh.placement.timing import Timings


def problem(
    plan: Plan, found: Checked, timings: Timings, resources: Resources, threads: dict[str, int], every: int | None
) -> Problem:
    """What a placement is solved for. ``threads``: of each agent; ``every``: the other choice of `threads: auto`."""
    parts = hosts.parts(plan.spec, plan.edges, plan.owner, plan.consensus)
    published: set[tuple[str, str]] = set()
    workload: list[Work] = []
    for stage in plan.stages:
        workload += [*_publications(plan, found, stage, timings, published), *_phases(plan, found, stage, timings)]
    on_gpu = frozenset(agent for agent in plan.spec.agents if plan.train(agent).device == "cuda")
    waits = {stage.name: frozenset(stage.waits) for stage in plan.stages}
    return Problem(
        groups=tuple(map(tuple, parts)), workload=tuple(workload), waits=waits, resources=resources, threads=threads,
        all_threads=every, memory=tuple(memory(plan, found, part) for part in parts), process=process(found),
        on_gpu=on_gpu, costs=CostModel(),
    )  # fmt: skip


def _lines(lines: list[Train | Publish | Repeat], times: int = 1) -> Iterator[tuple[Train, int]]:
    """Every training line of a program, and how often it is run."""
    for line in lines:
        if isinstance(line, Repeat):
            yield from _lines(line.body, times * line.times)
        elif isinstance(line, Train):
            yield line, times


def _phases(plan: Plan, found: Checked, stage: Stage, timings: Timings) -> Iterator[Work]:
    for line, times in _lines(stage.program.body):
        steps = max(phase_steps(plan, found, stage, line).values(), default=0)
        if steps:
            yield Work(stage.name, steps * times, tuple(_tasks(plan, found, stage.phases[line.key], timings)))


def _tasks(plan: Plan, found: Checked, phase: Phase, timings: Timings) -> list[Task]:
    """The ops that cost something. A consensus runs beside its readers: they wait for its inputs themselves."""
    tasks: list[Task] = []
    stands: dict[Op, tuple[int, ...]] = {}  # the tasks that an op stands for
    shared: set[tuple[str, str]] = set()
    taught = {plan.owner[edge.target] for edge in phase.edges if edge.as_ == "target"}
    for op in phase.ops:
        after = tuple(sorted({task for before in phase.after[op] for task in stands[before]}))
        if op.node not in plan.owner:
            stands[op] = after
            continue
        few, every = timings[op.node]
        learns = plan.owner[op.node] in taught and trains(plan, op.node)
        if op.kind == "u":
            own = [b for b in phase.after[op] if b.kind == "f" and plan.owner.get(b.node) == op.node]
            rate = 1 / plan.train(op.node).accumulate
            seconds = tuple(len(own) * timing.backward + rate * timing.update for timing in (few, every))
        elif learns and op.kind == "f" and op.mode != "eval":
            exit = plan.spec.agents[op.node].exit is not None
            again = exit and (plan.owner[op.node], op.stream) in shared  # exits of one network share a forward
            shared.add((plan.owner[op.node], op.stream))
            seconds = tuple(0.0 if again else timing.forward for timing in (few, every))
        else:
            seconds = (few.inference, every.inference)
        if op.kind == "gen":  # samples, and a forward's time: what a writer takes is not measured
            sends = plan.train(op.node).batch_size * FLOAT * found.table.shape.numel()
        else:
            sends = 0 if op.kind == "u" else _bytes(plan, found, op.node, op.stream, plan.train(op.node).batch_size)
        stands[op] = (len(tasks),)
        tasks.append(Task(op.node, (seconds[0], seconds[1]), after, sends))
    return tasks


def _bytes(plan: Plan, found: Checked, agent: str, stream: str, samples: int) -> int:
    """Bytes of what others read of an agent's forward."""
    classes = plan.answers.outputs(found.table) if (labels := plan.spec.agents[agent].labels) is None else len(labels)
    outputs = {edge.output for edge in plan.edges if edge.source == agent and edge.stream == stream}
    return sum(samples * FLOAT * (found.shapes[agent, what].numel() if what else classes) for what in outputs)


def _publications(
    plan: Plan, found: Checked, stage: Stage, timings: Timings, published: set[tuple[str, str]]
) -> Iterator[Work]:
    """What sources publish for a stage, in all that have the same period; a finished source publishes once."""
    read: dict[str, dict[tuple[str, str], dict[str, None]]] = {}  # refresh -> (source, stream) -> readers
    for phase in stage.phases.values():
        for edge in phase.edges:
            for stored, _ in behind(edge, plan.consensus):
                if stored.source in plan.spec.agents and not stored.live and stored.stale == "publish":
                    readers = read.setdefault(stored.refresh or "once", {})
                    readers.setdefault((stored.source, stored.stream), {})[edge.target] = None
    for refresh, sources in read.items():
        if refresh == "once":
            sources = {key: readers for key, readers in sources.items() if key not in published}
            published.update(sources)
        tasks: list[Task] = []
        for source, stream in sources:
            size, batch = found.size(stream, source), plan.train(source).batch_size
            seconds = tuple(-(-size // batch) * timing.inference for timing in timings[source])
            tasks.append(Task(source, (seconds[0], seconds[1]), (), _bytes(plan, found, source, stream, size)))
        for number, ends in enumerate(sources.values()):
            tasks += [Task(reader, (0.0, 0.0), (number,)) for reader in ends]
        if tasks:
            yield Work(stage.name, _times(plan, found, stage, refresh), tuple(tasks), pipelined=False)


def _times(plan: Plan, found: Checked, stage: Stage, refresh: str) -> int:
    """How often something with this period is published in a stage."""
    if refresh == "once":
        return 1
    if refresh == "round":
        return sum(line.times for line in stage.program.body if isinstance(line, Repeat)) or 1
    times = 0
    for line, repeated in _lines(stage.program.body):
        steps = max(phase_steps(plan, found, stage, line).values(), default=0) * repeated
        every = int(refresh.split()[0]) if refresh.endswith(" steps") else 0
        times += steps // (every or max(epoch_steps(plan, found, stage, line).values(), default=1))
    return max(1, times)
