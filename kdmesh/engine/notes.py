"""Notes on a mesh, and on what came out of its run: those beneath its tables are the same where a run was resumed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from kdmesh.errors import MeshError
from kdmesh.graph.budgets import mechanism, releases
from kdmesh.graph.edges import LABELS
from kdmesh.graph.merging import SAMPLES
from kdmesh.graph.sources import written_before
from kdmesh.graph.task import label_objective
from kdmesh.hosts.guard import DEAD, MOVED, Oddity
from kdmesh.plugins import registry
from kdmesh.spec import AgentSpec, HostSpec
from kdmesh.streams.texts import Texts
from kdmesh.tasks import metric

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from kdmesh.checks.checked import Checked
    from kdmesh.contracts.task import Chance
    from kdmesh.graph.plan import Plan
    from kdmesh.privacy.summary import Summary

ADVICE = "leave the softmax out of the model, or take its input by `exit`"


def ends_in_softmax(agent: str) -> str:
    """The note on a model whose last operation is a softmax."""
    return (
        f"{agent}: the model ends in a softmax, and every reader applies another one: its outputs are softened "
        f"twice; {ADVICE}"
    )


def unused_epochs(plan: Plan) -> list[str]:
    """Where a length is given in epochs and in steps, of which steps count."""
    usual = type(plan.spec.train).model_fields["epochs"].default
    given = {"train": plan.spec.train} | {f"agents.{name}.train": one.train for name, one in plan.spec.agents.items()}
    return [
        f"{where}: `steps: {train.steps}` takes precedence, and `epochs: {train.epochs}` has no effect"
        for where, train in given.items()
        if train.steps is not None and train.epochs not in (None, usual)
    ]


def unused_inline(plan: Plan) -> list[str]:
    """What a file asks of a cluster, in a run that is one process."""
    placement = plan.spec.placement if isinstance(plan.spec.placement, dict) else {}
    found = [
        f"placement.{host}.{field}"
        for host, held in placement.items()
        if isinstance(held, HostSpec)
        for field in ("cpus", "gpus", "resources")
        if getattr(held, field) not in (None, {})
    ]
    usual = AgentSpec.model_fields["on_loss"].default
    found += [f"agents.{name}.on_loss" for name, agent in plan.spec.agents.items() if agent.on_loss != usual]
    return [f"{where} has no effect in this process: it is for --backend ray" for where in found]


def unread(plan: Plan) -> list[str]:
    """Streams that no flow is on, and names of layers that none asks for. A control has such of the whole mesh."""
    spec = plan.spec
    read = {edge.stream for edge in plan.edges} | {stream.of for stream in spec.streams.values()}
    read |= {name for stream in spec.streams.values() for name in stream.rest_of or ()}
    read |= {flow.stream for flow in plan.merging.flows if flow.weight == SAMPLES}
    read |= {name for name, stream in spec.streams.items() if stream.measured}
    read |= {other for name in [*read] for other in written_before(spec, name)}
    read |= {stream.prompts for stream in spec.streams.values() if stream.prompts is not None}
    read |= {stream.mix.of for stream in spec.streams.values() if stream.mix is not None}
    found = [f"streams.{name}: no flow is on it, so it has no effect" for name in spec.streams if name not in read]
    asked = {(edge.source, edge.tap.of) for edge in plan.edges if edge.tap is not None}
    asked |= {(edge.target, edge.tap.to) for edge in plan.edges if edge.tap is not None}
    return found + [
        f"agents.{name}.taps.{tap}: no flow compares or carries this layer, so it has no effect"
        for name, agent in spec.agents.items()
        for tap in agent.taps
        if (name, tap) not in asked
    ]


def unused_task_settings(plan: Plan) -> list[str]:
    """Settings of the task's loss that a flow of labels lacks, because its objective is written in the flow."""
    objective = label_objective(plan.spec, registry())
    found = []
    for key, value in objective.config.items():
        lacking = [
            str(edge)
            for edge in plan.edges
            if edge.source == LABELS and edge.objective is not None and key not in edge.objective.config and value
        ]
        if lacking:
            found.append(
                f"task.{plan.spec.task.name}.{key} has no effect on {', '.join(lacking)}, whose objective is in "
                f"the flow: write it there too, `objective: {{{objective.name}: {{{key}: {value}}}}}`"
            )
    return found


def taught_by_validation(plan: Plan, found: Checked) -> list[str]:
    """Say which samples of validation teach. MeshError where they would also decide which weights are kept."""
    if "validation" not in found.streams:
        return []
    rows, texts = found.streams["validation"].rows, []
    for name in dict.fromkeys(edge.stream for edge in plan.edges):
        count = int(torch.isin(rows, found.streams[name].every).sum())
        flows = [edge for edge in plan.edges if edge.stream == name and edge.target in plan.owner]
        if not count or not flows:
            continue
        for edge in flows:
            train = plan.train(edge.target)
            if train.watches is not None and plan.owner[edge.target] in plan.trainable:
                field = "keep_best" if train.early_stopping is None else "early_stopping"
                raise MeshError(
                    f"`{field}` of {edge.target} watches validation, and this flow teaches it these samples",
                    where=f"{edge.where}.stream",
                    instead=f"train, or transfer; or leave out `{field}`",
                )
        targets = ", ".join(dict.fromkeys(edge.target for edge in flows))
        texts.append(
            f"{count:,} of the {len(rows):,} validation samples teach {targets} by stream {name!r}: validation "
            "figures, and the epoch or teacher that is chosen by them, are of what was learned"
        )
    return texts


def on_answers(oddity: Oddity) -> str:
    """The note on an oddity of an agent's outputs."""
    agent, stream, kind = oddity
    if kind == DEAD:
        return f"{agent} is a dead source: its outputs on {stream!r} contain NaN or infinite numbers"
    if kind == MOVED:
        return (
            f"{agent}: its buffer {stream!r} moves in eval mode; it is put back after each answer, so that no figure, "
            "signal or file depends on how often the agent was asked"
        )
    return (
        f"{agent}: its answers look like probabilities, not logits: they are within [0, 1] and sum to 1, and every "
        f"reader, its own loss and calibration too, applies a softmax to them; {ADVICE}, or give their logarithm"
    )


def ordered(found: Iterable[Oddity], agents: Iterable[str]) -> list[Oddity]:
    """Oddities in an order that does not depend on when each was seen."""
    place = {name: number for number, name in enumerate(agents)}
    return sorted(found, key=lambda oddity: (place[oddity[0]], *oddity[1:]))


def learned_nothing(described: dict[str, dict[str, Any]], owners: dict[str, str]) -> list[str]:
    """Weights that were updated and never changed, by what their agents' descriptions say."""
    still = dict.fromkeys(owners[name] for name, facts in described.items() if facts["moved"] is False)
    return [
        f"{owner} learned nothing: none of its {described[owner]['updates']} updates changed a weight"
        for owner in still
    ]


def never_there(parties: list[str], agents: list[str]) -> str:
    """Of a run that began without parties, and ended without them."""
    verb = "was" if len(parties) == 1 else "were"
    return f"{', '.join(parties)} {verb} never there: nobody trained {', '.join(agents)}"


def left_out(described: dict[str, dict[str, Any]], owners: dict[str, str]) -> list[str]:
    """Weights some of whose updates were left out, since gradients overflowed in fp16."""
    return [
        f"{name}: {facts['left_out']} updates were left out, beside {facts['updates']} that were made: their gradients "
        "overflowed in fp16, and the scale of losses was halved each time"
        for name, facts in described.items()
        if facts["left_out"] and owners[name] == name
    ]


def spent(plan: Plan, accounts: Mapping[str, Summary]) -> list[str]:
    """Releases of which a budget holds not one more answer: what was asked after that has none."""
    found = []
    for one in releases(plan):
        first = mechanism(plan, one.consensus).parts[0].cost()
        rows = accounts[one.party]["mechanisms"] if one.party in accounts else []
        own = [row for row in rows if (row["sensitivity"], row["sigma"]) == (first.sensitivity, first.sigma)]
        if one.party in accounts and not any(row["more"] for row in own):
            said = f"the budget of {one.party} has no room for one more answer of {one.consensus} ({one.rule})"
            found.append(f"{said}: what was asked since that is so has none")
    return found


def always_shut(described: dict[str, dict[str, Any]]) -> list[str]:
    """Gates that were never open, by what their agents' descriptions say; of an agent's flows, where its own was."""
    found = []
    for agent, facts in described.items():
        gates: dict[str, Any] = facts["gates"] or {}
        own = gates.get("update")
        for name, gate in gates.items():
            if gate["asked"] != gate["shut"] or (own is not None and own is not gate and own["asked"] == own["shut"]):
                continue
            if name == "update" and facts["updates"]:
                continue
            when = f"shut in all {gate['asked']} steps" if gate["asked"] else "never asked"
            what = f"{agent} was never updated" if name == "update" else f"{name} taught nothing"
            found.append(f"{agent}: the gate {gate['gate']} was {when}, so {what}")
    return found


def at_chance(
    plan: Plan, checked: Checked, agents: dict[str, dict[str, Any]], described: dict[str, dict[str, Any]]
) -> list[str]:
    """Say which agents are, on test, no better than to give the same answer always.

    ``agents``: their figures by split; ``described``: what their hosts say of them, the task's level of chance too.
    """
    levels: dict[Chance, list[str]] = {}
    for name, metrics in agents.items():
        chance: Chance | None = described[name].get("chance")
        learns = plan.owner[name] in plan.trainable and plan.spec.agents[name].labels is None
        if learns and chance is not None:
            by = metric(chance.metric)
            figure = by.of(metrics.get("test"))
            if figure is not None and by.gain(figure, chance.value) <= 0:
                levels.setdefault(chance, []).append(name)
    return [
        f"at chance, no better on test than {chance.words} ({chance.value:.4f}): {', '.join(names)}; {_advice(checked)}"
        for chance, names in levels.items()
    ]


def _advice(found: Checked) -> str:
    """What to look at first, by the kind of data."""
    if isinstance(found.table.x, Texts):
        return "is the learning rate right, and are there updates enough?"
    what = "features" if found.table.x.dim() == 2 else "values of the samples"
    return f"are the {what} scaled, and is the learning rate right?"
