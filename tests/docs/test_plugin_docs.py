"""The pages on plugins and the code say the same: hooks, arguments, examples. The tutorial has its own test."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
import tomllib
from dataclasses import fields
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from kdmesh import hookspecs
from kdmesh.builtin import plugin as builtin
from kdmesh.cli import main
from kdmesh.graph.planner import make_plan
from kdmesh.offers import API, KNOWN, ConsensusOffer
from kdmesh.plugins import KINDS, PluginFile, Registry
from kdmesh.spec import MeshSpec

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs" / "plugins").glob("*.md"))
REFERENCE = (ROOT / "docs" / "plugins" / "reference.md").read_text(encoding="utf-8")
HOOKS = {name: hook for name, hook in vars(hookspecs).items() if name.startswith("kdmesh_")}
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
OBSERVED = {
    "stage": "stage one",
    "round": 3,
    "metrics": {"accuracy": 0.5},
    "agent": "student",
    "stream": "test",
    "host": "host1",
    "error": "killed",
    "interrupted": True,
    "step": 64,
    "epoch": 2,
    "losses": {"student": 0.25},
    "flows": {"student": {"labels -> student": 0.25}},
    "reason": "spent",
    "seconds": 1.5,
    "summary": {"agents": {"student": {}}},
}


def generator():
    spec = spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def section(hook: str) -> list[tuple[str, str]]:
    """The fences of a hook's section in the reference: its call, and its example."""
    (text,) = re.findall(rf"^### {hook}\n(.*?)(?=^##)", REFERENCE, re.MULTILINE | re.DOTALL)
    return FENCE.findall(text)


def test_the_reference_is_what_the_code_says():
    assert generator().reference() == REFERENCE, "write it anew: python docs/generate.py"


def test_the_cookbook_is_what_its_files_say():
    made = generator()
    assert made.cookbook() == (ROOT / "docs" / "plugins" / "cookbook.md").read_text(encoding="utf-8")
    assert sorted(made.SHOWN) == sorted(path.stem for path in made.COOKBOOK.glob("*.py"))


def test_the_table_of_plugin_apis_has_this_kdmesh():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    apis = generator().APIS[version.rpartition(".")[0]]
    assert apis == tuple(range(1, API + 1)) and f"| {version.rpartition('.')[0]} | 1" in REFERENCE


def test_what_is_deprecated_stands_in_the_table():
    """By the words of the warnings in the code, and by the aliases of old names."""
    from kdmesh.contracts.objective import RENAMED

    rows = re.findall(r"^\| (.*) \| 0\.3 \|$", REFERENCE, re.MULTILINE)
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "kdmesh").rglob("*.py")]
    attributes = re.findall(r'"(\w+\.\w+) goes away in kdmesh 0\.3', "".join(sources))
    assert attributes == ["RunInfo.plan"] and sum("DeprecationWarning" in text for text in sources) == 2
    for old, new in RENAMED.items():
        assert any(old in row and new in row for row in rows), old
    assert any("RunInfo.plan" in row for row in rows)


@pytest.mark.parametrize("kind", KINDS)
def test_factories_take_the_call_that_the_reference_says(kind):
    """Those of all built-ins, which the engine calls as it calls any."""
    page, found = generator(), Registry([builtin]).offers(kind)
    assert bool(found) == (kind != "commands")
    for offer in found:
        texts = bool(getattr(offer, "encoder", ""))
        (call,) = re.findall(r"`(factory\(\*, task.*?)`", page.FACTORIES_END) if texts else [page.FACTORIES[kind][0]]
        arguments = ast.parse(f"def {call}: ...").body[0].args
        assert arguments.kwarg.arg == "settings" and not arguments.defaults
        settings = {*offer.config.model_fields} | ({"max_length"} if texts else set())
        named = dict.fromkeys(settings | {one.arg for one in arguments.kwonlyargs})
        inspect.signature(offer.load()).bind(*arguments.args, **named)


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_is_in_the_reference_with_its_exact_arguments(hook):
    (_, call), (_, shown) = section(hook)
    (written,) = ast.parse(f"def {call.strip()}: ...").body
    signature = inspect.signature(HOOKS[hook])
    assert [argument.arg for argument in written.args.args] == list(signature.parameters)
    assert [ast.unparse(argument.annotation) for argument in written.args.args] == [
        parameter.annotation for parameter in signature.parameters.values()
    ]
    assert ast.unparse(written.returns) == signature.return_annotation
    own = inspect.getdoc(HOOKS[hook]).partition("Example::\n")[2]
    assert ast.dump(ast.parse(inspect.cleandoc(own))) == ast.dump(ast.parse(shown))


@pytest.fixture
def example(tmp_path, monkeypatch):
    """Load the example of a hook, as the reference shows it, as the only plugin beside the built-ins."""

    def load(hook: str) -> tuple[Registry, str]:
        name = f"shown_for_{hook}"
        monkeypatch.setitem(sys.modules, name, None)
        del sys.modules[name]
        source = section(hook)[1][1]
        found = Registry([builtin], [PluginFile(name, str(tmp_path / f"{name}.py"), source)])
        assert [(record.status, record.error) for record in found.records] == [("ok", "")]
        return found, source

    return load


@pytest.mark.parametrize("kind", KINDS)
def test_the_example_of_an_offer_offers_what_it_says(example, kind):
    found, source = example(f"kdmesh_{kind}")
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    (call,) = (call for call in calls if getattr(call.func, "id", "").endswith("Offer"))
    name, factory = (ast.literal_eval(argument) for argument in call.args[:2])
    assert set(found.records[0].claims) == {(kind, name)}
    offer = found.find(kind, name)
    assert (type(offer).__name__, offer.factory) == (call.func.id, factory)
    assert found.origin(kind, name) is found.records[0]


@pytest.mark.parametrize("hook", [hook for hook in HOOKS if generator().kind_of(HOOKS[hook]) == "Hooks that observe"])
def test_the_example_of_an_observer_hears_and_tells(example, hook, tmp_path, capsys):
    found, source = example(hook)
    run = SimpleNamespace(plan=None, folder=tmp_path, seed=7)
    takes = inspect.signature(HOOKS[hook]).parameters
    found.observe(hook, **{name: OBSERVED.get(name, run) for name in takes})
    out, err = capsys.readouterr()
    assert err == ""
    (defined,) = (node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef))
    told = out + "".join(path.read_text() for path in tmp_path.iterdir())
    for argument in defined.args.args:
        heard = OBSERVED.get(argument.arg)
        assert told and (heard is None or str(heard).replace("'", '"') in told.replace("'", '"'))


def test_the_example_of_placing_places_every_group_whole(example):
    found, _ = example("kdmesh_place_agents")
    groups = [["a", "b"], ["c"], ["d"]]
    hosts = found.ask("kdmesh_place_agents", mesh=None, groups=groups, resources={"cpus": 2.0}, measured=None)
    assert sorted(agent for agents in hosts.values() for agent in agents) == ["a", "b", "c", "d"]
    assert all(any(set(group) <= set(agents) for agents in hosts.values()) for group in groups)


@pytest.mark.parametrize("title", generator().EXAMPLES)
def test_an_example_of_the_reference_runs(title, tmp_path, monkeypatch, capsys):
    _, code, mesh = generator().EXAMPLES[title]
    folder = tmp_path / "plugins"
    folder.mkdir()
    (folder / f"{re.sub(r'[^a-z]+', '_', title.lower())}.py").write_text(code)
    monkeypatch.setenv("KDMESH_PLUGINS_DIR", str(folder))
    (tmp_path / "mesh.yaml").write_text(mesh)
    run = ["run", str(tmp_path / "mesh.yaml"), "--backend", "inline", "--out", str(tmp_path / "runs")]
    assert main([*run, "--set", "train.epochs=3"]) == 0, capsys.readouterr().err
    assert code in REFERENCE and mesh in REFERENCE


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.stem not in ("tutorial", "reference", "cookbook")], ids=lambda p: p.stem
)
def test_every_snippet_of_a_page_holds(page, tmp_path):
    for kind, text in FENCE.findall(page.read_text(encoding="utf-8")):
        if kind == "python":
            name = re.match(r"# (\S+\.py)\n", text)
            assert name, f"a snippet that names no file: {text}"
            (tmp_path / name[1]).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name[1]).write_text(text)
        elif kind == "yaml":
            make_plan(MeshSpec.model_validate(yaml.safe_load(text)), Registry([builtin]))
        elif kind == "toml":
            assert tomllib.loads(text)
        else:
            assert not kind, f"nobody checks {kind}"
    if any(tmp_path.glob("**/test_*.py")):
        command = [sys.executable, "-m", "pytest", "--quiet", "--rootdir", ".", "-p", "no:cacheprovider"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0 and "passed" in done.stdout, done.stdout + done.stderr


def test_links_between_the_pages_lead_somewhere():
    for page in PAGES:
        for path, anchor in re.findall(r"\]\(([\w./-]*)#?([\w-]*)\)", page.read_text(encoding="utf-8")):
            target = page.parent / path if path else page
            assert target.exists(), f"{page.name}: {path}"
            heads = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert not anchor or anchor in {head.lower().replace(" ", "-") for head in heads}, f"{page.name}: #{anchor}"


def test_built_ins_ask_for_what_plugins_may_ask_for():
    registry = Registry([builtin])
    for kind, traits in KNOWN.items():
        for name in registry.names(kind):
            offer = registry.find(kind, name)
            for trait, known in traits.items():
                value = getattr(offer, trait, None) or ()
                assert {value} <= {*known, ""} if isinstance(value, str) else {*value} <= {*known}, (kind, name, trait)


def test_every_fact_stands_in_the_table():
    page = REFERENCE.partition("\n## Facts\n")[2].partition("\n## ")[0]
    cells = [[cell.strip(" `") for cell in line.split("|")] for line in page.splitlines() if line.startswith("| `")]
    rows = {row[1]: row[4:7] for row in cells}
    for at, kind in enumerate(("objectives", "consensus", "gates")):
        asked = {fact for fact, how in rows.items() if how[at] == "needs"}
        assert asked == {*KNOWN[kind]["needs"]}, kind
    flags = {how for row in rows.values() for how in row} - {"needs", ""}
    assert flags == {field.name for field in fields(ConsensusOffer) if field.name.startswith("needs_")}
