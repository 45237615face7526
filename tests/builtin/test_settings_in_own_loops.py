"""Objectives and rules built in anyone's own loop refuse the settings that their offers refuse."""

from __future__ import annotations

import copy
import inspect
import pickle

import numpy as np
import pytest
import torch

from kdmesh import consensus, objectives
from kdmesh.builtin.consensus.offers import CONSENSUS
from kdmesh.builtin.objectives.offers import OBJECTIVES
from kdmesh.errors import MeshError

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("build", "where", "words"),
    [
        (lambda: objectives.JSD(beta="hot"), "JSD.beta", "hot"),
        (lambda: objectives.JSD(1.5), "JSD.beta", "1.5"),
        (lambda: objectives.ForwardKL(temperature=NAN), "ForwardKL.temperature", "nan"),
        (lambda: objectives.ForwardKL(0), "ForwardKL.temperature", "0"),
        (lambda: objectives.ReverseKL(temperature=-2.0), "ReverseKL.temperature", "-2"),
        (lambda: objectives.TotalVariation(temperature=INF), "TotalVariation.temperature", "inf"),
        (lambda: objectives.ForwardKL(t2_scale="often"), "ForwardKL.t2_scale", "often"),
        (lambda: objectives.ForwardKL(temperature=True), "ForwardKL.temperature", "true"),
        (lambda: objectives.ForwardKL(temperature=torch.ones(3)), "ForwardKL.temperature", "a number"),
        (lambda: objectives.ForwardKL(torch.nn.Parameter(torch.ones(()))), "ForwardKL.temperature", "Parameter"),
        (lambda: objectives.SkewedKL(skew=1.0), "SkewedKL.skew", "1"),
        (lambda: objectives.SkewedReverseKL(skew=None), "SkewedReverseKL.skew", "None"),
        (lambda: objectives.CrossEntropy(label_smoothing=1), "CrossEntropy.label_smoothing", "1"),
        (lambda: objectives.CrossEntropy(class_weights=[1.0, -1.0]), "CrossEntropy.class_weights", "-1"),
        (lambda: objectives.CrossEntropy(temperature=NAN), "CrossEntropy.temperature", "nan"),
        (lambda: objectives.MSE(per_element="some"), "MSE.per_element", "some"),
        (lambda: objectives.MAE(per_element=3), "MAE.per_element", "3"),
        (lambda: objectives.Hint("never"), "Hint.adapter", "never"),
        (lambda: objectives.AttentionTransfer(p=0), "AttentionTransfer.p", "0"),
        (lambda: objectives.Universal(temperature=0), "Universal.temperature", "0"),
        (lambda: objectives.Aligned(temperature=NAN), "Aligned.temperature", "nan"),
        (lambda: consensus.TrimmedMean(trim=-1), "TrimmedMean.trim", "-1"),
        (lambda: consensus.TrimmedMean(0.5), "TrimmedMean.trim", "0.5"),
        (lambda: consensus.Weighted([]), "Weighted.weights", "1"),
        (lambda: consensus.Weighted([1.0, 0.0]), "Weighted.weights", "0"),
        (lambda: consensus.Weighted([1.0, NAN]), "Weighted.weights", "nan"),
        (lambda: consensus.GeometricMedian(iterations=0), "GeometricMedian.iterations", "0"),
        (lambda: consensus.GeometricMedian(eps=NAN), "GeometricMedian.eps", "nan"),
        (lambda: consensus.UHC(iterations=2.5), "UHC.iterations", "2.5"),
        (lambda: consensus.Route("c", {}), "Route.to", "1"),
    ],
)
def test_nonsense_is_refused_where_a_class_is_built(build, where, words):
    with pytest.raises(MeshError) as refused:
        build()
    assert refused.value.where.startswith(where)
    assert words in str(refused.value)


def test_every_setting_of_every_offer_is_checked_by_its_class():
    for offer in (*OBJECTIVES, *CONSENSUS):
        kind = offer.load()
        for name in offer.config.model_fields:
            others = {field: 1.0 for field, about in offer.config.model_fields.items() if about.is_required()}
            with pytest.raises(MeshError, match=rf"^{kind.__name__}\."):
                kind(**{**others, name: object()})


def test_what_is_right_is_kept_as_it_is():
    assert objectives.JSD(0.25, 4).temperature == 4
    assert objectives.ForwardKL(np.float32(2)).scale == 4
    assert objectives.CrossEntropy(class_weights=torch.tensor([1.0, 2.0])).class_weights == [1.0, 2.0]
    assert objectives.JSD(torch.tensor(0.25)).beta == 0.25
    assert consensus.Weighted(np.array([1, 3])).weights is not None
    assert consensus.Route("c", {"x": "a"}, else_="mean").other == "mean"
    assert str(inspect.signature(objectives.JSD)).startswith("(beta: ")
    made = objectives.SkewedKL(0.2, temperature=3.0)
    for other in (copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert (other.skew, other.temperature, other.scale) == (0.2, 3.0, 9.0)


def test_a_class_of_ones_own_that_extends_one_of_these_takes_settings_of_its_own():
    class Own(objectives.ForwardKL):
        def __init__(self, gain: float, temperature: float = 1.0) -> None:
            super().__init__(temperature)
            self.gain = gain

    assert Own(7.0, 2.0).gain == 7.0
    with pytest.raises(MeshError, match="temperature"):
        Own(7.0, NAN)
