"""What a drawing says of an agent, a consensus and a flow: short texts, the same in every format."""

from __future__ import annotations

import re
from collections import Counter
from itertools import groupby
from typing import TYPE_CHECKING

from kdmesh.graph import private
from kdmesh.graph.edges import LABELS
from kdmesh.graph.program import Repeat
from kdmesh.graph.roles import roles
from kdmesh.report.plan_data import count
from kdmesh.report.plan_text import setting, weighted

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from kdmesh.graph.edges import Edge
    from kdmesh.graph.merging import Pool, WeightFlow
    from kdmesh.graph.nodes import ConsensusNode
    from kdmesh.graph.plan import Plan, Stage
    from kdmesh.spec import Ramp

Facts = dict[str, str]

NUMBERED = re.compile(r"(.*?)(\d+)(\]?)")
RUNS = 3  # names, or runs of numbered names, that a title lists


def agents(plan: Plan, parameters: Mapping[str, int]) -> dict[str, Facts]:
    """What is known of each agent, by a noun for it; "" for what does not apply.

    ``parameters``: how many each agent has, of a run, since a plan builds no model.
    """
    role, hidden = roles(plan), private.private_streams(plan.spec)
    labels: dict[str, list[str]] = {}
    sees: dict[str, dict[str, None]] = {}
    for edge in plan.edges:
        if edge.source == LABELS:
            labels.setdefault(edge.target, []).append(
                " ".join(part for part in (loss(edge), _on(edge), _gate(edge)) if part)
            )
        if edge.stream in hidden:
            for name in private.agents_of(edge, plan.spec, plan.consensus):
                sees.setdefault(name, {})[edge.stream] = None
    writes: dict[str, list[str]] = {}
    for stream, one in plan.spec.streams.items():
        if one.generated_by is not None and one.consensus_of is None:
            writes.setdefault(one.generated_by, []).append(stream)
    placed = plan.host_of if plan.spec.placement != "auto" and len(plan.hosts) > 1 else {}
    found: dict[str, Facts] = {}
    for name, agent in plan.spec.agents.items():
        owner = plan.spec.agents[plan.owner[name]]
        own = owner.train.model_dump(mode="json", exclude_unset=True)
        known = parameters.get(name)
        found[name] = {
            "role": role[name],
            "frozen": "frozen" if owner.update == "frozen" else "",
            "model": "" if owner.model is None else setting(owner.model.model_dump(mode="json")),
            "size": "" if known is None else count(known, "parameter"),
            "exit": f"exit {agent.exit}" if agent.exit else "",
            "classes": f"classes {_numbers(agent.labels)}" if agent.labels is not None else "",
            "view": f"sees {', '.join(setting(v.model_dump(mode='json')) for v in agent.view.augment)}"
            if agent.view.augment
            else "",
            "gate": f"gate {setting(agent.gate.model_dump(mode='json'))}" if agent.gate is not None else "",
            "training": ", ".join(setting({key: value}) if isinstance(value, dict) else f"{key} {setting(str(value))}"
                                  for key, value in own.items()),
            "labels": "; ".join(f"labels: {text}" for text in labels.get(name, ())),
            "private": f"private: {', '.join(sees[name])}" if name in sees else "",
            "stream": f"writes {', '.join(writes[name])}" if name in writes else "",
            "host": f"host {placed[name]}" if name in placed else "",
        }  # fmt: skip
    return found


def consensus(node: ConsensusNode, default: str) -> Facts:
    """What is known of a consensus node."""
    tempered = f" at temperature {node.temperature:g}" if node.space not in ("logits", "loss", "gradient") else ""
    kinds = {"trained": node.trained, "stateful": node.stateful, "per target": node.per_target}
    kinds |= {"leave one out": not node.include_self, "oracle: reads labels": node.needs_labels}
    return {
        "role": "consensus",
        "rule": setting({node.rule.name: node.rule.config}),
        "space": f"of {node.space}{tempered}",
        "kind": ", ".join(word for word, holds in kinds.items() if holds),
        "stream": f"on {node.stream}" if node.stream != default else "",
    }


def pool(node: Pool) -> Facts:
    """What is known of a consensus of weights."""
    kinds = {"stateful": node.stateful, "leave one out": not node.include_self}
    return {
        "role": "consensus",
        "rule": setting({node.rule.name: node.rule.config}),
        "space": "of weights",
        "kind": ", ".join(word for word, holds in kinds.items() if holds),
        "stream": "",
    }


def weights(flow: WeightFlow) -> str:
    """What a flow of weights brings, and when: ``weights × 0.5, round``."""
    factor = "" if flow.weight == 1.0 else f" × {flow.weight if isinstance(flow.weight, str) else f'{flow.weight:g}'}"
    return f"weights{factor}" + (f", {flow.refresh}" if flow.refresh else "")


def loss(edge: Edge, known: dict[tuple[int, float | Ramp], str] | None = None) -> str:
    """The loss of a flow and its factor: ``kl(temperature 4) × 0.5``; "" where it has none.

    ``known``: what was said before, by objective and weight: 90,000 flows of a strategy have one objective.
    """
    if edge.objective is None:
        return ""
    key = id(edge.objective), edge.weight
    if known is not None and key in known:
        return known[key]
    weight = edge.weight if isinstance(edge.weight, float) else edge.weight.model_dump()
    factor = "" if weight == 1.0 else f" × {weighted(weight)}"
    text = setting({edge.objective.name: edge.objective.config}) + factor
    if known is not None:
        known[key] = text
    return text


def carried(edge: Edge, from_agent: bool) -> str:
    """What crosses a flow, how and when: ``logits, once``."""
    if edge.derived is not None:
        what = setting({edge.derived.name: edge.derived.config}) + (
            f" of {edge.tap.of}" if edge.tap is not None else ""
        )
    elif edge.signal == "hidden" and edge.tap is not None:
        what = f"hidden {edge.tap.of}" + (f" to {edge.tap.to}" if edge.tap.to != edge.tap.of else "")
    else:
        what = edge.signal if from_agent else edge.form
    said = [what, f"as {edge.as_}" if edge.as_ != "target" else "", edge.refresh or edge.renewed or ""]
    said += [_gate(edge)]
    said += [edge.stale if edge.stale and edge.stale != "publish" else ""]
    said += ["" if edge.detach else "gradients pass", f"mode {edge.mode}" if edge.mode != "auto" else ""]
    said += [_on(edge), f"in {edge.lesson}" if edge.lesson else ""]
    return ", ".join(part for part in said if part)


def seen(edges: Sequence[Edge]) -> str:
    """How many of some flows see their source after its update."""
    after = sum(edge.sees == "after" for edge in edges)
    return "" if not after else "sees after" if after == len(edges) else f"{after:,} of {len(edges):,} see after"


def _gate(edge: Edge) -> str:
    return "" if edge.gate is None else f"gate {setting(edge.gate.model_dump(mode='json'))}"


def _on(edge: Edge) -> str:
    return f"on {edge.stream}" if edge.stream != "train" else ""


def title(names: Sequence[str]) -> str:
    """Names in short: ``peer[0..99]``, ``t0..t9``, ``a, b, c and 5 more``."""
    parts: list[tuple[str, int]] = []
    split = [(match.groups() if (match := NUMBERED.fullmatch(name)) else None, name) for name in names]
    for _, run in groupby(enumerate(split), key=lambda item: _run(*item)):
        found = [(groups, name) for _, (groups, name) in run]
        (first, name), (last, end) = found[0], found[-1]
        if len(found) < 3 or first is None or last is None:
            parts += [(name, 1) for _, name in found]
        elif first[2]:
            parts.append((f"{first[0]}{first[1]}..{last[1]}]", len(found)))
        else:
            parts.append((f"{name}..{end}", len(found)))
    left = sum(size for _, size in parts[RUNS:])
    return ", ".join(text for text, _ in parts[:RUNS]) + (f" and {left:,} more" if left else "")


def _run(place: int, item: tuple[tuple[str, ...] | None, str]) -> object:
    """The same for names that count on from each other."""
    groups, name = item
    return name if groups is None else (groups[0], groups[2], int(groups[1]) - place)


def _numbers(values: Iterable[int]) -> str:
    """Numbers in short: ``0 to 5, 8``."""
    parts = []
    for _, run in groupby(enumerate(sorted(values)), key=lambda item: item[1] - item[0]):
        found = [value for _, value in run]
        parts.append(f"{found[0]} to {found[-1]}" if len(found) > 2 else ", ".join(map(str, found)))
    return ", ".join(parts)


def common(facts: Sequence[Facts]) -> Facts:
    """The facts of several nodes as one: what they share, and of the rest how many kinds there are."""
    found: Facts = {}
    for key in facts[0]:
        values = {fact[key] for fact in facts}
        if len(values) == 1:
            found[key] = facts[0][key]
        else:
            found[key] = f"{len(values - {''}):,} kinds of {key}" if key != "host" else f"on {len(values):,} hosts"
    return found


def stage(stages: Sequence[Stage]) -> str:
    """A heading for stages that are drawn as one: when they train, how, and in how many rounds."""
    orders = sorted({one.generation + 1 for one in stages})
    order = f"{orders[0]:,}" if len(orders) == 1 else f"{orders[0]:,} to {orders[-1]:,}"
    sizes = sorted({len(one.weights) for one in stages})
    rounds = {line.times for one in stages for line in one.program.body if isinstance(line, Repeat)}
    repeat = f", {' or '.join(map(str, sorted(rounds)))} rounds" if len(rounds) in (1, 2) else ""
    side = "side by side" if len(orders) == 1 else "one after another"
    if len(stages) == 1:
        how = "train together" if sizes != [1] else "trains"
    elif sizes == [1]:
        how = f"{side}, {len(stages):,} stages"
    else:
        how = f"{side}, {len(stages):,} stages of {_span(sizes)}"
    return f"{order}. {how}{repeat}"


def spread(pairs: Collection[tuple[str, str]], sources: Collection[str], targets: Collection[str]) -> str:
    """How flows between two groups of nodes connect their members; "" where that goes without saying."""
    if len(sources) == len(targets) == 1:
        return ""
    into, out = Counter(target for _, target in pairs), Counter(source for source, _ in pairs)
    if set(sources) == set(targets):
        return _among(pairs, into, out, len(sources))
    if len(targets) == 1:
        return f"from {'each' if len(out) == len(sources) else f'{len(out):,} of {len(sources):,}'}"
    if len(sources) == 1:
        return f"to {'each' if len(into) == len(targets) else f'{len(into):,} of {len(targets):,}'}"
    if len(pairs) == len(sources) * len(targets):
        return "from each to each"
    if set(into.values()) == set(out.values()) == {1}:
        return "one to one" if len(into) == len(targets) else f"one to one, to {len(into):,} of {len(targets):,}"
    return f"each from {_span(into.values())} of {len(sources):,}"


def _among(pairs: Collection[tuple[str, str]], into: Counter[str], out: Counter[str], size: int) -> str:
    """How flows connect the members of one group."""
    if all(source == target for source, target in pairs):
        return "each to itself" if len(pairs) == size else f"{len(pairs):,} of {size:,} to themselves"
    if len(pairs) == size * (size - 1) and all(source != target for source, target in pairs):
        return f"all to all: each from the {size - 1:,} others"
    after = dict(pairs)
    if set(into.values()) == set(out.values()) == {1}:
        first = next(iter(after))
        node, steps = after[first], 1
        while node in after and node != first:
            node, steps = after[node], steps + 1
        if node == first and steps == len(after):
            return "in a ring: each from the one before" if steps == size else f"a ring of {steps:,} of {size:,}"
        if set(into) != set(out):
            return "in a row: each to the next"
    some = "each" if len(into) == size else f"{len(into):,} of {size:,}"
    return f"{some} from {_span(into.values())} others"


def _span(numbers: Iterable[int]) -> str:
    low, high = min(numbers := list(numbers)), max(numbers)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
