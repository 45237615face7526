"""Agents: views of weights that compute."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, NonNegativeInt, field_validator, model_validator

from kdmesh.spec.base import MOST, GateRef, ModelRef, PruningRef, Strict, ViewRef
from kdmesh.spec.prepare import PrepareSpec, refuse_twice
from kdmesh.spec.train import TrainOverride


class EmaSpec(Strict):
    """Weights that follow another agent's: after each of its updates, own = decay * own + (1 - decay) * other."""

    of: str = Field(description="the agent whose weights are followed")
    decay: float = Field(0.99, ge=0, lt=1, description="share of the own weights that is kept at each update")
    warmup: bool = Field(False, description="use min(1 - 1/(t+1), decay) at update t, as in Mean Teacher")
    buffers: Literal["copy", "ema"] = Field("copy", description="how buffers such as batch-norm statistics follow")
    mode: Literal["eval", "train"] = Field("eval", description="mode in which the follower publishes")


class EmaUpdate(Strict):
    """The update rule ``{ema: {of: s, decay: 0.99}}``."""

    ema: EmaSpec = Field(description="follow another agent's weights")


class ViewSpec(Strict):
    """How an agent sees a sample: augmentations applied in order, each seeded by (seed, agent, sample, draw).

    The last may mix the samples of a batch (`mixup`, `cutmix`), seeded by (seed, stream, step).
    """

    augment: list[ViewRef] = Field(default_factory=list, description="augmentations, applied in order")
    draws: int | None = Field(
        None, ge=1, le=MOST, description="number of different draws per sample; none: a new one every epoch"
    )
    prompt: str | None = Field(
        None, description="template of the prompt that it is told in place of the data's, before the same answer"
    )
    of: str | None = Field(
        None,
        description="draw as this agent does: augmentations at the same place of both lists draw the same numbers; "
        "without `augment` of its own it sees exactly what that one sees",
    )
    apart: bool = Field(
        False, description="mix batches otherwise than all others do, so that its answers are of mixes of its own"
    )


class AnswersSpec(Strict):
    """How what an agent says teaches, and is kept."""

    form: Literal["exact", "float32", "bfloat16", "float16", "int8", "packed"] = Field(
        "exact",
        description="numbers in which its answers are kept in the store and read by others, with or without a store: "
        "exact (as computed), float32, bfloat16, float16, int8 (a byte a value), or packed (of top_k and sampled)",
    )


class AgentSpec(Strict):
    """One agent. Agents that name the same ``weights_of`` share one set of weights."""

    model: ModelRef | None = Field(None, description="the model; not for an agent with `weights_of`")
    weights_of: str | None = Field(None, description="share the weights of this agent")
    weights: str | None = Field(None, description="safetensors file with initial weights")
    new_head: str | list[str] | None = Field(
        None, description="layer that starts anew, of whatever size, where `weights` has the rest: fc; or several"
    )
    update: Literal["grad", "frozen", "merged"] | EmaUpdate = Field(
        "grad", description="grad, frozen, merged (flows `as: weights` alone change them) or {ema: {of: agent}}"
    )
    prune: list[PruningRef] = Field(
        default_factory=list, description="what is taken out of its initial weights before it trains, in this order"
    )
    quantize: Literal["int8"] | None = Field(
        None,
        description="learn and answer with linear layers and embeddings rounded to 8 bits, as `kdmesh export --to "
        "int8` has them; what is saved is whole",
    )
    gate: GateRef | None = Field(None, description="says in each step whether the weights are updated at all")
    saved: Literal["reference", "copy"] | None = Field(
        None,
        description="what the run's folder holds of frozen weights that were read from files: a reference, by path and "
        "sha256 (the default), or a copy",
    )
    prepare: list[PrepareSpec] | None = Field(
        None, description="what is done to columns before it sees them, in place of `data.prepare`; []: nothing"
    )
    view: ViewSpec = Field(default_factory=ViewSpec, description="augmentation or prompt, the agent's own")
    answers: AnswersSpec = Field(
        default_factory=AnswersSpec, description="the form of what it says, where it is frozen or has finished"
    )
    exit: str | None = Field(
        None, description="layer whose output is the agent's; several exits of one network are agents with `weights_of`"
    )
    taps: dict[str, str] = Field(default_factory=dict, description="names for layers: {mid: layers.2}")
    train: TrainOverride = Field(default_factory=TrainOverride, description="settings other than the mesh's")
    seed: int | None = Field(None, description="seed of the initial weights; by default from the mesh's and the name")
    init_of: str | None = Field(None, description="start from the same initial weights as this agent")
    labels: list[NonNegativeInt] | None = Field(
        None, description="the classes this agent's outputs stand for; by default all"
    )
    on_loss: Literal["restart", "drop", "stop"] = Field(
        "restart",
        description="when its host is lost: restart from the last checkpoint; drop it, if it only teaches in what is "
        "left, and go on without it; or stop the run",
    )
    licence: str | None = Field(
        None,
        min_length=1,
        description="of the weights that it begins with: llama3.1, MIT OR Apache-2.0, `own` of your own; by default "
        "what their card states",
    )
    count: int | None = Field(None, ge=1, le=MOST, description="replicate: `party` becomes party[0], party[1] ...")

    @model_validator(mode="before")
    @classmethod
    def _nothing(cls, value: Any) -> Any:
        return {} if value is None else value

    @field_validator("prune", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return [value] if isinstance(value, dict | str) else value

    @model_validator(mode="after")
    def _own_samples(self) -> Self:
        if self.prepare is not None and (self.weights_of is not None or self.ema is not None):
            raise ValueError(
                "`prepare` is of an agent with weights of its own; whoever shares or follows them sees the same"
            )
        changed = "prune" if self.prune else "quantize" if self.quantize else ""
        if changed and (self.weights_of is not None or self.ema is not None):
            raise ValueError(
                f"`{changed}` is of an agent with weights of its own: whoever shares or follows them has it too"
            )
        refuse_twice(self.prepare)
        if self.licence is not None and (self.weights_of is not None or self.ema is not None):
            raise ValueError("`licence` is of an agent with weights of its own: it stands there")
        return self

    @property
    def new_heads(self) -> list[str]:
        """The layers that are not read from `weights`."""
        return [self.new_head] if isinstance(self.new_head, str) else self.new_head or []

    @property
    def learns(self) -> bool:
        """Whether gradient descent moves these weights."""
        return self.update == "grad"

    @property
    def ema(self) -> EmaSpec | None:
        """The EMA rule, if these weights follow others."""
        return self.update.ema if isinstance(self.update, EmaUpdate) else None
