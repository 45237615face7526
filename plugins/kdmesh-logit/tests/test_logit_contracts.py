"""Every offer of this package passes the contract of its kind; what each declares stands here."""

from __future__ import annotations

import pytest
from kdmesh.testing import ConsensusContract, ObjectiveContract

from kdmesh_logit.offers import CONSENSUS, OBJECTIVES

OFFERS = {offer.name: offer for offer in (*OBJECTIVES, *CONSENSUS)}


class Named:
    """Its offer, by name, and the module that the entry point names."""

    name = ""
    module = "kdmesh_logit.plugin"

    @pytest.fixture
    def offer(self):
        return OFFERS[self.name]


class OfOutputs(Named, ObjectiveContract):
    __test__ = False
    zero_at_equality = permutation_invariant = True


class TestDKD(OfOutputs):
    name = "dkd"
    config = {"alpha": 1.5, "temperature": 3}


class TestDIST(OfOutputs):
    name = "dist"
    config = {"temperature": 3}
    expected_failures = {"test_zero_at_equality": "1e-8 beside each correlation's denominator leaves about 1e-6"}


class TestStandardisedKL(OfOutputs):
    name = "standardised_kl"


class TestStandardisedKLAsCode(OfOutputs):
    name = "standardised_kl"
    config = {"faithful": "code", "t2_scale": False}


class TestMinLogit(Named, ConsensusContract):
    name = "kdcl_min_logit"
    order_invariant = True


class TestLinear(Named, ConsensusContract):
    name = "kdcl_linear"
    order_invariant = True


def test_every_offer_is_here():
    kits = [kit for kit in globals().values() if isinstance(kit, type) and issubclass(kit, Named)]
    assert {kit.name for kit in kits} - {""} == set(OFFERS)
