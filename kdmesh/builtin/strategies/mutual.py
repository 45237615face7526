"""Peers teach each other while all of them train.

Zhang et al., Deep Mutual Learning, 2018: labels, and the mean of KL(other peer || own) at T = 1; the published code
updates the peers one after the other (`order: sequential`). Stale peers (`refresh: epoch`): Anil et al., Large Scale
Distributed Neural Network Training through Online Distillation, 2018. Peers through a consensus, which here leaves the
target out: Guo et al., Online Knowledge Distillation via Collaborative Learning, 2020.

    flows:                                                    # peers: [a, b, c]; `graph` may leave some pairs out
      - {from: labels, to: a, stream: train, objective: ce}
      - {from: [b, c], to: a, stream: train, objective: kl, weight: 0.5, refresh: step}
      - ...                                                   # the same for b and c
      - {from: [a, b], to: c, ..., sees: after}               # sequential: from peers that stand before it
    # or, with `consensus: mean`, {from: peers, to: c, refresh: step} and {from: c, to: peers, objective: kl}
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kdmesh.builtin.strategies._common import divided
from kdmesh.errors import MeshError, nearest

if TYPE_CHECKING:
    from kdmesh.builtin.strategies._common import LabelWeight, Weight
    from kdmesh.graph.canvas import Canvas
    from kdmesh.spec import ConsensusSpec, ObjectiveRef


@dataclass(frozen=True, kw_only=True)
class Mutual:
    """Flows between peers, which therefore are one stage. ``weight`` is shared out among a peer's teachers."""

    peers: list[str]
    graph: str | list[list[str]]
    order: str
    consensus: ConsensusSpec | None
    objective: ObjectiveRef
    labels: LabelWeight | None
    weight: Weight
    stream: str
    labels_stream: str
    refresh: str
    stale: str | None

    def draw(self, canvas: Canvas) -> None:
        """Draw each peer's labels, then its teachers in the order of the peers."""
        peers = canvas.learners(self.peers, "peers")
        self._refuse(canvas, peers)
        if self.consensus is not None:
            self._through(canvas, peers, self.consensus)
            return
        teachers = self._teachers(canvas, peers)
        for number, peer in enumerate(peers):
            canvas.labels([peer], self.labels, stream=self.labels_stream)
            before = [name for name in teachers[peer] if name in peers[:number]] if self.order == "sequential" else []
            after = [name for name in teachers[peer] if name not in before]
            for names, sees in ((before, "after"), (after, None)):
                if names:
                    canvas.flow(
                        names, peer, stream=self.stream, objective=self.objective, refresh=self.refresh,
                        weight=divided(self.weight, len(teachers[peer])), stale=self.stale, sees=sees,
                    )  # fmt: skip

    def _through(self, canvas: Canvas, peers: list[str], consensus: ConsensusSpec) -> None:
        """Draw one consensus; by default without each peer's own signal (`include_self: false`)."""
        if "include_self" not in consensus.model_fields_set:
            consensus = consensus.model_copy(update={"include_self": False})
        canvas.labels(peers, self.labels, stream=self.labels_stream)
        node = canvas.consensus("c", consensus)
        canvas.flow(peers, node, stream=self.stream, refresh=self.refresh, stale=self.stale)
        canvas.flow(node, peers, objective=self.objective, weight=self.weight)

    def _teachers(self, canvas: Canvas, peers: list[str]) -> dict[str, list[str]]:
        """The teachers of each peer."""
        if self.graph == "all":
            return {peer: [name for name in peers if name != peer] for peer in peers}
        if self.graph == "ring":
            return {peer: [peers[number - 1]] for number, peer in enumerate(peers)}
        pairs = [(pair[0], pair[1]) for pair in self.graph]
        for number, (source, target) in enumerate(pairs):
            where = f"{canvas.where}.graph.{number}"
            for name in (source, target):
                if name not in peers:
                    raise MeshError(
                        f"{name!r} is not one of the peers", where=where, instead=nearest(name, peers, "peers")
                    )
            if source == target or (source, target) in pairs[:number]:
                what = f"{source!r} teaches itself" if source == target else f"{source} -> {target} stands twice"
                raise MeshError(what, where=where, instead="pairs of different peers, each once")
        alone = [name for name in peers if all(name not in pair for pair in pairs)]
        if alone:
            raise MeshError(
                f"{alone[0]!r} is in no pair", where=f"{canvas.where}.graph", instead="leave it out of `peers`"
            )
        return {peer: [name for name in peers if (name, peer) in pairs] for peer in peers}

    def _refuse(self, canvas: Canvas, peers: list[str]) -> None:
        """Refuse settings that contradict each other."""

        def no(what: str, field: str, instead: str) -> MeshError:
            return MeshError(what, where=f"{canvas.where}.{field}", instead=instead)

        if len(peers) < 2:
            raise no("mutual learning needs at least two peers", "peers", "two or more peers, or `self`")
        if self.graph == "ring" and len(peers) == 2:
            raise no("a ring of two peers is the same as all pairs", "graph", "graph: all, or three peers")
        if self.consensus is not None and self.graph != "all":
            raise no(
                "a consensus combines all peers, so `graph` has no effect", "graph", "leave out `graph` or `consensus`"
            )
        if self.order == "sequential" and (self.consensus is not None or self.refresh != "step"):
            field = "order" if self.consensus is not None else "refresh"
            raise no(
                "sequential updates need flows between pairs of peers with refresh: step", field, "order: simultaneous"
            )
        if self.stale is not None and self.refresh == "step":
            raise no(
                "`stale` has no effect with refresh: step, which reads peers live",
                "stale",
                "refresh: epoch, or leave out `stale`",
            )
