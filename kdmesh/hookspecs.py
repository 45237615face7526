"""The table of contents of extension: every place where a plugin can add to kdmesh.

Hooks named in the plural *offer* things: they return lists of offers, keyed by name, so order never matters. Hooks in
the past tense *observe*; they must not depend on their order. A hook that is a verb is *asked*: the first plugin that
has an answer gives it, and kdmesh's own comes last. A plugin is a module with functions marked by ``kdmesh.hookimpl``;
the built-ins come in through the same door (``kdmesh/builtin/plugin.py``). The module is imported to list what it
offers, so it imports no torch: a factory is named by an import string and loaded where it is used.

An implementation may leave out arguments that it does not need. Each example is a whole plugin, but for its factory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from kdmesh.contracts.run_info import RunInfo
    from kdmesh.contracts.sections import ReportedRun, Section
    from kdmesh.offers import (
        CommandOffer,
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
    from kdmesh.spec import MeshSpec

hookspec = pluggy.HookspecMarker("kdmesh")
hookimpl = pluggy.HookimplMarker("kdmesh")


@hookspec
def kdmesh_strategies() -> list[StrategyOffer]:  # type: ignore[empty-body]
    """Offer strategies, which draw flows between agents.

    Example::

        import kdmesh
        from kdmesh.offers import Config, StrategyOffer

        class Pairs(Config):
            agents: list[str]

        @kdmesh.hookimpl
        def kdmesh_strategies():
            return [StrategyOffer("pairs", "kdmesh_pairs.strategy:Pairs", Pairs, "neighbours teach each other")]
    """


@hookspec
def kdmesh_objectives() -> list[ObjectiveOffer]:  # type: ignore[empty-body]
    """Offer objectives, the losses that flows add.

    Example::

        import kdmesh
        from kdmesh.offers import Config, ObjectiveOffer

        class Huber(Config):
            delta: float = 1.0

        @kdmesh.hookimpl
        def kdmesh_objectives():
            return [ObjectiveOffer("huber", "kdmesh_huber.objective:Huber", Huber, forms=("logits",))]
    """


@hookspec
def kdmesh_consensus() -> list[ConsensusOffer]:  # type: ignore[empty-body]
    """Offer consensus rules.

    Example::

        import kdmesh
        from kdmesh.offers import ConsensusOffer

        @kdmesh.hookimpl
        def kdmesh_consensus():
            return [ConsensusOffer("max", "kdmesh_max.consensus:Max", summary="largest logit", spaces=("logits",))]
    """


@hookspec
def kdmesh_gates() -> list[GateOffer]:  # type: ignore[empty-body]
    """Offer gates, which say in each step whether a flow adds its loss, or an agent is updated.

    Example::

        import kdmesh
        from kdmesh.offers import Config, GateOffer

        class Late(Config):
            epoch: int = 5

        @kdmesh.hookimpl
        def kdmesh_gates():
            return [GateOffer("late", "kdmesh_late.gate:Late", Late, "shut before an epoch", needs=("epoch",))]
    """


@hookspec
def kdmesh_models() -> list[ModelOffer]:  # type: ignore[empty-body]
    """Offer models.

    Example::

        import kdmesh
        from kdmesh.offers import Config, ModelOffer

        class Kan(Config):
            width: int = 16

        @kdmesh.hookimpl
        def kdmesh_models():
            return [ModelOffer("kan", "kdmesh_kan.model:Kan", Kan, "splines on edges")]
    """


@hookspec
def kdmesh_datasets() -> list[DatasetOffer]:  # type: ignore[empty-body]
    """Offer data sets.

    Example::

        import kdmesh
        from kdmesh.offers import DatasetOffer

        @kdmesh.hookimpl
        def kdmesh_datasets():
            return [DatasetOffer("iris", "kdmesh_iris.dataset:load", summary="150 flowers")]
    """


@hookspec
def kdmesh_views() -> list[ViewOffer]:  # type: ignore[empty-body]
    """Offer augmentations.

    Example::

        import kdmesh
        from kdmesh.offers import Config, ViewOffer

        class Blur(Config):
            sigma: float = 1.0

        @kdmesh.hookimpl
        def kdmesh_views():
            return [ViewOffer("blur", "kdmesh_blur.view:Blur", Blur, "Gaussian blur")]
    """


@hookspec
def kdmesh_signals() -> list[SignalOffer]:  # type: ignore[empty-body]
    """Offer kinds of signal: what an agent sends instead of its logits or a layer's output.

    Example::

        import kdmesh
        from kdmesh.offers import Config, SignalOffer

        class Rounded(Config):
            digits: int = 1

        @kdmesh.hookimpl
        def kdmesh_signals():
            return [SignalOffer("rounded", "kdmesh_rounded.signal:Rounded", Rounded, "logits with few digits")]
    """


@hookspec
def kdmesh_tasks() -> list[TaskOffer]:  # type: ignore[empty-body]
    """Offer tasks: what models learn, and how they are judged.

    Example::

        import kdmesh
        from kdmesh.offers import TaskOffer

        @kdmesh.hookimpl
        def kdmesh_tasks():
            return [TaskOffer("stars", "kdmesh_stars.task:Stars", summary="one to five stars", primary="loss")]
    """


@hookspec
def kdmesh_metrics() -> list[MetricOffer]:  # type: ignore[empty-body]
    """Offer metrics: figures of a model's answers.

    Example::

        import kdmesh
        from kdmesh.offers import MetricOffer

        @kdmesh.hookimpl
        def kdmesh_metrics():
            return [MetricOffer("brier", "kdmesh_brier.metric:Brier", summary="Brier score", higher=False)]
    """


@hookspec
def kdmesh_filters() -> list[FilterOffer]:  # type: ignore[empty-body]
    """Offer filters, which say which of the texts that an agent wrote are learned.

    Example::

        import kdmesh
        from kdmesh.offers import Config, FilterOffer

        class Shout(Config):
            share: float = 0.5

        @kdmesh.hookimpl
        def kdmesh_filters():
            return [FilterOffer("quiet", "kdmesh_quiet.filter:Quiet", Shout, "texts without too many capitals")]
    """


@hookspec
def kdmesh_text_rules() -> list[TextRuleOffer]:  # type: ignore[empty-body]
    """Offer rules over texts, which make one of several that answer a prompt.

    Example::

        import kdmesh
        from kdmesh.offers import Config, TextRuleOffer

        class Brief(Config):
            words: int = 20

        @kdmesh.hookimpl
        def kdmesh_text_rules():
            return [TextRuleOffer("briefest", "kdmesh_brief.rule:Briefest", Brief, "the text with the fewest words")]
    """


@hookspec
def kdmesh_prunings() -> list[PruningOffer]:  # type: ignore[empty-body]
    """Offer pruning rules, which take something out of an agent's weights before it trains.

    Example::

        import kdmesh
        from kdmesh.offers import Config, PruningOffer

        class Pattern(Config):
            of: int = 4

        @kdmesh.hookimpl
        def kdmesh_prunings():
            return [PruningOffer("two_of", "kdmesh_two.rule:TwoOf", Pattern, "two of each few", takes="weights")]
    """


@hookspec
def kdmesh_recognisers() -> list[RecogniserOffer]:  # type: ignore[empty-body]
    """Offer recognisers, which find personal data in texts.

    Example::

        import kdmesh
        from kdmesh.offers import RecogniserOffer

        @kdmesh.hookimpl
        def kdmesh_recognisers():
            return [RecogniserOffer("plate", "kdmesh_plate.rule:Plate", summary="licence plates", finds=("PLATE",))]
    """


@hookspec
def kdmesh_samplers() -> list[SamplerOffer]:  # type: ignore[empty-body]
    """Offer samplers, which propose the points of a sweep.

    Example::

        import kdmesh
        from kdmesh.offers import SamplerOffer

        @kdmesh.hookimpl
        def kdmesh_samplers():
            return [SamplerOffer("halton", "kdmesh_halton.sampler:Halton", summary="a low-discrepancy sequence")]
    """


@hookspec
def kdmesh_commands() -> list[CommandOffer]:  # type: ignore[empty-body]
    """Offer commands, `kdmesh NAME ...`; kdmesh's own names are taken.

    Plugins are read where the first word of a command line is none of kdmesh's own, so that these stay as fast as
    they are; `kdmesh plugins --kind commands` lists all.

    Example::

        import kdmesh
        from kdmesh.offers import CommandOffer

        @kdmesh.hookimpl
        def kdmesh_commands():
            return [CommandOffer("export-onnx", "kdmesh_onnx.command:add", summary="write an agent as ONNX")]
    """


@hookspec
def kdmesh_run_started(run: RunInfo) -> None:
    """Observe a run that is about to train: see :class:`kdmesh.contracts.run_info.RunInfo` for what ``run`` tells.

    Example::

        import kdmesh

        @kdmesh.hookimpl
        def kdmesh_run_started(run):
            print(f"seed {run.seed} trains into {run.folder}")
    """


@hookspec
def kdmesh_stage_started(run: RunInfo, stage: str) -> None:
    """Observe a stage, by its name, as its first phase begins.

    Example::

        import kdmesh

        @kdmesh.hookimpl
        def kdmesh_stage_started(stage):
            print(f"{stage} begins")
    """


@hookspec
def kdmesh_trained(
    run: RunInfo,
    stage: str,
    step: int,
    epoch: int | None,
    round: int | None,
    losses: dict[str, float | None],
    flows: dict[str, dict[str, float | None]],
    rewards: dict[str, float | None],
) -> None:
    """Observe what the steps of a stage since the last such call had for losses and rewards: a point of every curve.

    ``step``: how many steps of the stage are done; ``epoch``: where one ends here, its number within the phase, from 1;
    ``round``: the one under way, from 1. ``losses``: per agent, the mean over steps of the sum of its flows' losses;
    ``flows``: per agent, the mean loss of each flow into it, weighted as it is trained with, by its name, `t -> s`.
    ``rewards``: of each stream whose texts verifiers reward, the mean reward of those that were written since then; of
    texts that are written once there is no curve. None stands for what is not finite; who had no loss since then, as
    one whose update a gate has left out, is absent, and where there is no loss and no reward there is no call. A stage
    has at most 200 such points beside the ends of as many epochs, which depend on the mesh and its seed alone. What a
    run repeats after the loss of a host it tells again.

    Example::

        import kdmesh

        @kdmesh.hookimpl
        def kdmesh_trained(stage, step, flows):
            print(stage, step, flows)
    """


@hookspec
def kdmesh_round_finished(run: RunInfo, stage: str, round: int, metrics: dict[str, Any]) -> None:
    """Observe one turn of a stage's program with what was measured in it.

    Example::

        import kdmesh

        @kdmesh.hookimpl
        def kdmesh_round_finished(stage, round, metrics):
            print(stage, round, metrics)
    """


@hookspec
def kdmesh_agent_evaluated(
    run: RunInfo,
    agent: str,
    stream: str,
    metrics: dict[str, float | None],
    stage: str,
    step: int | None,
    epoch: int | None,
    round: int | None,
) -> None:
    """Observe one evaluation of one agent: after an epoch, at the end of a stage, or, on test, at the end of the run.

    ``stage``: in which; "" at the end of the run. ``step``: how many of its steps are done; ``epoch``: after which one
    of its phase; ``round``: the one under way, from 1. Each is None where there is none.

    Example::

        import kdmesh

        @kdmesh.hookimpl
        def kdmesh_agent_evaluated(agent, stream, metrics):
            print(f"{agent} on {stream}: {metrics}")
    """


@hookspec
def kdmesh_stage_finished(run: RunInfo, stage: str, reason: str, seconds: float) -> None:
    """Observe the end of a stage: why, as `spent`, `stopped early`, `agreed` or `patience`, and how long it took.

    Example::

        import kdmesh

        @kdmesh.hookimpl
        def kdmesh_stage_finished(stage, reason, seconds):
            print(f"{stage} took {seconds} s: {reason}")
    """


@hookspec
def kdmesh_host_lost(run: RunInfo, host: str, error: str) -> None:
    """Observe a host that is gone: its process ended, was killed, or ran out of memory.

    Losses before `kdmesh_run_started`, as the hosts open, stand in the run's events alone.

    Example::

        import kdmesh

        @kdmesh.hookimpl
        def kdmesh_host_lost(host, error):
            print(f"{host} is gone: {error}")
    """


@hookspec
def kdmesh_run_failed(run: RunInfo, error: str, interrupted: bool) -> None:
    """Observe the end of a run that did not succeed: by an error, or since somebody ``interrupted`` it.

    What is known of it stays in its folder, and `kdmesh resume` goes on with it: then ``run.resumed`` is set. Every run
    of which `kdmesh_run_started` told ends with this or with `kdmesh_run_finished`, unless its process is killed.

    Example::

        import kdmesh

        @kdmesh.hookimpl
        def kdmesh_run_failed(run, error, interrupted):
            print(f"seed {run.seed} {'was interrupted' if interrupted else 'failed'}: {error}, {interrupted}")
    """


@hookspec
def kdmesh_run_finished(run: RunInfo, summary: dict[str, Any]) -> None:
    """Observe the end of a run that succeeded. ``summary``: what its ``summary.json`` holds.

    Example::

        import json
        import kdmesh

        @kdmesh.hookimpl
        def kdmesh_run_finished(run, summary):
            (run.folder / "copy.json").write_text(json.dumps(summary))
    """


@hookspec
def kdmesh_report(run: ReportedRun) -> list[Section] | None:
    """Add sections to a run's page, or None: ``kdmesh report DIR`` asks each plugin that is installed where it is made.

    A section is made of texts, tables, lines and bars of :mod:`kdmesh.sections`, which are checked as they are made;
    whatever they say is escaped. It stands under the name of the plugin's distribution. The page that a run writes at
    its own end, and pages of comparisons and sweeps, have no such sections. An error is said on the page.

    Example::

        import kdmesh
        from kdmesh.sections import Section, Table

        @kdmesh.hookimpl
        def kdmesh_report(run):
            sizes = [[path.name, path.stat().st_size] for path in sorted(run.folder.glob("*.json"))]
            return [Section(title="Files", blocks=[Table(title="JSON", heads=["file", "bytes"], rows=sizes)])]
    """


@hookspec(firstresult=True)
def kdmesh_place_agents(
    mesh: MeshSpec, groups: list[list[str]], resources: dict[str, float], measured: dict[str, list[str]] | None
) -> dict[str, list[str]] | None:
    """Place agents on hosts, for a mesh with `placement: auto`: the agents of each host, or None to leave it to others.

    ``mesh`` is the long form; the agents of one of the ``groups`` must share a host; ``resources``: what there is,
    ``cpus``. Asked when the mesh is planned, and, if nobody answers then, again by a run on Ray that has measured:
    ``measured`` is the placement that takes the least time by that, and kdmesh's own answer.

    Example::

        import kdmesh

        @kdmesh.hookimpl
        def kdmesh_place_agents(groups, resources):
            hosts = {f"host{number}": [] for number in range(int(resources["cpus"]))}
            for number, agents in enumerate(groups):
                hosts[f"host{number % len(hosts)}"] += agents
            return hosts
    """
