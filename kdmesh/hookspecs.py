"""The table of contents of extension: every place where a plugin can add to kdmesh.

Hooks named in the plural *offer* things (they return lists of offers; order never matters, a name offered twice is an
error). Hooks in the past tense *observe*. A plugin is a module with functions marked by ``kdmesh.hookimpl``; the
built-ins come in through the same door (``kdmesh/builtin/plugin.py``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from kdmesh.offers import ConsensusOffer, DatasetOffer, ModelOffer, ObjectiveOffer, StrategyOffer, ViewOffer

hookspec = pluggy.HookspecMarker("kdmesh")
hookimpl = pluggy.HookimplMarker("kdmesh")


@hookspec
def kdmesh_strategies() -> list[StrategyOffer]:  # type: ignore[empty-body]
    """Offer strategies, which draw flows between agents.

    Example: ``return [StrategyOffer("pairs", "kdmesh_pairs:Pairs", PairsConfig, "teach in pairs")]``
    """


@hookspec
def kdmesh_objectives() -> list[ObjectiveOffer]:  # type: ignore[empty-body]
    """Offer objectives, the losses that flows add.

    Example: ``return [ObjectiveOffer("huber", "kdmesh_huber:Huber", HuberConfig, forms=("logits",))]``
    """


@hookspec
def kdmesh_consensus() -> list[ConsensusOffer]:  # type: ignore[empty-body]
    """Offer consensus rules.

    Example: ``return [ConsensusOffer("max", "kdmesh_max:Max", Config, "largest logit", spaces=("logits",))]``
    """


@hookspec
def kdmesh_models() -> list[ModelOffer]:  # type: ignore[empty-body]
    """Offer models.

    Example: ``return [ModelOffer("kan", "kdmesh_kan:Kan", KanConfig, "splines on edges")]``
    """


@hookspec
def kdmesh_datasets() -> list[DatasetOffer]:  # type: ignore[empty-body]
    """Offer data sets.

    Example: ``return [DatasetOffer("iris", "kdmesh_iris:load", Config, "150 flowers")]``
    """


@hookspec
def kdmesh_views() -> list[ViewOffer]:  # type: ignore[empty-body]
    """Offer augmentations.

    Example: ``return [ViewOffer("blur", "kdmesh_blur:Blur", BlurConfig, "Gaussian blur")]``
    """


@hookspec
def kdmesh_run_started(run: Any) -> None:
    """Observe a run that is about to train: ``run`` has ``plan``, ``folder`` and ``seed``."""


@hookspec
def kdmesh_stage_started(run: Any, stage: str) -> None:
    """Observe a stage, by its name, as its first lesson begins."""


@hookspec
def kdmesh_round_finished(run: Any, stage: str, round: int, metrics: dict[str, Any]) -> None:
    """Observe one turn of a stage's program with what was measured in it."""


@hookspec
def kdmesh_agent_evaluated(run: Any, agent: str, stream: str, metrics: dict[str, float]) -> None:
    """Observe one evaluation of one agent."""


@hookspec
def kdmesh_run_finished(run: Any, summary: dict[str, Any]) -> None:
    """Observe the end of a run that succeeded."""
