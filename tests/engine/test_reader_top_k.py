"""What a reader asks about its own likeliest outputs, and a live source answers, between agents that classify."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from kdmesh.engine.check import examine
from kdmesh.errors import MeshError
from kdmesh.hosts import asking
from kdmesh.hosts.asking import answerer
from kdmesh.offers import SignalOffer
from kdmesh.plugins import registry
from kdmesh.signals.sparse import TopKLogits

FROZEN = {"model": {"mlp": {"hidden": [8]}}, "update": "frozen"}
ASKED = {"reader_top_k": {"k": 2}}


class Doubt:
    """The source's logits where the reader's own are flat, and 0 elsewhere; the reader's logits are what is asked."""

    def __call__(self, value: Tensor, asked: Tensor) -> Tensor:
        return torch.where(asked.softmax(-1) < 0.5, value, 0.0)


class Few(Doubt):
    """It asks about fewer rows than there are."""

    def ask(self, value: Tensor) -> Tensor:
        return value[1:]


class Loud(Doubt):
    """It works on what it is given."""

    def ask(self, value: Tensor) -> Tensor:
        return value.mul_(2)


class Odd(Doubt):
    """It answers something of another shape."""

    def __call__(self, value: Tensor, asked: Tensor) -> Tensor:
        return value[:, :1]


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a plugin would offer."""
    for kind in (Doubt, Few, Loud, Odd):
        offer = SignalOffer(kind.__name__.lower(), f"{__name__}:{kind.__name__}", form="logits", needs=("asked",))
        monkeypatch.setitem(registry()._offers["signals"], offer.name, offer)
    both = SignalOffer("torn", f"{__name__}:Doubt", form="logits", needs=("asked", "x"))
    monkeypatch.setitem(registry()._offers["signals"], "torn", both)


def taught(mesh: Any, signal: Any = ASKED, objective: Any = "reverse_kl", **more: Any) -> Any:
    """A frozen teacher and a student that asks it."""
    made = mesh({"t": FROZEN, "s": {}}, **{"train": {"epochs": 2}, **more})
    made.flow("t", "s", objective=objective, signal=signal, refresh="step")
    return made


def test_the_answer_waits_for_both_forwards(mesh: Any) -> None:
    (stage,) = taught(mesh).plan().stages
    assert stage.phases["main"].text() == "f.s f.t | a.t | u.s"
    made = mesh(["a", "b"])
    made.flow("labels", ["a", "b"], objective="ce")
    made.flow("a", "b", objective="kl", signal=ASKED, sees="after")
    made.flow("b", "a", objective="kl", signal=ASKED)
    (stage,) = made.plan().stages
    assert stage.phases["main"].text() == "f.a f.b | a.b | u.a | f+.a | a+.a | u.b"


@pytest.mark.parametrize("tail", ["spread", "bucket", "renormalise"])
@pytest.mark.parametrize("objective", ["reverse_kl", "kl", {"jsd": {"temperature": 2}}])
def test_together_and_spread_teach_the_same(mesh: Any, hashes: Any, objective: Any, tail: str) -> None:
    signal = {"reader_top_k": {"k": 1, "tail": tail}}
    if tail == "renormalise":
        signal["reader_top_k"]["k"] = 2
    found = [hashes(taught(mesh, signal, objective, placement=where))["s"] for where in ("together", "spread")]
    assert found[0] == found[1]
    other = {"top_k": signal["reader_top_k"]}
    assert hashes(taught(mesh, other, objective))["s"] != found[0] != hashes(taught(mesh, "logits", objective))["s"]


def test_what_is_asked_is_what_the_student_finds_likeliest(mesh: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Any, Any]] = []
    ask = asking.making.ask

    def spied(host: Any, edge: Any, columns: Any) -> Any:
        make = answerer(host, edge, columns)

        def call(value: Any, asked: Any) -> Any:
            seen.append((make(value, asked), asked))
            return seen[-1][0]

        return call

    own: list[torch.Tensor] = []
    monkeypatch.setattr("kdmesh.hosts.answering.answerer", spied)
    monkeypatch.setattr(asking.making, "ask", lambda make, value: own.append(value) or ask(make, value))
    taught(mesh, train={"steps": 3}).run(backend="inline")
    told = [(answer, asked, logits) for (answer, asked), logits in zip(seen[-3:], own[-3:], strict=True)]
    for answer, asked, logits in told:
        assert torch.equal(asked.long(), logits.topk(2)[1]) and asked.dtype == torch.int32
        assert isinstance(answer, TopKLogits) and torch.equal(answer.index, asked)


@pytest.mark.parametrize("tail", ["spread", "bucket", "renormalise"])
def test_all_outputs_are_as_good_as_logits(mesh: Any, tail: str) -> None:
    found = []
    for signal in ({"reader_top_k": {"k": 3, "tail": tail}}, "logits"):
        result = taught(mesh, signal).run(backend="inline")
        found.append(torch.cat([value.flatten() for value in result["s"].module.parameters()]))
    torch.testing.assert_close(found[0], found[1])


def test_it_is_said_that_all_are_asked_for(mesh: Any) -> None:
    made = taught(mesh, {"reader_top_k": {"k": 3}})
    notes = examine(made.plan(), made._modules, made.table).notes
    assert any("all 3 outputs are asked for" in note for note in notes)


def test_peers_ask_each_other(mesh: Any, hashes: Any) -> None:
    found = []
    for placement in ("together", "spread"):
        made = mesh(["a", "b"], placement=placement)
        made.flow("labels", ["a", "b"], objective="ce")
        made.flow(["a", "b"], ["a", "b"], objective="reverse_kl", signal=ASKED)
        found.append(hashes(made))
    assert found[0] == found[1] and found[0]["a"] != found[0]["b"]


def test_several_that_ask_share_a_forward(mesh: Any) -> None:
    found = []
    for readers in (["s"], ["s", "u", "v"]):
        for placement in ("together", "spread"):
            made = mesh(["t", *readers], train={"epochs": 2}, placement=placement)
            made.flow("labels", "t", objective="ce")
            made.flow("t", readers, objective="reverse_kl", signal=ASKED)
            made.flow("t", readers, objective="kl", signal={"reader_top_k": {"k": 1, "tail": "bucket"}})
            result = made.run(backend="inline")
            found.append((str(result.summary["agents"]["t"]["forwards"]), result.agents["s"].weights_sha256))
    assert set(found) == {found[0]}


def test_a_second_run_reads_the_teacher_from_the_store(mesh: Any, tmp_path: Path) -> None:
    live = taught(mesh).run(backend="inline", store="off")
    for _ in range(2):
        result = taught(mesh).run(backend="inline", store=tmp_path)
        assert result.agents["s"].weights_sha256 == live.agents["s"].weights_sha256
    made, whole = (sum(one.summary["agents"]["t"]["forwards"].values()) for one in (result, live))
    assert made == 0 < whole


@pytest.mark.parametrize("placement", ["together", "spread"])
def test_broken_off_it_comes_to_the_same(mesh: Any, hashes: Any, broken_off: Any, placement: str) -> None:
    def make() -> Any:
        made = mesh(["a", "b"], placement=placement)
        made.flow("labels", ["a", "b"], objective="ce")
        made.flow("a", "b", objective="reverse_kl", signal=ASKED)
        return made

    expected = hashes(make())
    for summary in broken_off(make):
        assert {name: one["weights_sha256"] for name, one in summary["agents"].items()} == expected


def test_the_source_knows_some_classes(mesh: Any, hashes: Any) -> None:
    found = []
    for placement in ("together", "spread"):
        made = mesh({"t": {**FROZEN, "labels": [2, 0]}, "s": {}}, train={"epochs": 1}, placement=placement)
        made.flow("labels", "s", objective="ce")
        made.flow("t", "s", objective="kl", signal={"reader_top_k": {"k": 2}})
        found.append(made.run(backend="inline")["s"].module.state_dict())
    made = mesh({"t": {**FROZEN, "labels": [2, 0]}, "s": {}}, train={"epochs": 1})
    made.flow("labels", "s", objective="ce")
    made.flow("t", "s", objective="kl", refresh="step")
    whole = made.run(backend="inline")["s"].module.state_dict()
    for name, value in found[0].items():
        assert torch.equal(value, found[1][name])
        torch.testing.assert_close(value, whole[name])  # both of its classes are asked for


def test_an_exit_asks(mesh: Any, hashes: Any) -> None:
    found = []
    for placement in ("together", {"one": ["t"], "two": ["deep", "early"]}):
        deep = {"model": {"mlp": {"hidden": [8, 3]}}}
        made = mesh({"t": FROZEN, "deep": deep, "early": {"weights_of": "deep", "exit": "layers.1"}},
                    train={"epochs": 1}, placement=placement)  # fmt: skip
        made.flow("labels", "deep", objective="ce")
        made.flow("t", ["deep", "early"], objective="reverse_kl", signal=ASKED)
        made.flow("deep", "early", objective="kl", signal=ASKED)
        found.append(hashes(made))
    assert found[0] == found[1]


def test_what_is_answered_has_the_form_of_the_sources_answers(mesh: Any, hashes: Any) -> None:
    found = []
    for form in ("exact", "int8"):
        made = mesh({"t": {**FROZEN, "answers": {"form": form}}, "s": {}}, train={"epochs": 1})
        made.flow("t", "s", objective="reverse_kl", signal=ASKED)
        found.append(hashes(made)["s"])
    assert found[0] != found[1]


@pytest.mark.parametrize(
    ("flow", "said"),
    [
        ({"signal": {"reader_top_k": {"k": 0}}}, "greater than or equal to 1"),
        ({"signal": {"reader_top_k": {"k": 4}}}, r"flows\.0\.signal: .*the likeliest 4 of 3 outputs"),
        ({"signal": {"reader_top_k": {"k": 2, "tail": "clamp"}}}, "allowed: bucket, renormalise, spread"),
        ({"refresh": "once"}, r"flows\.0\.refresh: .*`refresh: once` reads answers that were given before"),
        ({"refresh": "10 steps"}, "`refresh: 10 steps` reads answers that were given before"),
        ({"stale": "snapshot"}, r"flows\.0\.stale: .*`stale: snapshot` reads"),
        ({"detach": False}, r"flows\.0\.detach: .*no gradient passes"),
        ({"as_": "input", "objective": None}, "with `as: input` nobody asks"),
        ({"from": "labels"}, "only an agent sends reader_top_k, not labels"),
        (
            {"signal": {"reader_top_k": {"k": 2, "tail": "bucket"}}, "objective": "margin_mse"},
            "same output in every row",
        ),
    ],
)
def test_what_cannot_be_is_refused(mesh: Any, flow: dict[str, Any], said: str) -> None:
    made = mesh({"t": {}, "s": {}})
    given = {"objective": "kl", "signal": ASKED, **flow}
    made.flow(given.pop("from", "t"), "s", **{key: value for key, value in given.items() if value is not None})
    with pytest.raises(MeshError, match=said):
        made.run(backend="inline")


def test_a_consensus_asks_nothing(mesh: Any) -> None:
    made = mesh({"a": FROZEN, "b": FROZEN, "s": {}})
    made.consensus("c", "mean")
    made.flow(["a", "b"], "c", signal=ASKED)
    made.flow("c", "s", objective="kl")
    with pytest.raises(MeshError, match="a consensus asks nothing"):
        made.run(backend="inline")


def test_of_a_consensus_nobody_asks(mesh: Any) -> None:
    made = mesh({"a": FROZEN, "b": FROZEN, "s": {}})
    made.consensus("c", "mean")
    made.flow(["a", "b"], "c")
    made.flow("c", "s", objective="kl", signal=ASKED)
    with pytest.raises(MeshError, match="only an agent sends reader_top_k, not c"):
        made.run(backend="inline")


def test_nothing_of_it_packs(mesh: Any) -> None:
    made = mesh({"t": {**FROZEN, "answers": {"form": "packed"}}, "s": {}})
    made.flow("t", "s", objective="kl", signal=ASKED)
    with pytest.raises(MeshError, match="reader_top_k, which is not kept"):
        made.run(backend="inline")


@pytest.mark.usefixtures("offered")
def test_a_signal_that_asks_nothing_itself_is_given_the_readers_logits(mesh: Any, hashes: Any, start: Any) -> None:
    found = [hashes(taught(mesh, "doubt", placement=where))["s"] for where in ("together", "spread")]
    assert found[0] == found[1] != hashes(taught(mesh, "logits"))["s"]
    made = taught(mesh, "doubt", train={"steps": 4, "batch_size": 90})
    begin = start(made)
    teacher, student = begin.modules["t"], begin.modules["s"]
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1, fused=True)
    for at in begin.batches(4):
        own = student(begin.x[at])
        with torch.no_grad():
            target = Doubt()(teacher(begin.x[at]), own)
        log_q = own.log_softmax(1)
        loss = (log_q.exp() * (log_q - target.log_softmax(1))).sum() / len(at)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    result = made.run(backend="inline")
    for ours, theirs in zip(result["s"].module.parameters(), student.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.usefixtures("offered")
@pytest.mark.parametrize(
    ("signal", "said"),
    [
        ("few", "not a tensor with . rows, one for each of its own"),
        ("loud", "(it changes what it is given in place|in place)"),
        ("odd", "not rows of shape"),
        ("torn", "is made of samples, and asks for x"),
    ],
)
def test_what_a_plugin_may_not_do(mesh: Any, signal: str, said: str) -> None:
    with pytest.raises(MeshError, match=said):
        taught(mesh, signal).run(backend="inline", strict_signals=True)
