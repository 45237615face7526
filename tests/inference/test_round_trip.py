"""Every form of model, there and back: a step of training, saved, loaded, asked, begun from again, and exported.

The table of docs/models.md says which form does what; each of its cells is what a test here found.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import kdmesh
from kdmesh.errors import MeshError
from kdmesh.hosts.modules import output
from kdmesh.inference.evaluating import evaluate
from kdmesh.inference.export.exporting import export
from kdmesh.inference.export.forms import FORMS as FILES
from kdmesh.inference.inputs import Asked
from kdmesh.inference.inputs import read as read_inputs
from kdmesh.inference.trained import Trained
from kdmesh.signals.lazy import dense
from kdmesh.streams.table import Table
from kdmesh.streams.texts import Sample, Texts
from kdmesh.text.saved import Saved

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
VISION = Path(sys.prefix) / "vision"
LIMIT = 1e-5


class Net(nn.Module):
    """Classes and channels go by the names that timm has for them."""

    def __init__(self, width: int = 4, in_chans: int = 3, num_classes: int = 1000) -> None:
        super().__init__()
        self.body, self.fc = nn.Conv2d(in_chans, width, 3), nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.body(x).relu().mean((2, 3)))


def make(width: int, num_classes: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU(), nn.Flatten(), nn.Linear(width * 14 * 14, num_classes))


class Form(NamedTuple):
    """``data``: what its samples are; ``no``: what it does not do, by column of the page, and what is said then."""

    model: dict[str, Any]
    data: str
    no: Mapping[str, str] = MappingProxyType({})


BERT = {"model_type": "bert", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
GPT = {"model_type": "gpt2", "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 32}
T5 = {"model_type": "t5", "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_heads": 2}
MADE: dict[str, Any] = {"bpe": {"vocabulary": 300}}
PARTS = {"onnx": "reads with one part and writes with another", "torch_export": "reads with one part"}
SEVERAL = {"onnx": "answers more than once", "torch_export": "answers more than once"}
FORMS = {
    "mlp": Form({"mlp": {"hidden": [8]}}, "vectors"),
    "cnn": Form({"cnn": {"width": 4}}, "images"),
    "resnet": Form({"resnet": {"width": 4}}, "images"),
    "vit": Form({"vit": {"dim": 16}}, "images"),
    "bi_encoder": Form({"bi_encoder": {"hidden": [8], "embedding": 4}}, "lists", SEVERAL),
    "cross_encoder": Form({"cross_encoder": {"hidden": [8]}}, "lists", SEVERAL),
    "torchvision": Form({"torchvision": {"name": "shufflenet_v2_x0_5"}}, "images"),
    "timm": Form({"timm": {"name": "test_vit", "args": {"img_size": 16, "patch_size": 8}}}, "images"),
    "a class": Form({f"{__name__}:Net": {"width": 6}}, "images"),
    "a function": Form({f"{__name__}:make": {"width": 4}}, "images"),
    "hf, images": Form(
        {
            "hf": {
                "config": {**BERT, "model_type": "vit", "intermediate_size": 16, "image_size": 16, "patch_size": 8},
                "processor": {"mean": [0.5], "std": [0.25]},
            }
        },
        "images",
    ),
    "hf, texts": Form({"hf": {"config": {**BERT, "intermediate_size": 16}, "tokenizer": MADE}}, "texts"),
    "hf, tags": Form({"hf": {"config": {**BERT, "intermediate_size": 16}, "tokenizer": MADE}}, "tags", SEVERAL),
    "hf, cross-encoders": Form(
        {"hf": {"config": {**BERT, "intermediate_size": 16}, "tokenizer": MADE}}, "queries", SEVERAL
    ),
    "hf, bi-encoders": Form(
        {"hf": {"config": {**BERT, "intermediate_size": 16}, "tokenizer": MADE, "bi_encoder": {}}}, "queries", SEVERAL
    ),
    "hf, T5": Form({"hf": {"config": T5, "tokenizer": MADE, "max_length": 32}}, "answers", PARTS),
    "hf, language models": Form({"hf": {"config": GPT, "tokenizer": MADE, "max_length": 32}}, "answers"),
}
WORDS = ["up", "down", "left"]
TEST = slice(60, 72)


def numbers(*shape: int) -> tuple[Tensor, Tensor]:
    y = torch.arange(72) % 3
    x = torch.rand(72, *shape, generator=torch.Generator().manual_seed(0))
    return x * (1 + y.view(-1, *[1] * len(shape))) / 3, y


def mesh(form: Form) -> dict[str, Any]:
    """The data and the task of a form, from Python."""
    table = samples_of(form.data)
    table.official = {"train": torch.arange(60), "test": torch.arange(60, 72)}
    tasks = {"lists": "ranking", "queries": "ranking", "tags": "token_classification", "answers": "language_modelling"}
    more: dict[str, Any] = {"task": tasks[form.data]} if form.data in tasks else {}
    return {"data": table, **more, **({"text": {"max_length": 32}} if form.data == "answers" else {})}


def samples_of(kind: str) -> Table:
    words = [WORDS[number % 3] for number in range(72)]
    match kind:
        case "vectors":
            return kdmesh.data(train=numbers(5))
        case "images":
            return kdmesh.data(train=numbers(3, 16, 16))
        case "lists":
            x, _ = numbers(4, 5)
            return kdmesh.data(train=(x, x[:, 1:, 0].round()))
        case "texts":
            return kdmesh.data([(f"it goes {word} by {number}", word) for number, word in enumerate(words)])
        case "answers":
            return kdmesh.data([Sample(f"{word} by {n}", prompt=f"It goes {word}: ") for n, word in enumerate(words)])
        case "tags":
            told = [Sample(f"it goes {w} by {n}", spans=((8, 8 + len(w), "WAY"),)) for n, w in enumerate(words)]
            return Table(Texts(told), None, 2, labels=["O", "WAY"])
        case "queries":
            lists = [Sample(f"goes {w} by {n}", candidates=tuple(WORDS[: 2 + n % 2])) for n, w in enumerate(words)]
            y = [
                [float(one == w) if at < 2 + n % 2 else -1.0 for at, one in enumerate(WORDS)]
                for n, w in enumerate(words)
            ]
            return Table(Texts(lists), torch.tensor(y), 0)
    raise AssertionError(kind)


def samples(form: Form) -> Any:
    if form.data in ("texts", "answers", "tags"):
        return [f"It goes {word}: " for word in (*WORDS, "up")]
    x = samples_of(form.data).x
    return [*x][:5] if isinstance(x, Texts) else x[:5]


def file_of(form: Form, root: Path) -> tuple[Path, Asked]:
    """The samples of the test split with their labels, as files have them."""
    table = samples_of(form.data)
    if not isinstance(table.x, Texts):
        assert table.y is not None
        np.save(root / "x.npy", table.tensor[TEST].numpy())
        np.save(root / "y.npy", table.y[TEST].numpy())
        return root / "x.npy", Asked(labelled=True, labels=root / "y.npy")
    rows: list[dict[str, Any]] = []
    for number, one in list(enumerate(table.x))[TEST]:
        label = {"label": table.labels[int(table.y[number])]} if form.data == "texts" and table.y is not None else {}
        row = {"text": one.text, "prompt": one.prompt, "spans": one.spans, **label}
        if one.candidates is not None and table.y is not None:
            relevance = table.y[number][: len(one.candidates)].tolist()
            row = {"query": one.text, "candidates": one.candidates, "relevance": relevance}
        rows.append({key: value for key, value in row.items() if value is not None})
    (root / "test.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return root / "test.jsonl", Asked({"prompt": "prompt"} if form.data == "answers" else {}, labelled=True)


@pytest.fixture(autouse=True)
def on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(VISION))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """``trained(name)``: the agent of a form after a step of training, its folder, and the run's folder."""
    made: dict[str, Any] = {}

    def make(name: str) -> Any:
        if name in ("torchvision", "timm") and not (VISION / name).is_dir():
            pytest.skip("`make test` puts it there")
        if name not in made:
            form = FORMS[name]
            one = kdmesh.Mesh(**mesh(form), train={"steps": 1, "batch_size": 16}, name="m")
            one.agent("a", form.model)
            found = one.run(out=tmp_path_factory.mktemp("runs"), backend="inline", store="off")
            made[name] = found["a"], found.folder / "agents" / "a", found.folder
        return made[name]

    return make


def asked(module: Any, given: Any) -> Tensor:
    with torch.no_grad():
        return dense(output(module.eval()(given)))


def far(found: Tensor, wanted: Tensor) -> float:
    """The largest difference; where there is no candidate both are -inf."""
    absent = wanted == -torch.inf
    assert torch.equal(found == -torch.inf, absent)
    return float((found - wanted)[~absent].abs().max())


def can(form: Form, column: str, doing: Any) -> Any:
    """What ``doing()`` gives; None where it is refused, as the form says."""
    if column not in form.no:
        return doing()
    with pytest.raises(MeshError, match=form.no[column]):
        doing()
    return None


@pytest.mark.parametrize("name", FORMS)
def test_it_is_loaded_and_asked(name: str, trained: Any, capsys: pytest.CaptureFixture[str]) -> None:
    form, (agent, folder, _) = FORMS[name], trained(name)
    module, loaded, given = agent.module, kdmesh.load(folder), samples(form)
    read = [Sample("on", prompt=one) for one in given] if form.data == "answers" else given
    own = asked(module if isinstance(read, Tensor) else Saved(module, loaded.encoder), read)
    difference = {"load": far(asked(loaded, read), own)}
    found = loaded.predict(given, most=8)
    if found.scores is not None:
        difference["predict"] = far(found.scores, own)
    with capsys.disabled():
        print(f"\n{name}: " + ", ".join(f"{what} {one:.1e}" for what, one in difference.items()), end=" ")
    assert max(difference.values()) <= LIMIT
    assert len(found.answers) == len(given)


@pytest.mark.parametrize("name", FORMS)
def test_it_has_the_figures_of_its_run(name: str, trained: Any, tmp_path: Path) -> None:
    """On a file of the samples that were the run's test split, to the last digit."""
    form, (agent, folder, _) = FORMS[name], trained(name)
    file, how = file_of(form, tmp_path)
    one = Trained.read(folder)
    figures = evaluate(one, read_inputs(file, one, how))
    assert figures == agent.metrics["test"] and len(figures) > 1


@pytest.mark.parametrize("to", ["onnx", "torch_export"])
@pytest.mark.parametrize("name", FORMS)
def test_it_is_exported(name: str, to: str, trained: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    form, (_, folder, _) = FORMS[name], trained(name)
    found = can(form, to, lambda: export(Trained.read(folder), FILES[to], tmp_path / "out"))
    if found is not None:
        difference = found.record["compared"]["largest_difference"]
        with capsys.disabled():
            print(f"\n{name}: {to} {difference:.1e}", end=" ")
        assert difference <= LIMIT


@pytest.mark.parametrize("name", FORMS)
def test_it_goes_on_from_a_run(name: str, trained: Any) -> None:
    """At a learning rate of 0 it ends with the weights that the run before ended with."""
    form, (agent, _, run) = FORMS[name], trained(name)
    still = {"steps": 1, "batch_size": 16, "optimizer": {"sgd": {"lr": 0.0}}}
    one = kdmesh.Mesh(**mesh(form), train=still, name="m", seed=5)
    one.agent("a", form.model)
    assert one.begin_from(run) == []
    after = one.run(backend="inline", store="off")["a"].module
    before = dict(agent.module.named_parameters())
    assert all(torch.equal(value, before[key]) for key, value in after.named_parameters())


def test_the_page_says_what_was_found() -> None:
    lines = re.findall(r"^\| (.*) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    rows = [line.split(" | ") for line in lines]
    (head,) = [row for row in rows if row[0] == "form"]
    columns = ["predict", "evaluate", "onnx", "torch_export"]
    places = {column: next(at for at, cell in enumerate(head) if column in cell) for column in columns}
    found = {row[0]: {one: row[at] == "yes" for one, at in places.items()} for row in rows if row[0] in FORMS}
    assert found == {name: {one: one not in form.no for one in columns} for name, form in FORMS.items()}
