"""Statistics of whole streams as signals: sources see what samples they like, and readers look up rows."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import kdmesh
from kdmesh.errors import MeshError, RunFailed
from kdmesh.objectives import Objective, batchmean, comparable
from kdmesh.offers import ConsensusOffer, ObjectiveOffer, SignalOffer
from kdmesh.plugins import registry
from kdmesh.testing import ObjectiveContract, SignalContract

FROZEN = {"update": "frozen", "model": {"mlp": {"hidden": [8]}}}
SEEN: list[tuple[Tensor, Tensor | None]] = []


class Means:
    """By class."""

    def __call__(self, value: Tensor, *, labels: Tensor, classes: int) -> Any:
        rows = value.flatten(1)
        counts = torch.bincount(labels, minlength=classes)
        sums = rows.new_zeros(classes, rows.shape[1]).index_add(0, labels, rows)
        return sums / counts.clamp(min=1)[:, None], counts > 0


class Odd:
    """A row for each sample, whatever it says."""

    def __call__(self, value: Tensor) -> Tensor:
        return value


class Nowhere:
    """Not finite."""

    def __call__(self, value: Tensor) -> Tensor:
        return value[:2] / 0


class Near(Objective):
    """``sum_i |h_i - p_{y_i}|^2 / B``, of samples whose class has a mean."""

    def forward(self, student: Tensor, target: Tensor, *, form: str = "", weights: Any = None, labels: Any) -> Tensor:  # type: ignore[override]
        SEEN.append((target, weights))
        known = None if weights is None else weights[labels]
        own, theirs = comparable(student.flatten(1), target[labels], known)
        return batchmean((own - theirs).square(), known)


@pytest.fixture(autouse=True)
def offered(monkeypatch: pytest.MonkeyPatch) -> None:
    both: dict[str, Any] = {"needs": ("labels", "classes"), "aligned": False}
    near: dict[str, Any] = {"needs": ("labels",), "aligned": False}
    here = __name__
    for kind, offer in (
        ("signals", SignalOffer("means", f"{here}:Means", reads="hidden", form="hidden", **both)),
        ("signals", SignalOffer("mean_logits", f"{here}:Means", form="logits", **both)),
        ("signals", SignalOffer("rows", f"{here}:Odd", form="logits", aligned=False)),
        ("signals", SignalOffer("nowhere", f"{here}:Nowhere", form="logits", aligned=False)),
        ("signals", SignalOffer("greedy", f"{here}:Means", form="logits", needs=("module",), aligned=False)),
        ("signals", SignalOffer("soft", f"{here}:Means", form="probs", aligned=False)),
        ("signals", SignalOffer("labelled", f"{here}:Means", form="logits", needs=("labels",))),
        ("objectives", ObjectiveOffer("near", f"{here}:Near", reads="hidden", forms=("hidden",), **near)),
        ("objectives", ObjectiveOffer("near_logits", f"{here}:Near", forms=("logits",), **near)),
        ("consensus", ConsensusOffer("by_ids", "nowhere:X", spaces=("logits",), needs=("ids",))),
    ):
        monkeypatch.setitem(registry()._offers[kind], offer.name, offer)
    SEEN.clear()


def parts(mesh: Any, **fields: Any) -> kdmesh.Mesh:
    """Each of three learns from samples of two classes, and from what the others' layers are like on theirs."""
    shards = {"by": "class", "classes": 2, "of": ["a", "b", "c"]}
    made: kdmesh.Mesh = mesh(["a", "b", "c"], seed=4, streams={"own": {"shards": shards}}, **fields)
    made.consensus("all", "mean")
    made.flow("labels", ["a", "b", "c"], objective="ce", stream="own")
    made.flow(["a", "b", "c"], "all", signal="means", tap="layers.0", stream="own", refresh="epoch")
    made.flow("all", ["a", "b", "c"], objective="near", tap="layers.0", stream="own", weight=0.1)
    return made


STREAMS = {"one": {"only": [0, 1]}, "two": {"only": [1, 2], "size": 0.5}}


def different(mesh: Any, signal: Any = "mean_logits", rule: str = "mean", **fields: Any) -> kdmesh.Mesh:
    """Two frozen sources, each on a stream of its own."""
    made: kdmesh.Mesh = mesh({"a": FROZEN, "b": FROZEN, "s": {}}, streams=STREAMS, **fields)
    made.consensus("all", rule)
    made.flow("a", "all", signal=signal, stream="one")
    made.flow("b", "all", signal=signal, stream="two")
    made.flow("all", "s", objective="near_logits")
    return made


def means_of(start: Any, name: str, stream: str) -> tuple[Tensor, Tensor]:
    rows, table = start.found.streams[stream].rows, start.found.table
    assert table.y is not None
    with torch.no_grad():
        logits = start.modules[name].eval()(table.x[rows])
    value = [logits[table.y[rows] == c] for c in range(3)]
    means = [rows.mean(0) if len(rows) else torch.zeros(3) for rows in value]
    return torch.stack(means), torch.tensor([len(rows) > 0 for rows in value])


def test_rows_are_combined_of_those_who_know_them(mesh: Any, start: Any) -> None:
    made = different(mesh)
    begun = start(made)
    (one, knows), (two, sees) = means_of(begun, "a", "one"), means_of(begun, "b", "two")
    assert knows.tolist() == [True, True, False] and sees.tolist() == [False, True, True]
    made.run(backend="inline")
    target, weights = SEEN[-1]
    assert weights is not None and weights.all()  # some source knows each
    torch.testing.assert_close(target, torch.stack([one[0], (one[1] + two[1]) / 2, two[2]]))


def test_what_nobody_knows_has_weight_0(mesh: Any, start: Any) -> None:
    made = mesh({"a": FROZEN, "s": {}}, streams=STREAMS)
    made.flow("a", "s", signal="mean_logits", objective="near_logits", stream="two")
    expected, known = means_of(start(made), "a", "two")
    made.run(backend="inline")
    target, weights = SEEN[-1]
    assert weights is not None and weights.tolist() == known.float().tolist() == [0.0, 1.0, 1.0]
    torch.testing.assert_close(target, expected)


def outcome(made: kdmesh.Mesh) -> dict[str, str]:
    return {name: one["weights_sha256"] for name, one in made.run(backend="inline").summary["agents"].items()}


def test_it_teaches_and_placement_changes_nothing(mesh: Any) -> None:
    together = outcome(parts(mesh, placement="together"))
    assert outcome(parts(mesh, placement="spread")) == together
    shards = {"by": "class", "classes": 2, "of": ["a", "b", "c"]}
    plain = mesh(["a", "b", "c"], seed=4, streams={"own": {"shards": shards}})
    plain.flow("labels", ["a", "b", "c"], objective="ce", stream="own")
    alone = outcome(plain)
    assert all(alone[name] != together[name] for name in "abc")


def test_a_run_that_was_broken_off_ends_as_an_unbroken_one(mesh: Any, broken_off: Any) -> None:
    more = {"train": {"epochs": 3, "evaluate_every": 1}}
    expected = outcome(parts(mesh, **more))
    for summary in broken_off(lambda: parts(mesh, **more)):
        assert {name: one["weights_sha256"] for name, one in summary["agents"].items()} == expected


def flow(mesh: Any, *flows: Any, consensus: Any = None, **fields: Any) -> kdmesh.Mesh:
    made: kdmesh.Mesh = mesh({"a": FROZEN, "b": FROZEN, "s": {}}, streams=STREAMS, **fields)
    for name, rule in (consensus or {}).items():
        made.consensus(name, **rule) if isinstance(rule, dict) else made.consensus(name, rule)
    for source, target, more in flows:
        made.flow(source, target, **more)
    return made


MEANS = {"signal": "mean_logits"}
BOTH = (["a", "b"], "all", MEANS)
READ = ("all", "s", {"objective": "near_logits"})
REFUSED = {
    "compared row by row": (
        lambda mesh: flow(mesh, ("a", "s", {**MEANS, "objective": "kl"})),
        "objective 'kl' compares sample by sample, and a -> s carries a statistic",
        "flows.0.objective",
    ),
    "a consensus compared row by row": (
        lambda mesh: flow(mesh, BOTH, ("all", "s", {"objective": "mse"}), consensus={"all": "mean"}),
        "objective 'mse' compares sample by sample, and all -> s carries a statistic",
        "flows.1.objective",
    ),
    "answers to samples read as a statistic": (
        lambda mesh: flow(mesh, ("a", "s", {"objective": "near_logits"})),
        "objective 'near_logits' reads statistics of a stream, and a -> s carries answers to samples",
        "flows.0.objective",
    ),
    "mixed": (
        lambda mesh: flow(mesh, ("a", "all", MEANS), ("b", "all", {}), READ, consensus={"all": "mean"}),
        "all combines statistics of streams, and b -> all carries answers to samples",
        "flows.1",
    ),
    "a rule that needs samples": (
        lambda mesh: flow(mesh, BOTH, READ, consensus={"all": "by_ids"}),
        "rule 'by_ids' needs ids, and all combines statistics of streams",
        "consensus.all.rule",
    ),
    "another space": (
        lambda mesh: flow(mesh, BOTH, READ, consensus={"all": {"rule": "mean", "space": "probs"}}),
        "combined as they are, in space logits, and not in probs",
        "consensus.all.space",
    ),
    "in each step": (
        lambda mesh: flow(mesh, ("a", "s", {**MEANS, "objective": "near_logits", "refresh": "step"})),
        "a -> s carries a statistic of a whole stream, which is made where a publishes",
        "flows.0.refresh",
    ),
    "of a stream without labels": (
        lambda mesh: hidden(mesh),
        "mean_logits needs labels, and stream 'hidden' has none",
        "flows.0.stream",
    ),
    "an offer that needs the module": (
        lambda mesh: flow(mesh, ("a", "s", {"signal": "greedy", "objective": "near_logits"})),
        "the signal 'greedy' is a statistic of a stream, and asks for module",
        "flows.0.signal",
    ),
    "probabilities": (
        lambda mesh: flow(mesh, ("a", "s", {"signal": "soft", "objective": "near_logits"})),
        "the signal 'soft' is a statistic of a stream, and has the form probs",
        "flows.0.signal",
    ),
    "an aligned one with labels": (
        lambda mesh: flow(mesh, ("a", "s", {"signal": "labelled", "objective": "kl"})),
        "the signal 'labelled' is made of samples, and asks for labels",
        "flows.0.signal",
    ),
    "a gate of rows": (
        lambda mesh: flow(mesh, ("a", "s", {**MEANS, "objective": "near_logits", "gate": "confident"})),
        "looks at each row that is compared, and a -> s carries rows of no samples",
        "flows.0.gate",
    ),
    "a private stream": (
        lambda mesh: private(mesh),
        "stream 'own' is private, but a -> b would carry signals made on it",
        "flows.1",
    ),
}  # fmt: skip


def hidden(mesh: Any) -> kdmesh.Mesh:
    made: kdmesh.Mesh = mesh({"a": FROZEN, "s": {}}, streams={"hidden": {"labels": False}})
    made.consensus("all", "mean")
    made.flow("a", "all", stream="hidden", **MEANS)
    made.flow("all", "s", objective="near_logits")
    return made


def private(mesh: Any) -> kdmesh.Mesh:
    """What leaves a private stream is refused, also as a statistic."""
    made: kdmesh.Mesh = mesh(["a", "b"], streams={"own": {"private": True, "shards": {"of": ["a", "b"]}}})
    made.consensus("all", "mean")
    made.flow("labels", ["a", "b"], objective="ce", stream="own")
    made.flow(["a", "b"], "all", stream="own", refresh="epoch", **MEANS)
    made.flow("all", ["a", "b"], objective="near_logits", stream="own")
    return made


@pytest.mark.parametrize("case", REFUSED)
def test_misuse_is_refused(mesh: Any, case: str) -> None:
    make, said, where = REFUSED[case]
    made = make(mesh)
    with pytest.raises(MeshError, match=said) as error:
        made.plan()
    assert error.value.where == where and error.value.instead


@pytest.mark.parametrize(
    ("signal", "said"),
    [("nowhere", "values that are not finite"), ("rows", r"it gave .*, and \[2, 3\] of other samples")],
)
def test_what_a_signal_gives_is_checked(mesh: Any, signal: str, said: str) -> None:
    with pytest.raises((MeshError, RunFailed), match=said):
        different(mesh, signal).run(backend="inline")


class TestMeans(SignalContract):
    """The contract of a statistic."""

    module = "kdmesh.offers"

    @pytest.fixture
    def offer(self) -> SignalOffer:
        more: dict[str, Any] = {"needs": ("labels", "classes"), "aligned": False}
        return SignalOffer("means", f"{__name__}:Means", summary="means by class", form="hidden", **more)


def test_the_contract_finds_a_row_for_each_sample() -> None:
    offer = SignalOffer("rows", f"{__name__}:Odd", summary="for a test", form="hidden", aligned=False)
    with pytest.raises(AssertionError, match=r"of fewer samples it gives \[3, 5\], not \[6, 5\]"):
        SignalContract().test_gives_a_row_for_each(offer, {})


class TestNear(ObjectiveContract):
    """The contract of an objective that looks up rows of a statistic."""

    module = "kdmesh.offers"
    zero_at_equality = True
    permutation_invariant = True
    doubling = 1.0

    @pytest.fixture
    def offer(self) -> ObjectiveOffer:
        more: dict[str, Any] = {"reads": "hidden", "forms": ("hidden",), "needs": ("labels",), "aligned": False}
        return ObjectiveOffer("near", f"{__name__}:Near", summary="near its class", **more)
