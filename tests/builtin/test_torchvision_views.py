"""Random transforms of torchvision as views: seeded by sample and draw, checked, and the same wherever they run.

torchvision stands in a folder of its own (see the Makefile), which is on the path of these tests alone.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar, get_args

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from kdmesh.builtin.views.offers import VIEWS, TorchvisionConfig
from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.errors import MeshError
from kdmesh.spec.read import parse
from kdmesh.streams.seeds import mix
from kdmesh.testing import ViewContract

VISION = Path(sys.prefix) / "vision"
pytestmark = pytest.mark.skipif(not (VISION / "torchvision").is_dir(), reason="`make test` puts torchvision there")

OFFER = next(offer for offer in VIEWS if offer.name == "torchvision")
X = torch.rand(5, 3, 12, 12, generator=torch.Generator().manual_seed(0))
IDS = torch.tensor([40, 7, 3, 99, 12])
NAMES = get_args(TorchvisionConfig.model_fields["name"].annotation)
NEEDED: dict[str, dict[str, Any]] = {
    "RandomCrop": {"size": [12, 12], "padding": 3},
    "RandomResizedCrop": {"size": [12, 12], "scale": [0.5, 1.0], "interpolation": "bilinear"},
    "RandomRotation": {"degrees": 30},
    "RandomAffine": {"degrees": 20},
    "RandomPosterize": {"bits": 2},
    "RandomSolarize": {"threshold": 0.5},
    "RandomAdjustSharpness": {"sharpness_factor": 2},
    "GaussianBlur": {"kernel_size": 3},
    "ColorJitter": {"brightness": 0.3, "hue": 0.1},
    "AutoAugment": {"policy": "cifar10"},
    "RandomGrayscale": {"p": 0.5},
    "ElasticTransform": {"alpha": 20.0, "sigma": 1.0},
}


@pytest.fixture(autouse=True)
def on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(VISION))


def view(name: str, seed: int = 3, **settings: Any) -> Any:
    return OFFER.make({"name": name, "settings": settings or NEEDED.get(name, {})}, seed=seed)


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_is_seen_by_seed_id_and_draw_alone(name: str) -> None:
    states = torch.get_rng_state(), np.random.get_state()[1].tobytes(), random.getstate()
    given, made = X.clone(), view(name)
    whole = made(X, IDS, 2)
    assert torch.equal(X, given) and whole.shape == X.shape and whole.dtype == X.dtype and whole.isfinite().all()
    order = [4, 1, 3]
    assert torch.equal(made(X[order], IDS[order], 2), whole[order])
    others = [made(X, IDS, draw) for draw in range(3)]
    assert not all(torch.equal(one, X) for one in others), "it changes nothing"
    assert not all(torch.equal(one, others[0]) for one in others)
    seeds = [view(name, seed)(X, IDS, 2) for seed in range(3)]
    assert not all(torch.equal(one, seeds[0]) for one in seeds)
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == np.random.get_state()[1].tobytes() and states[2] == random.getstate()


def test_each_image_is_what_torchvision_makes_of_it() -> None:
    from torchvision.transforms import v2

    seen = view("RandomResizedCrop")(X, IDS, 4)
    plain = v2.RandomResizedCrop(size=[12, 12], scale=[0.5, 1.0], interpolation="bilinear")
    for image, sample, made in zip(X, IDS.tolist(), seen, strict=True):
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(mix(3, "torchvision", 4, sample))
            assert torch.equal(plain(image), made)


class TestCrop(ViewContract):
    config: ClassVar[dict[str, Any]] = {"name": "RandomCrop", "settings": {"size": [6, 6], "padding": 2}}
    elsewhere = False  # those processes began without this folder on their path; Ray is tried below

    @pytest.fixture
    def offer(self) -> Any:
        return OFFER


@pytest.mark.parametrize(
    ("given", "where", "said"),
    [
        ({"name": "RandomCrop", "settings": {"size": 12, "pading": 2}}, "settings.pading", "takes no 'pading'"),
        ({"name": "RandomCrop"}, "settings", "needs size"),
        ({"name": "RandomErasing", "settings": {"inplace": True}}, "settings.inplace", "takes no 'inplace'"),
        ({"name": "RandomErasing", "settings": {"p": 2}}, "settings", "does not take these settings"),
        ({"name": "AutoAugment", "settings": {"policy": "digits"}}, "settings", "does not take these settings"),
    ],
)
def test_wrong_settings_are_named(given: dict[str, Any], where: str, said: str) -> None:
    with pytest.raises(MeshError, match=said) as error:
        OFFER.make(given, seed=0)
    assert error.value.where.endswith(where)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"name": "RandomCropp"}, "Input should be"),
        ({"name": "Normalize", "settings": {"mean": [0], "std": [1]}}, "belongs to the data"),
        ({"name": "ColorJitter"}, "changes nothing"),
    ],
)
def test_what_is_no_augmentation_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        OFFER.config.model_validate(given)


def test_images_that_do_not_fit_are_refused() -> None:
    with pytest.raises(MeshError, match="pixels of 0 to 1, and these are of -1 to 1"):
        view("ColorJitter")(torch.tensor([-1.0, 1.0]).repeat(1, 1, 2, 1), IDS[:1], 0)
    with pytest.raises(MeshError, match=r"images \[3, 8, 8\] of \[3, 12, 12\]"):
        view("RandomCrop", size=8)(X, IDS, 0)
    with pytest.raises(MeshError, match=r"cannot transform images \[3, 12, 12\]: .*Padding"):
        view("ElasticTransform", sigma=5.0)(X, IDS, 0)
    with pytest.raises(MeshError, match="moves pixels"):
        view("RandomHorizontalFlip")(torch.ones(3, 8), IDS[:3], 0)
    assert OFFER.config(name="RandomErasing", settings={"p": 0}).idle()


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision.transforms.v2", None)
    with pytest.raises(MeshError, match="this needs torchvision") as error:
        view("RandomInvert")
    assert "pip install torchvision" in error.value.instead


def mesh(placement: str) -> Any:
    """A teacher on the student's own crops and mixes."""
    augment = [
        {"torchvision": {"name": "RandomCrop", "settings": {"size": [8, 8], "padding": 1}}},
        {"torchvision": {"name": "RandAugment", "settings": {}}},
        {"mixup": {"alpha": 0.4}},
    ]
    agents = {
        "t": {"model": {"mlp": {"hidden": [16]}}, "update": "frozen", "view": {"of": "s"}},
        "s": {"model": {"mlp": {"hidden": [16]}}, "view": {"augment": augment}},
    }
    fields = {"data": {"dataset": "digits", "train": 60}, "agents": agents, "placement": placement}
    fields["connect"] = [{"ensemble": {"teachers": "t", "student": "s"}}]
    return parse({**fields, "train": {"epochs": 2, "batch_size": 32}})


@pytest.mark.ray
def test_on_ray_the_bits_are_those_of_one_process(ray_session: Any) -> None:
    inline = run_once(Request(mesh("together"), "inline", store="off"))[0]["agents"]
    spread = run_once(Request(mesh("spread"), store="off"), session=ray_session)[0]["agents"]
    assert {name: one["weights_sha256"] for name, one in spread.items()} == {
        name: one["weights_sha256"] for name, one in inline.items()
    }


@pytest.mark.slow
def test_transformers_imports_beside_it() -> None:
    code = "import torchvision\nfrom transformers import BertForSequenceClassification, ViTForImageClassification"
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": str(VISION)})


class Seen(nn.Module):
    """Keeps what it saw while it trained."""

    kept: ClassVar[list[torch.Tensor]] = []

    def __init__(self, in_chans: int = 3, num_classes: int = 2) -> None:
        super().__init__()
        self.head = nn.Linear(in_chans * 64, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.kept.append(x.detach().clone())
        return self.head(x.flatten(1))


@pytest.mark.parametrize("scale", ["standard", "robust", "maxabs", "minmax"])
def test_pixels_are_scaled_after_colours_change(scale: str) -> None:
    import kdmesh

    x = torch.rand(40, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * torch.tensor([0.5, 0.8, 1.0]).view(
        3, 1, 1
    )
    data = kdmesh.data(train=(x, torch.arange(40) % 2), test=(x[:8], torch.arange(8) % 2))
    augment = [
        {"torchvision": {"name": "RandomHorizontalFlip", "settings": {}}},
        {"torchvision": {"name": "ColorJitter", "settings": {"brightness": 0.5, "contrast": 0.5}}},
    ]

    def seen(prepare: list[dict[str, Any]]) -> tuple[torch.Tensor, torch.Tensor]:
        """What the agent saw of a batch, and its samples as they are prepared."""
        Seen.kept.clear()
        one = kdmesh.Mesh(data=data, train={"steps": 1, "batch_size": 16}, name="m", seed=1)
        one.agent("a", f"{__name__}:Seen", view={"augment": augment}, prepare=prepare)
        one.run(backend="inline", store="off")
        return Seen.kept[-1], one.samples("train", agent="a")[0]

    (plain, raw), (scaled, own) = seen([]), seen([{"columns": "pixels", "scale": scale}])
    for channel in range(3):  # each by two numbers, which two pixels tell
        (a, b), (c, d) = ((one[:, channel].min(), one[:, channel].max()) for one in (raw, own))
        wanted = (plain[:, channel] - a) * (d - c) / (b - a) + c
        assert torch.allclose(scaled[:, channel], wanted, atol=1e-4)
    assert plain.min() >= 0 and plain.max() <= 1 and (scaled - plain).abs().max() > 1e-3
