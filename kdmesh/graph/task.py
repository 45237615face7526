"""The task of a mesh and its metrics: found among what is offered, and what is left open filled in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kdmesh.errors import MeshError, nearest
from kdmesh.spec import AgentSpec, MeshSpec, MetricRef, ObjectiveRef
from kdmesh.spec.train import EarlyStopping, KeepBest, TrainSpec

if TYPE_CHECKING:
    from kdmesh.offers import MetricOffer, TaskOffer
    from kdmesh.plugins import Registry


def task_of(spec: MeshSpec, registry: Registry) -> TaskOffer:
    """The offer of a mesh's task, whose settings are valid."""
    registry.check("tasks", spec.task.name, spec.task.config, "task")
    offer: TaskOffer = registry.find("tasks", spec.task.name)
    return offer


def label_objective(spec: MeshSpec, registry: Registry) -> ObjectiveRef:
    """By what labels are learned where no flow says: the task's loss, with those of the task's settings that it has."""
    offer = task_of(spec, registry)
    known = registry.find("objectives", offer.objective, "task").config.model_fields
    return ObjectiveRef(
        name=offer.objective, config={name: value for name, value in spec.task.config.items() if name in known}
    )


def metrics_of(spec: MeshSpec, registry: Registry) -> list[MetricRef]:
    """What is measured: the task's own metrics, those that the mesh names, and the one by which it compares agents.

    MeshError for one that does not fit.
    """
    task = task_of(spec, registry)
    found = {name: MetricRef(name=name) for name in task.metrics}
    for number, ref in enumerate(spec.metrics):
        where = f"metrics.{number}"
        if ref.key in {other.key for other in spec.metrics[:number]}:
            raise MeshError(f"the metric {ref.key!r} stands here twice", where=where, instead="each metric once")
        _refuse(ref, task, registry, where)
        found[ref.key] = ref
    if spec.primary is not None:
        ref = found.setdefault(spec.primary, MetricRef(name=spec.primary))
        _refuse(ref, task, registry, "primary")
        if ref.by or not registry.find("metrics", ref.name).scalar:
            fit = [one.name for one in registry.offers("metrics") if task.labels in one.labels and one.scalar]
            raise MeshError(
                f"the metric {spec.primary!r} is no single number by which agents can be compared",
                where="primary",
                instead=nearest(spec.primary, fit, "metrics that are one"),
            )
    return list(found.values())


def _refuse(ref: MetricRef, task: TaskOffer, registry: Registry, where: str) -> None:
    """Raise MeshError for a metric whose settings are wrong, or that is not of a task's answers."""
    registry.check("metrics", ref.name, ref.settings, where)
    offer: MetricOffer = registry.find("metrics", ref.name)
    if ref.by and not offer.scalar:
        raise MeshError(
            f"the metric {ref.name!r} is not measured by a column: it is no single number",
            where=f"{where}.{ref.name}.by",
            instead="leave `by` out, or another metric",
        )
    if task.labels not in offer.labels:
        fit = [other.name for other in registry.offers("metrics") if task.labels in other.labels]
        raise MeshError(
            f"the metric {ref.name!r} is of {' or '.join(offer.labels)}, and the labels of task {task.name} are "
            f"{task.labels}",
            where=where,
            instead=nearest(ref.name, fit, "metrics of this task"),
        )
    if ref.of and "pairs" not in offer.needs:
        what = f"the metric {ref.name!r} compares an agent's answers with the labels, and with no other agent"
        raise MeshError(what, where=f"{where}.{ref.name}.of", instead="leave `of` out")
    if "pairs" in offer.needs and (task.outputs != "vocabulary" or ref.by):
        said = "measured by no column" if ref.by else f"of answers of language models, and this is task {task.name}"
        what = f"the metric {ref.name!r} is {said}"
        raise MeshError(what, where=where, instead="leave `by` out" if ref.by else "leave it out")
    if "texts" in offer.needs and (task.outputs != "vocabulary" or ref.by):
        said = "measured by no column" if ref.by else f"of what language models write, and task {task.name} writes none"
        what = f"the metric {ref.name!r} is {said}"
        raise MeshError(what, where=where, instead="leave `by` out" if ref.by else "leave it out")
    if "classes" in offer.needs and task.outputs == "vocabulary":
        raise MeshError(
            f"the metric {ref.name!r} counts classes of the data, and task {task.name} has none",
            where=where,
            instead="leave it out",
        )
    if "characters" in offer.needs and task.rows != "units":
        raise MeshError(
            f"the metric {ref.name!r} counts the characters of what tokens are predicted, and task {task.name} "
            "predicts none: it would never be reported",
            where=where,
            instead="leave it out, or a task of tokens, such as language_modelling",
        )


def settled(spec: MeshSpec, registry: Registry) -> MeshSpec:
    """The mesh with the metrics that early stopping and `keep_best` watch written out, where nothing names them."""
    task, update = task_of(spec, registry), dict[str, Any]()
    first = task.watched if spec.primary is None else (spec.primary, *task.watched)
    single = [
        ref.name for ref in metrics_of(spec, registry) if not ref.by and registry.find("metrics", ref.name).scalar
    ]
    watched = tuple(dict.fromkeys((*first, *single)))
    train = _watching(spec.train, task, watched, registry, "train")
    _one_watches(spec.train, "train")
    if train is not None:
        update["train"] = train
    agents: dict[str, AgentSpec] = {}
    for name, agent in spec.agents.items():
        own = _watching(agent.train, task, watched, registry, f"agents.{name}.train")
        _one_watches(agent.train.over(spec.train), f"agents.{name}.train")
        if own is not None:
            agents[name] = agent.model_copy(update={"train": own})
    if agents:
        update["agents"] = spec.agents | agents
    return spec.model_copy(update=update) if update else spec


def _one_watches(train: TrainSpec, where: str) -> None:
    """Raise MeshError where `keep_best` adds nothing."""
    if train.early_stopping is not None and train.keep_best is not None:
        what = "`keep_best` has no effect beside `early_stopping`, which keeps the best weights, too"
        raise MeshError(what, where=f"{where}.keep_best", instead="one of them")


def _watching(train: Any, task: TaskOffer, watched: tuple[str, ...], registry: Registry, where: str) -> Any:
    """Training settings that name the metrics they watch; None where nothing changes."""
    update: dict[str, Any] = {}
    for field in ("early_stopping", "keep_best"):
        setting: EarlyStopping | KeepBest | None = getattr(train, field)
        if setting is None:
            continue
        if setting.metric is None:
            update[field] = setting.model_copy(update={"metric": watched[0]})
        elif setting.metric not in watched:
            registry.find("metrics", setting.metric, f"{where}.{field}.metric")
            raise MeshError(
                f"{setting.metric!r} is not measured in this mesh of task {task.name}, or is no single number",
                where=f"{where}.{field}.metric",
                instead=f"{nearest(setting.metric, watched, 'metrics that it can watch')}; `metrics` names others",
            )
    return train.model_copy(update=update) if update else None
