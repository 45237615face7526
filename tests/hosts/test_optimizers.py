"""Every optimiser of torch with every schedule: as in a plain loop, unbroken and resumed, or refused and why."""

from __future__ import annotations

import inspect
import json
import math
import warnings
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn
from torch.optim import lr_scheduler

from kdmesh.errors import MeshError
from kdmesh.hosts import checkpoint
from kdmesh.hosts.local_weights import LocalWeights
from kdmesh.hosts.optimizers import warmup_of
from kdmesh.hosts.rehearsal import kinds_of, rehearse
from kdmesh.spec import TrainSpec
from kdmesh.spec.base import ScheduleRef

UPDATES, BROKEN = 14, 6
OPTIMIZERS: dict[str, list[dict[str, Any]]] = {
    "Adadelta": [{"rho": 0.8}],
    "Adafactor": [{"lr": 0.02}],
    "Adagrad": [{"lr": 0.05, "lr_decay": 0.01}],
    "Adam": [{"lr": 0.02, "betas": [0.8, 0.95]}, {"amsgrad": True}, {"foreach": True}],
    "AdamW": [{"lr": 0.02, "weight_decay": 0.1}, {"differentiable": True}, {"maximize": True, "fused": False}],
    "Adamax": [{"lr": 0.02}],
    "ASGD": [{"lr": 0.02, "t0": 5}],
    "LBFGS": [{}],
    "Muon": [{"lr": 0.02}],
    "NAdam": [{"lr": 0.02}],
    "RAdam": [{"lr": 0.02}],
    "RMSprop": [{"lr": 0.02, "momentum": 0.5, "centered": True}, {"lr": 0.02}],
    "Rprop": [{"lr": 0.02}],
    "SGD": [
        {"lr": 0.05, "momentum": 0.9, "nesterov": True},
        {"lr": 0.05},
        {"lr": 0.05, "momentum": 0.5, "dampening": 0.1},
    ],
    "SparseAdam": [{}],
}
SCHEDULES: dict[str, list[dict[str, Any]]] = {
    "constant": [{}, {"warmup": 4}],
    "cosine": [{}, {"warmup": 0.2}],
    "linear": [{"warmup": 5}],
    "StepLR": [{"step_size": 4, "gamma": 0.5}],
    "MultiStepLR": [{"milestones": [3, 9], "gamma": 0.5}],
    "ConstantLR": [{"factor": 0.5, "total_iters": 9}],
    "LinearLR": [{"total_iters": 9}, {"start_factor": 5}],
    "ExponentialLR": [{"gamma": 0.95}, {"gamma": "fast"}, {"gamma": -2.0}],
    "PolynomialLR": [{"total_iters": 20, "power": 2}, {"total_iters": 9, "power": -1}],
    "CosineAnnealingLR": [{"T_max": 9}, {"T_max": 0}],
    "CosineAnnealingWarmRestarts": [{"T_0": 5, "T_mult": 2}, {"T_0": 0}],
    "CyclicLR": [
        {"base_lr": 0.01, "max_lr": 0.05, "step_size_up": 4},
        {"base_lr": 0.01, "max_lr": 0.05, "step_size_up": 4, "base_momentum": 0.0},
        {
            "base_lr": 0.01,
            "max_lr": 0.05,
            "step_size_up": 4,
            "mode": "exp_range",
            "gamma": 0.9,
            "cycle_momentum": False,
        },
        {"base_lr": 0.01, "max_lr": 0.05, "max_momentum": 1.5},
    ],
    "OneCycleLR": [
        {"max_lr": 0.05, "total_steps": UPDATES},
        {"max_lr": 0.05, "total_steps": UPDATES - 2},
        {"max_lr": 0.05},
    ],
    "SequentialLR": [{"schedulers": [], "milestones": []}],
    "ChainedScheduler": [{"schedulers": []}],
    "ReduceLROnPlateau": [{}],
    "LambdaLR": [{"lr_lambda": "x"}],
    "MultiplicativeLR": [{"lr_lambda": "x"}],
}
NEVER = {"LBFGS", "SequentialLR", "ChainedScheduler", "ReduceLROnPlateau", "LambdaLR", "MultiplicativeLR"}
WEIGHTS = [0.3, -0.2, 0.5, 0.1, -0.4, 0.2]


def classes(module: Any, base: type) -> set[str]:
    return {
        name
        for name, kind in vars(module).items()
        if inspect.isclass(kind) and issubclass(kind, base) and kind is not base and not name.startswith("_")
    }


def test_the_tables_name_all_of_torch() -> None:
    assert classes(torch.optim, torch.optim.Optimizer) == OPTIMIZERS.keys()
    assert classes(lr_scheduler, lr_scheduler.LRScheduler) == SCHEDULES.keys() - {"constant", "cosine", "linear"}


def net(matrix: bool) -> nn.Module:
    """A layer in double precision, with a vector too unless ``matrix``, and the same values each time."""
    layer = nn.Linear(3, 2, bias=not matrix).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(WEIGHTS).reshape(2, 3))
        if not matrix:
            layer.bias.copy_(torch.tensor([0.1, -0.1]))
    return layer


def loss(module: nn.Module, update: int) -> torch.Tensor:
    x = torch.tensor([[1.0, 0.5, -1.0], [0.2, -0.7, 0.4]], dtype=torch.float64)
    value: torch.Tensor = (module(x * math.cos(update)) - 1).square().sum()
    return value


def plain(optimizer: tuple[str, dict[str, Any]], schedule: tuple[str, dict[str, Any]], matrix: bool) -> nn.Module:
    """The same in a plain loop; whatever torch refuses raises, and so does a rate or momentum out of bounds."""
    module = net(matrix)
    made = getattr(torch.optim, optimizer[0])(module.parameters(), **optimizer[1])
    name, config = schedule
    if name in ("constant", "cosine", "linear"):
        given = config.get("warmup", 0)
        warm = math.ceil(given * UPDATES) if 0 < given < 1 else given

        def factor(update: int) -> float:
            done = min(1.0, (update - warm) / (UPDATES - warm))
            shape = {"constant": 1.0, "cosine": (1 + math.cos(math.pi * done)) / 2, "linear": 1 - done}[name]
            return (update + 1) / warm if update < warm else shape

        moving: Any = lr_scheduler.LambdaLR(made, factor)
    else:
        moving = getattr(lr_scheduler, name)(made, **config)
    for update in range(UPDATES):
        made.zero_grad()
        loss(module, update).backward()
        made.step()
        moving.step()
        group = made.param_groups[0]
        assert group["lr"] >= 0 and all(0 <= beta < 1 for beta in group.get("betas", ()))
    return module


def descend(weights: LocalWeights, first: int, last: int) -> LocalWeights:
    for update in range(first, last):
        weights.zero()
        loss(weights.module, update).backward()
        weights.step()
    return weights


def fresh(settings: TrainSpec, matrix: bool) -> LocalWeights:
    weights = LocalWeights("a", net(matrix), settings)
    weights.start(UPDATES)
    return weights


def resumed(settings: TrainSpec, matrix: bool) -> LocalWeights:
    """Half of the updates, a checkpoint as bytes and text, and the rest by other objects."""
    first, tensors = descend(fresh(settings, matrix), 0, BROKEN), {}

    def keep(value: Any, *name: Any) -> None:
        tensors["/".join(map(str, name))] = (value if torch.is_tensor(value) else torch.tensor(value)).clone()

    facts = json.loads(json.dumps(checkpoint._weights(first, keep)))
    found: dict[str, dict[tuple[str, ...], torch.Tensor]] = {}
    for name, value in safetensors.torch.load(safetensors.torch.save(tensors)).items():
        kind, *rest = name.split("/")
        found.setdefault(kind, {})[tuple(rest)] = value
    second = fresh(settings, matrix)
    checkpoint._restore(second, facts, found)
    return descend(second, BROKEN, UPDATES)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_pair_is_that_of_torch_unbroken_and_resumed_or_refused(name: str) -> None:
    accepted = 0
    for number, config in enumerate(OPTIMIZERS[name]):
        every = 9 if name in ("AdamW", "SGD") and number == 0 else 1
        for schedule, given in ((s, c) for s, configs in SCHEDULES.items() for c in configs[:every]):
            for matrix in (False, True) if name == "Muon" else (False,):
                accepted += pair((name, config), (schedule, given), matrix)
    assert (accepted == 0) is (name in ("LBFGS", "SparseAdam"))


def pair(optimizer: tuple[str, dict[str, Any]], schedule: tuple[str, dict[str, Any]], matrix: bool) -> bool:
    """Whether a pair is accepted; then it must do what a plain loop does, and else fail there too."""
    settings = TrainSpec.model_validate({"optimizer": dict([optimizer]), "schedule": dict([schedule])})
    label = f"{optimizer} with {schedule}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            rehearse(kinds_of(net(matrix).parameters()), settings, UPDATES, ("train", "agents.a.train"))
        except MeshError as error:
            assert error.where.startswith(("train.optimizer", "agents.a.train.schedule")) and error.instead, label
            if not NEVER & {optimizer[0], schedule[0]}:
                with pytest.raises(Exception):  # noqa: B017  # whatever torch says of it
                    plain(optimizer, schedule, matrix)
            return False
        other = plain(optimizer, schedule, matrix)
    whole = descend(fresh(settings, matrix), 0, UPDATES)
    for mine, theirs in zip(whole.module.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-12, msg=lambda text: f"{label}: {text}")
    for mine, again in zip(whole.parameters, resumed(settings, matrix).parameters, strict=True):
        assert torch.equal(mine, again), label
    return True


@pytest.mark.parametrize(
    ("train", "updates", "where", "what"),
    [
        ({"schedule": {"OneCycleLR": {"max_lr": 0.1}}}, 160, "schedule.OneCycleLR", "160 updates"),
        ({"schedule": {"OneCycleLR": {"max_lr": 0.1, "total_steps": 150}}}, 160, "schedule", "update 151 of 160"),
        ({"schedule": {"OneCycleLR": {"max_lr": 0.1, "total_steps": 999_000}}}, 10**6, "schedule", "of 1000000"),
        ({"schedule": {"OneCycleLR": {"max_lr": 0.1, "total_steps": 10**6 - 1}}}, 10**6, "schedule", "of 1000000"),
        ({"schedule": {"CosineAnnealingWarmRestarts": {"T_0": 0}}}, 9, "schedule", "T_0"),
        ({"schedule": {"CosineAnnealingLR": {"T_max": 0}}}, 9, "schedule", "zero"),
        ({"schedule": {"PolynomialLR": {"total_iters": 30_000, "power": -1}}}, 10**5, "schedule", "update 30000 of"),
        ({"schedule": {"LinearLR": {"start_factor": 5}}}, 9, "schedule.LinearLR", "factor"),
        ({"schedule": {"StepLR": {}}}, 9, "schedule.StepLR", "step_size"),
        ({"schedule": {"StepLR": {"size": 3}}}, 9, "schedule.StepLR", "did you mean 'step_size'"),
        ({"schedule": {"ExponentialLR": {"gamma": "fast"}}}, 9, "schedule.ExponentialLR.gamma", "'fast'"),
        ({"schedule": {"ExponentialLR": {"gamma": True}}}, 9, "schedule.ExponentialLR.gamma", "a number"),
        ({"schedule": {"ExponentialLR": {"gamma": 1.1}}}, 10**5, "schedule.ExponentialLR", "of 100000"),
        ({"schedule": {"ExponentialLR": {"gamma": -0.5}}}, 9, "schedule", "`lr` of AdamW becomes -0.0005"),
        ({"schedule": {"CyclicLR": {"base_lr": 0, "max_lr": 1}}, "optimizer": "adagrad"}, 9, "schedule", "momentum"),
        ({"schedule": {"CyclicLR": {"base_lr": 0, "max_lr": 1, "max_momentum": 2}}}, 9, "schedule", "`betas` of AdamW"),
        ({"schedule": {"cosine": {"warmup": "many"}}}, 9, "schedule.cosine.warmup", "warmup: 0.1"),
        ({"schedule": {"linear": {"warmup": -3}}}, 9, "schedule.linear.warmup", "-3"),
        ({"schedule": {"linear": {"warmup": 2.5}}}, 9, "schedule.linear.warmup", "2.5"),
        ({"schedule": {"linear": {"warmup": True}}}, 9, "schedule.linear.warmup", "True"),
        ({"schedule": {"linear": {"warmup": math.nan}}}, 9, "schedule.linear.warmup", "nan"),
        ({"schedule": {"constant": {"warm": 2}}}, 9, "schedule.constant", "'warm'"),
        ({"schedule": "ReduceLROnPlateau"}, 9, "schedule", "a metric at every step"),
        ({"schedule": {"SequentialLR": {}}}, 9, "schedule", "made of other schedules"),
        ({"schedule": "step"}, 9, "schedule", "StepLR"),
        ({"schedule": "LRScheduler"}, 9, "schedule", "unknown schedule"),
        ({"schedule": "cosin"}, 9, "schedule", "did you mean 'cosine'"),
        ({"optimizer": "lbfgs"}, 9, "optimizer", "computes the loss several times"),
        ({"optimizer": "sparseadam"}, 9, "optimizer.sparseadam", "does not support dense gradients"),
        ({"optimizer": "muon"}, 9, "optimizer.muon", "2D"),
        ({"optimizer": {"adamw": {"lr": "0.1"}}}, 9, "optimizer.adamw.lr", "'0.1'"),
        ({"optimizer": {"adamw": {"lr": math.inf}}}, 9, "optimizer.adamw", "inf"),
        ({"optimizer": {"sgd": {"momentum": math.nan}}}, 9, "optimizer.sgd", "nan"),
        ({"optimizer": {"adam": {"differentiable": True}}}, 9, "optimizer.adam", "in-place"),
        ({"optimizer": {"nadam": {"capturable": True}}}, 9, "optimizer.nadam", "capturable"),
        ({"optimizer": {"adam": {"params": []}}}, 9, "optimizer.adam", "no argument 'params'"),
    ],
    ids=str,
)  # fmt: skip
def test_what_torch_would_refuse_later_is_refused_before(
    train: dict[str, Any], updates: int, where: str, what: str
) -> None:
    with pytest.raises(MeshError) as error:
        rehearse(kinds_of(net(False).parameters()), TrainSpec.model_validate(train), updates, ("train", "train"))
    assert error.value.where.startswith(f"train.{where}")
    assert what in str(error.value)


@pytest.mark.parametrize(
    ("given", "updates", "expected"), [(0, 9, 0), (3, 9, 3), (3.0, 9, 3), (0.1, 95, 10), (1, 9, 1)]
)
def test_a_warmup_is_a_number_of_updates_or_a_share(given: float, updates: int, expected: int) -> None:
    assert warmup_of(ScheduleRef.model_validate({"cosine": {"warmup": given}}), updates, "") == expected


def test_a_rate_of_0_and_a_warmup_without_end_are_said() -> None:
    def said(**train: Any) -> list[str]:
        return rehearse(kinds_of(net(False).parameters()), TrainSpec.model_validate(train), 50, ("train", "train"))

    assert "nothing will be learned" in said(optimizer={"sgd": {"lr": 0.0}})[0]
    assert "never reaches its full value" in said(schedule={"cosine": {"warmup": 50}})[0]
    assert not said(schedule={"cosine": {"warmup": 49}})


def test_momentum_that_a_schedule_brings_reaches_a_parameter_that_comes_late() -> None:
    """SGD without momentum of its own; one parameter gets its first gradient after the others."""
    schedule = {"CyclicLR": {"base_lr": 0.01, "max_lr": 0.05, "step_size_up": 3}}
    settings = TrainSpec.model_validate({"optimizer": {"sgd": {"lr": 0.05}}, "schedule": schedule})
    weights, module = fresh(settings, False), net(False)
    made = torch.optim.SGD(module.parameters(), lr=0.05)
    moving = lr_scheduler.CyclicLR(made, **schedule["CyclicLR"])  # type: ignore[arg-type]
    for update in range(9):
        weights.zero()
        made.zero_grad()
        for one in (weights.module, module):
            loss(one, update).backward()
            if update < 3:
                one.bias.grad = None  # type: ignore[assignment]
        weights.step()
        made.step()
        moving.step()
    for mine, theirs in zip(weights.parameters, module.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)
