from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from kdmesh.builtin.models.offers import MODELS
from kdmesh.errors import MeshError

OFFERS = {offer.name: offer for offer in MODELS}
CASES = [
    ("mlp", (12,), {}),
    ("mlp", (1, 8, 8), {"hidden": [16, 8], "dropout": 0.5, "activation": "gelu"}),
    ("mlp", (3,), {"hidden": []}),
    ("cnn", (1, 8, 8), {"width": 4, "depth": 3}),
    ("cnn", (3, 28, 28), {"width": 4}),
    ("cnn", (1, 7, 10), {"width": 4}),
    ("resnet", (1, 8, 8), {"width": 4}),
    ("resnet", (3, 28, 28), {"width": 4, "blocks": 2}),
    ("vit", (1, 8, 8), {"dim": 16, "heads": 2}),
    ("vit", (3, 28, 14), {"patch": 7, "dim": 16, "depth": 1}),
]


def build(name, shape, config, seed=0, classes=5):
    torch.manual_seed(seed)
    return OFFERS[name].make(config, input_shape=torch.Size(shape), classes=classes)


@pytest.mark.parametrize(("name", "shape", "config"), CASES)
def test_logits_and_a_gradient_for_every_parameter(name, shape, config):
    model = build(name, shape, config)
    x = torch.randn(6, *shape)
    logits = model(x)
    assert logits.shape == (6, 5)
    torch.nn.functional.cross_entropy(logits, torch.arange(6) % 5).backward()
    assert [key for key, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []
    assert isinstance(model.head, torch.nn.Linear)


@pytest.mark.parametrize(("name", "shape", "config"), CASES)
def test_builds_and_runs_on_the_meta_device(name, shape, config):
    with torch.device("meta"):
        model = OFFERS[name].make(config, input_shape=torch.Size(shape), classes=5)
        logits = model(torch.empty(2, *shape))
    assert {p.device.type for p in model.parameters()} == {"meta"}
    assert logits.shape == (2, 5)


@pytest.mark.parametrize(("name", "shape", "config"), CASES)
def test_equal_seeds_give_equal_weights(name, shape, config):
    one, two, other = (build(name, shape, config, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert not all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize(("name", "shape", "config"), CASES)
def test_evaluation_is_a_function_of_the_sample(name, shape, config):
    model = build(name, shape, config).eval()
    x = torch.randn(4, *shape)
    with torch.no_grad():
        whole = model(x)
        assert torch.equal(whole, model(x))
        assert torch.allclose(model(x[1:3]), whole[1:3], atol=1e-5)


def test_dropout_works_in_training_only():
    model = build("mlp", (12,), {"hidden": [64], "dropout": 0.5})
    x = torch.randn(4, 12)
    assert not torch.equal(model(x), model(x))
    assert not any(isinstance(module, torch.nn.Dropout) and module.p for module in build("mlp", (12,), {}).modules())


@pytest.mark.parametrize(
    ("name", "shape", "tap", "gives"),
    [
        ("mlp", (12,), "layers.0", (2, 64)),
        ("cnn", (1, 8, 8), "layers.1", (2, 32, 2, 2)),
        ("resnet", (1, 8, 8), "layers.2", (2, 64, 2, 2)),
        ("vit", (1, 8, 8), "layers.1", (2, 5, 64)),
    ],
)
def test_layers_have_names_to_tap(name, shape, tap, gives):
    model = build(name, shape, {})
    seen = []
    model.get_submodule(tap).register_forward_hook(lambda module, args, output: seen.append(output.shape))
    model(torch.randn(2, *shape))
    assert seen == [gives]


def test_parameter_counts_follow_from_the_configuration():
    def count(model):
        return sum(p.numel() for p in model.parameters())

    assert count(build("mlp", (12,), {"hidden": [7]})) == 12 * 7 + 7 + 7 * 5 + 5
    assert count(build("cnn", (1, 8, 8), {"width": 4, "depth": 1})) == 9 * 4 + 4 + 4 * 16 * 5 + 5
    # He et al.: 6 n + 2 layers; projections of shape-changing shortcuts not counted
    layers = [m for m in build("resnet", (1, 8, 8), {"blocks": 3}).modules() if isinstance(m, torch.nn.Conv2d)]
    assert sum(m.kernel_size == (3, 3) for m in layers) + 1 == 6 * 3 + 2


@pytest.mark.parametrize("name", ["cnn", "resnet", "vit"])
def test_image_models_refuse_vectors_kindly(name):
    with pytest.raises(MeshError, match=rf"{name} reads images .* samples are \[64\]") as error:
        build(name, (64,), {})
    assert "mlp" in error.value.instead


@pytest.mark.parametrize(
    ("name", "config", "what"),
    [
        ("cnn", {"depth": 4}, "a depth of at most 3"),
        ("vit", {"patch": 3}, "do not tile 8x8"),
        ("vit", {"dim": 10}, "not a multiple of 4 heads"),
    ],
)
def test_configurations_that_do_not_fit_the_image_are_refused(name, config, what):
    with pytest.raises(MeshError, match=what):
        build(name, (1, 8, 8), config)


@pytest.mark.parametrize("config", [{"hidden": [0]}, {"dropout": 1.0}, {"activation": "sin"}, {"width": 3}])
def test_configurations_are_checked(config):
    with pytest.raises(ValidationError):
        OFFERS["mlp"].config.model_validate(config)
