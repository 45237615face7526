"""Targets from the store in a loop without a mesh: found by content, whatever the order, batch or worker."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import kdmesh
from kdmesh.consensus import Median
from kdmesh.objectives import ForwardKL
from kdmesh.streams.order import epoch_order


def points(n: int, seed: int) -> tuple[Tensor, Tensor]:
    x = torch.randn(n, 8, generator=torch.Generator().manual_seed(seed))
    return x, (x @ torch.randn(8, 3, generator=torch.Generator().manual_seed(99))).argmax(1)


X, Y = points(90, 0)
DATA = TensorDataset(X, Y)


def net(seed: int, width: int = 16) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, 3))


def asked(module: nn.Module, x: Tensor, size: int = 32) -> Tensor:
    """What a plain loop would say: in forwards of one size, the last one filled up."""
    full = torch.cat([x, x[-1:].expand(-len(x) % size, -1)])
    with torch.no_grad():
        return torch.cat([module(part) for part in full.split(size)])[: len(x)]


@pytest.fixture
def store(tmp_path: Path) -> str:
    return str(tmp_path / "store")


def filled(teacher: Any, store: str, **more: Any) -> Any:
    return kdmesh.targets(DATA, teacher, store=store, missing="fill", forward_size=32, **more)


def key(store: str) -> str:
    (one,) = kdmesh_entries(store)
    return one


def kdmesh_entries(store: str) -> list[str]:
    from kdmesh.store import Store

    return [one.digest[:12] for one in Store.open(store).entries()]


def learned(student: nn.Module, answered: Dataset[Any], temperature: float, form: str, epochs: int = 3) -> None:
    """A loop as anyone would write it, in the order of a mesh's."""
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1, momentum=0.9, fused=True)  # as a mesh makes it
    kl = ForwardKL(temperature)
    for epoch in range(epochs):
        order = epoch_order(0, "train", epoch, len(DATA)).tolist()
        for x, y, target in DataLoader(answered, batch_size=32, sampler=order):
            optimizer.zero_grad()
            said = student(x)
            loss = nn.functional.cross_entropy(said, y) + kl(said, target, form=form)
            loss.backward()
            optimizer.step()


@pytest.mark.parametrize("several", [False, True])
def test_a_plain_loop_has_the_bits_of_a_mesh(store: str, several: bool) -> None:
    """The mesh fills the store, the loop has the modules: the same keys, the same answers, the same student."""
    teachers = {f"t{n}": net(n) for n in range(1, 4 if several else 2)}
    student = net(9, 12)
    train = {"epochs": 3, "batch_size": 32, "optimizer": {"sgd": {"lr": 0.1, "momentum": 0.9}}}
    mesh = kdmesh.Mesh(data=kdmesh.data((X, Y), points(40, 1), points(40, 2), classes=3), train=train)
    for name, module in teachers.items():
        mesh.agent(name, module, update="frozen")
    mesh.agent("s", copy.deepcopy(student))
    mesh.flow("labels", "s", objective="ce")
    if several:
        mesh.consensus("c", "median")
        mesh.flow(list(teachers), "c")
    mesh.flow("c" if several else "t1", "s", objective={"kl": {"temperature": 4.0}})
    trained = mesh.run(backend="inline", store=store)["s"].module
    if several:
        answered = kdmesh.targets(DATA, teachers, store=store, rule="median", temperature=4.0, forward_size=32)
    else:
        answered = kdmesh.targets(DATA, teachers["t1"], store=store, forward_size=32)
    assert answered.form == ("probs" if several else "logits")
    learned(student, answered, 4.0, answered.form)
    assert all(torch.equal(one, student.state_dict()[name]) for name, one in trained.state_dict().items())


def test_what_a_loop_keeps_a_mesh_finds(store: str) -> None:
    teacher = net(1)
    filled(teacher, store)
    mesh = kdmesh.Mesh(data=kdmesh.data((X, Y), points(40, 1), points(40, 2)), train={"epochs": 1, "batch_size": 32})
    mesh.agent("t", teacher, update="frozen")
    mesh.agent("s", {"mlp": {"hidden": [4]}})
    mesh.flow("t", "s", objective="kl")
    hits = mesh.run(backend="inline", store=store).summary["store"]["agents"]["t"]
    assert hits["found"] >= 90 and hits["forwarded"] == 80  # validation and test alone


def test_targets_are_those_of_the_sample_in_any_order_and_batch(store: str) -> None:
    teacher = net(1)
    answered = filled(teacher, store)
    expected = asked(teacher, X)
    for size, shuffle in ((1, False), (7, True), (90, True)):
        for x, _, target in DataLoader(answered, size, shuffle=shuffle):
            at = (x[:, None] == X).all(-1).nonzero()[:, 1]
            assert torch.equal(target, expected[at])
    assert torch.equal(answered[-1][2], expected[89]) and len([*answered]) == 90
    some = kdmesh.targets(torch.utils.data.Subset(DATA, [5, 3, 5]), key(store), store=store)
    assert torch.equal(torch.stack([one[2] for one in some]), expected[[5, 3, 5]])
    with pytest.raises(IndexError):
        answered[90]


def test_what_fills_the_store_is_said_of_whoever_filled_it(store: str) -> None:
    """A loop's module is asked by the loop: no mesh has an agent of its class's name."""
    whole = filled(net(1), store)
    assert repr(whole) == f"<Targets: 90 items, logits of entry {key(store)[:12]} (agent Sequential)>"
    more = torch.utils.data.TensorDataset(torch.cat([X, points(4, 7)[0]]), torch.cat([Y, points(4, 7)[1]]))
    with pytest.raises(kdmesh.MeshError, match=r"(?s)4 of 94 items.*the module itself .*missing='fill'") as error:
        kdmesh.targets(more, key(store), store=store)
    assert "kdmesh label" not in str(error.value)
    skipped = kdmesh.targets(more, key(store), store=store, missing="skip")
    assert "90 items, 4 left out" in repr(skipped)
    with pytest.raises(kdmesh.MeshError, match=r"(?s)none of 90 items.*weights, code, forward_size= and samples"):
        kdmesh.targets(DATA, net(2), store=store, forward_size=32)


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_open_the_store_for_themselves(store: str, start: str) -> None:
    teacher = net(1)
    answered = filled(teacher, store)
    loader = DataLoader(answered, 16, num_workers=2, multiprocessing_context=start)
    assert torch.equal(torch.cat([target for _, _, target in loader]), asked(teacher, X))


def test_a_copy_for_a_worker_holds_no_module_and_nothing_open(store: str) -> None:
    answered = filled(net(1, width=4096), store)
    assert len(pickle.dumps(answered)) < 40_000
    assert torch.equal(pickle.loads(pickle.dumps(answered))[3][2], answered[3][2])


def test_items_by_name_and_alone(store: str) -> None:
    teacher = net(1)
    expected = asked(teacher, X)
    filled(teacher, store)
    named = kdmesh.targets([{"x": x, "labels": y} for x, y in DATA], key(store), store=store)
    batch = next(iter(DataLoader(named, 8, collate_fn=kdmesh.TargetsCollator())))
    assert torch.equal(batch["targets"], expected[:8]) and torch.equal(batch["labels"], Y[:8])
    alone = kdmesh.targets(X, key(store), store=store)
    with pytest.raises(kdmesh.MeshError, match="remove_unused_columns=False"):
        kdmesh.TargetsCollator()([{"x": X[0]}])
    x, target = kdmesh.TargetsCollator()([alone[2], alone[1]])
    assert torch.equal(x, X[[2, 1]]) and torch.equal(target, expected[[2, 1]])


class Augmented(Dataset[Any]):
    """Another view of a sample each time, with the sample itself beside it."""

    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, at: int) -> dict[str, Tensor]:
        return {"x": X[at] + torch.randn(8), "clean": X[at], "y": Y[at]}


def test_an_augmentation_of_the_students_own(store: str) -> None:
    teacher = net(1)
    filled(teacher, store)
    answered = kdmesh.targets(Augmented(), key(store), store=store, sample=lambda item: item["clean"])
    assert torch.equal(answered[4]["targets"], asked(teacher, X)[4])
    with pytest.raises(kdmesh.MeshError, match="none of 90 items has an answer"):
        kdmesh.targets(Augmented(), key(store), store=store)


def test_an_item_that_changes_has_no_target(store: str) -> None:
    x = X.clone()
    answered = kdmesh.targets(TensorDataset(x), net(1), store=store, missing="fill")
    x[3] += 1
    with pytest.raises(kdmesh.MeshError, match="item 3 is not what it was when it was looked up"):
        answered[3]


def test_several_producers_by_name_and_a_rule_of_python(store: str) -> None:
    teachers = {"a": net(1), "b": net(2), "c": net(3)}
    apart = filled(teachers, store)
    _, _, target = next(iter(DataLoader(apart, 32)))
    assert torch.equal(target["b"], asked(teachers["b"], X)[:32])
    together = filled(teachers, store, rule=Median(), space="logits")
    logits = torch.stack([asked(one, X) for one in teachers.values()])
    assert together.form == "logits" and torch.equal(together[7][2], logits.median(0).values[7])


class Counting(nn.Module):
    """A rule of one's own that keeps count."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(1))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"rule": "median"}, "a rule combines probabilities at a temperature"),
        ({"rule": "lowest_ce", "temperature": 2.0}, "lowest_ce needs labels"),
        ({"rule": "threshold_vote", "temperature": 2.0}, "threshold_vote needs"),
        ({"rule": "medain", "temperature": 2.0}, "did you mean 'median'"),
        ({"rule": Counting(), "temperature": 2.0}, "Counting needs a state"),
        ({"rule": 3, "temperature": 2.0}, "rule: found int"),
        ({"temperature": 2.0}, "it is at which a rule combines"),
        ({"rule": "median", "temperature": 0.0}, "temperature: found 0.0"),
        ({"missing": "ignore"}, "missing: found 'ignore'"),
        ({"round": 3}, "has no rounds"),
        ({"labels": [0, 2, 1]}, "answers for all classes"),
        ({"tokenizer": object()}, r"answered to samples float32 \[8\]"),
        ({"sample": "x"}, "sample: found str"),
    ],
)
def test_what_cannot_be_meant_is_refused(store: str, more: dict[str, Any], said: str) -> None:
    with pytest.raises(kdmesh.MeshError, match=said):
        kdmesh.targets(DATA, net(1), store=store, **{"missing": "fill", **more})


def test_missing_answers_are_counted_and_named(store: str) -> None:
    teacher = net(1)
    kdmesh.targets(TensorDataset(X[:60], Y[:60]), teacher, store=store, missing="fill")
    with pytest.raises(kdmesh.MeshError, match=r"30 of 90 items have no answer, the first is item 60") as error:
        kdmesh.targets(DATA, key(store), store=store)
    assert "the module itself" in str(error.value) and "missing='skip'" in str(error.value)
    some = kdmesh.targets(DATA, key(store), store=store, missing="skip")
    assert len(some) == 60 and some.left_out == list(range(60, 90))
    back = kdmesh.targets(TensorDataset(X.flip(0), Y), key(store), store=store, missing="skip")
    assert torch.equal(back[0][0], X[59]) and torch.equal(back[0][2], asked(teacher, X[:60], 64)[59])
    for other, said in (
        (TensorDataset(X + 1), "none of 90 items has an answer"),
        (TensorDataset(X[:, :4]), r"item 0 is a sample of shape \[4\], and the answers are to samples float32 \[8\]"),
        ([], "is empty"),
        (iter(()), "cannot be read by number"),
        ([{"image": X[0]}], "which of them a model is given is not clear"),
    ):
        with pytest.raises(kdmesh.MeshError, match=said):
            kdmesh.targets(other, key(store), store=store)


def test_another_teacher_code_or_entry_is_another_key(store: str) -> None:
    filled(net(1), store)
    other = net(1)
    with torch.no_grad():
        other[0].bias[0] += 1e-6
    for module in (other, net(2), nn.Sequential(*net(1), nn.Softmax(-1))):
        with pytest.raises(kdmesh.MeshError, match="none of 90 items has an answer by entry"):
            kdmesh.targets(DATA, module, store=store, forward_size=32)
    with pytest.raises(kdmesh.MeshError, match="none of 90 items has an answer"):
        kdmesh.targets(DATA, net(1), store=store, forward_size=16)
    with pytest.raises(kdmesh.MeshError, match="no entry begins with 'ffffffff'"):
        kdmesh.targets(DATA, "ffffffff", store=store)
    with pytest.raises(kdmesh.MeshError, match="is a key, which answers nothing"):
        kdmesh.targets(DATA, key(store), store=store, missing="fill")
    with pytest.raises(kdmesh.MeshError, match="found int"):
        kdmesh.targets(DATA, 3, store=store)
    with pytest.raises(kdmesh.MeshError, match=r"(?s)found list.*several by name"):
        kdmesh.targets(DATA, [net(1), net(2)], store=store)
    with pytest.raises(kdmesh.MeshError, match="the store is switched off"):
        kdmesh.targets(DATA, key(store))


def test_what_cannot_be_kept_is_said(store: str) -> None:
    class Drawing(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + torch.rand(3)

    with pytest.raises(kdmesh.MeshError, match="cannot be kept"):
        filled(Drawing(8, 3), store)
    moody = nn.Sequential(nn.Linear(8, 3), nn.Dropout(0.5)).train()
    answered = filled(moody, store)
    assert moody.training and torch.equal(answered[0][2], asked(moody.eval(), X)[0])


def test_a_view_of_a_mesh_is_refused(store: str) -> None:
    mesh = kdmesh.Mesh(data=kdmesh.data((X, Y), points(40, 1), points(40, 2)), train={"epochs": 1, "batch_size": 32})
    mesh.agent("t", net(1), update="frozen", view={"augment": ["noise"], "draws": 1})
    mesh.agent("s", {"mlp": {"hidden": [4]}})
    mesh.flow("t", "s", objective="kl")
    mesh.run(backend="inline", store=store)
    refused = 0
    for name in kdmesh_entries(store):
        try:
            kdmesh.targets(DATA, name, store=store, missing="skip")
        except kdmesh.MeshError as error:
            refused += "answered to views of samples (noise)" in str(error)
    assert refused == 1


def test_a_consensus_is_a_data_set_of_another_run(store: str) -> None:
    """Each round, or the newest, of what peers agreed on; probabilities are not combined as if they were logits."""
    mesh = kdmesh.Mesh(data=kdmesh.data((X, Y), points(40, 1), points(40, 2)), train={"epochs": 3, "batch_size": 32})
    for name in "abs":
        mesh.agent(name, {"mlp": {"hidden": [8]}})
        mesh.flow("labels", name, objective="ce")
    mesh.consensus("c", "mean", temperature=2.0, history={"keep": "all", "sources": True})
    mesh.flow(["a", "b"], "c", refresh="epoch")
    mesh.flow("c", "s", objective={"kl": {"temperature": 2.0}})
    summary = mesh.run(backend="inline", store=store).summary
    entries = summary["store"]["histories"]["c"]["entries"]
    newest, first = (kdmesh.targets(DATA, entries["c"], store=store, **more) for more in ({}, {"round": 1}))
    assert (newest.form, newest.temperature) == ("probs", 2.0)
    rows = torch.stack([one[2] for one in newest])
    torch.testing.assert_close(rows.sum(1), torch.ones(90))
    assert not torch.equal(rows[0], first[0][2])
    sources = kdmesh.targets(DATA, {name: entries[name] for name in "ab"}, store=store, rule="mean", temperature=2.0)
    torch.testing.assert_close(torch.stack([one[2] for one in sources]), rows)
    with pytest.raises(
        kdmesh.MeshError, match=r"(?s)\(history of c\), in round 9 \(there are 1, 2.*a round that"
    ) as error:
        kdmesh.targets(DATA, entries["c"], store=store, round=9)
    assert "missing='fill'" not in str(error.value)
    with pytest.raises(kdmesh.MeshError, match="producers answered with probs"):
        kdmesh.targets(DATA, {"c": entries["c"]}, store=store, rule="mean", temperature=2.0)
    with pytest.raises(kdmesh.MeshError, match="producers answered with logits and probs"):
        kdmesh.targets(DATA, {"c": entries["c"], "a": entries["a"]}, store=store)


def test_a_flipped_bit_is_named_and_never_a_target(store: str) -> None:
    teacher = net(1)
    filled(teacher, store)
    (shard,) = Path(store).rglob("shards/*.safetensors")
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    with pytest.raises(kdmesh.MeshError, match=r"none of 90 items has an answer .*; a shard of \w+ is damaged"):
        kdmesh.targets(DATA, teacher, store=store, forward_size=32)
    assert torch.equal(filled(teacher, store)[3][2], asked(teacher, X)[3])  # computed again


def test_answers_of_another_machine_are_used_and_said(store: str, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kdmesh.store.fingerprint._processor", lambda: "another")
    filled(net(1), store)
    monkeypatch.undo()
    answered = kdmesh.targets(DATA, key(store), store=store)
    assert answered.notes == [f"90 answers were computed elsewhere (device another, not {answered._here.name})"]
    assert f"kdmesh: note: {answered.notes[0]}" in capsys.readouterr().err


def test_a_module_answers_as_it_is_called_for_and_not_as_where_it_is_called(tmp_path: Path) -> None:
    """Within autocast, say, the answers would be other numbers than the key says."""
    torch.manual_seed(0)
    teacher, data = torch.nn.Linear(8, 3), TensorDataset(torch.randn(20, 8))
    with torch.autocast("cpu", torch.bfloat16):
        inside = kdmesh.targets(data, teacher, store=tmp_path / "one", missing="fill", forward_size=4)
    outside = kdmesh.targets(data, teacher, store=tmp_path / "other", missing="fill", forward_size=4)
    assert all(torch.equal(inside[at][1], outside[at][1]) for at in range(20))
    with pytest.raises(kdmesh.MeshError, match=r"it fails at samples float32 \[8\]: RuntimeError"):
        kdmesh.targets(data, teacher.double(), store=tmp_path / "one", missing="fill")
