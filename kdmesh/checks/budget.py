"""How long things last: steps of a phase, updates of weights, and where a chunk of steps must end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.graph.program import Publish, Repeat, Train
from kdmesh.streams.order import steps_per_epoch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kdmesh.checks.checked import Checked
    from kdmesh.graph.plan import Plan, Stage


def trained(lines: list[Train | Publish | Repeat], times: int = 1) -> Iterator[tuple[Train, int]]:
    """Every training line of a program, and how often it is run at most."""
    return ((line, count) for line, count in walked(lines, times) if isinstance(line, Train))


def walked(lines: list[Train | Publish | Repeat], times: int = 1) -> Iterator[tuple[Train | Publish, int]]:
    """Every line of a program that repeats no others, and how often it is run at most."""
    for line in lines:
        if isinstance(line, Repeat):
            yield from walked(line.body, times * line.times)
        else:
            yield line, times


def epoch_steps(plan: Plan, found: Checked, stage: Stage, line: Train) -> dict[str, int]:
    """Steps in an epoch of a phase for each of the weights it teaches: of their own shard, if the stream is sharded.

    The phase's first stream defines the epoch.
    """
    phase = stage.phases[line.key]
    stream = phase.streams[0]
    steps: dict[str, int] = {}
    for edge in phase.edges:
        owner, train = plan.owner[edge.target], plan.train(edge.target)
        if edge.as_ == "target" and owner in plan.trainable:
            shards = found.streams[stream].shards
            member = edge.target if shards is None or found.streams[stream].sees(edge.target) else next(iter(shards))
            own = steps_per_epoch(found.size(stream, member), train.batch_size, train.drop_last)
            steps[owner] = max(own, steps.get(owner, 0))  # of its views that which sees most
    return steps


def phase_steps(plan: Plan, found: Checked, stage: Stage, line: Train) -> dict[str, int]:
    """The budget in steps of each of the weights that a line teaches."""
    out = {}
    for owner, steps in epoch_steps(plan, found, stage, line).items():
        train = plan.train(owner)
        if line.steps is not None:
            out[owner] = line.steps
        elif line.epochs is not None:
            out[owner] = line.epochs * steps
        else:
            out[owner] = train.steps if train.steps is not None else train.epochs * steps
    return out


def lengths(plan: Plan, found: Checked, stage: Stage) -> Iterator[tuple[str, str, int]]:
    """After each line of a stage's program: its step, weights that it teaches, and their epochs until then, begun or
    whole, as they are counted for them: over all rounds, of a shard by its own steps, else by those of who has most.
    """
    begun: dict[str, int] = {}
    own: dict[tuple[str, str], int] = {}
    for line, times in trained(stage.program.body):
        key, steps, epochs = line.key, phase_steps(plan, found, stage, line), epoch_steps(plan, found, stage, line)
        most, sharded = max(steps.values(), default=0), found.streams[stage.phases[key].streams[0]].shards is not None
        for owner, count in steps.items():
            own[key, owner] = own.get((key, owner), 0) + times * count
            done = own[key, owner] if sharded else begun.get(key, 0) + (times - 1) * most + count
            yield key, owner, -(-done // max(1, epochs[owner]))
        begun[key] = begun.get(key, 0) + times * most


def planned_updates(plan: Plan, found: Checked, stage: Stage) -> dict[str, int]:
    """Optimiser updates of each of a stage's weights over the whole program; a phase's last one may be partial.

    A trained consensus is updated with those who read it.
    """

    def walk(lines: list[Train | Publish | Repeat], times: int) -> None:
        for line in lines:
            if isinstance(line, Repeat):
                walk(line.body, times * line.times)
            elif isinstance(line, Train):
                steps = phase_steps(plan, found, stage, line)
                updates = {owner: -(-count // plan.train(owner).accumulate) for owner, count in steps.items()}
                for name in (name for name in stage.weights if name in plan.consensus):
                    readers = (plan.owner.get(edge.target, "") for edge in plan.consensus[name].readers)
                    updates[name] = max((updates[owner] for owner in readers if owner in updates), default=0)
                for name, count in updates.items():
                    total[name] = total.get(name, 0) + count * times

    total: dict[str, int] = {}
    walk(stage.program.body, 1)
    return total


def whole_epochs(plan: Plan, found: Checked, stage: Stage) -> dict[str, int]:
    """The most epochs that a line of a stage's program runs in full, by each of the weights that it teaches.

    Only where an epoch ends is anything measured.
    """
    most: dict[str, int] = {}

    def walk(lines: list[Train | Publish | Repeat]) -> None:
        for line in lines:
            if isinstance(line, Repeat):
                walk(line.body)
            elif isinstance(line, Train) and (steps := phase_steps(plan, found, stage, line)):
                epoch = max(epoch_steps(plan, found, stage, line).values())
                for owner in steps:
                    most[owner] = max(most.get(owner, 0), max(steps.values()) // epoch)

    walk(stage.program.body)
    return most


def stage_steps(plan: Plan, found: Checked, stage: Stage) -> int:
    """Steps of a whole stage: in each phase the longest budget counts. For progress and its ETA."""

    def walk(lines: list[Train | Publish | Repeat]) -> int:
        return sum(
            walk(line.body) * line.times
            if isinstance(line, Repeat)
            else max(phase_steps(plan, found, stage, line).values(), default=0)
            if isinstance(line, Train)
            else 0
            for line in lines
        )

    return walk(stage.program.body)
