"""Publications: signals that are not live are computed once a period and sent to every host that reads them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kdmesh.backends._base import as_argument
from kdmesh.errors import RunFailed
from kdmesh.graph.edges import LABELS
from kdmesh.graph.inputs import order
from kdmesh.graph.parties import places, variant
from kdmesh.graph.private import private_streams
from kdmesh.graph.reach import behind, closure, depth
from kdmesh.hosts.remote import RemoteHost

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from kdmesh.backends._base import Backend, Handle
    from kdmesh.graph.edges import Edge
    from kdmesh.graph.plan import Plan, Stage
    from kdmesh.hosts.packing import Packed, Published


ONCE = "once"


@dataclass
class Relay:
    """A consensus that is formed on one host and read on others: which versions go where, and whose signals it has."""

    consensus: str
    sources: set[str] = field(default_factory=set)
    readers: dict[str, list[str]] = field(default_factory=dict)  # by host


@dataclass
class Subscription:
    """What readers keep of one source: on which stream, what (see `Edge.output`), and the hosts that read it."""

    source: str
    stream: str
    stale: str
    refresh: str
    outputs: list[str] = field(default_factory=list)
    hosts: list[str] = field(default_factory=list)
    consensus: set[str] = field(default_factory=set)
    discloses: bool = True  # whether every reader's flow says that this tells it of private samples


class Publisher:
    """Knows who reads what of whose publications, and passes handles from the source's host to the readers'."""

    def __init__(self, plan: Plan, backend: Backend) -> None:
        self.plan, self.backend = plan, backend
        self.host_of = plan.host_of
        self.latest: dict[tuple[str, str], Handle[Published]] = {}  # (agent, stream) -> handle of its last publication
        self.published: set[tuple[str, str]] = set()  # (agent, stream), also before the run was taken up again
        self.first: list[tuple[str, str]] = []  # of those that finished sources made in `once`, what nobody made before
        self._counted: dict[tuple[str, str], set[str]] = {}  # as `_final`, also before the run was taken up again
        self._final: dict[tuple[str, str], set[str]] = {}  # what `latest` holds of a source that has finished
        self._sent: set[tuple[str, str, str, str]] = set()  # (agent, stream, what, host) of those
        self._subscriptions = {stage.name: self._find(stage) for stage in plan.stages}
        self._relays = {stage.name: self._relayed(stage) for stage in plan.stages}

    def subscriptions(self, stage: Stage) -> list[Subscription]:
        """What a stage's readers keep."""
        return self._subscriptions[stage.name]

    def _find(self, stage: Stage) -> list[Subscription]:
        found: dict[tuple[str, str, str, str], Subscription] = {}
        edges: dict[int, Edge] = {edge.id: edge for phase in stage.phases.values() for edge in phase.edges}
        for edge in edges.values():
            for stored, through in behind(edge, self.plan.consensus) if edge.target in self.host_of else ():
                if stored.live or stored.source not in self.host_of:
                    continue
                key = (stored.source, self.base(stored.stream), str(stored.stale), str(stored.refresh))
                subscription = found.setdefault(key, Subscription(*key))
                node = self.plan.consensus.get(stored.target)
                formed = node is not None and node.home in self.plan.hosts
                host = node.home if node is not None and formed else self.host_of[edge.target]
                if host not in subscription.hosts:
                    subscription.hosts.append(host)
                if stored.output not in subscription.outputs:
                    subscription.outputs.append(stored.output)
                subscription.consensus.update(through)
                home = self.host_of.get(self.plan.whose(stored.source, stored.stream))  # of whose samples it is
                subscription.discloses &= bool(stored.discloses) or host == home
        return list(found.values())

    def _relayed(self, stage: Stage) -> list[Relay]:
        """What a stage's readers are sent of consensus nodes that are formed elsewhere."""
        nodes, found = self.plan.consensus, dict[str, Relay]()
        for edge in closure((edge for phase in stage.phases.values() for edge in phase.edges), nodes):
            for host in places(edge.target, nodes, self.host_of) if edge.source in nodes else ():
                if self.plan.away(edge.source, host):
                    relay = found.setdefault(edge.source, Relay(edge.source))
                    relay.sources |= {end.source for end, _ in behind(edge, nodes)}
                    which = relay.readers.setdefault(host, [])
                    if (version := variant(edge.source, edge.target, nodes)) not in which:
                        which.append(version)
        return sorted(found.values(), key=lambda relay: depth(relay.consensus, nodes))

    def base(self, stream: str) -> str:
        """The stream whose samples a replayed stream repeats."""
        spec = self.plan.spec.streams.get(stream)
        return spec.of if spec is not None and spec.replay else stream

    def once(self, stage: Stage) -> list[Handle[object]]:
        """Before a stage: its finished sources publish, each once per stream however many read it."""
        self.first = []
        before = self._before(stage)
        return [*self._send(before, again=False), *self._relay(stage, before, ONCE)]

    def remember(self, stage: Stage) -> None:
        """After a checkpoint was read: what :meth:`once` made for the stage is not made for the first time again."""
        for subscription in self._before(stage):
            if subscription.stale == "publish":
                self._first((subscription.source, subscription.stream), set(subscription.outputs))

    def _before(self, stage: Stage) -> list[Subscription]:
        return [o for o in self.subscriptions(stage) if o.refresh == "once" or o.source not in stage.agents]

    def _first(self, key: tuple[str, str], wanted: set[str]) -> bool:
        if wanted <= self._counted.get(key, set()):
            return False
        self._counted[key] = wanted
        return True

    def due(
        self, stage: Stage, refresh: str, agents: Iterable[str] | None = None, to: str | None = None, at: str = ""
    ) -> list[Handle[object]]:
        """At the end of a period: publish the stage's own sources with this refresh again. ``at``: where in the
        stage.
        """
        own = [o for o in self.subscriptions(stage) if o.refresh == refresh and o.source in stage.agents]
        named = [o for o in own if (agents is None or o.source in agents) and (to is None or to in o.consensus)]
        return [
            *self._send(named, again=True, stage=stage.name),
            *self._relay(stage, named, f"{stage.name}, {refresh}, {at}"),
        ]

    def _relay(self, stage: Stage, sent: list[Subscription], when: str) -> list[Handle[object]]:
        """Have each consensus that some of these publications reach formed where it is, and sent to who reads it.

        ``when``: the same whenever the run is taken up again, and another at each other publication.
        """
        handles: list[Handle[object]] = []
        agents = {subscription.source for subscription in sent}
        for relay in self._relays[stage.name]:
            if agents.isdisjoint(relay.sources):
                continue
            home = self.plan.consensus[relay.consensus].home
            made = {
                which: self.backend.submit(home, RemoteHost.publish_consensus, relay.consensus, which, when)
                for which in dict.fromkeys(map(tuple, relay.readers.values()))
            }
            for host, which in relay.readers.items():
                part = as_argument(made[tuple(which)])
                handles.append(self.backend.submit(host, RemoteHost.receive, part))
        return handles

    def renew(self, consensus: Mapping[str, Collection[str]]) -> list[Handle[object]]:
        """Have nodes, by name, be made anew when these agents next read them."""
        by_host: dict[str, dict[str, list[str]]] = {}
        for name, agents in consensus.items():
            for agent in agents:
                by_host.setdefault(self.host_of[agent], {}).setdefault(name, []).append(agent)
        return [self.backend.submit(host, RemoteHost.renew, nodes) for host, nodes in by_host.items()]

    def published_of(self, stage: Stage) -> list[tuple[str, str]]:
        """Which of a stage's subscriptions were published so far: (agent, stream)."""
        keys = dict.fromkeys((subscription.source, subscription.stream) for subscription in self.subscriptions(stage))
        return [key for key in keys if key in self.published]

    def recall(self, stage: Stage, published: list[list[str]]) -> None:
        """After a checkpoint was read: the last publications of the stage's own sources, from who reads them."""
        for subscription in self.subscriptions(stage):
            known = [subscription.source, subscription.stream] in published
            if known and subscription.stale == "publish" and subscription.source in stage.agents:
                about = (subscription.source, subscription.stream, tuple(subscription.outputs))
                self.latest[subscription.source, subscription.stream] = self.backend.submit(
                    subscription.hosts[0], RemoteHost.recall, *about
                )

    def publication(self, agent: str, stream: str, outputs: Iterable[str]) -> Handle[Published]:
        """A handle of what an agent says on a stream as it is now, for measuring."""
        home, about = self.host_of[agent], (agent, stream, tuple(outputs))
        given = list(map(as_argument, self.given(agent, stream)))
        if not given:
            return self.backend.submit(home, RemoteHost.publish, *about, True)
        return self.backend.submit(home, RemoteHost.publish, *about, True, "", *given)

    def given(self, agent: str, stream: str) -> list[Handle[Published]]:
        """What an agent sees on a stream as all are now, in the place of samples; nothing where it sees these."""
        edge = self.plan.inputs.get(agent)
        return [] if edge is None else [self.publication(edge.source, stream, [edge.output])]

    def labels(self, stage: Stage) -> list[Handle[None]]:
        """Before a stage: labels of private samples go to the hosts that are told them, once each."""
        told: dict[tuple[str, str, str], None] = {}
        for edge in (edge for phase in stage.phases.values() for edge in phase.edges):
            if edge.source == LABELS and edge.discloses:
                owner, stream = self.plan.whose(edge.target, edge.stream), self.base(edge.stream)
                told[owner, stream, self.host_of[edge.target]] = None
        submit = self.backend.submit
        return [
            submit(host, RemoteHost.take_labels, as_argument(submit(home, RemoteHost.tell_labels, owner, stream)))
            for owner, stream, host in told
            if (home := self.host_of.get(owner, host)) != host
        ]

    def begin(self, stage: Stage) -> list[Handle[object]]:
        """Before a stage: what its agents see of each other is published once, so that there is some from the first
        step on.
        """
        handles: list[Handle[object]] = []
        sources = {name: edge.source for name, edge in self.plan.inputs.items()}
        edges = {(edge.target, edge.stream): edge for phase in stage.phases.values() for edge in phase.edges
                 if edge.as_ == "input" and not edge.live and edge.source in stage.agents}  # fmt: skip
        for reader in order(self.plan.spec.agents, sources):
            for edge in (edge for (target, _), edge in edges.items() if target == reader):
                about = (edge.source, self.base(edge.stream), (edge.output,), False, stage.name)
                published = self.backend.submit(self.host_of[edge.source], RemoteHost.publish, *about)
                handles.append(self.backend.submit(self.host_of[reader], RemoteHost.receive, as_argument(published)))
        return handles

    def _send(self, subscriptions: list[Subscription], again: bool, stage: str = "") -> list[Handle[object]]:
        """All publish, and then all read: a host that waits for another's publication would not make its own."""
        submit = self.backend.submit
        handles: list[Handle[object]] = []
        mail: dict[str, list[Published]] = {}  # by host
        for subscription, (hosts, published) in [
            (subscription, self._made(subscription, again, stage)) for subscription in subscriptions
        ]:
            if not isinstance(published, list):  # its weights
                state = as_argument(published)
                handles += [submit(host, RemoteHost.take_snapshot, subscription.source, state) for host in hosts]
                continue
            if subscription.stale == "recorded":
                handles += published
            for host in hosts:
                mail.setdefault(host, []).extend(map(as_argument, published))
        return [*handles, *(submit(host, RemoteHost.receive, *parts) for host, parts in mail.items())]

    def _made(
        self, subscription: Subscription, again: bool, stage: str
    ) -> tuple[list[str], list[Handle[Published]] | Handle[dict[str, Packed]]]:
        """The hosts that lack what is published, and its handles; of a snapshot, the one of the weights."""
        home, submit = self.host_of[subscription.source], self.backend.submit
        hidden = subscription.stream in private_streams(self.plan.spec)
        if hidden and not subscription.discloses and subscription.hosts != [home]:
            raise RunFailed(f"signals made on the private stream {subscription.stream!r} would leave {home}")
        if subscription.stale == "snapshot":
            return subscription.hosts, submit(home, RemoteHost.export_state, subscription.source)
        if subscription.stale == "recorded":
            away = [host for host in subscription.hosts if host != home]
            return away, [
                submit(home, RemoteHost.commit, subscription.source, subscription.stream, output)
                for output in subscription.outputs
            ]
        key, wanted = (subscription.source, subscription.stream), set(subscription.outputs)
        if fresh := again or not wanted <= self._final.get(key, set()):
            given = (
                [] if again else map(as_argument, self.given(*key))
            )  # what it saw last, or, of who has finished, now
            about = (*key, tuple(subscription.outputs), False, stage)
            self.latest[key] = submit(home, RemoteHost.publish, *about, *given)
            self.published.add(key)
            if not again and self._first(key, wanted):
                self.first.append(key)
        if again:
            return subscription.hosts, [self.latest[key]]
        if fresh:
            self._final[key] = wanted
        lacking = [
            host for host in subscription.hosts if any((*key, output, host) not in self._sent for output in wanted)
        ]
        self._sent.update((*key, output, host) for output in self._final[key] for host in lacking)
        return lacking, [self.latest[key]]


def sources(plan: Plan, consensus: str) -> dict[str, dict[str, None]]:
    """The agents behind a consensus, also through another one, and what each sends it."""
    out: dict[str, dict[str, None]] = {}
    for into in plan.consensus[consensus].inputs:
        for edge, _ in behind(into, plan.consensus):
            out.setdefault(edge.source, {})[edge.output] = None
    return out
