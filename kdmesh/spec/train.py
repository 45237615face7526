"""How weights are trained: budget, optimiser, schedule, device. The mesh sets defaults, any agent may override."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema

from kdmesh.spec.base import MOST, OptimizerRef, ScheduleRef, Strict

MANY_THREADS = 1024  # more than any one machine runs at a time; torch ends the process where it cannot have them
AUTO = 0
"""``threads: auto`` where threads are counted; a run settles the number before a host opens."""


def _threads(value: Any) -> Any:
    if value == "auto":
        return AUTO
    if value == AUTO:
        raise ValueError("at least one thread, or `auto`")
    return value


Threads = Annotated[
    int,
    Field(ge=AUTO, le=MANY_THREADS),
    BeforeValidator(_threads),
    PlainSerializer(lambda value: value or "auto"),
    WithJsonSchema(
        {"anyOf": [{"type": "integer", "minimum": 1, "maximum": MANY_THREADS}, {"const": "auto", "type": "string"}]}
    ),
]
THREADS = "torch threads while these weights compute; auto: one or all CPUs, as measured when it runs"

Precision = Literal["fp32", "bf16", "fp16"]
PRECISION = (
    "bf16, fp16: autocast in the forward, weights in float32; with fp16 losses are scaled, and updates whose gradients "
    "overflow are left out and the scale halved (torch.amp.GradScaler)"
)

FORWARD = (
    "samples in each forward that answers without training, filled up where there are fewer (of texts on a CPU at most "
    "8); by default the mesh's `batch_size`, on which answers' last bits then depend"
)


METRIC = (
    "validation metric that is watched, any single number that is measured; by default `primary`, where the mesh names "
    "one, else the task's first, as loss"
)


class KeepBest(Strict):
    """Train to the end, and keep the weights that were best on validation. Nothing stops."""

    metric: str | None = Field(None, description=METRIC)


class EarlyStopping(Strict):
    """Stop an agent when its validation metric no longer improves, and keep its best weights."""

    metric: str | None = Field(None, description=METRIC)
    patience: int = Field(5, ge=1, le=MOST, description="evaluations without improvement before the agent stops")


class PrivateTraining(Strict):
    """DP-SGD: each private sample has one clipped gradient, drawn by chance, and their sum has noise.

    It is paid for by the budget of the agent's party; what is drawn comes of the party's secret.
    """

    noise_multiplier: float = Field(
        gt=0, allow_inf_nan=False, description="the noise's standard deviation, over `max_grad_norm`"
    )
    max_grad_norm: float = Field(gt=0, allow_inf_nan=False, description="to which each sample's gradient is clipped")


PRIVATE = "DP-SGD for what is learned of private samples, on the account of the agent's party"


class TrainSpec(Strict):
    """Training settings of weights. ``step`` is a micro-batch; schedules, EMA and `N steps` count optimiser updates."""

    epochs: int = Field(20, ge=1, le=MOST, description="passes over the lesson's first stream")
    steps: int | None = Field(
        None, ge=1, le=MOST, description="micro-batches instead of epochs, which then have no effect"
    )
    batch_size: int = Field(64, ge=1, le=MOST, description="samples in a micro-batch")
    drop_last: bool = Field(False, description="leave out an epoch's last, smaller batch")
    optimizer: OptimizerRef = Field(
        default_factory=lambda: OptimizerRef(name="adamw", config={"lr": 1e-3}),
        description="optimiser of torch.optim with its arguments; fused where torch has it",
    )
    schedule: ScheduleRef | None = Field(None, description="learning-rate schedule, counted in optimiser updates")
    clip: float | None = Field(None, gt=0, description="largest gradient norm")
    private: PrivateTraining | None = Field(None, description=PRIVATE)
    accumulate: int = Field(1, ge=1, le=MOST, description="micro-batches per optimiser update")
    forward_size: int | None = Field(None, ge=1, le=MOST, description=FORWARD)
    precision: Precision = Field("fp32", description=PRECISION)
    threads: Threads = Field(1, description=THREADS)
    device: str = Field("cpu", pattern=r"^(cpu|mps|cuda(:\d+)?)$", description="cpu, mps, cuda or cuda:N")
    early_stopping: EarlyStopping | None = Field(None, description="by validation; never by test data")
    keep_best: KeepBest | None = Field(None, description="the best weights by validation, without stopping")
    evaluate_every: int | None = Field(
        None,
        ge=1,
        le=MOST,
        description="epochs between evaluations on validation; by default 1 with early stopping or `keep_best`, else "
        "none",
    )

    @property
    def watches(self) -> EarlyStopping | KeepBest | None:
        """What keeps the best weights, which names the metric; None where the last ones stay."""
        return self.early_stopping or self.keep_best

    @property
    def evaluates(self) -> bool:
        """Whether weights are measured on validation while they train."""
        return self.watches is not None or self.evaluate_every is not None


class TrainOverride(Strict):
    """The same settings for one agent; what is left out comes from the mesh."""

    epochs: int | None = Field(None, ge=1, le=MOST, description="passes over the lesson's first stream")
    steps: int | None = Field(
        None, ge=1, le=MOST, description="micro-batches instead of epochs, which then have no effect"
    )
    batch_size: int | None = Field(None, ge=1, le=MOST, description="samples in a micro-batch")
    drop_last: bool | None = Field(None, description="leave out an epoch's last, smaller batch")
    optimizer: OptimizerRef | None = Field(None, description="optimiser of torch.optim with its arguments")
    schedule: ScheduleRef | None = Field(None, description="learning-rate schedule")
    clip: float | None = Field(None, gt=0, description="largest gradient norm")
    private: PrivateTraining | None = Field(None, description=PRIVATE)
    accumulate: int | None = Field(None, ge=1, le=MOST, description="micro-batches per optimiser update")
    forward_size: int | None = Field(None, ge=1, le=MOST, description=FORWARD)
    precision: Precision | None = Field(None, description=PRECISION)
    threads: Threads | None = Field(None, description=THREADS)
    device: str | None = Field(None, pattern=r"^(cpu|mps|cuda(:\d+)?)$", description="cpu, mps, cuda or cuda:N")
    early_stopping: EarlyStopping | None = Field(None, description="by validation; never by test data")
    keep_best: KeepBest | None = Field(None, description="the best weights by validation, without stopping")
    evaluate_every: int | None = Field(None, ge=1, le=MOST, description="epochs between evaluations on validation")

    def over(self, default: TrainSpec) -> TrainSpec:
        """Return the default with this agent's own settings laid over it."""
        own: dict[str, Any] = {name: getattr(self, name) for name in self.model_fields_set}
        if "epochs" in own and "steps" not in own:
            own["steps"] = None  # an agent that asks for epochs does not inherit a budget in steps
        return default.model_copy(
            update={name: value for name, value in own.items() if value is not None or name == "steps"}
        )
