"""What parties with a privacy budget release, looked at with the data: that an account holds what it claims.

Votes are private by what Papernot et al. ask for: each sample has moved one teacher at most. That is proved here, by
the samples' ids and by all ways on which something made of them may have reached a teacher.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch

from kdmesh.checks.budget import epoch_steps, phase_steps, walked
from kdmesh.checks.private_training import Private, private_steps
from kdmesh.errors import MeshError
from kdmesh.graph import budgets
from kdmesh.graph.heard import origin
from kdmesh.graph.private import agents_of, private_streams
from kdmesh.graph.private_training import told
from kdmesh.graph.program import Publish
from kdmesh.graph.reach import behind, consensus_from
from kdmesh.graph.sources import below
from kdmesh.privacy.accounting import Gaussian, calibrated, epsilons
from kdmesh.privacy.ledger import Budget
from kdmesh.privacy.sensitivity import SAMPLE
from kdmesh.spec.parties import OWN

if TYPE_CHECKING:
    from kdmesh.checks.checked import Checked
    from kdmesh.graph.budgets import Release
    from kdmesh.graph.plan import Plan


class Asked(NamedTuple):
    """How often a consensus is asked, and about how many samples each time; ``least``, ``most``: what that costs."""

    release: Release
    times: int
    samples: int
    least: list[Gaussian]
    most: list[Gaussian]


def prove(plan: Plan, found: Checked) -> None:
    """Refuse an account that would not hold, and one that the declared rounds are sure to overdraw."""
    hidden = _private(plan)
    for party in plan.withholding:
        if hidden.keys().isdisjoint(plan.hosts.get(party, ())):
            what = f"no agent of {party} sees a private stream, so that `privacy` protects nothing"
            instead = f"parties.{party}.data: ..., or private: true on the stream that its agents learn from"
            raise MeshError(what, where=f"parties.{party}.privacy", instead=instead)
    for one in budgets.releases(plan):
        privacy = plan.spec.parties[one.party].privacy
        assert privacy is not None
        if budgets.mechanism(plan, one.consensus).disjoint and privacy.unit == SAMPLE:
            _disjoint(plan, found, one, hidden)
    for private in private_steps(plan, found):
        _refuse_sorted(plan, found, private.stream, f"private training of {private.agent}")
    for party in plan.withholding:
        _afforded(plan, found, party)
        _note_delta(plan, found, party, hidden)
    for private in private_steps(plan, found):
        found.mark(told(plan, private.agent, private.samples, private.steps))


def _note_delta(plan: Plan, found: Checked, party: str, hidden: dict[str, list[str]]) -> None:
    """Note a delta with which whole samples might be told, and the account be kept."""
    seen = [found.streams[name].rows_for(agent) for agent in plan.hosts[party] for name in hidden.get(agent, ())]
    samples, delta = len(torch.cat(seen).unique()), budgets.budget(plan, party).delta
    if delta * samples >= 1:
        what = (
            f"{delta:g} is not below 1 / {samples:,}, one over how many samples {party} has: to tell one of them whole"
        )
        found.notes.append(f"parties.{party}.privacy.delta: {what} would keep to it; 1e-5, say, is usual")


def asked(plan: Plan, found: Checked) -> list[Asked]:
    """What each release is asked in all, at most."""
    made = []
    for one in budgets.releases(plan):
        spec = plan.spec.streams.get(one.stream)
        base = spec.of if spec is not None and spec.replay else one.stream
        times, samples = _times(plan, found, one), len(found.streams[base].rows)
        every = [Gaussian(part.sensitivity, part.sigma, times * samples) for part in _parts(plan, one)]
        made.append(Asked(one, times, samples, every[:1], every))
    return made


def _parts(plan: Plan, release: Release) -> list[Gaussian]:
    return [part.cost() for part in budgets.mechanism(plan, release.consensus).parts]


def _times(plan: Plan, found: Checked, release: Release) -> int:
    """How often its members publish, at most."""
    if release.when == "once":
        return 1
    times = 0
    for stage in plan.stages:
        if {*stage.agents}.isdisjoint(release.members):
            continue
        for line, count in walked(stage.program.body):
            if isinstance(line, Publish):
                to = line.to is None or line.to in consensus_from(release.consensus, plan.consensus)
                heard = to and not {*line.agents}.isdisjoint(release.members)
                times += count if release.when == "round" and heard else 0
            elif release.when == "epoch" and (steps := phase_steps(plan, found, stage, line)):
                times += count * (max(steps.values()) // max(epoch_steps(plan, found, stage, line).values()))
    return times


def _afforded(plan: Plan, found: Checked, party: str) -> None:
    """Refuse what the budget cannot hold whatever is answered; note where it may not hold all."""
    budget, every = budgets.budget(plan, party), [one for one in asked(plan, found) if one.release.party == party]
    where = f"parties.{party}.privacy.epsilon"
    trained = [one for one in private_steps(plan, found) if one.party == party]
    _affordable(budget, trained, where)
    least, most = ([cost for one in every for cost in getattr(one, which)] for which in ("least", "most"))
    least, most = ([*some, *(one.cost for one in trained)] for some in (least, most))
    if (spent := epsilons(least, budget.delta)["rdp"]) > budget.epsilon:
        told = ", ".join([f"{one.release.consensus}: {one.times:,} x {one.samples:,}" for one in every])
        beside = f", beside private training ({_steps_of(trained)})," if trained else ""
        what = f"answers about so many samples ({told}){beside} cost epsilon {spent:.4g}, at delta {budget.delta:g}"
        instead = "fewer samples, fewer rounds, or more noise"
        if len(least) == 1:
            sigma = calibrated(budget.epsilon, budget.delta, least[0].count, least[0].sensitivity)
            instead = f"sigma {math.ceil(sigma * 100) / 100:g}, fewer samples or fewer rounds"
        raise MeshError(f"{what}, more than the {budget.epsilon:g} that may be spent", where=where, instead=instead)
    if every:
        found.mark(_told(plan, party, every, trained))
    if (spent := epsilons(most, budget.delta)["rdp"]) > budget.epsilon:
        what = f"where all samples are answered, that costs epsilon {spent:.4g} of {budget.epsilon:g}"
        found.notes.append(f"{where}: {what}; once it is spent, samples go without an answer")


def _affordable(budget: Budget, trained: list[Private], where: str) -> None:
    """Refuse more steps of private training than the budget holds; with what noise it would hold these."""
    if (spent := epsilons([one.cost for one in trained], budget.delta)["rdp"]) <= budget.epsilon:
        return
    what = f"private training ({_steps_of(trained)}) costs epsilon {spent:.4g}, at delta {budget.delta:g}, more than "
    instead = "fewer steps, smaller batches, or more noise"
    if len(trained) == 1:
        (one,) = trained
        sigma = calibrated(budget.epsilon, budget.delta, one.steps, 1.0, rate=one.mechanism.rate)
        instead = f"noise_multiplier: {math.ceil(sigma * 1000) / 1000:g}, fewer steps or smaller batches"
    raise MeshError(f"{what}the {budget.epsilon:g} that may be spent", where=where, instead=instead)


def _steps_of(trained: list[Private]) -> str:
    return ", ".join(f"{one.agent}: {one.steps:,} steps, rate {one.mechanism.rate:.4g}" for one in trained)


def _told(plan: Plan, party: str, every: list[Asked], trained: list[Private]) -> str:
    """The account to come, in words."""
    budget, privacy = budgets.budget(plan, party), plan.spec.parties[party].privacy
    assert privacy is not None
    both = epsilons([*(cost for one in every for cost in one.most), *(one.cost for one in trained)], budget.delta)
    how = "; ".join(
        f"{one.release.consensus} ({one.release.rule}): {one.times:,} x {one.samples:,} samples, sigma "
        + " and ".join(f"{cost.sigma:g} at sensitivity {cost.sensitivity:.4f}" for cost in one.most)
        for one in every
    )
    costs = f"epsilon {both['rdp']:.4f} by Renyi divergences"
    if "exact" in both:
        costs += f", {both['exact']:.4f} exactly"
    beside = f", with private training of {' and '.join(one.agent for one in trained)}," if trained else ""
    return (
        f"{party} answers with noise of its own: {how}; in all{beside} at most {costs}, at delta {budget.delta:g}, for "
        f"one {privacy.unit} ({privacy.adjacency}); its budget is {budget.epsilon:g}"
    )


# -- disjoint teachers -------------------------------------------------------------------------------------------------


def _disjoint(plan: Plan, found: Checked, release: Release, hidden: dict[str, list[str]]) -> None:
    """Refuse teachers of whom two may have learned of one sample. ``hidden``: private streams by who sees them."""
    where, sources = f"consensus.{release.consensus}", _sources(plan)
    for stream in dict.fromkeys(name for names in hidden.values() for name in names):
        _refuse_sorted(plan, found, stream, release.rule)
    owner = torch.full((len(found.table),), -1)
    for number, member in enumerate(release.members):
        _refuse_unknown(plan, member, release.rule)
        for agent, stream in _learned(plan, member, sources, hidden):
            rows = found.streams[stream].rows_for(agent)
            twice = rows[(owner[rows] >= 0) & (owner[rows] != number)]
            if len(twice):
                other = release.members[int(owner[twice[0]])]
                through = "" if agent == member else f", through {agent}"
                what = (
                    f"{len(twice):,} samples of {stream!r} reach both {other} and {member}{through}: one of them would"
                )
                instead = "shards: {by: iid, of: [...]} for the stream that they learn from, and no flow between them"
                raise MeshError(f"{what} move two votes", where=where, instead=instead)
            owner[rows] = number


def _private(plan: Plan) -> dict[str, list[str]]:
    """By agent, the private streams that it sees; nothing of those who see none."""
    hidden, found = private_streams(plan.spec), dict[str, dict[str, None]]()
    for edge in plan.edges:
        for agent in agents_of(edge, plan.spec, plan.consensus) if edge.stream in hidden else ():
            found.setdefault(agent, {})[edge.stream] = None
    return {agent: [*streams] for agent, streams in found.items()}


def _learned(
    plan: Plan, member: str, sources: dict[str, set[str]], hidden: dict[str, list[str]]
) -> list[tuple[str, str]]:
    """All agents of which something may have reached a teacher, itself first, each with a private stream that it sees.

    What was released before is everyone's, and counted.
    """
    left = [plan.owner[member]]
    for owner in left:  # grows while it is read
        left += sorted(sources.get(owner, set()) - {*left})
    agents = [agent for agent in hidden if plan.owner[agent] in left]
    return [(agent, stream) for agent in sorted(agents, key=lambda one: one != member) for stream in hidden[agent]]


def _sources(plan: Plan) -> dict[str, set[str]]:
    """By owner of weights, the owners of those whose signals or weights reach them."""
    found: dict[str, set[str]] = {}

    def reaches(source: str, target: str) -> None:
        if source in plan.owner and target in plan.owner and plan.owner[source] != plan.owner[target]:
            found.setdefault(plan.owner[target], set()).add(plan.owner[source])

    for edge in plan.edges:
        for end, through in behind(edge, plan.consensus):
            if not any(plan.consensus[name].releases for name in through):
                reaches(end.source, edge.target)
    pools = plan.merging.pools
    for flow in plan.merging.flows:
        for reader in plan.merging.readers(flow.target) if flow.target in pools else [flow.target]:
            reaches(flow.source, reader)
    for name, agent in plan.spec.agents.items():
        if agent.ema is not None:
            reaches(agent.ema.of, name)
    return found


def _refuse_unknown(plan: Plan, member: str, rule: str) -> None:
    """Refuse a teacher that begins with weights of which nobody knows what they have learned."""
    first = plan.spec.agents[origin(plan, plan.owner[member])]
    if first.weights is not None:
        what = f"{member} begins with weights of a file, which may have learned of any sample, and votes by {rule}"
        raise MeshError(
            what, where=f"agents.{member}.weights", instead="weights that are drawn; or gaussian_probabilities"
        )


def _refuse_sorted(plan: Plan, found: Checked, stream: str, rule: str) -> None:
    """Refuse samples that are dealt to teachers by what they are: one that was another would move others."""
    chain = [name for name in (stream, *below(plan.spec, stream)) if name in plan.spec.streams]
    for name in chain:
        spec = plan.spec.streams[name]
        for field in ("select", "where", "only", "without"):
            if getattr(spec, field) is not None:
                what = f"who is in {name!r} depends on what samples are ({field}), and {rule} counts on places"
                raise MeshError(what, where=f"streams.{name}.{field}", instead="size, or leave it out")
        if spec.shards is not None and spec.shards.by != "iid":
            what = f"samples of {name!r} are dealt by what they are, so that one that was another would move others"
            raise MeshError(what, where=f"streams.{name}.shards.by", instead="by: iid")
    whole = (stream, *below(plan.spec, stream))
    stratified = plan.spec.data is not None and plan.spec.data.stratify and found.table.strata is not None
    if stratified and OWN not in whole:
        what = "splits keep the classes' shares, so that a sample of another class would move others between teachers"
        raise MeshError(what, where="data.stratify", instead="stratify: false")
