"""What a mesh switches off, or asks for in vain: accepted, since ablations and sweeps write it, and told.

What is wrong for sure is refused in :mod:`kdmesh.graph.unrun`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kdmesh.graph.program import Publish, Repeat, Train
from kdmesh.graph.unrun import LEARNING, STEPS, unused
from kdmesh.spec import DEFAULT_RULE, Ramp

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kdmesh.graph.edges import Edge
    from kdmesh.graph.nodes import ConsensusNode
    from kdmesh.graph.plan import Plan
    from kdmesh.plugins import Registry

Lines = list[Train | Publish | Repeat]


def idle(plan: Plan, registry: Registry) -> list[str]:
    """Fields that have no effect in this mesh and may have one in another of the same file, a line each."""
    found = [*_weights(plan), *_shares(plan), *_settings(plan, registry), *_alone(plan, registry), *_periods(plan)]
    found += [*_programs(plan), *_averages(plan), *_budgets(plan), *_forwards(plan), *_overridden(plan)]
    return list(dict.fromkeys(found))


def untaught(plan: Plan) -> list[str]:
    """Agents that train and that every flow to them teaches nothing: of these the figures tell."""
    flows: dict[str, list[Edge]] = {}
    for edge in plan.edges:
        if edge.as_ == "target" and edge.target in plan.owner:
            flows.setdefault(plan.owner[edge.target], []).append(edge)
    return [
        f"nothing teaches {owner}: every flow to it has weight 0"
        for owner, edges in flows.items()
        if all(_nothing(edge.weight) for edge in edges)
    ]


def _nothing(weight: float | Ramp) -> bool:
    """Whether a weight is 0 from beginning to end."""
    return not (weight.end or (weight.start and weight.epochs > 1)) if isinstance(weight, Ramp) else weight == 0


def _weights(plan: Plan) -> Iterator[str]:
    """Losses of weight 0, and weights that are to move and do not."""
    for edge in plan.edges:
        weight = edge.weight
        if _nothing(weight) and edge.target in plan.owner and edge.as_ == "target":
            yield f"{edge.where}: the weight of {edge} is 0, so it adds no loss"
        elif isinstance(weight, Ramp) and weight.start == weight.end:
            yield f"{edge.where}.weight: it is {weight.start:g} from `start` to `end`, so `epochs` has no effect"
        elif isinstance(weight, Ramp) and weight.epochs == 1:
            yield f"{edge.where}.weight: a ramp of one epoch is {weight.end:g} from the first on: `start` has no effect"


def _shares(plan: Plan) -> Iterator[str]:
    """Weights that flow with a share of 0."""
    for flow in plan.merging.flows:
        if flow.weight == 0:
            yield f"{flow.where}: the weight of {flow} is 0, so it brings nothing"


def _settings(plan: Plan, registry: Registry) -> Iterator[str]:
    """Settings of what is named whose values ask for nothing, as their offers tell."""
    for where, kind, name, config in _named(plan):
        if ":" not in name:
            made = registry.find(kind, name).config.model_validate(config)
            own: dict[str, str] = getattr(made, "idle", dict)()
            for setting, words in own.items():
                value = getattr(made, setting)
                said = str(value).lower() if isinstance(value, bool) else value
                yield f"{where}: `{setting}: {said}` of {name} has no effect: {words}"


def _named(plan: Plan) -> Iterator[tuple[str, str, str, dict[str, Any]]]:
    """What a mesh names with settings: where, of which kind, the name, and the settings."""
    for agent, spec in plan.spec.agents.items():
        for number, view in enumerate(spec.view.augment):
            yield plan.at(f"agents.{agent}.view.augment.{number}"), "views", view.name, view.config
        for number, rule in enumerate(spec.prune):
            yield plan.at(f"agents.{agent}.prune.{number}"), "prunings", rule.name, rule.config
        if spec.gate is not None:
            yield plan.at(f"agents.{agent}.gate"), "gates", spec.gate.name, spec.gate.settings
    for name, stream in plan.spec.streams.items():
        for field, ref in stream.filters.items():
            yield plan.at(f"streams.{name}.{field}"), "filters", ref.name, ref.settings
        if stream.rule is not None:
            yield plan.at(f"streams.{name}.rule"), "text_rules", stream.rule.name, stream.rule.config
        if stream.mix is not None and (gate := stream.mix.gate) is not None:
            yield plan.at(f"streams.{name}.mix.gate"), "gates", gate.name, gate.settings
        for number, verifier in enumerate(stream.reward or ()):
            yield plan.at(f"streams.{name}.reward.{number}"), "metrics", verifier.name, verifier.settings
    for name, node in (plan.consensus | plan.merging.pools).items():
        yield plan.at(f"consensus.{name}.rule"), "consensus", node.rule.name, node.rule.config
    seen: set[tuple[str, int, int]] = set()  # a flow's edges share what it names
    for edge in plan.edges:
        key = edge.where, id(edge.objective), id(edge.gate)
        if key in seen:
            continue
        seen.add(key)
        if edge.objective is not None and edge.objective.config:
            yield f"{edge.where}.objective", "objectives", edge.objective.name, edge.objective.config
        if edge.gate is not None:
            yield f"{edge.where}.gate", "gates", edge.gate.name, edge.gate.settings


def _alone(plan: Plan, registry: Registry) -> Iterator[str]:
    """Consensus nodes of one source, also for readers that are left out themselves."""
    for name, pool in plan.merging.pools.items():
        if len(pool.inputs) == 1 and registry.find("consensus", pool.rule.name).neutral:
            where, source = plan.at(f"consensus.{name}"), pool.inputs[0].source
            yield f"{where}: {name} combines one source only, so it brings what {source} brings"
    for name, node in plan.consensus.items():
        offer, members = registry.find("consensus", node.rule.name), [edge.source for edge in node.members]
        for setting, fits in unused(registry, node.rule, len(members)).items():
            if len(members) > 1:
                why = f"`{setting}` of {node.rule.name} has no effect with {len(members)} sources: {fits}"
                yield f"{plan.at(f'consensus.{name}.rule')}: {why}"
        if not offer.neutral or node.trained:
            continue
        where = plan.at(f"consensus.{name}")
        yield from _plainer(registry, node, where)
        ends, plain = [edge.target for edge in node.readers], node.rule.name == DEFAULT_RULE
        if len(members) == 1:
            yield f"{where}: {name} combines one source only, so it says what {members[0]} says"
        elif len(members) == 2 and not node.include_self and set(ends) <= set(members) and not plain:
            yield (
                f"{where}: each reader of {name} hears the other source only, so that rule {node.rule.name!r} has no "
                "effect on what is learned"
            )


def _plainer(registry: Registry, node: ConsensusNode, where: str) -> Iterator[str]:
    """A rule that is another one, of as many sources as each of its readers hears; those may not hear themselves."""
    members = [edge.source for edge in node.members]
    heard = {len(members)} if node.include_self else set[int]()
    heard |= {len(members) - (edge.target in members) for edge in node.readers if not node.include_self}
    config = registry.check("consensus", node.rule.name, node.rule.config)
    rules = {getattr(config, "same_as", lambda sources: "")(sources) for sources in heard}
    if len(heard) == 1 and (rule := rules.pop()):
        yield f"{where}.rule: {node.rule.name} of {heard.pop()} sources is their {rule}"


def _periods(plan: Plan) -> Iterator[str]:
    """Publications made again of what has not changed."""
    for edge in plan.edges:
        again = edge.source in plan.owner and edge.refresh not in (None, "once", "step")
        if again and plan.owner[edge.source] not in plan.trainable:
            yield f"{edge.where}: {edge.source} is frozen, so `refresh: {edge.refresh}` has no effect: once is enough"


def _programs(plan: Plan) -> Iterator[str]:
    """Ends of repetitions that come too late, and publications of nothing."""
    for stage in plan.stages:
        times = [(edge.source, edge.refresh) for edge in plan.edges]
        times += [(flow.source, flow.refresh) for flow in plan.merging.flows]
        rounds = {source: True for source, refresh in times if refresh == "round" and source in plan.owner}
        yield from _lines(stage.program.body, stage.name, rounds)


def _lines(lines: Lines, stage: str, rounds: dict[str, bool]) -> Iterator[str]:
    for line in lines:
        if isinstance(line, Publish):
            for agent in line.agents:
                if not rounds.get(agent):
                    yield (
                        f"program of {stage}: `publish: {agent}` sends nothing: no flow of {agent} has `refresh: round`"
                    )
        elif isinstance(line, Repeat):
            until = line.until
            if until is not None and line.times == 1:
                yield f"program of {stage}: `until` has no effect, with one round"
            elif until is not None and until.patience is not None and until.patience >= line.times - 1:
                yield (
                    f"program of {stage}: `patience: {until.patience}` has no effect: it ends nothing before round "
                    f"{until.patience + 1}, of {line.times}"
                )
            yield from _lines(line.body, stage, rounds)


def _averages(plan: Plan) -> Iterator[str]:
    """Averages of which nothing is kept, so that they warm up to nothing."""
    for name, agent in plan.spec.agents.items():
        if agent.ema is not None and agent.ema.warmup and agent.ema.decay == 0:
            yield f"{plan.at(f'agents.{name}')}.update.ema: `warmup` has no effect with `decay: 0`"


def _budgets(plan: Plan) -> Iterator[str]:
    """Lengths that nobody trains for, since each line of a program has its own."""
    open_: set[str] = set()
    for stage in plan.stages:
        for line in stage.program.trains():
            if line.epochs is None and line.steps is None:
                open_ |= {plan.owner[agent] for agent in line.agents or stage.agents}
    usual = {"train": plan.spec.train, **{f"agents.{name}.train": one.train for name, one in plan.spec.agents.items()}}
    for where, train in usual.items():
        owners = {plan.owner[where.split(".", 1)[1].removesuffix(".train")]} if where != "train" else plan.trainable
        given = [
            field
            for field in ("epochs", "steps")
            if getattr(train, field) not in (None, type(train).model_fields[field].default)
        ]
        if given and plan.trainable and not owners & open_:
            yield f"{where}.{given[0]}: every line of the program has its own length, so this has no effect"


def _forwards(plan: Plan) -> Iterator[str]:
    """Sizes of forwards that answer without training, where none is made."""
    asked = [("train", plan.spec.train.forward_size, list(plan.owner))]
    for name in dict.fromkeys(plan.owner.values()):
        own = [agent for agent, owner in plan.owner.items() if owner == name]
        asked.append((plan.at(f"agents.{name}.train"), plan.spec.agents[name].train.forward_size, own))
    for where, size, agents in asked:
        if size is not None and not any(_answers(plan, agent) for agent in agents):
            yield f"{where}.forward_size: no answer without training is read here, so this has no effect"


def _overridden(plan: Plan) -> Iterator[str]:
    """Settings of the mesh for which every agent that would read them has its own."""
    usual = plan.spec.train
    for field in sorted(usual.model_fields_set):
        if getattr(usual, field) == type(usual).model_fields[field].get_default(call_default_factory=True):
            continue
        readers = [plan.spec.agents[owner] for owner in dict.fromkeys(plan.owner.values())]
        if field in STEPS:
            readers = [agent for agent in readers if agent.update == "grad"]
        elif field in LEARNING:
            readers = [agent for agent in readers if agent.update != "frozen"]
        elif field == "forward_size":
            answering = dict.fromkeys(owner for agent, owner in plan.owner.items() if _answers(plan, agent))
            readers = [plan.spec.agents[owner] for owner in answering]
        own = {"epochs": ("epochs", "steps"), "steps": ("epochs", "steps")}.get(field, (field,))
        left = [agent for agent in readers if all(getattr(agent.train, name) is None for name in own)]
        if field == "batch_size":  # also how many samples a forward has that answers without training
            left += [agent for agent in readers if agent.train.forward_size is None and usual.forward_size is None]
        if readers and not left:
            yield f"train.{field}: every agent that would read it has its own, so this has no effect"


def _answers(plan: Plan, agent: str) -> bool:
    """Whether others read what an agent answers in eval mode or writes, or a consensus is measured by it."""
    if any(one.prompts is not None and one.generated_by == agent for one in plan.spec.streams.values()):
        return True
    moves = plan.owner[agent] in plan.trainable
    return any(
        edge.source == agent and (edge.target in plan.consensus or not edge.live or not moves or edge.mode == "eval")
        for edge in plan.edges
    )
