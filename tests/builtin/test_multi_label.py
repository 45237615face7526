"""Several labels a sample: metrics against scikit-learn, formulas in float64, and a run equal to a plain loop."""

from __future__ import annotations

import json
import math
from functools import partial

import numpy as np
import pytest
import torch
from sklearn import metrics as known
from torch.nn import functional as F

import kdmesh
from kdmesh.builtin.datasets.digit_attributes import ATTRIBUTES
from kdmesh.builtin.objectives import binary_kl
from kdmesh.engine.check import check, examine
from kdmesh.graph.planner import make_plan
from kdmesh.hosts.consensus import probabilities, sharpened
from kdmesh.hosts.metrics import UNDEFINED, agreement, churn, measure, predictions
from kdmesh.hosts.modules import build
from kdmesh.metrics import Loss, MacroF1, MeanAveragePrecision, MicroF1
from kdmesh.objectives import BinaryCrossEntropy, BinaryKL
from kdmesh.plugins import registry
from kdmesh.spec import MeshSpec
from kdmesh.streams.order import epoch_order

MLP = {"mlp": {"hidden": [8]}}
EPOCHS, SIZE, T = 2, 64, 2.0
KL = {"binary_kl": {"temperature": T}}
ENSEMBLE = {"teachers": ["a", "b"], "student": "s", "objective": KL}


def answers(rows: int = 200, ties: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    scores = torch.randn(rows, 4, generator=generator, dtype=torch.float64) * 2
    scores = scores.round() if ties else scores
    return scores, (scores + 2 * torch.randn(rows, 4, generator=generator) > 1).long()


@pytest.mark.parametrize("ties", [False, True])
def test_metrics_are_those_of_scikit_learn(ties):
    scores, y = answers(ties=ties)
    made = {"map": MeanAveragePrecision(), "micro": MicroF1(), "macro": MacroF1(), "loss": Loss()}
    found = measure(made, scores, y)
    said = (scores.sigmoid() > 0.5).long()
    assert found["map"] == pytest.approx(known.average_precision_score(y, scores, average="macro"), abs=1e-12)
    assert found["micro"] == pytest.approx(known.f1_score(y, said, average="micro"), abs=1e-12)
    assert found["macro"] == pytest.approx(known.f1_score(y, said, average="macro"), abs=1e-12)
    each = [known.log_loss(y[:, k], scores[:, k].sigmoid()) for k in range(4)]
    assert found["loss"] == pytest.approx(sum(each), abs=1e-12)


def test_of_a_label_that_no_row_has_average_precision_is_not_defined():
    scores, y = answers()
    y[:, 2] = 0
    found = measure({"map": MeanAveragePrecision(), "micro": MicroF1()}, scores, y)
    assert found[UNDEFINED] == {"map": "no row has label 2"} and 0 < found["micro"] < 1


@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("form", ["logits", "marginals"])
def test_the_divergence_and_its_gradient_are_the_formulas(form, temperature):
    """In float64, of bernoulli distributions of torch; ``T (q - p) / B``."""
    s, t = answers(6)[0].requires_grad_(), answers(9)[0][3:]
    p, q = (t / temperature).sigmoid(), (s / temperature).sigmoid()
    loss = BinaryKL(temperature)(s, t if form == "logits" else p, form=form)
    pair = [torch.distributions.Bernoulli(probs=one) for one in (p, q)]
    wanted = temperature**2 * torch.distributions.kl_divergence(*pair).sum() / 6
    torch.testing.assert_close(loss, wanted, rtol=1e-12, atol=0)
    torch.testing.assert_close(torch.autograd.grad(loss, s)[0], (temperature * (q - p) / 6).detach(), rtol=1e-9, atol=0)
    with torch.device("meta"):
        BinaryKL(temperature)(torch.zeros(2, 3), torch.zeros(2, 3), form=form)  # where no number can be read


@pytest.mark.parametrize("form", ["logits", "marginals"])
def test_the_divergence_has_one_value_guarded_or_not(form, monkeypatch):
    s, t = answers(9)[0].requires_grad_(), answers(12)[0][3:]
    found = []
    for cheap in (True, False):
        monkeypatch.setattr(binary_kl, "_cheap", lambda s, cheap=cheap: cheap)
        loss = BinaryKL(2.0)(s, t if form == "logits" else t.sigmoid(), form=form)
        found.append((loss, torch.autograd.grad(loss, s)[0]))
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-12)


def test_a_label_that_both_rule_out_costs_nothing():
    s = torch.tensor([[-math.inf, 1.0]], requires_grad=True)
    loss = BinaryKL()(s, torch.tensor([[-math.inf, 1.0]]))
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-7) and s.grad.isfinite().all()


def test_a_label_that_is_certain_costs_a_finite_loss_with_a_finite_gradient():
    s = torch.tensor([[80.0, -300.0, 0.0]], requires_grad=True)
    for t, form in ((torch.tensor([[-80.0, 300.0, 300.0]]), "logits"), (torch.tensor([[0.0, 1.0, 1.0]]), "marginals")):
        loss = BinaryKL()(s, t, form=form)
        loss.backward()
        assert loss.item() == pytest.approx(80 + 300 + np.log(2), rel=1e-6) and s.grad.isfinite().all()


def test_binary_cross_entropy_is_that_of_torch():
    s, y = answers(6)
    s.requires_grad_()
    loss = BinaryCrossEntropy()(s, y, form="labels")
    assert torch.equal(loss, F.binary_cross_entropy_with_logits(s, y.double(), reduction="none").sum() / 6)
    mean = BinaryCrossEntropy(per_element=True)(s, y, form="labels")
    assert torch.equal(mean, F.binary_cross_entropy_with_logits(s, y.double()))
    torch.testing.assert_close(torch.autograd.grad(loss, s)[0], (s.sigmoid() - y).detach() / 6, rtol=1e-12, atol=0)


def test_probabilities_of_labels_give_their_logits_back():
    z = answers(20)[0]
    torch.testing.assert_close(sharpened(probabilities(z, "marginals", 3.0), 3.0, "marginals"), z)


def planned(**fields):
    made = {"task": "multi_label", "data": "digit_attributes", "agents": {n: {"model": MLP} for n in "abs"}, **fields}
    return make_plan(MeshSpec.model_validate(made), registry())


def kl_of(name: str, task: str = "multi_label", data: str = "digit_attributes"):
    return {"task": task, "data": data, "connect": [{"mutual": {"peers": ["a", "b"], "objective": name}}]}


@pytest.mark.parametrize(
    ("fields", "where", "what"),
    [
        ({"flows": [{"from": "labels", "to": "a", "objective": "ce"}]}, "flows.0.objective", "reads labels that are"),
        (kl_of("kl"), "connect.0.mutual", "compares probabilities of classes, which sum to 1"),
        (kl_of("binary_kl", "classification", "digits"), "connect.0.mutual", "of labels, each on its own"),
        (kl_of("binary_kl", "regression", "diabetes"), "connect.0.mutual", "of labels, each on its own"),
        ({"connect": [{"ensemble": {**ENSEMBLE, "consensus": "vote"}}]}, "connect.0", "combines answers about classes"),
        ({"connect": [{"ensemble": {**ENSEMBLE, "consensus": "entropy"}}]}, "connect.0", "combines answers about cla"),
        ({"connect": [{"ensemble": {**ENSEMBLE, "consensus": {"rule": "mean", "space": "probs"}}}]},
         "connect.0", "does not work in space 'probs'"),
        ({"metrics": ["accuracy"]}, "metrics.0", "the labels of task multi_label are indicators"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_of_several_labels_is_refused_when_planned(fields, where, what):
    with pytest.raises(kdmesh.MeshError, match=what) as error:
        planned(**fields)
    assert error.value.where.startswith(where)


@pytest.mark.parametrize(
    ("task", "data", "what"),
    [
        ("multi_label", "digits", "learns indicators, and the labels of these data are classes"),
        ("classification", "digit_attributes", "learns classes, and the labels of these data are indicators"),
    ],
)
def test_data_of_another_kind_are_refused_when_checked(task, data, what):
    with pytest.raises(kdmesh.MeshError, match=what):
        examine(planned(task=task, data=data))


@pytest.mark.parametrize("rule", ["mean", "median"])
@pytest.mark.parametrize("space", ["marginals", "logits"])
def test_an_ensemble_is_a_plain_loop_bit_for_bit(rule, space):
    """Two teachers learn labels; what they say of each label teaches a student beside the labels."""
    make = partial(torch.optim.SGD, lr=0.05, momentum=0.9, fused=True)
    train = {"epochs": EPOCHS, "batch_size": SIZE, "optimizer": {"sgd": {"lr": 0.05, "momentum": 0.9}}}
    mesh = kdmesh.Mesh(data="digit_attributes", task="multi_label", seed=7, train=train)
    for name in "abs":
        mesh.agent(name, MLP)
    named = {"rule": rule} if space == "marginals" else {"rule": rule, "space": space}  # by default what is compared
    mesh.connect("ensemble", **ENSEMBLE, consensus=named, labels=0.5)
    plan = mesh.plan()
    assert [(node.space, node.temperature) for node in plan.consensus.values()] == [(space, T)]
    found = examine(plan)
    rows = found.streams["train"].rows
    x, y = found.table.x[rows], found.table.y[rows].float()
    modules = {name: build(plan, name, found.reading, registry(), {}) for name in "abs"}
    batches = [at for epoch in range(EPOCHS) for at in epoch_order(7, "train", epoch, len(rows)).split(SIZE)]

    def crossed(own, at):
        return F.binary_cross_entropy_with_logits(own, y[at], reduction="none").sum() / len(at)

    for name in "ab":
        optimizer = make(modules[name].parameters())
        for at in batches:
            optimizer.zero_grad()
            crossed(modules[name](x[at]), at).backward()
            optimizer.step()

    @torch.no_grad()
    def logits(teacher):
        teacher.eval()
        padded = torch.cat([x, x[-1:].expand(-len(x) % SIZE, *x.shape[1:])])
        return torch.cat([teacher(part) for part in padded.split(SIZE)])[: len(x)]

    a, b = (logits(modules[name]) for name in "ab")
    target = ((a / T).sigmoid() + (b / T).sigmoid()) / 2 if space == "marginals" else (a + b) / 2

    def divergence(own, at):
        p = target[at] if space == "marginals" else (target[at] / T).sigmoid()
        loss = F.binary_cross_entropy_with_logits(own / T, p, reduction="none")  # the target's entropy has no gradient
        return loss.sum() / len(at) * T**2

    optimizer = make(modules["s"].parameters())
    order = ["labels" if edge.source == "labels" else "teachers" for edge in plan.edges if edge.target == "s"]
    for at in batches:
        optimizer.zero_grad()
        own = modules["s"](x[at])
        parts = {"labels": 0.5 * crossed(own, at), "teachers": 0.5 * divergence(own, at)}
        sum(parts[name] for name in order).backward()
        optimizer.step()
    result = mesh.run(backend="inline")
    worst = max(
        (own - other).abs().max().item()
        for name in "abs"
        for own, other in zip(result[name].module.parameters(), modules[name].parameters(), strict=True)
    )
    assert worst == 0.0


def test_an_idle_model_of_labels_is_near_chance_which_is_the_share_of_rows_with_each():
    mesh = kdmesh.Mesh(
        task="multi_label", data="digit_attributes", train={"epochs": 1, "optimizer": {"sgd": {"lr": 1e-9}}}
    )
    mesh.agent("idle", MLP)
    summary = mesh.run(backend="inline").summary
    table, task = registry().find("datasets", "digit_attributes").make({}), registry().find("tasks", "multi_label")
    chance = task.make({}).chance(table.y)
    assert chance.value == pytest.approx(known.average_precision_score(table.y, torch.zeros(table.y.shape)), abs=1e-12)
    assert task.make({}).chance(table.y[:, :1] * 0) is None
    found = summary["agents"]["idle"]["metrics"]["test"]["mean_average_precision"]
    assert chance.value - 0.1 < found < chance.value + 0.2


def test_a_check_says_what_the_labels_are():
    lines = check(planned())
    assert lines[0].startswith("data: 1797 samples of shape (1, 8, 8), 5 indicators; licence")
    assert lines[1] == "indicators: even, above four, prime, multiple of three, has a loop"


def test_attributes_of_digits_are_those_of_their_numbers():
    table = registry().find("datasets", "digit_attributes").make({})
    assert table.kind == "indicators" and table.labels == list(ATTRIBUTES) and table.y.shape == (1797, 5)
    digit = torch.tensor([int(text) for text in table.columns["digit"]])
    for column, holds in ((0, digit % 2 == 0), (1, digit > 4), (3, digit % 3 == 0)):
        assert torch.equal(table.y[:, column].bool(), holds)


def rows_of(folder, kind: str, lines: list[dict[str, object]]) -> str:
    path = folder / f"some.{kind}"
    if kind == "csv":
        path.write_text("\n".join([",".join(lines[0]), *(",".join(map(str, line.values())) for line in lines)]) + "\n")
    else:
        path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return str(path)


LINES = [{"a": 1.5, "b": 2, "red": 1, "blue": 0}, {"a": 2, "b": 3, "red": 0, "blue": 0}]


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_files_name_the_columns_of_their_labels(tmp_path, kind):
    make, path = registry().find("datasets", kind).make, rows_of(tmp_path, kind, LINES)
    table = make({"path": path, "indicators": ["blue", "red"]})
    assert (table.kind, table.y.tolist(), table.labels) == ("indicators", [[0, 1], [0, 0]], ["blue", "red"])
    assert table.features == ["a", "b"] and table.classes == 0
    table = make({"path": path, "values": ["b"], "features": ["a", "red"], "test_path": path})
    assert (table.kind, table.y.tolist(), table.labels) == ("values", [[2.0], [3.0]] * 2, ["b"])
    assert table.official["test"].tolist() == [2, 3] and table.x[0].tolist() == [1.5, 1.0]


@pytest.mark.parametrize("yes", [True, "true", "True", 1])
def test_indicators_may_be_words(tmp_path, yes):
    path = rows_of(tmp_path, "jsonl", [{"a": 1, "red": yes}, {"a": 2, "red": False}])
    assert registry().find("datasets", "jsonl").make({"path": path, "indicators": ["red"]}).y.tolist() == [[1], [0]]


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"indicators": ["b"]}, "column 'b', line 2: '?2'? is neither 1 nor 0"),
        ({"values": ["b", "gone"]}, "no column 'gone'"),
        ({"values": ["b"], "features": ["a", "b"]}, "without 'b'"),
        ({"values": ["b"], "indicators": ["red"]}, "`values` and `indicators` do not go together"),
        ({"label": "red", "values": ["b"]}, "`values` and `label` do not go together"),
        ({"indicators": ["red", "red"]}, "names a column twice"),
        ({"indicators": ["red"], "classes": 2}, "`indicators` and `classes` do not go together"),
    ],
)
def test_columns_that_are_no_such_labels_are_refused(tmp_path, settings, what):
    path = rows_of(tmp_path, "csv", LINES)
    with pytest.raises((kdmesh.MeshError, ValueError), match=what):
        registry().find("datasets", "csv").make({"path": path, **settings})


def test_arrays_and_tensors_have_labels_of_each_kind(tmp_path):
    x = np.arange(12.0).reshape(6, 2)
    held, values = (np.arange(12).reshape(6, 2) % 3 == 0), np.linspace(0, 1, 6)[:, None]
    for y, kind in ((held, "indicators"), (held.astype(np.uint8), "indicators"), (values, "values")):
        np.savez(tmp_path / "some.npz", x=x, y=y, x_test=x[:2], y_test=y[:2])
        read = registry().find("datasets", "arrays").make({"path": str(tmp_path / "some.npz")})
        given = kdmesh.data((torch.from_numpy(x), torch.from_numpy(y)), test=(torch.tensor(x[:2]), torch.tensor(y[:2])))
        for table in (read, given):
            assert table.kind == kind and table.classes == 0 and len(table) == 8 and table.strata is None
            assert torch.equal(table.y[:6].double(), torch.from_numpy(y).double().float().double())


def test_tensors_that_are_no_labels_are_refused():
    x = torch.randn(6, 2)
    for y, more, what in (
        (torch.arange(12).reshape(6, 2), {}, "row 1: label 0 is 2, which is neither 0 nor 1"),
        (torch.full((6, 2), float("nan")), {}, "row 0: label 0 is nan, which is not finite"),
        (torch.ones(6, 2), {"classes": 3}, "values of shape .6, 2., and 3 classes"),
        (torch.ones(5, 2), {}, "5 labels for 6 rows"),
        (torch.rand(6), {}, "no whole number"),
        (torch.ones(6, 1, 1), {}, "labels of shape"),
    ):
        with pytest.raises(kdmesh.MeshError, match=what):
            kdmesh.data((x, y), **more)
    with pytest.raises(kdmesh.MeshError, match="labels are not those of train"):
        kdmesh.data((x, torch.ones(6, 2)), test=(x, torch.ones(6, 2).long()))


def test_labels_are_the_same_inline_and_in_parts_of_private_data():
    streams = {"own": {"of": "train", "shards": {"by": "iid", "of": ["a", "b"]}, "private": True}}
    made = [
        kdmesh.Mesh(
            task="multi_label", data="digit_attributes", streams=streams, placement=placement, train={"epochs": 1},
            agents={name: {"model": MLP} for name in "ab"},
            flows=[{"from": "labels", "to": name, "stream": "own", "objective": "bce"} for name in "ab"],
        ).run(backend="inline").summary["agents"]
        for placement in ("together", "spread")
    ]  # fmt: skip
    assert [one["weights_sha256"] for one in made[0].values()] == [one["weights_sha256"] for one in made[1].values()]


def test_agreement_and_churn_are_shares_of_all_labels():
    """Two sources agree about a label that both hold to be likelier than not, or neither."""
    decide = registry().find("tasks", "multi_label").make({}).decide
    scores = torch.randn(3, 50, 4, generator=torch.Generator().manual_seed(5))
    said = torch.stack([predictions(one, decide) for one in scores])
    assert torch.equal(said, (scores.sigmoid() > 0.5).long())
    pairs = [(0, 1), (0, 2), (1, 2)]
    wanted = sum(1 - known.hamming_loss(said[i], said[j]) for i, j in pairs) / 3
    assert agreement(said) == pytest.approx(wanted) and churn(said, said) == 0.0
    assert churn(said, 1 - said) == 1.0 and churn(said, None) is None


def council(**config):
    streams = {"half": {"of": "train", "size": 200, "labels": False}}
    mesh = kdmesh.Mesh(task="multi_label", data="digit_attributes", streams=streams, train={"batch_size": 64})
    for name in "ab":
        mesh.agent(name, MLP)
    mesh.connect("rounds", students=["a", "b"], objective="binary_kl", **{"rounds": 3, "stream": "half", **config})
    return [entry["metrics"] for entry in mesh.run(backend="inline").summary["rounds"]]


def test_rounds_end_once_the_sources_agree_about_enough_labels():
    free = council()
    assert len(free) == 3 and all(0.5 < entry["agreement"] < 1 for entry in free)
    assert free[0]["churn"] is None and 0 <= free[-1]["churn"] < 1
    enough = free[1]["agreement"]
    ended = next(number for number, entry in enumerate(free, 1) if entry["agreement"] >= enough)
    assert len(council(agreement=enough)) == ended
