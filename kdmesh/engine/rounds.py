"""What is recorded of a round: agreement, churn, the consensus' own quality, and every agent's gain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kdmesh.backends._base import as_argument, wait
from kdmesh.graph.reach import parties
from kdmesh.graph.renewal import measured
from kdmesh.hosts.metrics import scalars
from kdmesh.hosts.remote import RemoteHost
from kdmesh.tasks import metric

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kdmesh.backends._base import Work
    from kdmesh.engine.home import StageHome
    from kdmesh.hosts.measure import ConsensusFigures
    from kdmesh.spec import Until


class Rounds:
    """The record of one repetition, and whether it should end."""

    def __init__(
        self, home: StageHome, times: int, until: Until | None, known: dict[str, Any] | None = None, within: str = ""
    ) -> None:
        """``known``: the :meth:`state` to go on from; ``within``: which repetition this is, among several."""
        self.within = within
        self.home, self.run, self.stage, self.times, self.until = home, home.run, home.stage, times, until
        self.metric = metric(self.run.plan.primary)
        known = known or {}
        self.start: dict[str, float] = known.get("start", {})
        self.best: float = known.get("best", -1.0)
        self.waited: int = known.get("waited", 0)
        self.latest: list[str] = known.get("latest", [])  # of these, those measured last at the end
        self.heard: dict[str, ConsensusFigures] = known.get("heard", {})  # by consensus, as measured when it was formed

    @property
    def agreements(self) -> dict[str, float]:
        """By agent, that of the sources of a consensus that it sends to or reads: the one published to last."""
        found: dict[str, float] = {}
        for name in self.latest:
            if "agreement" in self.heard[name]:
                found |= dict.fromkeys(parties(name, self.run.plan.consensus), self.heard[name]["agreement"])
        return found

    def hear(self, name: str, figures: ConsensusFigures) -> None:
        """Keep what was measured of a consensus just now."""
        self.heard[name] = figures
        self.latest = [other for other in self.latest if other != name] + [name]

    def state(self) -> dict[str, Any]:
        """Where this stands, as JSON holds it."""
        return {"start": self.start, "best": self.best, "waited": self.waited, "heard": self.heard} | {
            "latest": self.latest
        }

    def published(self, agents: list[str], to: str | None) -> Work[None]:
        """After a publication: agreement and churn of the stage's own sources on the stream it was made on."""
        if not self.start:  # gains count from before anyone heard a consensus
            self.start = yield from self._measured()
        for name in measured(self.run.plan, agents, to):
            node = self.run.plan.consensus[name]
            members = [edge.source for edge in node.members]
            own = [source for source in members if source in self.stage.agents]
            latest = self.run.publisher.latest
            sent = [as_argument(latest[source, node.stream]) for source in members if (source, node.stream) in latest]
            host = self.run.plan.evaluator(name)
            (figures,) = yield from wait(
                [self.run.backend.submit(host, RemoteHost.evaluate_consensus, name, node.stream, own, *sent)]
            )
            self.hear(name, figures)

    def after(self, number: int) -> Work[str]:
        """Record the round; returns why the repetition should end, or nothing."""
        now = yield from self._measured()
        consensus: dict[str, dict[str, float]] = {}
        coverage: dict[str, float] = {}
        for name, figures in self.heard.items():
            consensus[name] = scalars(figures["quality"])
            if "validation" in self.run.checked.streams:
                figures = yield from self.run.evaluate_consensus(name, "validation")
                consensus[name] = scalars(figures["quality"]) or consensus[name]
            if "answered" in figures:
                coverage[name] = figures["answered"]["coverage"]
        judged = self._judged()
        agreements = {name: {key: self.heard[name].get(key) for key in ("agreement", "churn")} for name in self.heard}
        metrics = {
            "agreement": judged.get("agreement"),
            "churn": judged.get("churn"),
            **({"agreements": agreements} if len(agreements) > 1 else {}),
            "consensus": consensus,
            **({"coverage": coverage} if coverage else {}),
            self.metric.name: now,
            "gain": {agent: self.metric.gain(value, self.start.get(agent, value)) for agent, value in now.items()},
        }
        which: dict[str, Any] = {"within": self.within} if self.within else {}
        which |= {"attended": self.home.attended} if self.home.attended else {}
        self.home.recorded(
            {"stage": self.stage.name, "round": number, "rounds": self.times, "metrics": metrics, **which}
        )
        return self._verdict(judged.get("agreement"))

    def _judged(self) -> Mapping[str, Any]:
        """What was measured of the consensus that `until` names, or of the only one; nothing where there are several.

        Which of these came first says nothing of the others.
        """
        if self.until is not None and self.until.of is not None:
            return self.heard.get(self.until.of, {})
        return next(iter(self.heard.values())) if len(self.heard) == 1 else {}

    def _verdict(self, agreement: float | None) -> str:
        if self.until is None or agreement is None:
            return ""
        if self.until.agreement is not None and agreement >= self.until.agreement:
            return "agreed"
        self.waited = 0 if agreement > self.best else self.waited + 1
        self.best = max(self.best, agreement)
        return "patience" if self.until.patience is not None and self.waited >= self.until.patience else ""

    def _measured(self) -> Work[dict[str, float]]:
        """The metric by which agents are compared, of every agent, on validation."""
        if "validation" not in self.run.checked.streams:
            return {}
        agents = self.stage.agents
        found = yield from self.home.validate(agents)
        known = {agent: self.metric.of(values) for agent, values in zip(agents, found, strict=True)}
        return {agent: value for agent, value in known.items() if value is not None}
