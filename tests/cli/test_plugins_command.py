"""``kdmesh plugins``, ``show`` and ``new``."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from kdmesh.cli import main
from kdmesh.cli.plugins_new import KINDS, package

ROOT = Path(__file__).parents[2]
LONE = """
import kdmesh
from kdmesh.offers import ConsensusOffer

@kdmesh.hookimpl
def kdmesh_consensus():
    return [ConsensusOffer("lone", "lone_rule:Lone", summary="one file")]
"""
RULE = """
from kdmesh.consensus import Mean


class Lone(Mean):
    pass
"""
MESH = """
data: {dataset: digits}
agents: {a: {model: {mlp: {hidden: [4]}}}, b: {model: {mlp: {hidden: [4]}}}, c: {model: {mlp: {hidden: [4]}}}}
connect: [{ensemble: {teachers: [a, b], student: c, consensus: lone}}]
train: {epochs: 1}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a good and a broken single-file plugin."""
    monkeypatch.setenv("KDMESH_PLUGINS_DIR", "")  # so that what the command sets is undone
    (tmp_path / "single").mkdir()
    (tmp_path / "single" / "lone_plugin.py").write_text(LONE)
    (tmp_path / "single" / "broken_plugin.py").write_text("import nowhere_at_all\n")
    (tmp_path / "lone_rule.py").write_text(RULE)
    (tmp_path / "mesh.yaml").write_text(MESH)
    yield tmp_path / "single"
    sys.modules.pop("lone_plugin", None)


def test_what_is_broken_is_listed_with_its_reason(folder, capsys):
    assert main(["plugins", "--plugins-dir", str(folder)]) == 0
    offers, _, problems = capsys.readouterr().out.partition("\n\n")
    assert "one file" in offers
    assert problems.startswith("broken: broken_plugin of") and "nowhere_at_all" in problems
    assert main(["plugins", "--strict"]) == 1
    capsys.readouterr()
    assert main(["plugins", "--all", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    status = {row["name"]: row["status"] for row in listed if row["kind"] == "plugin"}
    assert (status["lone_plugin"], status["broken_plugin"]) == ("ok", "broken")


def test_a_disabled_plugin_is_listed_with_all(folder, capsys, monkeypatch):
    monkeypatch.setenv("KDMESH_PLUGINS", "")
    assert main(["plugins", "--strict", "--plugins-dir", str(folder)]) == 0
    assert "lone_plugin" not in capsys.readouterr().out
    assert main(["plugins", "--all"]) == 0
    assert "disabled: lone_plugin of" in capsys.readouterr().out


def test_a_mesh_that_names_a_single_file_plugin_plans_and_the_broken_one_warns(folder, capsys):
    assert main(["plan", str(folder.parent / "mesh.yaml"), "--plugins-dir", str(folder)]) == 0
    out, err = capsys.readouterr()
    assert "lone" in out
    assert err.count("kdmesh: warning: plugin 'broken_plugin'") == 1


def test_requirements_can_be_installed_again(tmp_path):
    info = tmp_path / "kdmesh_quiet-3.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: kdmesh-quiet\nVersion: 3.1\n")
    (info / "entry_points.txt").write_text("[kdmesh]\nquiet = kdmesh_quiet\n")
    (tmp_path / "kdmesh_quiet.py").write_text("")
    paths = os.pathsep.join([str(ROOT), str(tmp_path)])
    done = subprocess.run(
        [sys.executable, "-m", "kdmesh", "plugins", "--requirements"],
        env={**os.environ, "PYTHONPATH": paths, "KDMESH_PLUGINS": "quiet"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "kdmesh-quiet==3.1\n" in done.stdout


def test_show_tells_summary_paper_source_and_settings(capsys):
    assert main(["plugins", "show", "kl"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("kl (objectives): forward KL")
    assert "Hinton et al." in out and re.search(r"^from +kdmesh$", out, re.MULTILINE)
    assert re.search(r"^temperature +number +1\.0", out, re.MULTILINE)
    assert main(["plugins", "show", "kl", "--schema"]) == 0
    assert json.loads(capsys.readouterr().out)["additionalProperties"] is False


def test_show_of_an_unknown_name_says_so(capsys):
    assert main(["plugins", "show", "kll"]) == 2
    assert (
        "nothing is offered under the name 'kll'\n  instead: did you mean 'kl'? see `kdmesh plugins`"
        in capsys.readouterr().err
    )
    assert main(["plugins", "show", "kll", "--kind", "objectives"]) == 2
    assert "did you mean 'kl'?" in capsys.readouterr().err


PLANS = """
import os, sys
from importlib import import_module
from kdmesh.cli import main

homes = sys.argv[1:]
for home in homes:
    os.chdir(home)
    assert main(["plan", "mesh.yaml"]) == 0, home
assert not {"torch", "ray"} & set(sys.modules)
for home in homes:
    if (offer := getattr(import_module(os.path.basename(home).replace("-", "_")), "OFFER", None)) is not None:
        offer.load()  # an observer has none
"""


def test_new_writes_packages_whose_offers_are_found_and_whose_meshes_plan(tmp_path, monkeypatch):
    """A package of each kind, all installed; one process plans their meshes, and has imported no torch by then."""
    monkeypatch.chdir(tmp_path)
    homes = [tmp_path / f"kdmesh-new-{kind.replace('_', '-')}" for kind in KINDS]
    for kind, home in zip(KINDS, homes, strict=True):
        assert main(["plugins", "new", home.name, "--kind", kind]) == 0
        assert {path.relative_to(home).as_posix() for path in home.rglob("*") if path.is_file()} == {
            "README.md",
            "mesh.yaml",
            "pyproject.toml",
            f"kdmesh_new_{kind}/__init__.py",
            f"kdmesh_new_{kind}/{kind}.py",
            f"tests/test_new_{kind}.py",
        }
        info = home / f"kdmesh_new_{kind}-0.1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {home.name}\nVersion: 0.1\n")
        (info / "entry_points.txt").write_text(f"[kdmesh]\nnew_{kind} = kdmesh_new_{kind}\n")
    paths = os.pathsep.join(map(str, [ROOT, *homes]))
    env = {**os.environ, "PYTHONPATH": paths, "KDMESH_STRICT_PLUGINS": "1"}
    done = subprocess.run([sys.executable, "-c", PLANS, *map(str, homes)], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_new_refuses_an_existing_folder_and_leaves_it_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "kdmesh-foo").mkdir()
    assert main(["plugins", "new", "kdmesh-foo", "--kind", "model"]) == 2
    assert "'kdmesh-foo' exists already" in capsys.readouterr().err
    assert list((tmp_path / "kdmesh-foo").iterdir()) == []


@pytest.mark.parametrize("name", ["kdmesh", "foo", "kdmesh-Foo", "../kdmesh-foo", "kdmesh-1"])
def test_new_refuses_other_names(name, capsys):
    assert main(["plugins", "new", name, "--kind", "model"]) == 2
    assert "no name for a plugin" in capsys.readouterr().err


def test_names_are_filled_in():
    files = package("kdmesh-foo-bar", "consensus")
    assert 'factory="kdmesh_foo_bar.consensus:FooBar"' in files["kdmesh_foo_bar/__init__.py"]
    assert 'foo_bar = "kdmesh_foo_bar"' in files["pyproject.toml"]
    assert not any("${" in text for text in files.values())


@pytest.mark.parametrize(
    ("one", "kind"),
    [("dataset", "datasets"), ("strategy", "strategies"), ("model", "models"), ("objective", "objectives")],
)
def test_a_kind_is_named_in_singular_too(one, kind, capsys):
    listed = []
    for name in (one, kind):
        assert main(["plugins", "--kind", name]) == 0
        listed.append(capsys.readouterr().out)
    assert listed[0] == listed[1] != ""
