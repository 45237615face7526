"""Models of files that other libraries made, as frozen teachers: their probabilities, saved and loaded again."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import kdmesh
from kdmesh.builtin.models._file import FileModel
from kdmesh.builtin.models.sklearn_file import SklearnFile
from kdmesh.cli import main
from kdmesh.engine.check import examine
from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.errors import MeshError
from kdmesh.graph.planner import make_plan
from kdmesh.plugins import registry
from kdmesh.spec.read import parse

pytest.importorskip("skops", reason="pip install kdmesh[skops]")
pytest.importorskip("lightgbm", reason="pip install kdmesh[lightgbm]")
pytest.importorskip("onnxruntime", reason="pip install kdmesh[onnx]")
onnx = pytest.importorskip("onnx", reason="makes the models of these tests")

X = np.random.RandomState(0).randn(160, 4).astype(np.float32)
Y = (X[:, 0] > 0).astype(int) + (X[:, 1] > 0.3)
NAMES = np.array(["low", "mid", "high"])


def linear(path: Path, probabilities: bool) -> None:
    """An ONNX model of a linear layer, and perhaps a softmax."""
    from onnx import TensorProto, helper, numpy_helper

    drawn = np.random.RandomState(1)
    weights = [
        numpy_helper.from_array(drawn.randn(*shape).astype(np.float32), name)
        for name, shape in (("w", (4, 3)), ("b", (3,)))
    ]
    nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["z"])]
    if probabilities:
        nodes.append(helper.make_node("Softmax", ["z"], ["p"], axis=1))
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3])
        for name in (["z", "p"] if probabilities else ["z"])
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])
    model = helper.make_model(
        helper.make_graph(nodes, "g", [x], ends, weights), opset_imports=[helper.make_opsetid("", 17)]
    )
    model.ir_version = 8
    path.write_bytes(model.SerializeToString())


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import lightgbm
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor, RandomForestClassifier
    from skops import io

    root = tmp_path_factory.mktemp("models")
    names = NAMES[Y]
    io.dump(HistGradientBoostingClassifier(max_iter=5, random_state=0).fit(X, Y), root / "boosted.skops")
    io.dump(RandomForestClassifier(4, random_state=0).fit(X, names), root / "forest.skops")
    io.dump(HistGradientBoostingRegressor(max_iter=5, random_state=0).fit(X, X[:, 0]), root / "values.skops")
    how = {"objective": "multiclass", "num_class": 3, "verbose": -1, "num_threads": 1, "min_data_in_leaf": 5}
    lightgbm.train(how, lightgbm.Dataset(X, Y), 4).save_model(root / "boosted.txt")
    linear(root / "linear.onnx", False)
    linear(root / "softmax.onnx", True)
    rows = [
        "a,b,c,d,level",
        *(f"{','.join(map(repr, map(float, x)))},{name}" for x, name in zip(X, names, strict=True)),
    ]
    (root / "data.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return root


MODELS: dict[str, dict[str, Any]] = {
    "boosted": {"sklearn": {"path": "boosted.skops"}},
    "forest": {"sklearn": {"path": "forest.skops"}},
    "lightgbm": {"lightgbm": {"path": "boosted.txt"}},
    "onnx": {"onnx": {"path": "linear.onnx"}},
    "softmax": {"onnx": {"path": "softmax.onnx", "output": "p", "gives": "probabilities"}},
}
STUDENT = {"model": {"mlp": {"hidden": [4]}}}


def mesh(files: Path, model: dict[str, Any], name: str = "arrays", **more: Any) -> dict[str, Any]:
    """A student of a frozen teacher; of arrays labels are numbers, of `csv` names, which sort otherwise."""
    np.savez(files / "data.npz", x=X, y=Y)
    data = {"arrays": {"path": str(files / "data.npz")}}
    if name == "csv":
        data = {"csv": {"path": str(files / "data.csv"), "label": "level"}}
    ((kind, settings),) = model.items()
    agents = {
        "t": {"model": {kind: {**settings, "path": str(files / settings["path"])}}, "update": "frozen"},
        "s": STUDENT,
    }
    connect = [{"ensemble": {"teachers": "t", "student": "s"}}]
    return {"name": "m", "data": {"dataset": data}, "agents": agents, "connect": connect, "train": {"steps": 4}, **more}


def examined(given: dict[str, Any]) -> Any:
    return examine(make_plan(parse(given), registry()))


def own(files: Path, name: str) -> np.ndarray:
    """The probabilities that the library itself gives, in the order of the numbers of `Y`."""
    import lightgbm
    import onnxruntime
    from skops import io

    if name == "lightgbm":
        return np.asarray(lightgbm.Booster(model_file=files / "boosted.txt").predict(X, num_threads=1))
    if name in ("onnx", "softmax"):
        z = onnxruntime.InferenceSession(files / "softmax.onnx").run(["p"], {"x": X})[0]
        return np.asarray(z)
    path = files / MODELS[name]["sklearn"]["path"]
    model = io.load(path, trusted=io.get_untrusted_types(file=path))
    shares = model.predict_proba(X)
    return shares if name == "boosted" else shares[:, [list(model.classes_).index(one) for one in NAMES]]


@pytest.mark.parametrize("name", MODELS)
def test_a_teacher_says_what_its_library_says_and_is_whole_in_its_folder(
    files: Path, tmp_path: Path, name: str, capsys: Any
) -> None:
    kind = "csv" if name == "forest" else "arrays"
    run_once(Request(parse(mesh(files, MODELS[name], kind)), out=tmp_path, backend="inline"))
    root = next(tmp_path.glob("*/*"))
    shutil.copytree(root / "agents" / "t", tmp_path / "copied")
    summary = json.loads((root / "summary.json").read_text(encoding="utf-8"))["agents"]["t"]
    assert summary["export"]["difference"] == 0 and not summary["export"].get("problem")
    model = kdmesh.load(tmp_path / "copied")
    found = torch.softmax(model(torch.from_numpy(X)), 1).numpy()
    order = sorted(range(3), key=lambda at: NAMES[at]) if kind == "csv" else [0, 1, 2]
    assert np.abs(found - own(files, name)[:, order]).max() < 1e-6
    answers = model.predict(X)
    assert torch.equal(answers.scores, model(torch.from_numpy(X)))
    if kind == "csv":
        assert {*answers.answers} <= {*NAMES}
        assert main(["evaluate", str(tmp_path / "copied"), str(files / "data.csv"), "--quiet"]) == 0, (
            capsys.readouterr().err
        )


class Counted(FileModel):
    """A file whose first byte is every answer; it counts how often it is opened."""

    name, library, extra, times = "counted", "counted", "", 0

    def _installed(self) -> str:
        return "1"

    def open(self, content: bytes) -> int:
        Counted.times += 1
        return content[0]

    def answers(self, model: int, x: np.ndarray) -> np.ndarray:
        return np.full((len(x), 2), model)


def test_a_file_is_opened_once_and_again_where_its_bytes_have_changed(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"\x03\x04")
    model, x = Counted(tmp_path / "file", None, (4,), 2, None), torch.zeros(1, 4)
    before = Counted.times

    def answer() -> tuple[float, int]:
        return float(model(x)[0, 0]), Counted.times - before

    assert [answer(), answer(), answer()] == [(3, 1)] * 3
    model.content[0] = 7
    assert [answer(), answer()] == [(7, 2)] * 2
    model.load_state_dict({"content": torch.tensor([9, 4], dtype=torch.uint8)})
    assert answer() == (9, 3)
    model.content = torch.tensor([5, 4], dtype=torch.uint8)
    assert answer() == (5, 4) and float(copy.deepcopy(model)(x)[0, 0]) == 5


def test_values_teach_values(files: Path, tmp_path: Path) -> None:
    given = mesh(files, {"sklearn": {"path": "values.skops"}}, task="regression")
    np.savez(files / "values.npz", x=X, y=X[:, :1])
    given["data"] = {"dataset": {"arrays": {"path": str(files / "values.npz")}}}
    given["connect"][0]["ensemble"]["objective"] = "mse"
    run_once(Request(parse(given), out=tmp_path, backend="inline"))
    model = kdmesh.load(next(tmp_path.glob("*/*/agents/t")))
    assert (model(torch.from_numpy(X))[:, 0] - torch.from_numpy(X[:, 0])).abs().mean() < 0.6


def test_answers_are_kept_in_the_store_by_the_files_bytes(files: Path, tmp_path: Path) -> None:
    given = parse(mesh(files, MODELS["boosted"]))
    first, _, _ = run_once(Request(given, backend="inline", store=str(tmp_path / "store")))
    again, _, _ = run_once(Request(given, backend="inline", store=str(tmp_path / "store")))
    one, two = (found["agents"]["t"]["forwards"] for found in (first, again))
    assert one["made"] > 0 and two["made"] == 0, (one, two)
    assert again["agents"]["s"]["weights_sha256"] == first["agents"]["s"]["weights_sha256"]


REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "trained": ({"update": "grad"}, "nothing here can train it", "agents.t.update"),
    "begun": ({"weights": "w.safetensors"}, "`weights` has no effect", "agents.t.weights"),
    "seeded": ({"seed": 3}, "`seed` has no effect", "agents.t.seed"),
    "tapped": ({"taps": {"mid": "layers.0"}}, "none of its layers", "agents.t.taps"),
    "left": ({"exit": "layers.0"}, "`exit` has no effect", "agents.t.exit"),
    "halved": ({"train": {"precision": "bf16"}}, "a precision of its own", "agents.t.train.precision"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_needs_weights_or_layers_is_refused(files: Path, name: str) -> None:
    change, said, where = REFUSED[name]
    given = mesh(files, MODELS["boosted"])
    given["agents"]["t"] |= change
    with pytest.raises(MeshError) as caught:
        examined(given)
    assert said in caught.value.what and caught.value.where == where


def test_a_gradient_through_it_is_refused(files: Path) -> None:
    given = mesh(
        files,
        MODELS["boosted"],
        connect=[],
        flows=[{"from": "t", "to": "s", "detach": False, "objective": "kl"}],
    )
    with pytest.raises(MeshError, match="no gradient"):
        examined(given)


def test_its_layers_are_refused(files: Path) -> None:
    flow = {"from": "t", "to": "s", "tap": {"of": "layers.0", "to": "layers.0"}, "objective": "hint"}
    with pytest.raises(MeshError, match="none of its layers"):
        examined(mesh(files, MODELS["boosted"], connect=[], flows=[flow]))


def test_types_that_nobody_reviewed_are_named_and_may_be_trusted(files: Path, tmp_path: Path) -> None:
    from sklearn.neighbors import KNeighborsClassifier
    from skops import io

    io.dump(KNeighborsClassifier(3, algorithm="kd_tree").fit(X, Y), files / "near.skops")
    given = mesh(files, {"sklearn": {"path": "near.skops"}})
    with pytest.raises(MeshError) as caught:
        examined(given)
    held = ["sklearn.metrics._dist_metrics.EuclideanDistance64", "sklearn.neighbors._kd_tree.KDTree"]
    assert ", ".join(held) in caught.value.what and f"trusted: [{', '.join(held)}]" in caught.value.instead
    given["agents"]["t"]["model"]["sklearn"]["trusted"] = held
    run_once(Request(parse(given), out=tmp_path, backend="inline"))
    folder = next(tmp_path.glob("*/*/agents/t"))
    assert kdmesh.load(folder).predict(X[:3]).scores.shape == (3, 3)
    with pytest.raises(MeshError, match="would import"):
        kdmesh.load(folder, code=False)


class Gone:
    """Stands in a file; whoever reads it elsewhere has none."""


@pytest.mark.parametrize("command", ["check", "run"])
def test_the_command_line_names_what_is_not_reviewed(
    files: Path, tmp_path: Path, monkeypatch: Any, capsys: Any, command: str
) -> None:
    from sklearn.linear_model import LogisticRegression
    from skops import io

    model = LogisticRegression().fit(X, Y)
    model.extra_ = Gone()  # type: ignore[attr-defined]  # as estimators of other packages hold types of their own
    io.dump(model, files / "gone.skops")
    name = f"{__name__}.Gone"
    monkeypatch.delattr(f"{__name__}.Gone")
    written = tmp_path / "mesh.json"
    for trusted, where, said in (
        ([], "path", [f"gone.skops holds types that are not reviewed: {name}", f"trusted: [{name}] beside path"]),
        ([name, "os.system"], "trusted", ["gone.skops holds no os.system", "leave it out"]),
        ([name], "path", ["gone.skops holds what cannot be imported here: AttributeError", "the package that has"]),
    ):
        written.write_text(json.dumps(mesh(files, {"sklearn": {"path": "gone.skops", "trusted": trusted}})))
        out = ["--out", str(tmp_path / "runs")] if command == "run" else []
        assert main([command, str(written), *out]) == 2
        found = capsys.readouterr().err
        assert "Traceback" not in found and found.startswith("kdmesh: error: ")
        assert f"agents.t.model.sklearn.{where}: " in found and "\n  instead: " in found
        assert all(one in found for one in said), found
    assert not [*(tmp_path / "runs").glob("*/*/agents")]


@pytest.mark.parametrize(
    ("kind", "name", "content", "said"),
    [
        ("sklearn", "none.skops", None, "no file"),
        ("sklearn", "bad.skops", b"PK nothing", "cannot be read"),
        ("sklearn", "pickle.skops", b"\x80\x04N.", "cannot be read"),
        ("lightgbm", "bad.txt", b"tree\nversion=v4\n", "has the objective none"),
        ("onnx", "bad.onnx", b"\x00\x01", "cannot be read"),
        ("sklearn", "empty.skops", b"", "has 0 bytes"),
    ],
)
def test_files_that_are_none_are_refused(files: Path, kind: str, name: str, content: bytes | None, said: str) -> None:
    if content is not None:
        (files / name).write_bytes(content)
    with pytest.raises(MeshError) as caught:
        examined(mesh(files, {kind: {"path": name}}))
    assert said in caught.value.what and caught.value.where == f"agents.t.model.{kind}.path"


@pytest.mark.parametrize(
    ("model", "classes", "shape", "said"),
    [
        ("boosted", 2, 4, "knows the classes 0, 1, 2"),
        ("boosted", 3, 5, "cannot answer samples of shape"),
        ("lightgbm", 2, 4, "gives [2, 3] for 2 samples of 2 outputs"),
        ("onnx", 3, 7, "cannot answer samples of shape"),
    ],
)
def test_models_of_other_data_are_refused(files: Path, model: str, classes: int, shape: int, said: str) -> None:
    ((kind, settings),) = MODELS[model].items()
    offer = registry().find("models", kind)
    with pytest.raises(MeshError) as caught:
        offer.make({**settings, "path": files / settings["path"]}, input_shape=(shape,), classes=classes)
    assert said in caught.value.what


@pytest.mark.parametrize("name", ["boosted.skops", "forest.skops"])
def test_trees_that_lead_out_of_themselves_are_refused(files: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a file could say that was made to read memory: a child before its parent, no such node, no such feature."""
    from skops import io

    real = io.loads

    for spoil in ("back", "beyond", "feature"):

        def loads(data: bytes, trusted: Any, spoil: str = spoil) -> Any:
            model = real(data, trusted=trusted)
            if hasattr(model, "_predictors"):
                nodes = model._predictors[0][0].nodes = model._predictors[0][0].nodes.copy()
                field, value = {"back": ("left", 0), "beyond": ("right", 10_000), "feature": ("feature_idx", 9)}[spoil]
                nodes[field][0] = value
            else:
                tree = model.estimators_[0].tree_
                side = {"back": tree.children_left, "beyond": tree.children_right, "feature": tree.feature}[spoil]
                side[0] = {"back": 0, "beyond": 10_000, "feature": 9}[spoil]
            return model

        monkeypatch.setattr(io, "loads", loads)
        with pytest.raises(MeshError, match="leads out of itself"):
            SklearnFile((4,), 3, files / name, [], labels=[*NAMES] if "forest" in name else None)
