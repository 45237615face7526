"""Every offer of this package passes the contract of its kind; what each declares stands here."""

from __future__ import annotations

import pytest
from kdmesh.testing import ObjectiveContract

from kdmesh_preference.offers import OBJECTIVES

OFFERS = {offer.name: offer for offer in OBJECTIVES}


class Named(ObjectiveContract):
    """Its offer, by name, and the module that the entry point names."""

    __test__ = False
    name = ""
    module = "kdmesh_preference.plugin"
    permutation_invariant = True

    @pytest.fixture
    def offer(self):
        return OFFERS[self.name]


class TestDPO(Named):
    __test__ = True
    name = "dpo"
    config = {"beta": 0.5}


class TestSmoothed(Named):
    __test__ = True
    name = "dpo"
    config = {"beta": 0.5, "label_smoothing": 0.1, "per_token": True}


class TestDistilled(Named):
    __test__ = True
    name = "dpo_distilled"
    config = {"beta": 0.5}
    zero_at_equality = True


class TestSquared(Named):
    __test__ = True
    name = "dpo_distilled"
    config = {"beta": 0.5, "distance": "squared", "per_token": True}
    zero_at_equality = True


def test_every_offer_is_here():
    kits = [kit for kit in globals().values() if isinstance(kit, type) and issubclass(kit, Named)]
    assert {kit.name for kit in kits} - {""} == set(OFFERS)
