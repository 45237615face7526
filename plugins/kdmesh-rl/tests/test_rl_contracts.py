"""Every offer of this package passes the contract of its kind; what each declares stands here."""

from __future__ import annotations

import pytest
from kdmesh.testing import ObjectiveContract

from kdmesh_rl.offers import OBJECTIVES

OFFERS = {offer.name: offer for offer in OBJECTIVES}


class Named(ObjectiveContract):
    """Its offer, by name, and the module that the entry point names."""

    __test__ = False
    name = "policy_gradient"
    module = "kdmesh_rl.plugin"
    permutation_invariant = True

    @pytest.fixture
    def offer(self):
        return OFFERS[self.name]


class TestPolicyGradient(Named):
    __test__ = True


class TestClipped(Named):
    __test__ = True
    config = {"clip": 0.2, "clip_high": 0.3, "std": "none", "average": "token"}


class TestByAConstant(Named):
    __test__ = True
    config = {"average": "constant", "length": 3, "std": "population", "eps": 0.01, "temperature": 0.5}
    doubling = 2.0  # the tokens stand twice in the same texts, whose sums are divided by what they were


def test_every_offer_is_here():
    kits = [kit for kit in globals().values() if isinstance(kit, type) and issubclass(kit, Named)]
    assert {kit.name for kit in kits} == set(OFFERS)
