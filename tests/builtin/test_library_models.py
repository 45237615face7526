"""Models of torchvision and timm by name, factories by import path, and new heads on weights that are read.

Both libraries stand in a folder of their own (see the Makefile), which is on the path of these tests alone.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import kdmesh
from kdmesh.builtin.models.offers import MODELS
from kdmesh.engine.check import examine
from kdmesh.errors import MeshError
from kdmesh.testing import ModelContract

VISION = Path(sys.prefix) / "vision"
pytestmark = pytest.mark.skipif(not (VISION / "timm").is_dir(), reason="`make test` puts torchvision and timm there")

OFFERS = {offer.name: offer for offer in MODELS if offer.name in ("torchvision", "timm")}
SMALL: dict[str, dict[str, Any]] = {
    "torchvision": {"name": "shufflenet_v2_x0_5"},
    "timm": {"name": "test_vit", "args": {"img_size": 16, "patch_size": 8}},
}


@pytest.fixture(autouse=True)
def on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(VISION))


class TestTimm(ModelContract):
    config: ClassVar[dict[str, Any]] = SMALL["timm"]
    shapes: ClassVar[tuple[tuple[int, ...], ...]] = ((1, 16, 16), (3, 16, 16))
    elsewhere = False  # those processes began without this folder on their path

    @pytest.fixture
    def offer(self) -> Any:
        return OFFERS["timm"]

    @pytest.mark.slow
    def test_ray_gives_the_same_bits(self, offer: Any, settings: dict[str, Any], run_mesh: Any, on_ray: None) -> None:
        super().test_ray_gives_the_same_bits(offer, settings, run_mesh, on_ray)


def images(channels: int = 3, size: int = 16) -> tuple[Tensor, Tensor]:
    y = torch.arange(60) % 3
    x = torch.rand(60, channels, size, size, generator=torch.Generator().manual_seed(0))
    return x * (1 + y.view(-1, 1, 1, 1)) / 3, y


def mesh(model: Any, given: tuple[Tensor, Tensor] | None = None, lr: float = 0.01, **agent: Any) -> kdmesh.Mesh:
    train = {"steps": 1, "batch_size": 20, "optimizer": {"sgd": {"lr": lr}}}
    one = kdmesh.Mesh(name="m", data=kdmesh.data(train=given or images()), train=train)
    one.agent("a", model, **agent)
    return one


def run(*args: Any, **more: Any) -> Any:
    return mesh(*args, **more).run(backend="inline", store="off")


def named(offer: str, name: str, **args: Any) -> dict[str, Any]:
    return {offer: {"name": name, "args": args}}


def test_it_is_the_library_s_own() -> None:
    """The same weights and answers as of the library's own function, from one seed."""
    import timm
    import torchvision

    x, _ = images()
    own: dict[str, Any] = {
        "torchvision": lambda: torchvision.models.shufflenet_v2_x0_5(num_classes=5),
        "timm": lambda: timm.create_model("test_vit", num_classes=5, in_chans=3, img_size=16, patch_size=8),
    }
    for name, offer in OFFERS.items():
        torch.manual_seed(3)
        one = offer.make(SMALL[name], input_shape=torch.Size((3, 16, 16)), classes=5)
        torch.manual_seed(3)
        assert torch.equal(one(x), own[name]()(x))


@pytest.mark.parametrize(
    ("model", "shape", "where", "said"),
    [
        (named("torchvision", "resnet81"), (3, 16, 16), "torchvision.name", "did you mean 'resnet18'"),
        (named("timm", "resnet_18"), (3, 16, 16), "timm.name", "did you mean 'resnet18'"),
        (named("timm", "hf-hub:timm/resnet18.a1_in1k"), (3, 16, 16), "timm.name", "no model"),
        (named("torchvision", "fasterrcnn_resnet50_fpn"), (3, 16, 16), "torchvision.name", "no model"),
        (named("torchvision", "resnet18", weights="DEFAULT"), (3, 16, 16), "args.weights", "agents.NAME.weights"),
        (named("timm", "resnet18", pretrained=True), (3, 16, 16), "args.pretrained", "never fetched"),
        (named("timm", "resnet18", checkpoint_path="a.pth"), (3, 16, 16), "args.checkpoint_path", "or unpickled"),
        (named("torchvision", "resnet18", num_classes=3), (3, 16, 16), "args.num_classes", "follows from the data"),
        (named("timm", "resnet18", in_chans=3), (3, 16, 16), "args.in_chans", "follows from the data"),
        (named("torchvision", "resnet18", widht=3), (3, 16, 16), "torchvision.args", "unexpected keyword"),
        (named("torchvision", "resnet18"), (1, 16, 16), "torchvision.name", "3 channels, and these have 1.*mode: rgb"),
        (named("torchvision", "resnet18"), (9,), "model.torchvision", "reads images"),
        (named("torchvision", "googlenet", init_weights=False), (3, 16, 16), "args", "aux_logits: false"),
    ],
)
def test_what_cannot_be_is_said(model: dict[str, Any], shape: tuple[int, ...], where: str, said: str) -> None:
    ((name, settings),) = model.items()
    with torch.device("meta"), pytest.raises(MeshError, match=f"(?s){said}") as error:
        OFFERS[name].make(settings, input_shape=torch.Size(shape), classes=3)
    assert error.value.where.endswith(where)


@pytest.mark.parametrize("name", OFFERS)
def test_without_the_library_it_is_said_what_to_install(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    with pytest.raises(MeshError, match=r"(?s)this needs .*pip install \"kdmesh\["):
        OFFERS[name].make(SMALL[name], input_shape=torch.Size((3, 16, 16)), classes=3)


def test_images_of_another_size_are_named() -> None:
    with pytest.raises(MeshError, match=r"samples of shape \(3, 16, 16\): .*height \(16\) doesn't match model \(224\)"):
        run({"timm": {"name": "vit_tiny_patch16_224"}})


def factory(num_classes: int, in_chans: int = 3) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(in_chans * 64, num_classes))


def nothing(num_classes: int = 3) -> nn.Module:
    return None  # type: ignore[return-value]


def untold(num_classes=3):  # type: ignore[no-untyped-def]
    return nn.Linear(num_classes, num_classes)


def test_a_factory_is_told_classes_and_channels() -> None:
    made = run({f"{__name__}:factory": {}}, images(1, 8))["a"].module
    assert made[1].weight.shape == (3, 64)
    with pytest.raises(MeshError, match=r"outputs of shape \(2, 7\), not \(2, 3\)"):
        run({f"{__name__}:factory": {"num_classes": 7}}, images(1, 8))
    with pytest.raises(MeshError, match="made a NoneType"):
        run({f"{__name__}:nothing": {}})
    with pytest.raises(MeshError, match="no function that says by its annotation"):
        run({f"{__name__}:untold": {}})


def test_a_library_s_function_by_path() -> None:
    made = run({"torchvision.models:squeezenet1_1": {"num_classes": 3}}, images(3, 32))
    assert type(made["a"].module).__name__ == "SqueezeNet"


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, nn.Module]:
    """Weights of ten classes, and the module that has them."""
    sys.path.insert(0, str(VISION))
    import torchvision

    torch.manual_seed(9)
    net = torchvision.models.shufflenet_v2_x0_5(num_classes=10)
    file = tmp_path_factory.mktemp("pretrained") / "net.safetensors"
    save_file(net.state_dict(), file)
    sys.path.remove(str(VISION))
    return file, net


def test_a_new_head_on_weights_that_are_read(pretrained: tuple[Path, nn.Module]) -> None:
    """All but the head is the file's, the head what the agent would begin with anyway."""
    file, net = pretrained
    one = mesh({"torchvision": SMALL["torchvision"]}, lr=0.0, weights=str(file), new_head="fc")
    found = one.run(backend="inline", store="off")
    drawn = run({"torchvision": SMALL["torchvision"]}, lr=0.0)["a"].module
    own = dict(net.named_parameters())
    for name, value in found["a"].module.named_parameters():
        assert torch.equal(value, dict(drawn.named_parameters())[name] if name.startswith("fc.") else own[name]), name
    notes = examine(one.plan(), {}, one.table).notes
    assert "a: begins with net.safetensors, but for fc, drawn anew by its seed" in notes


@pytest.mark.parametrize(
    ("agent", "where", "said"),
    [
        ({}, "weights", r"fc.*\(10,\) in the file.*or new_head: fc, which then starts anew"),
        ({"new_head": "head"}, "new_head", "no layer 'head' with weights"),
        ({"new_head": "conv1"}, "weights", r"'fc.bias'.*or new_head: fc"),
        ({"new_head": "fc", "update": "frozen"}, "new_head", "would stay random"),
        ({"new_head": "fc", "weights": None}, "new_head", "there is no `weights`"),
        ({"new_head": "fc", "weights": "net.pth"}, "weights", "a pickle can run code"),
    ],
)
def test_heads_that_cannot_be(
    pretrained: tuple[Path, nn.Module], tmp_path: Path, agent: dict[str, Any], where: str, said: str
) -> None:
    file, net = pretrained
    if agent.get("weights") == "net.pth":
        agent = {**agent, "weights": str(tmp_path / "net.pth")}
        torch.save(net.state_dict(), agent["weights"])
    with pytest.raises(MeshError, match=f"(?s){said}") as error:
        run({"torchvision": SMALL["torchvision"]}, **{"weights": str(file), **agent})
    assert error.value.where == f"agents.a.{where}"


@pytest.mark.slow
def test_every_model_of_torchvision_is_built_without_memory() -> None:
    import torchvision.models

    names = torchvision.models.list_models(module=torchvision.models)
    plain = {"aux_logits": False, "init_weights": False}
    more: dict[str, Any] = {"googlenet": plain, "inception_v3": plain}
    for name in names:
        side = 299 if name == "inception_v3" else 224
        with torch.device("meta"):
            settings = {"name": name, "args": more.get(name, {})}
            net = OFFERS["torchvision"].make(settings, input_shape=torch.Size((3, side, side)), classes=5)
            assert net.eval()(torch.empty(2, 3, side, side)).shape == (2, 5), name
        assert all(one.is_meta for one in net.parameters()), name
    assert len(names) >= 80
