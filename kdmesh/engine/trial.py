"""Run a mesh for two steps on stand-ins for its models: what objectives, rules, views and signals refuse is known then.

The hosts' own code runs, in one host: publications, phases, updates, measuring, and a checkpoint that stays in memory.
Everything is made for this and thrown away; the generators of torch, numpy and Python stand where they stood.
"""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from kdmesh.backends.inline import Done, InlineBackend
from kdmesh.checks.budget import phase_steps, planned_updates
from kdmesh.engine.publisher import Publisher, sources
from kdmesh.errors import MeshError, RunFailed, text_of
from kdmesh.graph.fragments import whole
from kdmesh.hosts import build, guard, measure, merging
from kdmesh.hosts.blame import BrokenLoss
from kdmesh.hosts.generating import Copied
from kdmesh.hosts.host import Host
from kdmesh.hosts.side_inputs import distinct
from kdmesh.hosts.standing import Given, StandIn
from kdmesh.hosts.state import HostConfig
from kdmesh.hosts.step import Turn
from kdmesh.hosts.written import Rows
from kdmesh.plugins import registry
from kdmesh.privacy.account import Rehearsal
from kdmesh.streams.stream import without

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from kdmesh.checks.checked import Checked
    from kdmesh.graph.plan import Plan, Stage
    from kdmesh.graph.program import Train
    from kdmesh.hosts.written import Writer
    from kdmesh.streams.stream import Stream

HOST = "trial"
FLOWS = 1000  # a mesh with more is not tried: to build each loss and compute it takes as long as the run's first step
VALUES = 2**21  # numbers of one batch's outputs and layers, in all, up to which it has its own size
PLAIN: dict[str, Any] = {
    "weights": None,
    "new_head": None,
    "init_of": None,
    "prune": [],
    "quantize": None,
}  # of a stand-in, which has no weights of these
STEPS = 2
TEXTS = 3  # samples of a batch of texts
WIDE = 2**24  # logits of such a batch beyond which nothing is tried: the losses alone take seconds


class _Here(InlineBackend):
    """Calls run at once, and are none of a run's."""

    def call(self, host: str, method: str, *args: Any, results: int = 1) -> Any:
        """Run the call."""
        given = (arg.value if isinstance(arg, Done) else arg for arg in args)
        return Done(getattr(self.hosts[host], method)(*given))


def rehearse(plan: Plan, found: Checked) -> None:
    """Refuse what cannot make its first steps; note what breaks without saying whose it is.

    Where a small batch does not work, the true one decides: an objective may want more rows than these.
    """
    if len(plan.edges) > FLOWS:
        found.notes.append(f"no trial on random outputs: {len(plan.edges):,} flows, and {FLOWS:,} at most are tried")
        return
    rows = _rows(plan, found)
    if rows is None:
        found.notes.append(f"no trial on random outputs: {TEXTS} texts make more than {WIDE:,} logits")
        return
    with _undisturbed(plan.spec.seed):
        try:
            _run(_small(plan, rows), found, rows)
        except Exception:
            try:
                _run(_small(plan, None), found, None)
            except RunFailed as error:
                if error.instead:  # of a plugin
                    raise
                instead = "settings, layers or data that it can use"
                raise MeshError(error.what, where=error.where, instead=instead) from error.__cause__
            except MeshError:
                raise
            except Exception as error:
                message = next(iter(text_of(error).splitlines()), "")
                found.notes.append(f"two trial steps on random outputs failed: {message}")


@contextmanager
def _undisturbed(seed: int) -> Iterator[None]:
    """Put generators and threads back; what torch says of two steps is no news about the run."""
    threads = torch.get_num_threads()
    try:
        with guard.seeded(seed), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.set_num_threads(threads)


def _rows(plan: Plan, found: Checked) -> int | None:
    """How many samples a small batch has; None where even that is too much."""
    shapes = [shape for (agent, name), shape in found.shapes.items() if name]
    if found.reading.texts:
        rows = _picked(found, found.streams["train"].rows, TEXTS)
        columns = sum(found.outputs[agent].shape.numel() for agent in plan.spec.agents)
        units = max(int(found.reading.encoded(agent, rows).counts.sum()) for agent in plan.spec.agents)
        return TEXTS if plan.task.rows == "samples" or units * columns <= WIDE else None
    width = sum(shape.numel() for shape in [*shapes, *(given.shape for given in found.outputs.values())])
    return max(2, min(VALUES // max(1, width), max(plan.train(agent).batch_size for agent in plan.spec.agents)))


def _picked(found: Checked, rows: Tensor, count: int) -> Tensor:
    """So many of a stream's rows, evenly spaced; of texts, of those that are rather short."""
    if found.reading.texts and len(rows) > count:
        some = _spaced(rows, 16 * count)
        order = found.reading.sizes(some).argsort(stable=True)
        return some[order[len(some) // 4 :][:count].sort().values]
    return _spaced(rows, count)


def _here(found: Checked, rows: Tensor) -> Tensor:
    """Rows whose samples are here: for those of another party, which only it has, public ones."""
    away = found.table.elsewhere
    return rows if away is None or not torch.isin(rows, away).any() else found.streams["train"].rows


def _spaced(rows: Tensor, count: int) -> Tensor:
    return rows if len(rows) <= count else rows[torch.linspace(0, len(rows) - 1, count).long()]


def _small(plan: Plan, rows: int | None) -> Plan:
    """The plan on one host, with stand-ins' weights, and batches of so many rows at most."""

    def size(name: str) -> dict[str, int | None]:
        own = plan.train(name).batch_size if name else plan.spec.train.batch_size
        return {"batch_size": own if rows is None else min(rows, own), "forward_size": None}

    agents = {
        name: agent.model_copy(update={**PLAIN, "train": agent.train.model_copy(update=size(name))})
        for name, agent in plan.spec.agents.items()
    }
    common = {"agents": agents, "train": plan.spec.train.model_copy(update=size(""))}
    return replace(plan, spec=plan.spec.model_copy(update=common), hosts={HOST: list(agents)})


def _streams(found: Checked, rows: int) -> dict[str, Stream]:
    """Every stream with so many of its rows, and of every shard's."""
    small = {}
    for name, stream in without(found.streams, found.left_out).items():
        own = stream.shards
        shards = (
            None if own is None else {agent: _picked(found, _here(found, part), rows) for agent, part in own.items()}
        )
        kept = _picked(found, stream.rows, rows) if not shards else torch.cat(list(shards.values())).sort().values
        small[name] = replace(stream, rows=kept, shards=shards, draws=1)
    return small


def _stand_ins(plan: Plan, found: Checked) -> dict[str, Any]:
    """For all weights, what answers as they would, with the layers that their agents tap or leave by."""
    layers: dict[str, dict[str, Given]] = {}
    for agent, spec in plan.spec.agents.items():
        own = layers.setdefault(plan.owner[agent], {})
        own.setdefault("", found.outputs[agent])
        if spec.exit is not None:
            own[spec.exit] = found.outputs[agent]
        for (reader, name), given in found.layers.items():
            if reader == agent:
                own[spec.taps.get(name, name)] = given
    return {
        owner: StandIn(
            given, found.kinds[owner], bool(found.widths[owner] and plan.task_of(owner).outputs == "vocabulary")
        )
        for owner, given in layers.items()
    }


def _writers(plan: Plan, found: Checked) -> dict[str, Writer]:
    """For every stream that an agent writes, samples of the one that it is `of`: what writes it needs the model."""
    generated = {name for name, one in plan.spec.streams.items() if one.generated_by is not None and not one.prompts}
    readers = [edge for edge in plan.edges if edge.stream in generated and edge.target in plan.owner]
    sizes = {edge.stream: plan.train(edge.target).batch_size for edge in readers}
    return {name: Rows(found.table, found.streams[name], size) for name, size in sizes.items()}


def _run(plan: Plan, found: Checked, rows: int | None) -> None:
    """Two steps of every phase, a checkpoint of every stage, and every consensus measured."""
    streams = found.streams if rows is None else _streams(found, rows)
    config = HostConfig(
        plan,
        _stand_ins(plan, found),
        found.shapes,
        left_out=found.left_out if rows is None else None,
        values=distinct(plan, found.table),
        writers=_writers(plan, found),
        authors={
            name: Copied(found.reading)
            for name, one in plan.spec.streams.items()
            if one.prompts is not None and one.consensus_of is None  # rules are called as the run would
        },
        statistics=found.statistics,
        inputs=found.reading.inputs,
        accounts=dict.fromkeys(plan.withholding, Rehearsal()),
    )
    backend = _Here()
    host = Host(HOST, config, found.table, streams, registry(), found.reading)
    backend.hosts = {HOST: host}
    publisher = Publisher(plan, backend)
    for stage in plan.stages:
        host.start(stage.name, planned_updates(plan, found, stage))
        publisher.once(stage)
        publisher.begin(stage)
        for line in stage.program.trains():
            _phase(plan, found, stage, line, host, publisher)
        host.end(stage.name)
        try:
            host.load(stage.name, host.save(stage.name, None))
        except MeshError:  # of an objective, gate or rule, which it names
            raise
        except Exception as error:
            raise MeshError(
                f"the state of {stage.name} cannot be kept in a checkpoint: {text_of(error)}",
                where="streams",
                instead="a writer whose state_dict holds tensors and takes them back",
            ) from error
    _refuse_states(host)
    merging.rehearse(host)
    stream = next((name for name in ("test", "validation") if name in found.streams), None)
    if stream is not None:
        for name in host.agents:
            host.evaluate(name, stream, *backend.get(publisher.given(name, stream)))
        for name in (name for name, node in plan.consensus.items() if not (node.unaligned or plan.withheld(name))):
            inputs = sources(plan, name).items()
            handles = [publisher.publication(source, stream, outputs) for source, outputs in inputs]
            host.evaluate_consensus(name, stream, [], *backend.get(handles))
    for agent in host.agents.values():
        measure.reports(host, agent)
        measure.chance(host, agent)
    for name in host.consensus:
        host.report(name)


def _refuse_states(host: Host) -> None:
    """Refuse a rule whose state, after these steps, does not load into it as it is set up: nothing could be resumed.

    Or has moved, where its offer says that it has none.
    """
    fresh = build.consensus(host)
    for name, consensus in host.consensus.items():
        state, node = consensus.rule.state_dict(), consensus.node
        whose = host.registry.theirs("consensus", node.rule.name) or f"rule {node.rule.name!r}"
        before = fresh[name].rule.state_dict()
        pairs = {key: (state[key], before[key]) for key in state.keys() & before.keys()}
        moved = [
            key
            for key, (one, two) in pairs.items()
            if torch.is_tensor(one) and torch.is_tensor(two) and not guard.same(one, two)
        ]
        if moved and not node.stateful and not node.trained:
            raise MeshError(
                f"the state of {whose} moves ({min(moved)}), and its offer does not say so: hosts would each have "
                "one of their own",
                where=f"consensus.{name}",
                instead="stateful=True in its offer, or persistent=False for buffers that it can make anew",
            )
        try:
            if state:
                fresh[name].rule.load_state_dict(state)
        except Exception as error:
            said = " ".join(text_of(error).split())
            raise MeshError(
                f"the state of {whose} after some steps does not load into the rule as `setup` leaves it, so that no "
                f"run could be resumed: {said}",
                where=f"consensus.{name}",
                instead="buffers and parameters whose names and shapes `setup` decides; write into them (copy_, add_)",
            ) from error


def _phase(plan: Plan, found: Checked, stage: Stage, line: Train, host: Host, publisher: Publisher) -> None:
    """Two steps of a line of a stage's program, after each of which everyone publishes who ever does."""
    agents, consensus = plan.spec.agents, plan.consensus
    moved = [name for name in stage.weights if name in consensus or agents[name].ema is not None]
    ends = dict.fromkeys([*phase_steps(plan, found, stage, line), *moved], STEPS)
    host.begin(stage.name, line.key, ends, 0, {}, Turn(1))
    for step in range(STEPS):
        try:
            host.run(whole(HOST, stage.name, step, step + 1)[0])
        except BrokenLoss as error:
            text = f"tried on random outputs, {error.what.partition(';')[0]}"
            found.notes += [text] if text not in found.notes else []
            return
        for refresh in dict.fromkeys(subscription.refresh for subscription in publisher.subscriptions(stage)):
            publisher.due(stage, refresh)
