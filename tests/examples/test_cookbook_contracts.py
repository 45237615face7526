"""Each plugin of the cookbook keeps the contract of its kind, and its formula is the paper's."""

from __future__ import annotations

import json
import math
import sqlite3
from contextlib import closing
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch
from torch.nn import functional as F

from kdmesh.errors import MeshError
from kdmesh.testing import (
    ConsensusContract,
    DatasetContract,
    GateContract,
    ObjectiveContract,
    ObserverContract,
    StrategyContract,
)


class Cooked:
    """Takes the offer from the module that is named, under the name there."""

    module = ""
    named = ""

    @pytest.fixture
    def offer(self, cookbook):
        return getattr(cookbook(self.module), self.named)


class TestSwitOKDGate(Cooked, GateContract):
    module, named = "switokd", "GATE"


class TestSwitOKD(Cooked, StrategyContract):
    module, named = "switokd", "STRATEGY"
    config: ClassVar = {"teacher": "a", "student": "b"}


class TestCoTeachingGate(Cooked, GateContract):
    module, named = "co_teaching", "GATE"
    config: ClassVar = {"forget": 0.5, "epochs": 2}


class TestCoTeaching(Cooked, StrategyContract):
    module, named = "co_teaching", "STRATEGY"
    config: ClassVar = {"peers": ["a", "b"], "forget": 0.5, "epochs": 2}


class TestFedMD(Cooked, StrategyContract):
    module, named = "fedmd", "STRATEGY"
    config: ClassVar = {
        "parties": ["a", "b", "c"],
        "public": "public",
        "private": "own",
        "rounds": 2,
        "begin_epochs": 1,
    }
    mesh: ClassVar = {
        "streams": {
            "public": {"of": "train", "only": [0]},
            "own": {
                "of": "train",
                "without": [0],
                "shards": {"of": ["a", "b", "c"]},
            },  # not private: the bystander reads it
        }
    }


class TestCurriculum(Cooked, GateContract):
    module, named = "curriculum", "GATE"
    config: ClassVar = {"steps": 8}


class TestQualifiedVote(Cooked, ConsensusContract):
    module, named = "qualified_vote", "RULE"
    order_invariant = True


class TestMultiplicativeWeights(Cooked, ConsensusContract):
    module, named = "multiplicative_weights", "RULE"
    sources = (3,)


class TestPATE(Cooked, ConsensusContract):
    module, named = "pate", "RULE"
    config: ClassVar = {"threshold": 2, "doubt": 0.5, "noise": 0.5}


class TestContrastiveQueue(Cooked, ObjectiveContract):
    module, named = "contrastive_queue", "OBJECTIVE"
    config: ClassVar = {"size": 16}
    shape, target_shape = (6,), (4,)
    permutation_invariant = True


class TestSEED(Cooked, ObjectiveContract):
    module, named = "seed", "OBJECTIVE"
    config: ClassVar = {"size": 16}
    shape, target_shape = (3,), (4,)
    permutation_invariant = True


class TestNTXent(Cooked, ObjectiveContract):
    module, named = "simclr", "OBJECTIVE"
    shape = (6,)
    permutation_invariant = True
    doubling = None


class TestSimCLR(Cooked, StrategyContract):
    module, named = "simclr", "STRATEGY"
    config: ClassVar = {"agent": "a", "layer": "layers.0", "epochs": 1, "tune_epochs": 1}
    agents = ("a",)
    mesh: ClassVar = {
        "agents": {
            "a": {"model": {"mlp": {"hidden": [6]}}, "view": {"augment": [{"noise": {"std": 0.1}}]}},
            "bystander": {"model": {"mlp": {"hidden": [6]}}},
        }
    }


class TestSQLite(Cooked, DatasetContract):
    module, named = "sqlite_table", "DATASET"

    @pytest.fixture
    def settings(self, kitchen):
        return {"path": str(kitchen / "wine.sqlite"), "table": "wines", "label": "grower", "order": "id"}


@pytest.mark.slow
class TestJSONL(ObserverContract):
    module = "jsonl_log"

    @pytest.fixture(autouse=True)
    def _in_the_folder(self, cookbook):
        """It is read from the folder of plugins."""


# -- formulas --------------------------------------------------------------------------


def test_hedge_loses_weight_by_what_it_gets_wrong(cookbook):
    rule = cookbook("multiplicative_weights").RULE.make({"rate": 2.0})
    rule.setup(("a", "b"), 2, ())
    logits = torch.tensor([[[3.0, 0.0], [0.0, 3.0]], [[0.0, 3.0], [0.0, 3.0]]])
    labels = torch.tensor([0, 1])
    assert rule.weights(logits, labels=labels).tolist() == [[0.5, 0.5], [0.5, 0.5]]
    right = torch.tensor(3.0).sigmoid().item()
    losses = [1 - right, (right + 1 - right) / 2]
    mass = [math.exp(-2 * loss) for loss in losses]
    expected = [one / sum(mass) for one in mass]
    assert rule.report() == pytest.approx(dict(zip("ab", expected, strict=True)), rel=1e-6)
    assert rule.eval().weights(logits, labels=labels)[:, 0].tolist() == pytest.approx(expected, rel=1e-6)
    assert rule.report() == pytest.approx(dict(zip("ab", expected, strict=True)), rel=1e-6), "measuring moves nothing"


def test_pate_answers_by_a_noisy_majority_and_reports_what_that_costs(cookbook):
    rule = cookbook("pate").RULE.make({"threshold": 7.0, "doubt": 2.0, "noise": 1.0, "delta": 1e-5})
    logits = torch.zeros(10, 4000, 3)
    logits[:8, :, 1] = logits[8:, :, 2] = 1.0  # eight votes for class 1, two for class 2
    torch.manual_seed(0)
    values, answered = rule(logits, logits=logits)
    assert answered.float().mean().item() == pytest.approx(0.5 * math.erfc((7 - 8) / 2 / math.sqrt(2)), abs=0.02)
    wrong = 0.5 * math.erfc((8 - 2) / math.sqrt(2) / math.sqrt(2))  # a difference of two noises; class 0 is further off
    assert (values.argmax(1) != 1).float().mean().item() == pytest.approx(wrong, abs=5e-3)
    spent = 4000 * (1 / 8 + 1)
    orders = torch.linspace(1.0001, 3, 200_000, dtype=torch.float64)
    best = (spent * orders + math.log(1e5) / (orders - 1)).min().item()
    assert rule.report() == pytest.approx({"asked": 4000, "answered": int(answered.sum()), "epsilon": best}, rel=1e-6)


def test_a_vote_needs_its_quorum(cookbook):
    rule = cookbook("qualified_vote").RULE.make({"quorum": 0.5})
    votes = torch.tensor([[0, 0], [0, 1], [1, 2], [2, 2]])  # two of four, and two of three
    present = torch.tensor([[True, False], [True, True], [True, True], [True, True]])
    values, answered = rule(F.one_hot(votes, 3).float(), logits=F.one_hot(votes, 3).float(), present=present)
    assert answered.tolist() == [False, True] and values[1].tolist() == [0, 0, 1]


def test_competence_grows_with_the_root_of_time(cookbook):
    gate = cookbook("curriculum").GATE.make({"start": 0.25, "steps": 100})
    sure = torch.linspace(0.1, 0.9, 16)
    kept = {step: (gate(confidence=sure, step=step) > 0) for step in (0, 20, 100, 500)}
    assert {step: int(rows.sum()) for step, rows in kept.items()} == {0: 4, 20: 8, 100: 16, 500: 16}
    assert kept[20].nonzero()[:, 0].tolist() == list(range(8, 16))
    assert gate(confidence=sure, step=20).sum() == 16


def test_a_queue_compares_with_keys_of_earlier_batches(cookbook):
    torch.manual_seed(0)
    objective = cookbook("contrastive_queue").OBJECTIVE.make({"size": 4, "temperature": 0.5})
    objective.setup(torch.Size([3]), torch.Size([3]))
    first, second = torch.randn(2, 2, 3, 3)
    objective(first[0], first[1], weights=torch.tensor([1.0, 0.0, 1.0]))
    own, key = F.normalize(second[0]), F.normalize(second[1])
    keys = torch.cat([F.normalize(first[1])[[0, 2]], objective.keys[2:]])
    scores = torch.cat([(own * key).sum(1, keepdim=True), own @ keys.T], 1) / 0.5
    torch.testing.assert_close(objective(*second), F.cross_entropy(scores, torch.zeros(3, dtype=torch.int64)))
    torch.testing.assert_close(objective.keys, torch.cat([key[2:], keys[1:2], key[:2]])), "the oldest have gone"


def test_seed_is_the_cross_entropy_of_nearness(cookbook):
    torch.manual_seed(0)
    objective = cookbook("seed").OBJECTIVE.make({"size": 5, "student": 0.3, "teacher": 0.1})
    objective.setup(torch.Size([2]), torch.Size([3]))
    student, teacher = torch.randn(4, 2), torch.randn(4, 3)
    own, other = F.normalize(objective.adapter(student)), F.normalize(teacher)
    losses = []
    for row in range(4):
        memory = torch.cat([objective.queue, other[row : row + 1]])
        target = (memory @ other[row] / 0.1).softmax(0)
        losses.append(F.cross_entropy(memory @ own[row] / 0.3, target))
    torch.testing.assert_close(objective(student, teacher), torch.stack(losses).mean())


def test_nt_xent_is_the_mean_over_both_views(cookbook):
    torch.manual_seed(0)
    objective = cookbook("simclr").OBJECTIVE.make({"temperature": 0.5, "dim": 3})
    objective.setup(torch.Size([4]), torch.Size([4]))
    views = torch.randn(2, 3, 4)
    z = F.normalize(objective.projection(views.flatten(0, 1))).detach()
    losses = []
    for i in range(6):
        mass = sum(math.exp(z[i] @ z[k] / 0.5) for k in range(6) if k != i)
        losses.append(math.log(mass) - (z[i] @ z[(i + 3) % 6] / 0.5).item())
    assert objective(*views).item() == pytest.approx(sum(losses) / 6, rel=1e-5)


# -- what users get wrong --------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"table": "beers"}, "there is no table 'beers'"),
        ({"label": "colour"}, "'wines' has no column 'colour'"),
        ({"features": ["alcohol", 'x"; DROP TABLE wines; --']}, "has no column 'x\""),
        ({"order": "grower"}, "some of the same 'grower'"),
        ({"features": ["grower"]}, "the row with id 0 has"),
    ],
)
def test_a_table_that_is_not_there_is_refused(cookbook, kitchen, given, said):
    settings = {"path": kitchen / "wine.sqlite", "table": "wines", "label": "grower", "order": "id", **given}
    with pytest.raises(MeshError, match=said):
        cookbook("sqlite_table").DATASET.make(settings)


def test_a_file_that_is_no_database_is_refused(cookbook, tmp_path):
    (tmp_path / "some.sqlite").write_text("not one at all, whatever its name says")
    with pytest.raises(MeshError, match="file is not a database"):
        cookbook("sqlite_table").read(tmp_path / "some.sqlite", "t", "y", "id", None)


def test_names_of_any_letters_are_columns(cookbook, tmp_path):
    path = tmp_path / "what? a name#1.sqlite"
    with closing(sqlite3.connect(path)) as base, base:
        base.execute('CREATE TABLE "my ""table""" ("no." INTEGER, "größe" REAL, "art" TEXT)')
        base.executemany('INSERT INTO "my ""table""" VALUES (?, ?, ?)', [(2, 0.5, "b"), (1, 1.5, "a")])
    table = cookbook("sqlite_table").read(path, 'my "table"', "art", "no.", None)
    assert table.x.tolist() == [[1.5], [0.5]] and table.y.tolist() == [0, 1] and table.features == ["größe"]


def test_two_equal_views_and_one_party_are_refused(cookbook):
    from kdmesh import Mesh

    for connect, said in (
        ({"simclr": {"agent": "a", "layer": "layers.0"}}, "two equal views teach nothing"),
        ({"fedmd": {"parties": "a", "public": "train", "private": "train"}}, "there is one party"),
    ):
        with pytest.raises(MeshError, match=said):
            Mesh(data="digits", agents={"a": {"model": "mlp"}}, connect=[connect]).plan()


def test_half_a_line_of_one_that_was_killed_is_left_behind(cookbook, tmp_path):
    log = cookbook("jsonl_log")
    (tmp_path / log.NAME).write_bytes(b'{"what": "started"}\n{"what": "tra')
    run = SimpleNamespace(folder=tmp_path)
    log.kdmesh_run_failed(run, "killed", True)
    log.kdmesh_trained(run, "größe", 3, {"größe": None})
    lines = (tmp_path / log.NAME).read_text(encoding="utf-8").splitlines()
    assert lines[1] == '{"what": "tra' and [json.loads(line)["what"] for line in lines[2:]] == ["failed", "trained"]
