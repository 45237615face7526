"""Building and measuring in a host leave the generators of torch, numpy and Python as they were."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import kdmesh
from kdmesh.offers import AGE
from kdmesh.plugins import registry

SETTINGS: dict[str, Any] = {
    "weighted": {"weights": [1, 2]},
    "threshold_vote": {"votes": 2},
    "route": {"column": "kind", "to": {"x": "t1"}, "else": "t2"},
    "top_k": {"k": 2},
    "sampled": {"draws": 2},
    "entropy_aware_kl": {"threshold": 1.0},
    "hf": None,  # of texts
    "branched": None,
    "bi_encoder": None,  # of lists
    "cross_encoder": None,
    "stored": None,  # of the store
    "api": None,  # elsewhere
    "sklearn": None,  # of a file, and frozen
    "lightgbm": None,
    "onnx": None,
    "torchvision": None,  # of other libraries: tests/builtin/test_library_models.py
    "timm": None,
}
RULES = [
    offer.name
    for offer in registry().offers("consensus")
    if offer.name not in ("attention", "gate") and offer.spaces != ("weights",) and not offer.releases
    if AGE not in offer.needs  # which weighs parties that are away; tests/parties/test_participation.py
]  # what releases draws of its party's secret, and no generator; tests/parties/test_party_accounts.py
READS = {name: registry().find("objectives", name) for name in registry().names("objectives")}
LOSSES = [
    name
    for name, offer in READS.items()
    if offer.reads == "logits" and "logits" in offer.forms and not {"spans", "pairs"} & {*offer.needs}
    if "marginals" not in offer.forms and ("labels" not in offer.needs or "classes" in offer.labels)
]
HIDDEN = {"hint": "mlp", "rkd": "mlp", "sp": "mlp", "crd": "mlp", "attention": "cnn"}  # by a model with such layers
MODELS = [name for name in registry().names("models") if SETTINGS.get(name, {}) is not None]


def states() -> tuple[Any, ...]:
    """Where the generators stand."""
    numpy: Any = np.random.get_state()
    return torch.get_rng_state().tolist(), numpy[1].tolist(), numpy[2:], random.getstate()


def ref(name: str) -> Any:
    return {name: SETTINGS[name]} if name in SETTINGS else name


def look(opened: Any, made: kdmesh.Mesh) -> None:
    """Open a host and look at everything in it, from generators that stand anywhere."""
    torch.manual_seed(11)
    np.random.seed(12)
    random.seed(13)
    before = states()
    _, hosts = opened(made)
    assert states() == before, "a build moves a generator"
    for host in hosts.values():
        for agent in host.agents:
            host.evaluate(agent, "validation")
            assert states() == before, f"evaluating {agent} moves a generator"
        for edge in host.plan.edges:
            if edge.source in host.agents:
                host.publish(edge.source, "train", (edge.output,))
                assert states() == before, f"publishing {edge} moves a generator"
        for name in host.consensus:
            published = [
                host.publish(edge.source, "validation", (edge.output,)) for edge in host.plan.consensus[name].inputs
            ]
            host.evaluate_consensus(name, "validation", [], *published)
            assert states() == before, f"judging {name} moves a generator"
        host.describe()
        assert states() == before, "describing moves a generator"


def images(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    drawn = torch.Generator().manual_seed(seed)
    return torch.randn(40, 1, 8, 8, generator=drawn), torch.randint(3, (40,), generator=drawn)


@pytest.fixture
def taught(mesh: Callable[..., kdmesh.Mesh]) -> Callable[..., kdmesh.Mesh]:
    """Two teachers and a student of small images."""

    def make(model: Any = None, task: str = "classification", **more: Any) -> kdmesh.Mesh:
        model = model or {"mlp": {"hidden": [4]}}
        parts = [images(seed) for seed in range(3)]
        if task == "regression":
            parts = [(x, y[:, None].float()) for x, y in parts]
        data = kdmesh.data(*parts, classes=3 if task == "classification" else None)
        data.columns["kind"] = ["x", "y"] * 60
        agents = {name: {"model": model, **more} for name in ("t1", "t2", "s")}
        return mesh(agents, data=data, task=task, train={"batch_size": 8})

    return make


@pytest.mark.parametrize("rule", RULES)
def test_rules(opened: Any, taught: Any, rule: str) -> None:
    offer = registry().find("consensus", rule)
    classes = "classes" in offer.answers
    made = taught(task="classification" if classes else "regression")
    made.consensus("c", ref(rule))
    made.flow(["t1", "t2"], "c")
    made.flow("labels", ["t1", "t2", "s"], objective="ce" if classes else "mse")
    made.flow("c", "s", objective="mse" if "logits" in offer.spaces else "kl")
    look(opened, made)


@pytest.mark.parametrize("loss", LOSSES)
def test_objectives(opened: Any, taught: Any, loss: str) -> None:
    made = taught()
    made.flow("labels", ["t1", "t2", "s"], objective="ce")
    made.flow("t1", "s", objective=ref(loss))
    look(opened, made)


@pytest.mark.parametrize("loss", HIDDEN)
def test_objectives_between_layers(opened: Any, taught: Any, loss: str) -> None:
    made = taught({"cnn": {}} if HIDDEN[loss] == "cnn" else None)
    made.flow("labels", ["t1", "t2", "s"], objective="ce")
    made.flow("t1", "s", objective=loss, tap="layers.0")
    look(opened, made)


@pytest.mark.parametrize("signal", ["votes", "top_k", "sampled", "logits"])
def test_signals(opened: Any, taught: Any, signal: str) -> None:
    made = taught()
    made.flow("labels", ["t1", "t2", "s"], objective="ce")
    made.flow("t1", "s", objective="kl", signal=ref(signal))
    look(opened, made)


@pytest.mark.parametrize("view", sorted({*registry().names("views")} - {"torchvision"}))  # which has its own tests
def test_views(opened: Any, taught: Any, view: str) -> None:
    single = not registry().find("views", view).mixes  # of what mixes batches nothing is counted
    made = taught(view={"augment": [view], **({"draws": 1} if single else {})})
    made.flow("labels", ["t1", "t2", "s"], objective="ce")
    made.flow("t1", "s", objective="kl")
    look(opened, made)


@pytest.mark.parametrize("model", MODELS)
def test_models(opened: Any, taught: Any, model: str) -> None:
    made = taught({model: {}})
    made.flow("labels", ["t1", "t2", "s"], objective="ce")
    made.flow("t1", "s", objective="kl")
    look(opened, made)
