"""Agents whose training is private, by DP-SGD: that the account holds what it claims of them.

Such an agent's weights are made of the party's private samples through sums of clipped gradients with noise, and of
nothing else that was. So whatever it then says, and the weights themselves, tell no more of a sample than these do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from kdmesh.errors import MeshError
from kdmesh.graph.edges import LABELS
from kdmesh.graph.private import pooled, private_streams
from kdmesh.graph.reach import behind, readers
from kdmesh.offers import NOW
from kdmesh.privacy.accounting import RDP, epsilons
from kdmesh.privacy.mechanisms.dp_sgd import DPSGD
from kdmesh.privacy.sensitivity import SAMPLE, ZERO_OUT

if TYPE_CHECKING:
    from kdmesh.graph.edges import Edge
    from kdmesh.graph.plan import Plan

OURS = "kdmesh.builtin."


def noised(plan: Plan, agent: str) -> frozenset[str]:
    """The streams whose samples move an agent's weights with noise alone; none where its training is not private."""
    if plan.train(agent).private is None:
        return frozenset()
    hidden = private_streams(plan.spec)
    return frozenset(edge.stream for edge in plan.edges if edge.target == agent and edge.stream in hidden)


def mechanism(plan: Plan, agent: str, samples: int) -> DPSGD:
    """How an agent's steps are made, of so many private samples."""
    train = plan.train(agent)
    assert train.private is not None
    rate = min(1.0, train.batch_size / samples)
    try:
        return DPSGD(train.private.max_grad_norm, train.private.noise_multiplier, rate)
    except MeshError as error:  # the sampler's bounds: a product of the two settings
        what = f"`noise_multiplier` times `max_grad_norm`, the noise's deviation, {error.what}"
        raise MeshError(what, where=_where(plan, agent), instead=error.instead) from None


def told(plan: Plan, agent: str, samples: int, steps: int) -> str:
    """What so many steps of an agent cost, and by which assumptions, in a sentence or two."""
    made, party = mechanism(plan, agent, samples), party_of(plan, agent)
    privacy = plan.spec.parties[party].privacy
    assert privacy is not None
    epsilon = epsilons([made.costs(steps)], privacy.delta)[RDP]
    return (
        f"{agent} trains privately (DP-SGD) on samples of {party}: {steps:,} steps, in each of which each of "
        f"{samples:,} samples takes part with probability {made.rate:.4g}, drawn by itself and in secret (Poisson); "
        f"gradients clipped to {made.clip:g}, noise of {made.multiplier:g} times that, added by {party}. That is "
        f"epsilon {epsilon:.4g} at delta {privacy.delta:g}, by Renyi divergences, for one {privacy.unit} "
        f"({privacy.adjacency}). What {agent} says of public samples, and its weights, are made of nothing else that "
        "is private"
    )


def check(plan: Plan) -> None:
    """Refuse private training that would not be private, or has nothing to hide."""
    agents = [name for name in plan.spec.agents if plan.train(name).private is not None]
    for agent in agents:
        _refuse_place(plan, agent)
        _refuse_settings(plan, agent)
        _refuse_flows(plan, agent)
    known = _knows(plan) if agents else {}
    for agent in agents:
        _refuse_teachers(plan, agent, known)


def party_of(plan: Plan, agent: str) -> str:
    """Whose agent it is; "" of nobody's."""
    return next((name for name, party in plan.spec.parties.items() if agent in party.agents), "")


def _where(plan: Plan, agent: str, field: str = "") -> str:
    own = "private" in plan.spec.agents[plan.owner[agent]].train.model_fields_set
    whole = f"agents.{agent}.train" if own else "train"
    return f"{whole}.{field or 'private'}"


def _refuse(plan: Plan, agent: str, what: str, instead: str, field: str = "") -> NoReturn:
    raise MeshError(what, where=_where(plan, agent, field), instead=instead)


def _refuse_place(plan: Plan, agent: str) -> None:
    """It is of a party whose budget pays for it, by samples that are there or are not."""
    party = party_of(plan, agent)
    if not party or plan.spec.parties[party].privacy is None:
        what = f"{agent} trains with noise that an account pays for, and "
        what += f"{party} has no `privacy`" if party else "it is of no party"
        instead = f"parties.{party or 'NAME'}.privacy: {{epsilon: 8, delta: 1e-5, adjacency: zero_out}}"
        _refuse(plan, agent, what, instead)
    privacy = plan.spec.parties[party].privacy
    assert privacy is not None
    if (privacy.unit, privacy.adjacency) != (SAMPLE, ZERO_OUT):
        what = f"{agent} draws each sample by chance, which is accounted for where one is used or is not, and {party} "
        what += f"has unit: {privacy.unit}, adjacency: {privacy.adjacency}"
        at, instead = f"parties.{party}.privacy.adjacency", f"unit: {SAMPLE}, adjacency: {ZERO_OUT}"
        raise MeshError(what, where=at, instead=instead)


def _refuse_settings(plan: Plan, agent: str) -> None:
    spec, train = plan.spec.agents[agent], plan.train(agent)
    others = [name for name in plan.spec.agents if plan.owner[name] == plan.owner[agent] and name != agent]
    if plan.owner[agent] != agent or others:
        both = " and ".join([agent, *others] if others else [agent, plan.owner[agent]])
        _refuse(plan, agent, f"{both} are of the same weights, and each loss would need its own noise", "one agent")
    if plan.stage_of(agent) is None or not spec.learns:
        _refuse(plan, agent, f"{agent} does not train by gradients, so that `private` has no effect", "leave it out")
    if train.accumulate > 1:
        what = f"{agent} draws each update's samples by chance, so that parts of an update mean nothing"
        _refuse(plan, agent, what, f"batch_size: {train.batch_size * train.accumulate}, accumulate: 1", "accumulate")
    if train.precision != "fp32":
        what = f"gradients of {agent} are clipped one by one, which is proved in fp32 alone"
        _refuse(plan, agent, what, "precision: fp32", "precision")
    if spec.gate is not None:
        what = f"a gate decides whether {agent} is updated, by what it has no noise for"
        raise MeshError(what, where=f"agents.{agent}.gate", instead="leave it out")
    if agent in plan.mixed:
        what = f"samples of {agent} are mixed, so that a gradient is of two of them"
        raise MeshError(what, where=f"agents.{agent}.view.augment", instead="augmentations of single samples")
    if agent in plan.inputs:
        what = f"{agent} sees what another says in the place of samples"
        _refuse(plan, agent, what, "a flow as: target")
    if plan.spec.text.pack:
        what = f"packed texts share a row, so that {agent} has no gradient of each"
        raise MeshError(what, where="text.pack", instead="pack: false")


def _refuse_flows(plan: Plan, agent: str) -> None:
    """What it learns of private samples is the sum of a loss of each, and nothing that is made of several."""
    hidden, seen = private_streams(plan.spec), dict[str | None, set[str]]()
    into = [edge for edge in plan.edges if edge.target == agent]
    for edge in (one for one in plan.edges if agent in (one.source, one.target)):
        node = plan.consensus.get(edge.source) or plan.consensus.get(edge.target)
        if not edge.detach or (node is not None and node.trained and edge.source == node.name):
            what = f"by {edge}, gradients of others would pass through {agent}, whose own are clipped sample by sample"
            raise MeshError(what, where=edge.where, instead="detach: true, and no trained consensus")
        if edge.source == agent and edge.stream in noised(plan, agent) and (edge.live or edge.stale == "recorded"):
            what = f"{edge.target} would hear of samples as {agent} draws them, and nobody may know which these are"
            raise MeshError(what, where=edge.where, instead="refresh: epoch, round or once, of the whole stream")
    for edge in into:
        if edge.stream not in hidden:
            continue
        seen.setdefault(edge.lesson, set()).add(edge.stream)
        _refuse_flow(plan, agent, edge)
    if not seen:
        what = f"no flow into {agent} is on a private stream, so that `private` has no effect"
        _refuse(plan, agent, what, "a flow on the stream that is private (own), or leave it out")
    for lesson, streams in seen.items():
        every = streams | seen.get(None, set()) if lesson is not None else streams
        if len(every) > 1:
            both = " and ".join(sorted(every))
            what = f"{agent} would learn of {both}, both private, in one step, and a sample may be in both"
            _refuse(plan, agent, what, "one private stream in a lesson")


def _refuse_flow(plan: Plan, agent: str, edge: Edge) -> None:
    more = sorted({*edge.needs} - {*NOW})
    stream = plan.spec.streams.get(edge.stream)
    why, instead = "", "labels, or what another agent published (refresh: once)"
    if edge.as_ != "target":
        why = "what it brings is no loss of single samples"
    elif edge.source in plan.consensus:
        why = f"{edge.source} combines what several say of private samples"
    elif edge.source != LABELS and edge.live:
        why = f"{agent} draws batches of its own, in secret, and {edge.source} has others"
    elif edge.source != LABELS and edge.stale not in (None, "publish"):
        why = f"{edge.source} does not say it of whole streams"
    elif edge.unaligned or edge.derived is not None:
        why, instead = "what it carries may be made of several samples at once", "logits, or layers as they are"
    elif more:
        why, instead = f"its objective is given {', '.join(more)} of the whole stream", "an objective that reads none"
    elif edge.gate is not None or edge.group or edge.part:
        why, instead = "its loss depends on what else is in the batch", "no gate, denominator or part"
    elif stream is not None and (stream.pairs or stream.generated_by is not None or stream.replay):
        why, instead = f"{edge.stream!r} is not of single given samples", "a stream of the party's samples"
    if why:
        what = f"{agent} trains privately on {edge.stream!r}, by one clipped gradient for each sample: {why}"
        raise MeshError(what, where=edge.where, instead=instead)


def _knows(plan: Plan) -> dict[str, dict[str, str]]:
    """By owner of weights the parties of whose private samples it may know without noise.

    With each stands through whom. Whoever reads of private samples knows of them, in whatever party it is. An agent
    whose training is private passes on what it is taught by others, and of its own party's samples nothing.
    """
    hidden, found = private_streams(plan.spec), dict[str, dict[str, str]]()
    for edge in plan.edges:
        ends = readers(edge.target, plan.consensus) if edge.stream in hidden else []
        by_agent = edge.source in plan.owner
        for agent in [*ends, *([edge.source] if ends and by_agent and not edge.detach else [])]:
            of = [plan.whose(one, edge.stream) for one in (agent, *([edge.source] if by_agent else []))]
            parties = [*plan.spec.parties] if pooled(plan.spec, edge.stream) else [party_of(plan, one) for one in of]
            own = party_of(plan, agent) if plan.train(agent).private is not None else ""
            for party in parties:
                if party and party != own:
                    found.setdefault(plan.owner[agent], {}).setdefault(party, agent)
    links = _links(plan)
    moved = True
    while moved:
        moved = False
        for source, target in links:
            for party, through in found.get(source, {}).items():
                if party not in found.setdefault(target, {}):
                    found[target][party], moved = through, True
    return found


def _links(plan: Plan) -> set[tuple[str, str]]:
    """From whose weights something reaches whose, but for answers that are released with noise."""
    owner, found = plan.owner, set[tuple[str, str]]()
    for edge in plan.edges:
        if edge.target in owner:
            for end, through in behind(edge, plan.consensus):
                released = any(getattr(plan.consensus[name], "releases", "") for name in through)
                if end.source in owner and not released:
                    found.add((owner[end.source], owner[edge.target]))
    for flow in plan.merging.flows:
        ends = plan.merging.readers(flow.target) if flow.target in plan.merging.pools else [flow.target]
        found |= {(owner[flow.source], owner[end]) for end in ends if flow.source in owner}
    for name, agent in plan.spec.agents.items():
        if agent.ema is not None:
            found.add((owner[agent.ema.of], owner[name]))
    return {(source, target) for source, target in found if source != target}


def _refuse_teachers(plan: Plan, agent: str, known: dict[str, dict[str, str]]) -> None:
    """Refuse whoever learned of the party's samples without noise, and would teach what it learned."""
    party = party_of(plan, agent)
    through = known.get(plan.owner[agent], {}).get(party)
    if through is not None:
        what = f"{agent} trains privately, and what {through} learned of {party}'s private samples without noise"
        what += " reaches it"
        instead = f"private training for {through}, too, or no flow from it"
        _refuse(plan, agent, what, instead)
