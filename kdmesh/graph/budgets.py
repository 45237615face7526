"""Parties with a privacy budget: what they release, and that nothing else made of their samples leaves them.

Whatever an agent of such a party says is taken to be made of its private samples, whoever taught it. So it leaves the
party through a rule that releases, which is formed there and charged to the party's account, or over a flow that
`discloses` it, of which the account says nothing.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from kdmesh.errors import MeshError
from kdmesh.graph.disclosed import NOISY, crossings
from kdmesh.graph.parties import places
from kdmesh.graph.program import Repeat
from kdmesh.graph.reach import released, sources
from kdmesh.privacy.ledger import Budget
from kdmesh.privacy.mechanisms import made
from kdmesh.privacy.sensitivity import ADD_REMOVE, PARTY
from kdmesh.spec.parties import COORDINATOR

if TYPE_CHECKING:
    from kdmesh.graph.disclosed import Crossing
    from kdmesh.graph.edges import Edge
    from kdmesh.graph.nodes import ConsensusNode
    from kdmesh.graph.plan import Plan
    from kdmesh.graph.program import Publish, Train
    from kdmesh.privacy.releasing import Answering
    from kdmesh.spec import Until

OURS = "kdmesh.builtin."
TIMES = ("once", "round", "epoch")


class Release(NamedTuple):
    """A consensus that answers with noise, on a party's account.

    ``when``: its members publish; ``readers``: the hosts that are sent its answers.
    """

    party: str
    consensus: str
    rule: str
    stream: str
    when: str
    members: tuple[str, ...]
    readers: tuple[str, ...]


def releases(plan: Plan) -> list[Release]:
    """Everything that is released in a mesh."""
    found, host_of = [], plan.host_of
    for name, node in plan.consensus.items():
        if node.releases:
            ends = {host for edge in node.readers for host in places(edge.target, plan.consensus, host_of)}
            members = tuple(edge.source for edge in node.members)
            when = str(node.members[0].refresh)
            found.append(Release(node.home, name, node.rule.name, node.stream, when, members, tuple(sorted(ends))))
    return found


def mechanism(plan: Plan, name: str) -> Answering:
    """How a consensus answers, for whom its party's budget protects."""
    node = plan.consensus[name]
    privacy = plan.spec.parties[node.home].privacy
    assert privacy is not None  # as it is checked
    try:
        return made(node.releases, dict(node.rule.config), privacy.unit, privacy.adjacency)
    except MeshError as error:
        error.where = f"consensus.{name}.rule.{node.rule.name}" + (f".{error.where}" if error.where else "")
        raise


def budget(plan: Plan, party: str) -> Budget:
    """What a party may spend."""
    privacy = plan.spec.parties[party].privacy
    assert privacy is not None
    return Budget(privacy.epsilon, privacy.delta)


def refuse_trials(plan: Plan) -> None:
    """Refuse a mesh that is to be trained many times, each at the cost of a party's budget, which is spent for good."""
    for party in plan.withholding:
        what = f"each trial would be charged to the budget of {party}, and what is spent stays spent"
        instead = "one `kdmesh run FILE --privacy FOLDER` for each, then `kdmesh compare` of the runs' folders"
        raise MeshError(what, where=f"parties.{party}.privacy", instead=instead)


def check(plan: Plan) -> None:
    """Refuse a release that no account pays for, and whatever else would leave a party that has a budget."""
    for name, node in plan.consensus.items():
        if node.releases:
            _release(plan, name, node)
        if plan.spec.consensus[name].history is not None and released(name, plan.consensus):
            what = f"a history keeps what agents say to {name}, without noise"
            raise MeshError(what, where=f"consensus.{name}.history", instead="leave it out")
    for party in plan.withholding:
        _unit(plan, party)
        _leaves(plan, party)
        _decides(plan, party)


def _release(plan: Plan, name: str, node: ConsensusNode) -> None:
    where, rule = f"consensus.{name}", node.rule.name
    if not node.factory.startswith(OURS):
        what = f"rule {rule!r} says that it releases, and is not kdmesh's: nobody has proved how far a sample moves it"
        raise MeshError(what, where=f"{where}.rule", instead="gnmax, confident_gnmax or gaussian_probabilities")
    sources = [edge.source for edge in node.members]
    inner = next((one for one in sources if one not in plan.spec.agents), None)
    if inner is not None:
        what = f"{rule} answers for agents, each with one say, and {inner} says what several do"
        raise MeshError(what, where=where, instead="flows from the party's agents themselves")
    owners = [plan.owner[one] for one in sources]
    if twice := next((one for one in owners if owners.count(one) > 1), None):
        both = " and ".join(one for one in sources if plan.owner[one] == twice)
        what = f"{rule} gives each member one say, and {both} are of the same weights"
        raise MeshError(what, where=where, instead="one of them")
    host_of = plan.host_of
    hosts = list(dict.fromkeys(host_of[one] for one in sources))
    parties = plan.spec.parties
    if len(hosts) > 1:
        what = f"what {' and '.join(hosts)} say would meet at {node.home or COORDINATOR}, without noise until then"
        raise MeshError(what, where=where, instead=f"a consensus with {rule} for each party, of its own agents")
    if hosts[0] not in parties or parties[hosts[0]].privacy is None:
        at = hosts[0] if hosts[0] in parties else "PARTY"
        has = f"{at} has no `privacy`" if at in parties else f"{', '.join(sources[:3])} are of no party"
        what = f"{rule} answers with noise that an account pays for, and {has}: no secret, no budget"
        instead = f"parties.{at}.privacy: {{epsilon: 8, delta: 1e-5}}, or a rule without noise: vote, mean"
        raise MeshError(what, where=f"{where}.rule", instead=instead)
    ends = {edge.target: places(edge.target, plan.consensus, host_of) for edge in node.readers}
    near = next((end for end, at in ends.items() if hosts[0] in at), None)
    if near is not None or node.home != hosts[0]:
        what = f"{near or 'nobody'} reads it at {hosts[0]}, who would spend its budget to tell itself"
        instead = f"a reader elsewhere; {hosts[0]}'s own agents read a rule without noise"
        raise MeshError(what, where=where, instead=instead)
    if plan.task.rows != "samples":
        what = f"{rule} answers for samples, and {plan.task.name} asks for an answer to each part of one"
        raise MeshError(what, where=f"{where}.rule", instead="a task with an answer for each sample")
    times = dict.fromkeys(str(edge.refresh) for edge in node.members)
    if len(times) > 1 or next(iter(times)) not in TIMES or any(edge.stale != "publish" for edge in node.members):
        what = f"its members publish at {', '.join(times)}, and each time costs"
        raise MeshError(what, where=where, instead=f"one time for all, of {', '.join(TIMES)}; stale: publish")
    if not node.include_self:
        what = f"no reader of {name} is one of its members, so `include_self: false` has no effect"
        raise MeshError(what, where=f"{where}.include_self", instead="leave it out")
    mechanism(plan, name)


def _unit(plan: Plan, party: str) -> None:
    privacy, where = plan.spec.parties[party].privacy, f"parties.{party}.privacy"
    assert privacy is not None
    if privacy.unit == PARTY:
        what = f"of all that {party} has, whoever reads its answers may know that it took part"
        raise MeshError(what, where=f"{where}.unit", instead="unit: sample")
    if privacy.adjacency == ADD_REMOVE:
        what = f"how many samples {party} has is told to all who take part, so whether one is there is not hidden"
        raise MeshError(what, where=f"{where}.adjacency", instead="adjacency: replace")


def _leaves(plan: Plan, party: str) -> None:
    """Refuse what leaves without noise, but over flows that say so."""
    for one in crossings(plan):
        if one.source != party or one.private or one.what == NOISY or one.of in plan.private_agents:
            continue
        on = f" on {one.stream!r}" if one.stream else ""
        what = f"{one.what} of {one.of}{on} would leave {party}, which has a privacy budget, without noise"
        if one.what == "weights":
            raise MeshError(what, where=_flow(plan, one), instead="answers with noise: {rule: gnmax}")
        instead = f"a consensus at {party} with rule gnmax, confident_gnmax or gaussian_probabilities"
        raise MeshError(what, where=_flow(plan, one), instead=instead)
    for name, stream in plan.spec.streams.items():
        for agent in (stream.generated_by, stream.judge):
            if agent is not None and plan.host_of.get(agent) == party:
                what = f"{agent} of {party}, which has a privacy budget, would say what others read, without noise"
                raise MeshError(what, where=f"streams.{name}", instead="a writer of another party")


def _flow(plan: Plan, one: Crossing) -> str:
    """Where the file says that something goes elsewhere."""
    if one.what == "weights":
        return next(flow.where for flow in plan.merging.flows if flow.source == one.of)
    host_of = plan.host_of

    def end(edge: Edge) -> str:
        node = plan.consensus.get(edge.target)
        return host_of.get(edge.target, "") if node is None else node.home

    own = (edge.where for edge in plan.edges if edge.source == one.of and end(edge) == one.target)
    return next(own, f"consensus.{one.of}" if one.of in plan.consensus else f"agents.{one.of}")


def _decides(plan: Plan, party: str) -> None:
    """Refuse decisions of the coordinator that are made of what a party's agents measure, or agree on."""
    here, heard = {*plan.hosts.get(party, ())}, partial(sources, nodes=plan.consensus)
    for agent in plan.hosts.get(party, ()):
        if agent in plan.private_agents:
            continue  # its figures are made of its weights
        train = plan.train(agent)
        for field in ("early_stopping", "keep_best"):
            if getattr(train, field) is not None:
                what = f"{field} of {agent} is decided by its figures, which stay with {party}: it has a budget"
                own = plan.spec.agents[plan.owner[agent]].train
                at = f"agents.{agent}.train" if field in own.model_fields_set else "train"
                raise MeshError(what, where=f"{at}.{field}", instead="a number of epochs, or of steps")
    for stage in plan.stages:
        for until in _untils(stage.program.body):
            node = plan.consensus.get(until.of or "")
            ends = [node] if node is not None else list(plan.consensus.values())
            if not here.isdisjoint(source for one in ends for edge in one.members for source in heard(edge)):
                what = f"rounds would end by how far agents of {party} agree, which stays there: it has a budget"
                raise MeshError(what, where="program", instead="a number of rounds")


def _untils(lines: list[Train | Publish | Repeat]) -> list[Until]:
    """What ends repetitions before their rounds are over."""
    found: list[Until] = []
    for line in lines:
        if isinstance(line, Repeat):
            found += [line.until] if line.until is not None else []
            found += _untils(line.body)
    return found
