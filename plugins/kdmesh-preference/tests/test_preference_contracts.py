"""Every offer of this package passes the contract of its kind; what each declares stands here."""

from __future__ import annotations

import pytest
from kdmesh.testing import ObjectiveContract, TextRuleContract

from kdmesh_preference.offers import OBJECTIVES, TEXT_RULES

OFFERS = {offer.name: offer for offer in (*OBJECTIVES, *TEXT_RULES)}


class Named:
    """Its offer, by name, and the module that the entry point names."""

    __test__ = False
    name = ""
    module = "kdmesh_preference.plugin"

    @pytest.fixture
    def offer(self):
        return OFFERS[self.name]


class Objective(Named, ObjectiveContract):
    __test__ = False
    permutation_invariant = True


class TestDPO(Objective):
    __test__ = True
    name = "dpo"
    config = {"beta": 0.5}


class TestSmoothed(Objective):
    __test__ = True
    name = "dpo"
    config = {"beta": 0.5, "label_smoothing": 0.1, "per_token": True}


class TestDistilled(Objective):
    __test__ = True
    name = "dpo_distilled"
    config = {"beta": 0.5}
    zero_at_equality = True


class TestSquared(Objective):
    __test__ = True
    name = "dpo_distilled"
    config = {"beta": 0.5, "distance": "squared", "per_token": True}
    zero_at_equality = True


class TestRightOverWrong(Named, TextRuleContract):
    __test__ = True
    name = "right_over_wrong"
    config = {"column": "answer", "numeric": True, "silent": "wrong"}


class TestDeclared(Named, TextRuleContract):
    __test__ = True
    name = "declared"
    config = {"chosen": ["first", "second"], "rejected": "third"}


def test_every_offer_is_here():
    kits = [kit for kit in globals().values() if isinstance(kit, type) and issubclass(kit, Named)]
    assert {kit.name for kit in kits} - {""} == set(OFFERS)
