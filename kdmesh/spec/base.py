"""What every part of the file has in common: strictness, and the `name` or `{name: {config}}` form."""

from __future__ import annotations

import json
import math
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_serializer, model_validator

from kdmesh.spec import offered

MOST = 10**9
"""The most epochs, steps, rounds ... that can be asked for: more than any run makes, and what all counts can hold."""


VERIFYING = 10.0
"""Seconds that a function which says of a text how right it is may take, unless a mesh says otherwise."""
DEFAULT_TASK = "classification"
"""The task of a mesh, a saved agent or a summary that names none."""
DEFAULT_RULE = "mean"
"""The rule of a consensus for which a strategy is told of none."""


class Strict(BaseModel):
    """A part of the file: unknown keys are refused and values do not change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, use_enum_values=True)


class Named(Strict):
    """Something chosen by name: written ``kl`` or ``{kl: {temperature: 4}}``. A name with a colon is an import path."""

    kind: ClassVar[str] = ""  # the registry's kind, for `kdmesh schema`
    usual: ClassVar[dict[str, type[BaseModel]]] = {}  # where nothing is offered: settings of some names, for messages

    name: str = Field(description="what is chosen")
    config: dict[str, Any] = Field(default_factory=dict, description="its settings")

    @model_validator(mode="before")
    @classmethod
    def _read(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"name": value}
        if isinstance(value, dict) and len(value) == 1:
            ((name, config),) = value.items()
            if isinstance(config, dict) or config is None:
                return {"name": name, "config": config or {}}
        if isinstance(value, dict) and isinstance(value.get("name"), str) and set(value) <= {"name", "config"}:
            return value
        if isinstance(value, cls):
            return value
        if isinstance(value, dict) and len(value) == 1 and (written := _by_name(cls.kind, *next(iter(value.items())))):
            raise ValueError(f"a setting stands by its name: write {written}")
        raise ValueError("write a name, or one name with its settings: {name: {setting: value}}")

    @model_serializer
    def _write(self) -> Any:
        return {self.name: self.config} if self.config else self.name

    @property
    def is_import(self) -> bool:
        """Whether the name is an import path, ``package.module:Thing``."""
        return ":" in self.name


def _by_name(kind: str, name: Any, value: Any) -> str:
    """What to write for a bare value beside an offered name, ``{dedup: near}``; "" where no setting takes it."""
    model = offered.configs(kind).get(name) if kind and isinstance(name, str) else None
    takes, said = [], value if isinstance(value, str) and value.isalpha() else json.dumps(value, default=str)
    if model is None:
        return ""
    for field in model.model_fields:
        try:
            model.model_validate({field: value}, strict=True)
            takes.append(f"{{{name}: {{{field}: {said}}}}}")
        except ValidationError:
            continue
    return " or ".join(takes)


class ModelRef(Named):
    """A model: a built-in or offered name, or an import path of an ``nn.Module`` with its arguments."""

    kind: ClassVar[str] = "models"


class ObjectiveRef(Named):
    """An objective with its settings."""

    kind: ClassVar[str] = "objectives"


class RuleRef(Named):
    """A consensus rule with its settings."""

    kind: ClassVar[str] = "consensus"


class DatasetRef(Named):
    """A data set with its settings."""

    kind: ClassVar[str] = "datasets"


class StrategyRef(Named):
    """A strategy with its settings."""

    kind: ClassVar[str] = "strategies"


class ViewRef(Named):
    """An augmentation with its settings."""

    kind: ClassVar[str] = "views"


class SignalRef(Named):
    """What crosses an edge, with its settings."""

    kind: ClassVar[str] = "signals"


class TaskRef(Named):
    """A task with its settings."""

    kind: ClassVar[str] = "tasks"


class GateRef(Named):
    """A gate with its settings; ``of``, which any may have, names an agent whose logits it reads beside the own."""

    kind: ClassVar[str] = "gates"

    @model_validator(mode="after")
    def _agent(self) -> Self:
        if "of" in self.config and not (isinstance(self.of, str) and self.of):
            raise ValueError(f"`of` of gate {self.name!r} names an agent: {{{self.name}: {{of: AGENT}}}}")
        return self

    @property
    def of(self) -> str:
        """The agent that it looks at beside the own; "": none."""
        agent: str = self.config.get("of", "")
        return agent

    @property
    def settings(self) -> dict[str, Any]:
        """What its offer knows."""
        return {name: value for name, value in self.config.items() if name != "of"}


class FilterRef(Named):
    """A filter of written texts with its settings, or the import path of a function; ``of``, which any may have, names
    the agent whose loss it reads, or the agents whose answers."""

    kind: ClassVar[str] = "filters"

    @model_validator(mode="after")
    def _agent(self) -> Self:
        if not self.is_import and "of" in self.config:
            given = self.agents
            if not given or not all(isinstance(one, str) and one for one in given):
                raise ValueError(f"`of` of filter {self.name!r} names an agent: {{{self.name}: {{of: AGENT}}}}")
            if len(set(given)) < len(given):
                raise ValueError(f"`of` of filter {self.name!r} names an agent twice")
        return self

    @property
    def agents(self) -> list[str]:
        """The agents whose loss, or answers, it reads; none: that of the writer."""
        named: Any = [] if self.is_import else self.config.get("of", [])
        return named if isinstance(named, list) else [named]

    @property
    def settings(self) -> dict[str, Any]:
        """What its offer, or the function, knows."""
        return {name: value for name, value in self.config.items() if name != "of" or self.is_import}


class TextRuleRef(Named):
    """A rule by which several texts that answer one prompt become one, with its settings."""

    kind: ClassVar[str] = "text_rules"

    @property
    def paths(self) -> dict[str, str]:
        """Code that its settings name, in a metric, by the place of each."""
        metric = self.config.get("metric")
        told = metric.items() if isinstance(metric, dict) else ()
        found = {f"{name}.path": one.get("path") for name, one in told if isinstance(one, dict)}
        return {f"{self.name}.metric.{at}": path for at, path in found.items() if isinstance(path, str) and ":" in path}


class PruningRef(Named):
    """One thing that is taken out of an agent's weights, with its settings."""

    kind: ClassVar[str] = "prunings"


class RecogniserRef(Named):
    """A recogniser of personal data with its settings."""

    kind: ClassVar[str] = "recognisers"


class MetricRef(Named):
    """A metric with its settings; ``by``, which any may have, names a column whose values it is measured by, and
    ``of``, of metrics of pairs, the agent whose log-probabilities are taken off.
    """

    kind: ClassVar[str] = "metrics"

    @model_validator(mode="after")
    def _column(self) -> Self:
        if "by" in self.config and not (isinstance(self.by, str) and self.by):
            raise ValueError(
                f"`by` of metric {self.name!r} names a column of the data: {{{self.name}: {{by: COLUMN}}}}"
            )
        if "of" in self.config and not (isinstance(self.of, str) and self.of):
            raise ValueError(f"`of` of metric {self.name!r} names an agent: {{{self.name}: {{of: AGENT}}}}")
        return self

    @property
    def of(self) -> str:
        """The agent with which answers to pairs are compared; "": none."""
        agent: str = self.config.get("of", "")
        return agent

    @property
    def by(self) -> str:
        """The column of the data by whose values it is measured; "": it is not."""
        column: str = self.config.get("by", "")
        return column

    @property
    def settings(self) -> dict[str, Any]:
        """What its offer knows."""
        return {name: value for name, value in self.config.items() if name not in ("by", "of")}

    @property
    def key(self) -> str:
        """The name of its figure."""
        return f"{self.name}_by_{self.by}" if self.by else self.name


class RewardRef(Named):
    """A verifier: a metric of written texts with its settings, or the import path of a function.

    Any may have ``weight``, of its number in the reward, ``time_limit``, seconds for a text, and ``late``, its number
    for a text that took longer.
    """

    kind: ClassVar[str] = "metrics"
    own: ClassVar[tuple[str, ...]] = ("weight", "time_limit", "late")

    @model_validator(mode="after")
    def _numbers(self) -> Self:
        for field in self.own:
            value = self.config.get(field, 1.0)
            number = type(value) in (int, float) and math.isfinite(value)
            if not number or (field == "weight" and value == 0) or (field == "time_limit" and value <= 0):
                odd = {"weight": " other than 0", "time_limit": " of seconds above 0"}.get(field, "")
                raise ValueError(f"`{field}` of {self.name!r} is a number{odd}, not {value!r}")
        if "late" in self.config and self.time_limit is None:
            raise ValueError(f"`late` of {self.name!r} stands where a `time_limit` is over, and it has none")
        return self

    @property
    def settings(self) -> dict[str, Any]:
        """What its offer, or the function, knows."""
        return {name: value for name, value in self.config.items() if name not in self.own}

    @property
    def weight(self) -> float:
        """The factor of its number in the reward."""
        return float(self.config.get("weight", 1.0))

    @property
    def time_limit(self) -> float | None:
        """Seconds that it may take for a text, in a process of its own; None: it is asked in the host's own."""
        usual = VERIFYING if self.is_import else None
        limit: float | None = self.config.get("time_limit", usual)
        return limit

    @property
    def late(self) -> float | None:
        """Its number for a text for which it took longer; None: that is an error."""
        number: float | None = self.config.get("late")
        return number


class AdamWArguments(BaseModel):
    """What is often set of torch.optim.AdamW, and of many others."""

    lr: float = Field(1e-3, description="learning rate")
    weight_decay: float = Field(1e-2, description="decay of the weights at an update")
    betas: list[float] = Field([0.9, 0.999], description="shares of the running means that are kept")
    eps: float = Field(1e-8, description="added to the denominator")


class SGDArguments(BaseModel):
    """What is often set of torch.optim.SGD."""

    lr: float = Field(1e-3, description="learning rate")
    momentum: float = Field(0.0, description="share of the last update that is kept")
    nesterov: bool = Field(False, description="Nesterov's momentum")


class WarmUp(BaseModel):
    """The setting of the schedules that are built in."""

    warmup: float = Field(0, description="updates in which the learning rate rises, or a share of all")


class OptimizerRef(Named):
    """Any optimiser of torch.optim by its name, lower case or exact (``adamw``), with its arguments."""

    usual: ClassVar[dict[str, type[BaseModel]]] = {"adamw": AdamWArguments, "sgd": SGDArguments}


class ScheduleRef(Named):
    """``constant``, ``cosine`` or ``linear`` (to zero), each with a ``warmup``, or a class of torch.optim.lr_scheduler.

    ``warmup``: a number of optimiser updates, or, between 0 and 1, a share of all that are planned.
    """

    usual: ClassVar[dict[str, type[BaseModel]]] = {"cosine": WarmUp}
