"""Every offer of this package passes the contract of an objective; what each declares stands here."""

from __future__ import annotations

import pytest
from kdmesh.testing import ObjectiveContract, small

from kdmesh_relational.offers import OBJECTIVES

OFFERS = {offer.name: offer for offer in OBJECTIVES}


class OfRelations(ObjectiveContract):
    """Between signals of different widths."""

    __test__ = False
    name = ""
    module = "kdmesh_relational.plugin"
    permutation_invariant = True
    shape, target_shape = (6,), (4,)

    @pytest.fixture
    def offer(self):
        return OFFERS[self.name]


class TestSP(OfRelations):
    name = "sp"
    zero_at_equality = True
    doubling = 0.5  # ‖G‖² doubles: each entry is divided by √2 and stands there four times; B² is four times as large


class TestRKD(OfRelations):
    name = "rkd"
    zero_at_equality = True
    doubling = None  # twins at distance 0 are new pairs, which the mean distance counts


class TestRKDAsCode(TestRKD):
    config = {"faithful": "code", "distance": 25, "angle": 50}
    shape, target_shape = (2, 3), (2, 2)


class TestMiniLM(OfRelations):
    name = "minilm"
    config = {"heads": 2}
    zero_at_equality = True
    shape, target_shape = (3, 6), (3, 4)

    def small_mesh(self, offer, settings):
        """Of models with tokens."""
        flows = [
            {"from": "labels", "to": "a", "objective": "ce"},
            {"from": "a", "to": "b", "objective": {offer.name: settings}, "tap": "layers.0"},
        ]
        return small.mesh(("a", "b"), {"vit": {"dim": 8, "heads": 2}}, flows=flows), small.table(shape=(1, 8, 8))


class TestCRD(OfRelations):
    """Of six samples in three classes of two, so that all candidates are drawn and chance has no part."""

    name = "crd"
    config = {"dim": 4, "temperature": 0.5, "faithful": "paper"}
    shape = (3,)


class TestCRDAsCode(TestCRD):
    config = {"dim": 4, "negatives": "other_sample"}
    expected_failures = dict.fromkeys(
        (
            "test_gradient_is_right",
            "test_gradient_of_the_target_is_right",
            "test_gradient_of_its_weights_is_right",
        ),
        "every call is the first, which estimates Z from what it compares; Z has no gradient",
    )


class TestCRDThatDraws(TestCRD):
    config = {"dim": 4, "count": 2, "faithful": "paper"}
    permutation_invariant = False  # the draws go with the place in the batch
    doubling = None


def test_every_offer_is_here():
    found = {kit.name for kit in globals().values() if isinstance(kit, type) and issubclass(kit, OfRelations)}
    assert found - {""} == set(OFFERS)
