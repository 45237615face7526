"""A run as the workload that its placement is solved for: steps and publications, with measured seconds and bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.checks.budget import epoch_steps, phase_steps, trained, walked
from kdmesh.graph import hosts
from kdmesh.graph.arriving import Moment
from kdmesh.graph.program import Publish, Repeat
from kdmesh.graph.reach import behind
from kdmesh.graph.resources import Resources
from kdmesh.graph.steps import ANSWERS, Op
from kdmesh.placement.assign import CostModel, Problem, Task, Work
from kdmesh.placement.sizes import FLOAT, memory, process
from kdmesh.placement.timing import trains

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kdmesh.checks.checked import Checked
    from kdmesh.graph.plan import Plan, Stage
    from kdmesh.graph.steps import Phase
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
        workload += _transfers(plan, found, stage)
    on_gpu = frozenset(agent for agent in plan.spec.agents if plan.train(agent).device == "cuda")
    waits = {stage.name: frozenset(stage.waits) for stage in plan.stages}
    return Problem(
        groups=tuple(map(tuple, parts)), workload=tuple(workload), waits=waits, resources=resources, threads=threads,
        all_threads=every, memory=tuple(memory(plan, found, part) for part in parts), process=process(found),
        on_gpu=on_gpu, costs=CostModel(),
    )  # fmt: skip


def _phases(plan: Plan, found: Checked, stage: Stage, timings: Timings) -> Iterator[Work]:
    for line, times in trained(stage.program.body):
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
        elif op.kind in ANSWERS.values():  # some of what its forward gave
            seconds = (0.0, 0.0)
        else:
            seconds = (few.inference, every.inference)
        if op.kind == "gen":  # samples, and a forward's time: what a writer takes is not measured
            sends = plan.train(op.node).batch_size * FLOAT * found.table.shape.numel()
        else:
            sends = 0 if op.kind == "u" else _bytes(plan, found, op, plan.train(op.node).batch_size)
        stands[op] = (len(tasks),)
        tasks.append(Task(op.node, (seconds[0], seconds[1]), after, sends))
    return tasks


def _bytes(plan: Plan, found: Checked, op: Op, samples: int) -> int:
    """Bytes of what others read of an agent's forward, or of its answer to what they ask."""
    agent, answers = op.node, op.kind in ANSWERS.values()
    classes = plan.answers.outputs(found.table) if (labels := plan.spec.agents[agent].labels) is None else len(labels)
    edges = [edge for edge in plan.edges if (edge.source, edge.stream, edge.asked) == (agent, op.stream, answers)]
    outputs = {edge.output for edge in edges}
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
            tasks.append(Task(source, (seconds[0], seconds[1]), (), _bytes(plan, found, Op("f", source, stream), size)))
        for number, ends in enumerate(sources.values()):
            tasks += [Task(reader, (0.0, 0.0), (number,)) for reader in ends]
        if tasks:
            yield Work(stage.name, _times(plan, found, stage, refresh), tuple(tasks), pipelined=False)


def _transfers(plan: Plan, found: Checked, stage: Stage) -> Iterator[Work]:
    """Weights that flow into a stage: their bytes, each time that some leave. To average them takes no time here."""
    merging = plan.merging
    leaves = {leaf.id: leaf for flow in merging.into(stage.agents) for leaf in merging.behind(flow)}
    moments: list[tuple[set[int], int]] = [
        ({leaf.id for leaf in leaves.values() if leaf.refresh == refresh}, _times(plan, found, stage, refresh))
        for refresh in dict.fromkeys(str(leaf.refresh) for leaf in leaves.values() if leaf.refresh != "round")
    ]
    for line, times in walked(stage.program.body):
        if isinstance(line, Publish):
            sent = [leaf for leaf in leaves.values() if leaf.refresh == "round" and leaf.source in line.agents]
            moments.append(({leaf.id for leaf in sent if line.to in (None, leaf.target)}, times))
    for leaving, times in moments:
        if tasks := _Transfer(plan, found, leaving).into(stage):
            yield Work(stage.name, times, tuple(tasks), pipelined=False)


class _Transfer:
    """The weights that leave at one time, as tasks: of who sends, of consensus nodes where they live, of who reads."""

    def __init__(self, plan: Plan, found: Checked, leaving: set[int]) -> None:
        self.merging, self.owner, self.held = plan.merging, plan.owner, found.held
        self.now = Moment(plan.merging, plan.owner, leaving)
        self.tasks: list[Task] = []
        self._at: dict[tuple[str, str | None], int] = {}  # of what was sent or combined, with the reader it is for

    def into(self, stage: Stage) -> list[Task]:
        """The tasks of what arrives in a stage."""
        arriving: dict[str, list[int]] = {}
        for flow in self.merging.into(stage.agents):
            if self.now.brings(flow, flow.target):
                arriving.setdefault(flow.target, []).append(self._sent(flow.source, flow.target))
        return [*self.tasks, *(Task(agent, (0.0, 0.0), tuple(sources)) for agent, sources in arriving.items())]

    def _sent(self, node: str, reader: str) -> int:
        """The number of the task by which a node has its weights ready for a reader."""
        key = (self.owner.get(node, node), self.now.variant(node, reader))
        if key not in self._at:
            agent, after = node, tuple[int, ...]()
            if node in self.merging.pools:
                agent, inputs = self.merging.readers(node)[0], self.merging.pools[node].inputs
                present = zip(inputs, self.now.combined(node, reader), strict=True)
                after = tuple(self._sent(inner.source, reader) for inner, here in present if here)
            self._at[key] = len(self.tasks)
            self.tasks.append(Task(agent, (0.0, 0.0), after, self.held[self.owner[agent]][0]))
        return self._at[key]


def _times(plan: Plan, found: Checked, stage: Stage, refresh: str) -> int:
    """How often something with this period is published in a stage."""
    if refresh == "once":
        return 1
    if refresh == "round":
        return sum(line.times for line in stage.program.body if isinstance(line, Repeat)) or 1
    times = 0
    for line, repeated in trained(stage.program.body):
        steps = max(phase_steps(plan, found, stage, line).values(), default=0) * repeated
        every = int(refresh.split()[0]) if refresh.endswith(" steps") else 0
        times += steps // (every or max(epoch_steps(plan, found, stage, line).values(), default=1))
    return max(1, times)
