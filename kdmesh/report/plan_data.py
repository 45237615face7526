"""A plan as plain data: agents, consensus, flows with every default resolved, stages, hosts, visible choices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kdmesh.graph import budgets, hosts
from kdmesh.graph.disclosed import crossings as disclosed
from kdmesh.graph.edges import LABELS
from kdmesh.graph.merging import SAMPLES
from kdmesh.graph.private_training import noised, party_of
from kdmesh.graph.program import Publish, Repeat, Train
from kdmesh.plugins import registry
from kdmesh.privacy.ledger import room
from kdmesh.report.plan_crossings import crossings

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kdmesh.graph.edges import Edge
    from kdmesh.graph.merging import Pool, WeightFlow
    from kdmesh.graph.plan import Plan, Stage
    from kdmesh.graph.steps import Phase
    from kdmesh.plugins import Registry

Row = dict[str, Any]


def plan_json(plan: Plan, offered: Registry | None = None) -> Row:
    """Return a plan as plain data: agents, consensus, flows with every default resolved, stages, hosts and choices.

    ``offered`` knows the objectives' defaults; by default all that is installed.
    """
    flows = [_flow(edge) for edge in plan.edges]
    consensus = {
        name: {
            "rule": node.rule.name,
            "settings": node.rule.config,
            "space": node.space,
            "temperature": node.temperature,
            "include_self": node.include_self,
            "trained": node.trained,
            "stateful": node.stateful,
            "per_target": node.per_target,
            "stream": node.stream,
            "history": _history(plan, name),
            "inputs": [edge.source for edge in node.inputs],
            "readers": [edge.target for edge in node.readers],
        }
        for name, node in plan.consensus.items()
    }
    consensus |= {name: _pool(pool) for name, pool in plan.merging.pools.items()}
    return {
        "name": plan.spec.name,
        "task": plan.task.name,
        "metric": plan.primary,
        "seed": plan.spec.seed,
        "data_seed": plan.spec.data.seed if plan.spec.data is not None else 0,
        **_canaries(plan),
        "agents": _agents(plan),
        "consensus": consensus,
        "flows": flows,
        "weights": [_weights(flow) for flow in plan.merging.flows],
        "stages": [_stage(stage) for stage in plan.stages],
        "hosts": plan.hosts,
        "placement": _placement(plan),
        "crossings": crossings(plan, offered or registry()),
        "parties": {name: party.model_dump(mode="json") for name, party in plan.spec.parties.items()},
        "participation": None if (asked := plan.spec.participation) is None else asked.model_dump(mode="json"),
        "keep": None if plan.spec.keep is None else plan.spec.keep.model_dump(mode="json", exclude_none=True),
        "released": [_released(plan, one) for one in budgets.releases(plan)],
        "private": {name: _private(plan, name) for name in plan.private_agents},
        "disclosed": [one._asdict() for one in disclosed(plan)],
        "choices": {
            "flows": _choices(plan, offered or registry()),
            "consensus": {
                name: {key: node[key] for key in ("space", "temperature", "include_self")}
                for name, node in consensus.items()
            },
        },
    }


def _released(plan: Plan, one: budgets.Release) -> Row:
    """How a consensus answers with noise, as far as a plan knows: what one answer costs, and how many there may be."""
    how, budget = budgets.mechanism(plan, one.consensus), budgets.budget(plan, one.party)
    parts = [part.cost() for part in how.parts]
    return {
        "consensus": one.consensus,
        "party": one.party,
        "rule": one.rule,
        "told": how.released,
        "members": len(one.members),
        "readers": list(one.readers),
        "stream": one.stream,
        "when": one.when,
        "noise_by": one.party,
        "unit": how.unit,
        "adjacency": how.adjacency,
        "sensitivity": [part.sensitivity for part in parts],
        "sigma": [part.sigma for part in parts],
        "epsilon": budget.epsilon,
        "delta": budget.delta,
        "room": room(budget, parts),
    }


def _private(plan: Plan, agent: str) -> Row:
    """How an agent trains privately, as far as a plan knows."""
    train, party = plan.train(agent), party_of(plan, agent)
    privacy = plan.spec.parties[party].privacy
    assert train.private is not None and privacy is not None
    return {
        "party": party,
        "stream": ", ".join(sorted(noised(plan, agent))),
        "noise": train.private.noise_multiplier,
        "clip": train.private.max_grad_norm,
        "drawn": f"Poisson {train.batch_size}",
        **privacy.model_dump(mode="json", include={"unit", "adjacency", "epsilon", "delta"}),
    }


def _placement(plan: Plan) -> Row:
    """Whether the hosts are only provisional, and which agents must share one, with the reasons."""
    groups = hosts.groups(plan.spec, plan.edges, plan.owner, plan.consensus)
    reasons: dict[tuple[str, ...], dict[str, None]] = {}
    for agents, why in groups:
        reasons.setdefault(tuple(dict.fromkeys(agents)), {})[why] = None
    return {
        "measured": plan.spec.placement == "auto",
        "groups": [{"agents": list(agents), "why": list(whys)} for agents, whys in reasons.items()],
    }


def _canaries(plan: Plan) -> dict[str, Any]:
    """What is planted in train, where anything is."""
    data = plan.spec.data
    return {} if data is None or data.canaries is None else {"canaries": data.canaries.model_dump(exclude_none=True)}


def _agents(plan: Plan) -> Row:
    host_of = plan.host_of
    settings: dict[str, Row] = {}
    out: Row = {}
    for name, agent in plan.spec.agents.items():
        owner = plan.spec.agents[plan.owner[name]]
        key, learns = repr(owner.train), owner.update not in ("frozen", "merged")
        if key not in settings:
            settings[key] = plan.train(name).model_dump(mode="json")
        out[name] = {
            "model": None if owner.model is None else owner.model.model_dump(mode="json"),
            "weights": plan.owner[name],
            "update": owner.update if isinstance(owner.update, str) else owner.update.model_dump(mode="json"),
            "view": agent.view.model_dump(mode="json", exclude_defaults=True),
            "host": host_of[name],
            "answers": agent.answers.model_dump(mode="json", exclude_defaults=True),
            "on_loss": agent.on_loss,
            "gate": None if agent.gate is None else agent.gate.model_dump(mode="json"),
            "train": settings[key] if learns else None,
            "budget": _budget(plan, name) if learns else None,
        }
    return out


def _budget(plan: Plan, agent: str) -> str:
    """How long an agent's weights train, by their stage's program: ``10 epochs``, ``8 x (1 + 2) epochs``."""
    stage, owner, train = plan.stage_of(agent), plan.owner[agent], plan.train(agent)
    own = (train.steps, "step") if train.steps is not None else (train.epochs, "epoch")
    phases = stage.phases if stage is not None else {}
    taught = {key for key, one in phases.items() if any(plan.owner.get(edge.target) == owner for edge in one.edges)}

    def walk(lines: list[Train | Publish | Repeat]) -> list[tuple[str, str]]:
        """Numbers, or terms of them, each with its unit; "" for a term that names units itself."""
        found: list[tuple[str, str]] = []
        for line in lines:
            if isinstance(line, Repeat) and (inner := walk(line.body)):
                text, unit = _joined(inner)
                times = f"at most {line.times}" if line.until else str(line.times)
                found.append((f"{times} x {text}" if len(inner) == 1 else f"{times} x ({text})", unit))
            elif isinstance(line, Train) and line.key in taught:
                given = [(n, unit) for n, unit in ((line.steps, "step"), (line.epochs, "epoch")) if n is not None]
                number, unit = (given or [own])[0]
                found.append((f"{number:,}", unit))
        return found

    text, unit = _joined(walk(stage.program.body) if stage is not None else [])
    if not text:
        return count(*own)
    return f"{text} {unit}{'s' * (text != '1')}" if unit else text


def _joined(terms: list[tuple[str, str]]) -> tuple[str, str]:
    """Terms as one, with their unit where it is the same."""
    units = {unit for _, unit in terms}
    if len(units) <= 1:
        return " + ".join(text for text, _ in terms), "".join(units)
    return " + ".join(f"{text} {unit}{'s' * (text != '1')}".rstrip() if unit else text for text, unit in terms), ""


def _flow(edge: Edge) -> Row:
    return {
        "id": edge.id,
        "where": edge.where,
        "from": edge.source,
        "to": edge.target,
        "as": edge.as_,
        "signal": "labels" if edge.source == LABELS else edge.signal,
        "form": edge.form,
        "stream": edge.stream,
        "objective": None if edge.objective is None else edge.objective.model_dump(mode="json"),
        "weight": edge.weight if isinstance(edge.weight, float) else edge.weight.model_dump(),
        "refresh": edge.refresh or edge.renewed,
        "stale": edge.stale,
        "sees": edge.sees,
        "detach": edge.detach,
        "mode": edge.mode,
        "lesson": edge.lesson,
        "gate": None if edge.gate is None else edge.gate.model_dump(mode="json"),
        "tap": None if edge.tap is None else edge.tap.model_dump(),
    }


def _weights(flow: WeightFlow) -> Row:
    return {
        "where": flow.where,
        "from": flow.source,
        "to": flow.target,
        "weight": flow.weight,
        "stream": flow.stream if flow.weight == SAMPLES else None,
        "refresh": flow.refresh,
    }


def _pool(pool: Pool) -> Row:
    """A consensus of weights, as one of signals is told."""
    return {
        "rule": pool.rule.name,
        "settings": pool.rule.config,
        "space": "weights",
        "temperature": None,
        "include_self": pool.include_self,
        "trained": False,
        "stateful": pool.stateful,
        "per_target": False,
        "stream": None,
        "history": None,
        "inputs": [flow.source for flow in pool.inputs],
        "readers": [flow.target for flow in pool.readers],
    }


def _history(plan: Plan, name: str) -> Row | None:
    """What is kept of what a consensus says, round by round."""
    kept = plan.spec.consensus[name].history
    return None if kept is None else kept.model_dump(mode="json")


def _stage(stage: Stage) -> Row:
    return {
        "name": stage.name,
        "generation": stage.generation,
        "weights": stage.weights,
        "agents": stage.agents,
        "waits": sorted(stage.waits),
        "program": _words(stage.program.body),
        "lessons": {key: _phase(phase) for key, phase in stage.phases.items()},
    }


def _phase(phase: Phase) -> Row:
    return {
        "streams": phase.streams,
        "flows": [edge.id for edge in phase.edges],
        "step": phase.text(),
        "waves": phase.labels(),
    }


def _words(lines: Iterable[Train | Publish | Repeat], indent: str = "") -> list[str]:
    """Return a program's lines in words; what is repeated is indented."""
    out: list[str] = []
    for line in lines:
        if isinstance(line, Repeat):
            until = line.until.model_dump(exclude_none=True) if line.until else {}
            end = f", until {' and '.join(f'{name} {value}' for name, value in until.items())}" if until else ""
            out += [f"{indent}repeat {count(line.times, 'time')}{end}:", *_words(line.body, indent + "  ")]
        elif isinstance(line, Publish):
            out.append(f"{indent}publish {listed(line.agents)} to {line.to or 'all readers'}")
        else:
            length = [count(n, unit) for n, unit in ((line.epochs, "epoch"), (line.steps, "step")) if n is not None]
            only = "" if line.agents is None else f", only {listed(line.agents)}"
            budget = " or ".join(length) or "each agent's own budget"
            out.append(f"{indent}train lesson {line.phase}{only}, for {budget}")
    return out


def _choices(plan: Plan, offered: Registry) -> list[Row]:
    """The choices of every flow: those of its objective, defaults filled in, and the mode its source answers in."""
    stage_of = {unit: stage.name for stage in plan.stages for unit in stage.weights}
    configs: dict[str, Row] = {}
    out: list[Row] = []
    for edge in plan.edges:
        key = f"{edge.objective.name}{edge.objective.config}" if edge.objective else ""
        if edge.objective is None:
            configs[key] = {"temperature": None, "t2_scale": None, "reduction": None}
        elif key not in configs:
            offer = offered.find("objectives", edge.objective.name, edge.where)
            fields = offer.config.model_validate(edge.objective.config)
            elements = offer.reduction and getattr(fields, "per_element", False)
            configs[key] = {
                "temperature": getattr(fields, "temperature", None),
                "t2_scale": getattr(fields, "t2_scale", None),
                "reduction": "mean over elements" if elements else offer.reduction or None,
            }
        node = plan.consensus.get(edge.source)
        out.append(
            {
                "flow": edge.id, "where": edge.where, "from": edge.source, "to": edge.target,
                "objective": edge.objective and edge.objective.name,
                **configs[key],
                "space": node and node.space, "include_self": node and node.include_self,
                "detach": edge.detach, "mode": _mode(plan, edge, stage_of),
            }
        )  # fmt: skip
    return out


def _mode(plan: Plan, edge: Edge, stage_of: dict[str, str]) -> str | None:
    """The mode of the source's forward; labels have none, and a consensus has those of its own sources."""
    source = plan.spec.agents.get(edge.source)
    if source is None:
        return None
    if edge.mode != "auto":
        return edge.mode
    if source.ema is not None:
        return source.ema.mode
    if plan.spec.agents[plan.owner[edge.source]].update == "merged":
        return "eval"
    own = stage_of.get(plan.owner[edge.source])
    node = plan.consensus.get(edge.target)
    readers = [edge.target] if node is None else [reader.target for reader in node.readers]
    together = own is not None and own in {stage_of.get(plan.owner.get(reader, reader)) for reader in readers}
    return "train" if together and (edge.live or edge.stale == "recorded") else "eval"


def count(number: int, noun: str) -> str:
    """``1 epoch``, ``1,000 epochs``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def listed(names: Iterable[str], width: int = 60) -> str:
    """Names in one line; those past the width are counted."""
    names = list(names)
    for kept in range(min(len(names), width), 0, -1):
        more = f" and {len(names) - kept:,} more" if kept < len(names) else ""
        text = ", ".join(names[:kept]) + more
        if len(text) <= width or kept == 1:
            return text
    return ""
