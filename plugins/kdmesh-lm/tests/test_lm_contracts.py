"""Every offer of this package passes the contract of its kind; what each declares stands here."""

from __future__ import annotations

import pytest
from kdmesh.testing import GateContract, ObjectiveContract

from kdmesh_lm.offers import GATES, OBJECTIVES

HELD = "no gradient passes through what weighs a row, so it is not that of the loss: test_lm_objectives.py has it"
OFFERS = {offer.name: offer for offer in (*OBJECTIVES, *GATES)}


class Named:
    """Its offer, by name, and the module that the entry point names."""

    name = ""
    module = "kdmesh_lm.plugin"

    @pytest.fixture
    def offer(self):
        return OFFERS[self.name]


class OfObjective(Named, ObjectiveContract):
    __test__ = False
    zero_at_equality = True


class TestAdaptiveShare(Named, GateContract):
    __test__ = True
    name = "adaptive_share"
    config = {"start": 0.5}


class TestAdaptiveKL(OfObjective):
    __test__ = True
    name = "adaptive_kl"
    config = {"mu": 0.4, "temperature": 2}
    expected_failures = {"test_gradient_is_right": HELD, "test_gradient_of_the_target_is_right": HELD}


class TestEntropyAwareKL(OfObjective):
    __test__ = True
    name = "entropy_aware_kl"
    config = {"threshold": 1.0}


class TestMassWeightedKL(OfObjective):
    __test__ = True
    name = "mass_weighted_kl"
    config = {"k": 2}
    expected_failures = {"test_gradient_of_the_target_is_right": HELD}


def test_every_offer_is_here():
    kits = [kit for kit in globals().values() if isinstance(kit, type) and issubclass(kit, Named)]
    assert {kit.name for kit in kits} - {""} == set(OFFERS)
