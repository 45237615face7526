"""Rules that leave samples without an answer: who reads them learns nothing there, and what was answered is told."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import kdmesh
from kdmesh.consensus import Rule
from kdmesh.errors import MeshError, RunFailed
from kdmesh.hosts.consensus import Consensus
from kdmesh.offers import Config, ConsensusOffer
from kdmesh.plugins import PluginRecord, fault, registry
from kdmesh.report.grid import show
from kdmesh.report.tables import final_table, rounds_table
from kdmesh.signals import Signal
from kdmesh.signals.lazy import FactoredLogits

FROZEN = {"update": "frozen", "model": {"mlp": {"hidden": [8]}}}
VOTE = {"threshold_vote": {"votes": 2}}


def counted(ballots: Tensor) -> tuple[Tensor, Tensor]:
    """Of votes ``[M, N]`` for three classes the winner of each row, and whether two or more chose it."""
    most, winner = F.one_hot(ballots, 3).sum(0).max(-1)
    return winner, most >= 2


class Choice(Config):
    """What it gives as who was answered."""

    what: str = ""


GIVEN: dict[str, Any] = {
    "float": lambda who: who.float(),
    "short": lambda who: who[1:],
    "none": lambda who: None,
}


class Odd(Rule):
    """The mean, of samples whose first source is sure; not a number elsewhere."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what

    def forward(self, values: Tensor, **given: Any) -> Any:
        mean, sure = values.mean(0), values[0].amax(-1) > 0.5
        if self.what == "three":
            return mean, sure, sure
        if self.what == "everyone":
            return mean
        sure = GIVEN.get(self.what, lambda who: who)(sure)
        return mean if sure is None or len(sure) < len(mean) else mean.masked_fill(
            ~sure.bool()[:, None], torch.nan
        ), sure


@pytest.fixture(autouse=True)
def offered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same rule, declared and not."""
    record = PluginRecord("odd", "kdmesh-odd", "2")
    for name, abstains in (("sure", True), ("secret", False)):
        offer = ConsensusOffer(name, f"{__name__}:Odd", config=Choice, abstains=abstains)
        monkeypatch.setitem(registry()._offers["consensus"], name, offer)
        record.claims["consensus", name] = offer
    monkeypatch.setattr(registry(), "records", [*registry().records, record])


def council(mesh: Any, rule: Any = VOTE, refresh: str = "once", **fields: Any) -> kdmesh.Mesh:
    """Three teachers that do not change, and a student of what they agree on alone."""
    made: kdmesh.Mesh = mesh(
        {**dict.fromkeys(("t1", "t2", "t3"), FROZEN), "s": {}}, seed=1, train={"epochs": 2}, **fields
    )
    made.consensus("c", rule)
    made.flow(["t1", "t2", "t3"], "c", refresh=refresh)
    made.flow("c", "s", objective="kl")
    return made


def test_who_is_not_answered_teaches_nothing(mesh: Any, start: Any) -> None:
    made = council(mesh)
    begun = start(made)
    model, teachers = begun.modules["s"], [begun.modules[name] for name in ("t1", "t2", "t3")]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, fused=True)
    silent = 0
    for at in begun.batches(2):
        with torch.no_grad():
            ballots = torch.stack([teacher(begun.x[at]).argmax(-1) for teacher in teachers])
        winner, agreed = counted(ballots)
        silent += int((~agreed).sum())
        each = F.kl_div(model(begun.x[at]).log_softmax(-1), F.one_hot(winner, 3).float(), reduction="none").sum(1)
        optimizer.zero_grad()
        (each[agreed].sum() / len(at)).backward()
        optimizer.step()
    assert 0 < silent < 160  # of 180
    result = made.run(backend="inline")
    for ours, theirs in zip(result["s"].module.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_live_stored_and_spread_have_equal_bits(mesh: Any, hashes: Any) -> None:
    for rule in (VOTE, "sure"):
        found = {
            (refresh, placement): hashes(council(mesh, rule, refresh, placement=placement))["s"]
            for refresh in ("once", "step")
            for placement in ("together", "spread")
        }
        assert len(set(found.values())) == 1, found
    assert len({hashes(council(mesh, rule))["s"] for rule in (VOTE, {"threshold_vote": {"votes": 1}}, "vote")}) == 2


def test_a_consensus_of_it_sees_them_as_absent(mesh: Any, opened: Any) -> None:
    made = council(mesh)
    made.consensus("both", "mean")
    made.flow("c", "both")
    made.flow("t1", "both")
    made.flow("both", "s", objective="kl")
    node = opened(made)[1]["host0"].consensus["both"]
    said = {name: torch.randn(20, 3, generator=torch.Generator().manual_seed(number)) for number, name in
            enumerate(("t1", "t2", "t3"))}  # fmt: skip
    ballots = torch.stack([value.argmax(-1) for value in said.values()])
    winner, agreed = counted(ballots)
    inner = node.nested[0].combine("s", lambda edge: Signal(said[edge.source], edge.form))
    assert torch.equal(inner.weights, agreed.float()) and 0 < agreed.sum() < 20
    outer = node.combine("s", lambda edge: inner if edge.source == "c" else Signal(said[edge.source], edge.form))
    own = said["t1"].softmax(-1)
    mean = (F.one_hot(winner, 3).float() + own) / 2
    torch.testing.assert_close(outer.value, torch.where(agreed[:, None], mean, own))
    assert outer.weights.all() and node.abstains


def test_logits_that_are_not_made_yet_are_combined_at_once(mesh: Any, opened: Any) -> None:
    node: Consensus = opened(council(mesh))[1]["host0"].consensus["c"]
    drawn = torch.Generator().manual_seed(0)
    said = {name: FactoredLogits(torch.randn(20, 4, generator=drawn), torch.randn(3, 4, generator=drawn))
            for name in ("t1", "t2", "t3")}  # fmt: skip
    signal = node.combine("s", lambda edge: Signal(said[edge.source], edge.form))
    plain = node.combine("s", lambda edge: Signal(said[edge.source].dense(), edge.form))
    assert signal is not None and plain is not None
    assert torch.equal(signal.value, plain.value)
    assert signal.weights is not None and plain.weights is not None and torch.equal(signal.weights, plain.weights)


def test_what_was_answered_stands_in_summary_events_and_tables(mesh: Any, start: Any, tmp_path: Any) -> None:
    made = council(mesh)
    begun = start(made)
    streams, table = begun.found.streams, begun.found.table
    result = made.run(backend="inline", out=tmp_path)
    node = result.summary["consensus"]["c"]
    for split in ("validation", "test"):
        rows = streams[split].rows
        with torch.no_grad():
            said = [begun.modules[name](table.x[rows]).argmax(-1) for name in ("t1", "t2", "t3")]
        winner, agreed = counted(torch.stack(said))
        right = (winner == table.y[rows]) & agreed
        told = node["answered"][split]
        assert (told["answered"], told["rows"]) == (int(agreed.sum()), len(rows))
        assert told["coverage"] == pytest.approx(agreed.float().mean().item())
        assert told["over_all"] == pytest.approx(right.float().mean().item())
        assert node["metrics"][split]["accuracy"] == pytest.approx(right[agreed].float().mean().item())
    file = io.StringIO()
    show(file, final_table(result.summary))
    words = " ".join(file.getvalue().split())
    assert f"c answers {told['answered']} of 40 on test" in words and "abstains" in words
    assert f"over all {told['over_all']:.4f}, with no answer as the worst" in words
    assert "answered" not in council(mesh, "vote").run(backend="inline").summary["consensus"]["c"]


def test_rounds_tell_coverage(mesh: Any) -> None:
    made = mesh(["a", "b"], streams={"half": {"of": "train", "size": 40, "labels": False}}, seed=3)
    made.connect("rounds", students=["a", "b"], rounds=2, stream="half", consensus={"threshold_vote": {"votes": 2}})
    rounds = made.run(backend="inline").summary["rounds"]
    (name,) = rounds[0]["metrics"]["coverage"]
    assert all(0 < one["metrics"]["coverage"][name] <= 1 for one in rounds)
    heads = [column.heading for column in rounds_table([{"stage": "a", **one} for one in rounds]).columns]
    assert f"consensus {name}\ncoverage" in heads


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("secret", "its offer does not say abstains=True"),
        ({"sure": {"what": "float"}}, r"gave .*float32.* as who was answered, not \[90\] of torch.bool"),
        ({"sure": {"what": "short"}}, r"shape \(89,\), torch.bool as who"),
        ({"sure": {"what": "none"}}, "gave nothing as who"),
        ({"sure": {"what": "three"}}, "a tuple of 3"),
    ],
)
def test_what_is_no_such_answer_is_named(mesh: Any, rule: Any, said: str) -> None:
    with pytest.raises(RunFailed, match=rf"consensus\.c: the consensus rule '\w+' of kdmesh-odd 2 .*({said})"):
        council(mesh, rule).run(backend="inline")


def test_strict_signals_look_at_what_was_answered_alone(mesh: Any) -> None:
    loose, strict = (council(mesh, "sure").run(backend="inline", strict_signals=which) for which in (False, True))
    assert loose["s"].weights_sha256 == strict["s"].weights_sha256


def test_a_rule_that_may_abstain_may_answer_everyone(mesh: Any) -> None:
    told = council(mesh, {"sure": {"what": "everyone"}}).run(backend="inline").summary["consensus"]["c"]["answered"]
    assert told["test"]["coverage"] == 1.0


def test_spaces_that_weigh_losses_are_refused() -> None:
    offer = ConsensusOffer("x", "a:B", spaces=("probs", "loss"), abstains=True)
    assert fault("consensus", offer).endswith("abstains, which it cannot do in space loss")


def test_more_votes_than_sources_are_refused(mesh: Any) -> None:
    with pytest.raises(MeshError, match=r"consensus\.c\.rule\.threshold_vote\.votes: 4 votes"):
        council(mesh, {"threshold_vote": {"votes": 4}}).run(backend="inline")
