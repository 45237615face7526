"""Every offer of this package passes the contract of its kind; what each declares stands here."""

from __future__ import annotations

import pytest
from kdmesh.testing import ObjectiveContract

from kdmesh_lm.offers import OBJECTIVES

HELD = "no gradient passes through what weighs a row, so it is not that of the loss: test_lm_objectives.py has it"
OFFERS = {offer.name: offer for offer in OBJECTIVES}


class Named(ObjectiveContract):
    """Its offer, by name, and the module that the entry point names."""

    __test__ = False
    name = ""
    module = "kdmesh_lm.plugin"
    zero_at_equality = True

    @pytest.fixture
    def offer(self):
        return OFFERS[self.name]


class TestAdaptiveKL(Named):
    __test__ = True
    name = "adaptive_kl"
    config = {"mu": 0.4, "temperature": 2}
    expected_failures = {"test_gradient_is_right": HELD, "test_gradient_of_the_target_is_right": HELD}


class TestEntropyAwareKL(Named):
    __test__ = True
    name = "entropy_aware_kl"
    config = {"threshold": 1.0}


class TestMassWeightedKL(Named):
    __test__ = True
    name = "mass_weighted_kl"
    config = {"k": 2}
    expected_failures = {"test_gradient_of_the_target_is_right": HELD}


def test_every_offer_is_here():
    kits = [kit for kit in globals().values() if isinstance(kit, type) and issubclass(kit, Named)]
    assert {kit.name for kit in kits} - {""} == set(OFFERS)
