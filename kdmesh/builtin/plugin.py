"""The built-ins come in through the same hooks as any plugin."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.hookspecs import hookimpl

if TYPE_CHECKING:
    from kdmesh.offers import (
        ConsensusOffer,
        DatasetOffer,
        FilterOffer,
        GateOffer,
        MetricOffer,
        ModelOffer,
        ObjectiveOffer,
        PruningOffer,
        RecogniserOffer,
        SamplerOffer,
        SignalOffer,
        StrategyOffer,
        TaskOffer,
        TextRuleOffer,
        ViewOffer,
    )


@hookimpl
def kdmesh_strategies() -> list[StrategyOffer]:
    """Built-in strategies."""
    from kdmesh.builtin.strategies.offers import STRATEGIES

    return STRATEGIES


@hookimpl
def kdmesh_objectives() -> list[ObjectiveOffer]:
    """Built-in objectives."""
    from kdmesh.builtin.objectives.offers import OBJECTIVES

    return OBJECTIVES


@hookimpl
def kdmesh_consensus() -> list[ConsensusOffer]:
    """Built-in consensus rules."""
    from kdmesh.builtin.consensus.offers import CONSENSUS

    return CONSENSUS


@hookimpl
def kdmesh_gates() -> list[GateOffer]:
    """Built-in gates."""
    from kdmesh.builtin.gates.offers import GATES

    return GATES


@hookimpl
def kdmesh_filters() -> list[FilterOffer]:
    """Built-in filters of written texts."""
    from kdmesh.builtin.filters.offers import FILTERS

    return FILTERS


@hookimpl
def kdmesh_text_rules() -> list[TextRuleOffer]:
    """Built-in rules over texts."""
    from kdmesh.builtin.text_rules.offers import TEXT_RULES

    return TEXT_RULES


@hookimpl
def kdmesh_prunings() -> list[PruningOffer]:
    """Built-in pruning rules."""
    from kdmesh.builtin.prunings.offers import PRUNINGS

    return PRUNINGS


@hookimpl
def kdmesh_recognisers() -> list[RecogniserOffer]:
    """Built-in recognisers of personal data."""
    from kdmesh.builtin.recognisers.offers import RECOGNISERS

    return RECOGNISERS


@hookimpl
def kdmesh_models() -> list[ModelOffer]:
    """Built-in models."""
    from kdmesh.builtin.models.offers import MODELS

    return MODELS


@hookimpl
def kdmesh_datasets() -> list[DatasetOffer]:
    """Built-in data sets."""
    from kdmesh.builtin.datasets.offers import DATASETS

    return DATASETS


@hookimpl
def kdmesh_views() -> list[ViewOffer]:
    """Built-in views."""
    from kdmesh.builtin.views.offers import VIEWS

    return VIEWS


@hookimpl
def kdmesh_signals() -> list[SignalOffer]:
    """Built-in kinds of signal."""
    from kdmesh.builtin.signals.offers import SIGNALS

    return SIGNALS


@hookimpl
def kdmesh_tasks() -> list[TaskOffer]:
    """Built-in tasks."""
    from kdmesh.builtin.tasks.offers import TASKS

    return TASKS


@hookimpl
def kdmesh_metrics() -> list[MetricOffer]:
    """Built-in metrics."""
    from kdmesh.builtin.metrics.offers import METRICS

    return METRICS


@hookimpl(trylast=True)
def kdmesh_place_agents(measured: dict[str, list[str]] | None) -> dict[str, list[str]] | None:
    """What takes the least time, once that was measured."""
    return measured


@hookimpl
def kdmesh_samplers() -> list[SamplerOffer]:
    """Built-in samplers of sweeps."""
    from kdmesh.builtin.samplers.offers import SAMPLERS

    return SAMPLERS
