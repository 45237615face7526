"""Code that travels: what is in use and not installed, found by workers before what their node has."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

import pytest

from kdmesh.backends import code
from kdmesh.backends.code import own_code
from kdmesh.backends.worker import Sent, Worker, installed
from kdmesh.errors import MeshError
from kdmesh.plugins import carried

FILES = {
    "sent_alone.py": "VALUE = 1\n",
    "sent_unused.py": "VALUE = 2\n",
    "sent_whole/__init__.py": "from sent_whole.inner.deep import VALUE\n",
    "sent_whole/inner/__init__.py": "",
    "sent_whole/inner/deep.py": "VALUE = 3\n",
    "sent_whole/later.py": "VALUE = 4\n",
    "sent_space/part.py": "VALUE = 5\n",
}
NAMES = {"sent_alone", "sent_whole", "sent_whole.inner", "sent_whole.inner.deep", "sent_whole.later"}


def forget():
    for name in [name for name in sys.modules if name.startswith("sent_")]:
        del sys.modules[name]
    importlib.invalidate_caches()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with code, some of it imported."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    for name in ("sent_alone", "sent_whole", "sent_space.part"):
        importlib.import_module(name)
    yield tmp_path
    forget()


def test_what_is_imported_travels_with_its_package_and_nothing_that_is_installed(folder):
    found = own_code()
    assert {name for name in found if name.startswith("sent_")} == {*NAMES, "sent_space", "sent_space.part"}
    assert found["sent_whole"] == (str(folder / "sent_whole" / "__init__.py"), FILES["sent_whole/__init__.py"], True)
    assert not {"kdmesh", "torch", "pytest", "json"} & {name.partition(".")[0] for name in found}


def test_what_was_sent_is_imported_without_the_folder_and_before_what_the_node_has(folder):
    sent = {name: text for name, text in own_code().items() if name.startswith("sent_")}
    for path in folder.rglob("*.py"):
        path.write_text("raise RuntimeError('an old copy')\n", encoding="utf-8")
    forget()
    Sent.serve(sent)
    Sent.serve({})
    assert sum(isinstance(finder, Sent) for finder in sys.meta_path) == 1
    for number, name in ((1, "sent_alone"), (3, "sent_whole"), (4, "sent_whole.later"), (5, "sent_space.part")):
        module = importlib.import_module(name)
        assert number == module.VALUE and isinstance(module.__loader__, Sent)
    assert sys.modules["sent_alone"].__file__ == str(folder / "sent_alone.py")


def test_too_much_code_is_refused(folder, monkeypatch):
    monkeypatch.setattr(code, "LIMIT", 10)
    with pytest.raises(MeshError, match="of code that is not installed"):
        own_code()


def test_a_node_with_another_version_cannot_take_part(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.chdir(Path.cwd())
    worker = Worker([], carried())
    assert "has torch " in (said := worker.meet(str(tmp_path), {}, {"torch": "1.0"})) and "not 1.0" in said
    assert Path.cwd() == tmp_path
    assert worker.meet(os.fspath(tmp_path / "nowhere"), {}, {"kdmesh": installed("kdmesh")}) == ""
    assert Path.cwd() == tmp_path


def test_a_node_without_kdmesh_cannot_take_part(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.setitem(sys.modules, "kdmesh.plugins", None)
    assert "kdmesh.plugins" in Worker([], carried()).meet(str(tmp_path / "nowhere"), {}, {})
