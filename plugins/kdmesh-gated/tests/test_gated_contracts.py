"""Every offer of this package keeps the contract of its kind."""

from __future__ import annotations

import pytest
from kdmesh.testing import ConsensusContract, ModelContract, ObjectiveContract, StrategyContract

from kdmesh_gated.plugin import CONSENSUS, MODELS, OBJECTIVES, STRATEGIES

EXITS = {
    "a": {"model": {"branched": {"trunk": [8], "branch": [8], "branches": 4}}, "exit": "branches.0"},
    **{name: {"weights_of": "a", "exit": f"branches.{number}"} for number, name in enumerate("bcd", 1)},
}


class TestGate(ConsensusContract):
    sources = (3,)
    inputs = ((6, 4, 4),)

    @pytest.fixture
    def offer(self):
        return CONSENSUS[0]


class TestGateOfSeveralInputs(TestGate):
    inputs = ((6, 4, 4), (5, 3), (7,))


class TestAttention(ConsensusContract):
    sources = (3,)
    inputs = ((16,), (16, 2, 2), (3, 16))
    per_target = True

    @pytest.fixture
    def offer(self):
        return CONSENSUS[1]


class TestBranched(ModelContract):
    shapes = ((1, 8, 8), (3, 5, 7), (2, 1, 1), (6,))

    @pytest.fixture
    def offer(self):
        return MODELS[0]


class TestBranchedWithoutLayersOfItsOwn(TestBranched):
    config = {"trunk": [8, 8], "branch": [], "branches": 2}


class TestTaughtKL(ObjectiveContract):
    config = {"share": 0.5}
    permutation_invariant = True
    target_gradient = False  # the target's is that of a loss of its own

    @pytest.fixture
    def offer(self):
        return OBJECTIVES[0]


class TestTaughtKLOfAnUntaughtTarget(TestTaughtKL):
    config = {"share": 0.0, "through": True}
    zero_at_equality = True


class TestOne(StrategyContract):
    config = {"branches": ["a", "b", "c"], "trunk": "layers.0"}

    @pytest.fixture
    def offer(self):
        return STRATEGIES[0]


class TestOneOnExits(TestOne):
    config = {"branches": ["a", "b", "c"]}
    mesh = {"agents": EXITS}


class TestOkddip(StrategyContract):
    config = {"peers": ["a", "b"], "leader": "c", "features": "layers.0", "faithful": "code"}

    @pytest.fixture
    def offer(self):
        return STRATEGIES[1]


class TestOkddipOnExits(TestOkddip):
    config = {"peers": ["a", "b", "c"], "leader": "d", "weight": {"start": 0, "end": 1, "epochs": 3}}
    mesh = {"agents": EXITS}
