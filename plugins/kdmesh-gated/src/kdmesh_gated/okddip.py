"""OKDDip: peers teach each other, each by weights of its own, and a leader learns from the mean of all.

Chen, Mei, Wang, Feng and Chen, Online Knowledge Distillation with Diverse Peers, 2020.

    consensus:
      attention: {rule: attention, trained: true, per_target: true, space: probs}   # `faithful: code`: logits
      peers: {rule: mean, space: probs}
    flows:                                                    # peers: [p0, p1], leader: l
      - {from: labels, to: [p0, p1, l], stream: train, objective: ce}
      - {from: [p0, p1], to: attention, stream: train, refresh: step, detach: false}
      - {from: p0, to: attention, as: input, signal: hidden, tap: branches.0.body, stream: train, refresh: step, ...}
      - {from: p1, to: attention, as: input, signal: hidden, tap: branches.1.body, stream: train, refresh: step, ...}
      - {from: attention, to: [p0, p1], objective: {kl: {temperature: 3}}, detach: false}
      - {from: [p0, p1], to: peers, stream: train, refresh: step, detach: false}
      - {from: peers, to: l, objective: {kl: {temperature: 3}}, detach: false}
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kdmesh.errors import MeshError

if TYPE_CHECKING:
    from kdmesh.strategies import AgentSpec, Canvas, Ramp


@dataclass(frozen=True, kw_only=True)
class Okddip:
    """Peers through attention, the leader through their mean. Fields: see the offer's configuration."""

    peers: list[str]
    leader: str | None
    features: str
    temperature: float
    labels: float
    weight: float | Ramp
    faithful: str
    stream: str

    def draw(self, canvas: Canvas) -> None:
        """Draw the labels, the peers' attention, and the leader's mean."""
        peers = canvas.learners(self.peers, "peers")
        leader = [] if self.leader is None else canvas.learners(self.leader, "leader")
        if len(peers) < 2:
            raise MeshError(
                "OKDDip needs at least two peers", where=f"{canvas.where}.peers", instead="two or more peers"
            )
        if leader and leader[0] in peers:
            raise MeshError(
                f"{leader[0]!r} is both peer and leader",
                where=f"{canvas.where}.leader",
                instead="an agent of its own, or leave `leader` out",
            )
        canvas.labels([*peers, *leader], self.labels, stream=self.stream)
        space = "probs" if self.faithful == "paper" else "logits"
        live = {"stream": self.stream, "refresh": "step", "detach": False}
        taught = {"objective": {"kl": {"temperature": self.temperature}}, "weight": self.weight, "detach": False}
        attention = {"rule": "attention", "trained": True, "per_target": True, "space": space}
        node = canvas.consensus("attention", attention)
        canvas.flow(peers, node, **live)
        for peer in peers:
            canvas.flow(peer, node, as_="input", signal="hidden", tap=self._tap(canvas.agents[peer]), **live)
        canvas.flow(node, peers, **taught)
        if leader:
            mean = canvas.consensus("peers", {"rule": "mean", "space": space})
            canvas.flow(peers, mean, **live)
            canvas.flow(mean, leader, **taught)

    def _tap(self, agent: AgentSpec) -> str:
        """The layer of a peer's features: below its exit if it has one, unless the agent names such a tap."""
        below = agent.exit is not None and self.features not in agent.taps
        return f"{agent.exit}.{self.features}" if below else self.features
