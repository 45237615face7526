"""What plugins give that is wrong, by kind and fault, from the first step or a later one: named where it comes in."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import kdmesh
from kdmesh.consensus import Abstaining, Rule
from kdmesh.errors import MeshError
from kdmesh.gates import Gate
from kdmesh.metrics import Metric
from kdmesh.objectives import Objective
from kdmesh.offers import (
    Config,
    ConsensusOffer,
    DatasetOffer,
    GateOffer,
    MetricOffer,
    ModelOffer,
    ObjectiveOffer,
    SignalOffer,
    TaskOffer,
    ViewOffer,
)
from kdmesh.plugins import PluginRecord, registry
from kdmesh.tasks import Task


class Fault(Config):
    """What is wrong, after so many calls that are right."""

    what: str = ""
    after: int = 0


def in_place(value: Tensor, given: Tensor) -> Tensor:
    given.mul_(0.5)
    return value


FAULTS: dict[str, Any] = {
    "nothing": lambda value, given: None,
    "text": lambda value, given: "value",
    "numpy": lambda value, given: value.detach().numpy(),
    "shape": lambda value, given: value[..., :-1] if value.dim() else value.expand(4),
    "rows": lambda value, given: value[:-1],
    "float64": lambda value, given: value.double(),
    "half": lambda value, given: value.half(),
    "whole": lambda value, given: value.detach().long(),
    "meta": lambda value, given: value.to("meta"),
    "nan": lambda value, given: value * float("nan"),
    "detached": lambda value, given: value.detach(),
    "in place": in_place,
    "below 0": lambda value, given: value - 5,
    "": lambda value, given: value,
}


REPORTS: dict[str, Any] = {
    "report nothing": None,
    "report numbers": [0.5],
    "report text": {"share": "all"},
    "report truth": {"share": True},
    "report tensor": {"share": torch.ones(())},
    "report nan": {"share": float("nan")},
    "report infinite": {"share": float("inf")},
    "report unnamed": {3: 0.5},
}


class Late:
    """Gives what is right, for so long."""

    what, after, calls = "", 0, 0

    def note(self, what: str, after: int) -> None:
        self.what, self.after = what, after

    def give(self, value: Tensor, given: Tensor) -> Any:
        self.calls += 1
        return FAULTS.get(self.what if self.calls > self.after else "", FAULTS[""])(value, given)

    def report(self) -> Any:
        return REPORTS[self.what] if self.what in REPORTS and self.calls > self.after else {"calls": self.calls}


class Loss(Late, Objective):
    """A mean square."""

    def __init__(self, what: str, after: int) -> None:
        super().__init__()
        self.note(what, after)

    def forward(self, student: Tensor, target: Tensor, **given: Any) -> Any:
        return self.give((student - target).square().mean(), student)


class Mean(Late, Rule):
    """The mean of sources, or their equal shares."""

    def __init__(self, what: str, after: int) -> None:
        super().__init__()
        self.note(what, after)

    def forward(self, values: Tensor, *, labels: Tensor, **given: Any) -> Any:
        return self.give(values.mean(0), labels)

    def weights(self, logits: Tensor, *, labels: Tensor, **given: Any) -> Any:
        return self.give(torch.full(logits.shape[:2], 1 / len(logits)), labels)


class Informed(Mean):
    """Informed by another."""

    def forward(self, values: Tensor, *, inputs: list[Tensor], **given: Any) -> Any:
        return self.give(values.mean(0), inputs[0])


class Some(Abstaining, Late):
    """Answers where it is sure."""

    def __init__(self, what: str, after: int) -> None:
        super().__init__()
        self.note(what, after)

    def forward(self, values: Tensor, **given: Any) -> Any:
        mean = values.mean(0)
        return mean, self.give(mean.amax(-1) > 0.4, mean)


class Shut(Gate, Late):
    """Factors of one."""

    def __init__(self, what: str, after: int) -> None:
        super().__init__()
        self.note(what, after)

    def forward(self, *, signal: Tensor) -> Any:
        return self.give(torch.ones(len(signal)), signal)


class Opens(Shut):
    """A decision."""

    def forward(self, *, signal: Tensor) -> Any:
        return self.give(torch.tensor(True), signal)


class Soft(Late):
    """A softmax."""

    def __init__(self, what: str, after: int) -> None:
        self.note(what, after)

    def __call__(self, value: Tensor) -> Any:
        return self.give(value.softmax(-1), value)


class Shifted(Late):
    """Samples, moved."""

    def __init__(self, seed: int, what: str, after: int) -> None:
        self.note(what, after)

    def __call__(self, x: Tensor, ids: Tensor, draw: int) -> Any:
        return self.give(x + 0.1, x)


class Net(nn.Module, Late):
    """One layer."""

    def __init__(self, input_shape: torch.Size, classes: int, what: str, after: int) -> None:
        super().__init__()
        self.note(what, after)
        self.layer = nn.Linear(*input_shape, classes)

    def forward(self, x: Tensor) -> Any:
        return self.give(self.layer(x), x)


def no_net(**settings: Any) -> None:
    """No model."""


class Figure(Metric):
    """A figure that is none."""

    def __init__(self, what: str, after: int) -> None:
        self.what = what

    def update(self, answers: Any) -> None:
        if self.what == "in place":
            answers.scores.mul_(0.5)

    def compute(self) -> Any:
        made = {"text": "a", "truth": True, "numpy": np.ones(3), "tensor": torch.ones(()), "list": [1.0]}
        return made.get(self.what, 1.0)

    def each(self, answers: Any) -> Any:
        if self.what.startswith("each "):
            return FAULTS[self.what.removeprefix("each ")](torch.ones(len(answers)), answers.scores)
        return None


class Odd(Task):
    """Classes, but for one answer."""

    def __init__(self, what: str, after: int) -> None:
        self.what = what

    def outputs(self, table: Any) -> Any:
        return {"no outputs": None, "outputs as text": "3", "0 outputs": 0}.get(self.what, 3)

    def decide(self, scores: Tensor) -> Any:
        if self.what.startswith("decide "):
            return FAULTS[self.what.removeprefix("decide ")](scores.argmax(1), scores)
        return scores.argmax(1).float() if self.what == "fractions" else scores.argmax(1)

    def chance(self, labels: Tensor) -> Any:
        return 0.3 if self.what == "chance as a number" else None


def table(what: str, after: int) -> Any:
    """A data set with something wrong."""
    good = kdmesh.data((torch.randn(90, 8), torch.arange(90) % 3), classes=3)
    match what:
        case "gradient":
            return replace(good, x=good.x.requires_grad_())
        case "columns":
            return replace(good, columns={"a": [1] * 90})
        case "official":
            return replace(good, official={"test": torch.tensor([500])})
        case "labels on meta":
            return replace(good, y=good.y.to("meta"))
    return (
        FAULTS[what](good.x, good.x) if what in ("nothing", "text") else replace(good, x=FAULTS[what](good.x, good.x))
    )


OFFERS = (
    ObjectiveOffer("loss", f"{__name__}:Loss", Fault),
    ConsensusOffer("average", f"{__name__}:Mean", Fault, needs_labels=True, spaces=("probs", "loss")),
    ConsensusOffer("informed", f"{__name__}:Informed", Fault, inputs=True),
    ConsensusOffer("some", f"{__name__}:Some", Fault, abstains=True),
    GateOffer("factors", f"{__name__}:Shut", Fault, needs=("signal",), rows=True),
    GateOffer("opens", f"{__name__}:Opens", Fault, needs=("signal",)),
    SignalOffer("soft", f"{__name__}:Soft", Fault),
    ViewOffer("shifted", f"{__name__}:Shifted", Fault),
    ModelOffer("net", f"{__name__}:Net", Fault),
    ModelOffer("none", f"{__name__}:no_net", Fault),
    MetricOffer("figure", f"{__name__}:Figure", Fault),
    TaskOffer("odd", f"{__name__}:Odd", Fault),
    DatasetOffer("table", f"{__name__}:table", Fault),
)


@pytest.fixture(autouse=True)
def offered(monkeypatch: pytest.MonkeyPatch) -> None:
    """A distribution that offers them."""
    record = PluginRecord("odd", "kdmesh-odd", "2", claims={(offer.kind, offer.name): offer for offer in OFFERS})
    for offer in OFFERS:
        monkeypatch.setitem(registry()._offers[offer.kind], offer.name, offer)
    monkeypatch.setattr(registry(), "records", [*registry().records, record])


def pair(make: Any, fault: dict[str, Any], **names: str) -> Any:
    """Two peers, of which one learns from the other; ``names``: what the flow has of a plugin."""
    made = make("ab")
    made.flow("labels", ["a", "b"], objective="ce")
    made.flow("a", "b", **{"objective": "kl", "refresh": "step", **{of: {one: fault} for of, one in names.items()}})
    return made


def council(make: Any, fault: dict[str, Any], rule: str, refresh: str = "step", **more: Any) -> Any:
    """A student of a consensus of two."""
    made = make("abs")
    made.flow("labels", ["a", "b"], objective="ce")
    made.consensus("c", {rule: fault}, **more)
    made.flow(["a", "b"], "c", refresh=refresh)
    made.flow("c", "s", objective="kl")
    return made


def alone(make: Any, agent: dict[str, Any], **fields: Any) -> Any:
    """One agent that learns from labels."""
    made = make({"a": agent}, **fields)
    made.flow("labels", "a", objective="ce")
    return made


def taught(make: Any, fault: dict[str, Any]) -> Any:
    """A teacher that does not train."""
    made = make({"t": {"model": {"net": fault}, "update": "frozen"}, "a": {}})
    made.flow("labels", "a", objective="ce")
    made.flow("t", "a", objective="kl", refresh="step")
    return made


MESHES: dict[str, Any] = {
    "objective": lambda make, fault: pair(make, fault, objective="loss"),
    "rule": lambda make, fault: council(make, fault, "average"),
    "stored rule": lambda make, fault: council(make, fault, "average", refresh="epoch"),
    "weights": lambda make, fault: council(make, fault, "average", space="loss"),
    "answered": lambda make, fault: council(make, fault, "some"),
    "factors": lambda make, fault: pair(make, fault, gate="factors"),
    "decision": lambda make, fault: pair(make, fault, gate="opens"),
    "signal": lambda make, fault: pair(make, fault, signal="soft"),
    "view": lambda make, fault: alone(make, {"view": {"augment": [{"shifted": fault}]}}),
    "model": lambda make, fault: alone(make, {"model": {"net": fault}}),
    "teacher": taught,
    "no model": lambda make, fault: alone(make, {"model": {"none": fault}}),
    "metric": lambda make, fault: alone(make, {}, metrics=["accuracy", {"figure": fault}], primary="figure"),
    "task": lambda make, fault: alone(make, {}, task={"odd": fault}),
    "data set": lambda make, fault: alone(make, {}, data={"dataset": {"table": fault}, "test": 0.2}),
}
ALWAYS = ("nothing", "text", "numpy", "shape", "meta")
KINDS = ("float64", "half", "whole")
LATE: dict[str, tuple[str, ...]] = {
    "objective": (*ALWAYS, "half", "whole", "detached", "in place", "nan"),
    "rule": (*ALWAYS, *KINDS, "rows", "in place", "nan", "below 0"),
    "weights": ("nothing", "shape", "meta", "whole", "rows", "in place", "nan", "below 0"),
    "answered": ("nothing", "text", "numpy", "rows", "meta", "whole"),
    "factors": ("nothing", "text", "numpy", "shape", "meta", "whole", "nan", "in place"),
    "decision": ("nothing", "text", "shape", "whole", "meta", "in place"),
    "signal": (*ALWAYS, *KINDS, "rows", "nan"),
    "view": ("nothing", "numpy", "shape", "meta", "float64", "rows", "nan"),
    "model": (*ALWAYS, *KINDS, "rows", "detached", "in place", "nan"),
    "teacher": ("nothing", "numpy", "shape", "meta", "float64", "in place", "nan"),
}
"""From the sixth call on: in what no check before a run sees."""
AT_ONCE: dict[str, tuple[str, ...]] = {
    "objective": ("half", "detached", "in place", *REPORTS),
    "stored rule": ("nothing", "shape", "float64", "meta", "in place"),
    "rule": tuple(REPORTS),
    "weights": ("nan", "below 0"),
    "model": ("nothing", "shape", "whole", "meta"),
    "no model": ("nothing",),
    "metric": ("text", "truth", "numpy", "tensor", "list", "in place", "each numpy", "each shape", "each meta"),
    "task": (
        *("no outputs", "outputs as text", "0 outputs", "fractions", "chance as a number"),
        *("decide nothing", "decide numpy", "decide shape", "decide meta"),
    ),
    "data set": (
        *("nothing", "text", "numpy", "float64", "whole", "meta", "nan"),
        *("gradient", "columns", "official", "labels on meta"),
    ),
}


@pytest.mark.parametrize(("kind", "what"), [(kind, what) for kind, faults in LATE.items() for what in faults])
def test_what_goes_wrong_at_a_later_step_is_named_with_that_step(mesh: Any, kind: str, what: str) -> None:
    made = MESHES[kind](lambda *given, **more: mesh(*given, train={"steps": 8}, **more), {"what": what, "after": 5})
    with pytest.raises(MeshError, match=r"of kdmesh-odd 2\b") as raised:
        made.run(backend="inline")
    assert "at step 5" in str(raised.value)


@pytest.mark.parametrize(("kind", "what"), [(kind, what) for kind, faults in AT_ONCE.items() for what in faults])
def test_what_is_wrong_from_the_first_is_named(mesh: Any, kind: str, what: str) -> None:
    made = MESHES[kind](lambda *given, **more: mesh(*given, train={"epochs": 1}, **more), {"what": what})
    with pytest.raises(MeshError, match=r"of kdmesh-odd 2\b"):
        made.run(backend="inline")


@pytest.mark.parametrize("kind", [kind for kind in MESHES if kind not in ("no model", "data set")])
def test_what_is_right_runs(mesh: Any, kind: str) -> None:
    made = MESHES[kind](lambda *given, **more: mesh(*given, train={"steps": 4}, **more), {})
    assert made.run(backend="inline").summary["agents"]


class Exits(nn.Module):
    """A model with two ends, one of which loses its gradient."""

    calls = 0

    def __init__(self, after: int) -> None:
        super().__init__()
        self.after, self.early, self.late = after, nn.Linear(8, 3), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        with torch.set_grad_enabled(self.calls <= self.after):
            self.early(x)
        return self.late(x)


@pytest.mark.parametrize("after", [5, 1000])
def test_an_exit_that_shares_a_forward_has_a_gradient_of_its_own(mesh: Any, after: int) -> None:
    made = mesh({"a": {"model": Exits(after)}, "e": {"weights_of": "a", "exit": "early"}}, train={"steps": 8})
    made.flow("labels", ["a", "e"], objective="ce")
    if after > 8:
        assert made.run(backend="inline").summary["agents"]
        return
    with pytest.raises(MeshError, match=r"the model of e failed to answer at step \d .* detached from its weights"):
        made.run(backend="inline")


def test_a_model_of_ones_own_is_named_by_its_agent_and_the_line(mesh: Any) -> None:
    made = mesh({"a": {"model": Net(torch.Size([8]), 3, "rows", 5)}}, train={"steps": 8})
    made.flow("labels", "a", objective="ce")
    said = r"agents\.a\.model: the model of a failed to answer at step 5 .*it gave .*\(25, 3\).*not \[26, 3\]"
    with pytest.raises(MeshError, match=said):
        made.run(backend="inline")


@pytest.mark.parametrize("what", REPORTS)
@pytest.mark.parametrize("kind", ["objective", "rule"])
def test_a_report_that_goes_wrong_later_is_named(mesh: Any, kind: str, what: str) -> None:
    made = MESHES[kind](lambda *given, **more: mesh(*given, train={"steps": 8}, **more), {"what": what, "after": 5})
    with pytest.raises(MeshError, match=r"of kdmesh-odd 2 failed to report.*(not|leave out)"):
        made.run(backend="inline")


def test_weights_that_are_below_0_are_told_with_their_range(mesh: Any) -> None:
    made = MESHES["weights"](lambda *given, **more: mesh(*given, **more), {"what": "below 0"})
    with pytest.raises(MeshError, match=r"the consensus rule 'average' of kdmesh-odd 2 .*weights from -4.5 to -4.5"):
        made.run(backend="inline")


def test_a_rule_that_changes_what_informs_it_is_named(mesh: Any) -> None:
    made = council(lambda names: mesh(names, train={"steps": 8}), {"what": "in place", "after": 5}, "informed")
    made.flow("s", "c", as_="input", refresh="step")
    with pytest.raises(MeshError, match=r"of kdmesh-odd 2 failed to combine at step 5: .*changes `inputs`"):
        made.run(backend="inline")


class KeepsItsGraph(Loss):
    """Adds the loss of the step before, whose graph is gone."""

    before: Any = 0.0

    def forward(self, student: Tensor, target: Tensor, **given: Any) -> Any:
        loss = (student - target).square().mean()
        total, self.before = loss + self.before, loss
        return total


def test_a_backward_pass_that_fails_names_who_had_a_part_in_it(mesh: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.Loss", KeepsItsGraph)
    with pytest.raises(MeshError, match=r"agents\.b: no gradient at step 1 of what b learns: Trying.*kdmesh-odd 2"):
        pair(mesh, {}, objective="loss").run(backend="inline")


def test_a_loss_of_0_may_be_without_gradient(mesh: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Loss, "forward", lambda self, student, target, **given: student.new_zeros(()))
    assert pair(mesh, {}, objective="loss").run(backend="inline").summary["agents"]
