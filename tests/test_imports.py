"""Code that a file names: read before it is imported, called only where it says what it makes, and summed."""

from __future__ import annotations

import sys

import pytest
from torch import nn

from kdmesh.errors import MeshError
from kdmesh.graph.planner import make_plan
from kdmesh.hosts.source import Source
from kdmesh.imports import maker, makes, own_source, sources
from kdmesh.plugins import registry
from kdmesh.spec.code import named, refuse_code, told
from kdmesh.spec.read import parse

BODY = """\
from __future__ import annotations
import pathlib, torch
from torch import nn
from torch.utils.data import Dataset, TensorDataset
pathlib.Path(__file__).with_suffix(".ran").touch()

class Net(nn.Linear): ...
class Plain: ...
class Rows:
    def __len__(self): return 4
    def __getitem__(self, i): return torch.zeros(2), i % 2
def annotated() -> nn.Module: return Net(2, 2)
def unannotated(): return Net(2, 2)
def rows() -> Dataset: return TensorDataset(torch.zeros(4, 2), torch.arange(4) % 2)
def pair() -> tuple[torch.Tensor, torch.Tensor]: return torch.zeros(4, 2), torch.arange(4) % 2
def number() -> int: return 1
value = Net(2, 2)
alias = Net
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A module of the user's own, in a folder that is searched."""
    (tmp_path / "own_code.py").write_text(BODY)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("own_code")]:
        del sys.modules[name]


def load(dataset):
    spec = {"data": {"dataset": dataset, "test": 1, "validation": 0}, "agents": {"s": {"model": "mlp"}}, "flows": []}
    spec["flows"] = [{"from": "labels", "to": "s", "objective": "ce"}]
    return Source().load(make_plan(parse(spec), registry()))[0]


@pytest.mark.parametrize(
    "path",
    [
        {"os:system": {"command": "touch {}"}},
        {"subprocess:Popen": {"args": ["touch", "{}"]}},
        {"subprocess:check_output": {"args": ["touch", "{}"]}},
        {"builtins:exec": {}},
        {"shelve:DbfilenameShelf": {"filename": "{}"}},
        {"builtins:open": {"file": "{}", "mode": "w"}},
        {"pathlib:Path": {}},
        "torch.nn:Linear",
        "torch.hub:load",
    ],
)
def test_only_what_returns_a_data_set_is_called(path, tmp_path):
    mark = str(tmp_path / "ran")
    if isinstance(path, dict):
        ((name, config),) = path.items()
        path = {name: {key: mark if value == "{}" else value for key, value in config.items()}}
        for value in path[name].values():
            if isinstance(value, list):
                value[-1] = mark
        path[name] = {key: f"touch {mark}" if value == "touch {}" else value for key, value in path[name].items()}
    with pytest.raises(MeshError, match=r"no torch\.utils\.data\.Dataset class, and no function that says") as caught:
        load(path)
    assert caught.value.where == "data.dataset" and "def " in caught.value.instead
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["Plain", "unannotated", "value", "nothing"])
def test_a_source_that_defines_no_such_thing_is_not_even_imported(own, name):
    with pytest.raises(MeshError, match=r"no torch\.utils\.data\.Dataset class|defines no 'nothing'"):
        load(f"own_code:{name}")
    assert not (own / "own_code.ran").exists()


@pytest.mark.parametrize("name", ["Net", "alias", "annotated", "number"])
def test_a_class_or_annotation_of_another_kind_is_not_called(own, name):
    with pytest.raises(MeshError, match=r"no torch\.utils\.data\.Dataset class"):
        load(f"own_code:{name}")


@pytest.mark.parametrize("name", ["rows", "pair", "Rows"])
def test_what_says_that_it_is_a_data_set_is_read(own, name):
    assert len(load(f"own_code:{name}")) == 4


def test_what_makes_modules_says_so(own):
    import own_code

    said = {name: makes(getattr(own_code, name), (nn.Module,)) for name in ("Net", "alias", "annotated")}
    assert said == dict.fromkeys(said, True)
    assert not any(
        makes(thing, (nn.Module,)) for thing in (own_code.unannotated, own_code.value, own_code.number, print)
    )


def test_an_agents_folder_that_names_code_is_tested_before_it_is_imported(own, tmp_path):
    import json

    import kdmesh

    folder = tmp_path / "agent"
    folder.mkdir()
    for name, code, said in (("Plain", True, "no nn.Module class"), ("Net", False, "would import own_code:Net")):
        (folder / "config.json").write_text(json.dumps({"agent": "s", "model": f"own_code:{name}", "module": ""}))
        with pytest.raises(MeshError, match=said):
            kdmesh.load(folder, code=code)
    assert not (own / "own_code.ran").exists()
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to(own / "own_code.py")
    with pytest.raises(MeshError, match=r"config\.json links outside"):
        kdmesh.load(folder)


def test_what_is_imported_is_named_and_can_be_refused():
    agents = {
        "s": {"model": "nets:Net"},
        "t": {"model": "nets:Net"},
        "u": {"model": {"hf": {"trust_remote_code": "here"}}},
    }
    spec = parse({"agents": agents, "data": {"dataset": {"rows:Rows": {}}}})
    assert named(spec) == {
        "agents.s.model": "nets:Net", "agents.t.model": "nets:Net", "data.dataset": "rows:Rows",
        "agents.u.model.hf.trust_remote_code": "code in here",
    }  # fmt: skip
    assert told(spec)[0] == "imports nets:Net (agents.s.model, agents.t.model)"
    with pytest.raises(MeshError, match=r"agents\.s\.model: would import nets:Net\n  instead: leave --no-code out"):
        refuse_code(spec)
    refuse_code(parse({"agents": {"s": {"model": "mlp"}}}))


def test_sources_are_summed_with_what_they_import(own, monkeypatch):
    package = own / "own_code_pkg"
    (package / "deep").mkdir(parents=True)
    (package / "__init__.py").write_text("from . import a\n")
    (package / "a.py").write_text("import os, torch\nfrom .deep.b import C\nimport own_code_beside\n")
    (package / "deep" / "__init__.py").write_text("")
    (package / "deep" / "b.py").write_text("from .. import a\nfrom ..c import *\n")
    (package / "c.py").write_text("def broken(:\n")
    (own / "own_code_beside.py").write_text("import nowhere\n")
    names = {f"own_code_pkg{name}" for name in ("", ".a", ".c", ".deep", ".deep.b")} | {"own_code_beside"}
    before = sources("own_code_pkg.a")
    assert set(before) == names and "own_code_pkg" not in sys.modules
    (package / "c.py").write_text("x = 1\n")
    assert {name for name, value in sources("own_code_pkg.a").items() if value != before[name]} == {"own_code_pkg.c"}
    assert sources("torch.nn") == {"torch.nn": f"torch {__import__('torch').__version__}"}
    assert own_source("torch.nn") is None and own_source("no.such.module") is None and own_source("os") is None


@pytest.mark.parametrize(
    ("name", "source", "what", "instead"),
    [
        ("politee", "def polite(text) -> bool: ...", "own_code.py defines no 'politee'", "did you mean 'polite'?"),
        ("polite", "def polite(:", "own_code.py, line 1 cannot be read: invalid syntax", "Python"),
    ],
)
def test_code_that_is_not_there_is_told_from_code_that_does_not_fit(own, name, source, what, instead):
    (own / "own_code.py").write_text(source)
    with pytest.raises(MeshError) as caught:
        maker(f"own_code:{name}", "streams.a.keep.0", (bool,), "Filter")
    assert what in caught.value.what and instead in caught.value.instead
    assert caught.value.where == "streams.a.keep.0"
