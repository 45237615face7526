"""All attacks on the agents of one run, and what is left out."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from kdmesh.contracts.run_files import SEEDS
from kdmesh.errors import MeshError
from kdmesh.inference.auditing import canaries, extraction, membership
from kdmesh.inference.auditing.opened import AGENTS, Opened, opened
from kdmesh.inference.auditing.shadows import by_shadows, shadows
from kdmesh.inference.trained import Trained

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kdmesh.audits.exposure import Exposure
    from kdmesh.inference.auditing.canaries import Exposed
    from kdmesh.inference.auditing.extraction import Overlap, Said
    from kdmesh.inference.auditing.membership import Told
    from kdmesh.inference.auditing.shadows import Train
    from kdmesh.spec import MeshSpec


@dataclass(frozen=True)
class Settings:
    """How hard is attacked: see the options of `kdmesh audit`."""

    rate: float = 0.01
    reference: str | None = None
    candidates: int = 255
    delta: float = 0.0
    draws: int = 16
    spans: int = 32
    shadows: int = 0
    span_tokens: int = 64

    def check(self) -> None:
        """MeshError for what cannot be."""
        if not 0 < self.rate < 1:
            raise MeshError(f"is {self.rate!r}", where="--rate", instead="a rate between 0 and 1, as 0.01")
        if not 0 <= self.delta < 1:
            raise MeshError(f"is {self.delta!r}", where="--delta", instead="a probability below 1, as 1e-5")
        if self.candidates < 1:
            raise MeshError(f"is {self.candidates}", where="--candidates", instead="how many: from 1, as 255")
        for name in ("draws", "spans"):
            if getattr(self, name) < 0:
                raise MeshError(f"is {getattr(self, name)}", where=f"--{name}", instead="how many, or 0 for none")


@dataclass
class Audit:
    """All that was found; ``left``: what was left out, by agent, with the reason; ``planted``: how many canaries."""

    rate: float
    planted: dict[str, Any] | None
    membership: list[Told] = field(default_factory=list)
    canaries: list[Exposed] = field(default_factory=list)
    said: list[Said] = field(default_factory=list)
    spans: list[Overlap] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """The same as plain data."""
        return {
            "canaries_planted": self.planted,
            "membership": [_told(one) for one in self.membership],
            "canaries": [_exposed(one) for one in self.canaries],
            "said": [{**asdict(one), "intervals": one.intervals} for one in self.said],
            "spans": [asdict(one) for one in self.spans],
            "left_out": self.left,
        }


def audit(
    root: Path,
    spec: MeshSpec,
    settings: Settings,
    told: Callable[[str], None] = lambda line: None,
    train: Train | None = None,
) -> Audit:
    """Audit the agents of a run's folder, of one seed. ``told``: what is under way; ``train``: trains shadow runs.

    MeshError where its samples are not here, nobody is left to compare with, or none of its agents can be asked.
    """
    settings.check()
    found = opened(root, spec)
    if not found.held.any():
        raise MeshError("it has no test samples that nobody learned", where="RUN", instead="a run with a test split")
    planted = found.table.planted
    made = Audit(settings.rate, None if planted is None else planted.counts())
    other = _reference(found, settings.reference)
    known = None
    if settings.shadows and train is not None:
        known = shadows(found, settings.shadows, train, told)
    for agent in found.plan.spec.agents:
        try:
            trained = found.agent(agent)
        except MeshError as error:
            made.left[agent] = error.what
            continue
        told(f"auditing {agent}")
        try:
            made.membership += membership.by_loss(found, agent, trained, settings.rate, other)
            if known is not None and agent in known.scores:
                made.membership += by_shadows(found, agent, trained, known, settings.rate)
        except MeshError as error:
            made.left[agent] = error.what
        try:
            exposed = canaries.exposed(found, agent, trained, settings.candidates, settings.delta)
            made.canaries += [exposed] if exposed is not None else []
            made.said += extraction.said(found, agent, trained, settings.draws)
            made.spans += extraction.overlaps(found, agent, trained, settings.spans, settings.span_tokens)
        except MeshError as error:
            made.left.setdefault(agent, error.what)
    if not made.membership and not made.canaries:
        if (root / SEEDS).is_dir():
            parts = ", ".join(sorted(f"{SEEDS}/{one.name}" for one in (root / SEEDS).iterdir())[:4])
            raise MeshError(f"{root} is a run of several seeds", where="RUN", instead=f"one of them: {parts}")
        why = "; ".join(f"{name}: {what}" for name, what in made.left.items())
        raise MeshError(f"no agent can be audited: {why}", where="RUN", instead="a finished run with its agents/")
    return made


def _reference(found: Opened, name: str | None) -> Trained | None:
    """The model with which losses are compared: an agent of the run, or the folder of another."""
    if name is None:
        return None
    folder = found.root / AGENTS / name
    trained = Trained.read(folder if folder.is_dir() else name)
    if trained.writes != found.writes or (not trained.writes and trained.config.task != found.plan.task.name):
        what = f"{name} is a model of {trained.config.task}, and the run's task is {found.plan.task.name}"
        raise MeshError(what, where="--reference", instead="a model of the same task that did not learn these samples")
    return trained


def _told(one: Told) -> dict[str, Any]:
    told = one.membership
    return {
        "agent": one.agent, "learned_by": one.learned_by, "by": one.by, "members": told.members, "others": told.others,
        "auc": told.auc, "auc_interval": told.auc_interval, "rate": told.rate, "found": told.found,
        "share": told.share, "interval": told.interval, "wrong": told.wrong, "least_rate": told.least,
        "accuracy": one.accuracy[0], "accuracy_others": one.accuracy[1],
    }  # fmt: skip


def _exposed(one: Exposed) -> dict[str, Any]:
    return {
        "agent": one.agent, "reached": one.reached, "in": _bits(one.inside), "out": _bits(one.outside),
        "mean": one.mean[0], "interval": one.mean[1:], "mean_out": one.mean_outside[0],
        "interval_out": one.mean_outside[1:], "p": one.p,
        "most": next(iter({**one.inside, **one.outside}.values())).most, "guesses": one.guesses, "right": one.right,
        "epsilon": one.epsilon, "epsilon_most": one.most, "delta": one.delta,
    }  # fmt: skip


def _bits(found: dict[int, Exposure]) -> dict[str, float]:
    return {str(number): one.bits for number, one in found.items()}
