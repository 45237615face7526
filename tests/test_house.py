"""The house rules that no linter knows: function lengths, papers, and an engine that knows no method by name."""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections import Counter
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from statistics import median
from typing import Any

import pytest

import kdmesh
from kdmesh.cli.plugins_new import KINDS, package
from kdmesh.plugins import registry
from kdmesh.spec import DEFAULT_TASK

ROOT = Path(__file__).parent.parent
MODULES = sorted(path for room in ("kdmesh", "plugins") for path in (ROOT / room).rglob("*.py"))
ENGINE = [path for path in MODULES if path.relative_to(ROOT).parts[1] in ("engine", "hosts", "backends", "graph")]
KDMESH = [path for path in MODULES if path.is_relative_to(ROOT / "kdmesh") and path.parent.name != "tasks"]
METHODS = [
    (kind, offer)
    for kind in ("strategies", "objectives", "consensus", "gates", "metrics", "tasks")
    for offer in registry().offers(kind)
    if offer.factory.startswith("kdmesh.")  # built in; a plugin's own tests look after the rest
]
NAMES = {offer.name for kind, offer in METHODS if kind not in ("metrics", "tasks")}
# English or Python words: as an identifier they may mean something else, as a string literal they may not.
PLAIN = {"attention", "chain", "confidence", "entropy", "hint", "mean", "median", "mutual", "rounds"}
PLAIN |= {"self", "vote", "weighted"}
# Words that the engine has a use of its own for, even as literals.
OWN = {
    "confidence": "a fact that a gate may need",
    "attention": "a kind of signal, beside logits and hidden",
    "rounds": "a field of events and summaries",
}
PAPER = re.compile(r"\b[A-Z][\w'’-]+\b.{1,250}?\b(19|20)\d\d\b", re.DOTALL)  # an author, and a year near by
COOKBOOK = sorted((ROOT / "examples" / "cookbook").glob("*.py"))
PLUGINS = [path for path in MODULES if path.relative_to(ROOT).parts[0] == "plugins" and "tests" not in path.parts]
PLUGINS += COOKBOOK
REFERENCE = (ROOT / "docs" / "plugins" / "reference.md").read_text(encoding="utf-8")
PUBLIC = set(re.findall(r"^\| `(kdmesh[\w.]*)` \|", REFERENCE, re.MULTILINE))  # the modules that a plugin may import


def lengths() -> dict[str, int]:
    """Return the lines of each function, by file and name."""
    return {
        f"{path.relative_to(ROOT)}:{node.name}": (node.end_lineno or node.lineno) - node.lineno + 1
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def words(source: str) -> list[tuple[int, str, bool]]:
    """Return (line, word, whether it is a string literal) for each name and each one-word literal."""
    found = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.NAME:
            found.append((token.start[0], token.string, False))
        elif token.type == tokenize.STRING and "f" not in token.string[: token.string.index(token.string[-1])].lower():
            found.append((token.start[0], str(ast.literal_eval(token.string)), True))
    return found


def methods_named(source: str) -> list[str]:
    """Return ``line: word`` for every built-in method that a source text names."""
    return [
        f"{line}: {word}"
        for line, word, literal in words(source)
        if word in NAMES and word not in OWN and (literal or word not in PLAIN)
    ]


@pytest.fixture(scope="module")
def house() -> Any:
    """docs/house.py, which draws the imports."""
    spec = spec_from_file_location("house", ROOT / "docs" / "house.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_no_circle_among_modules(house: Any) -> None:
    """Not even of imports for types alone, or inside functions."""
    graph = house.imports()
    assert graph.number_of_edges() > 1000 and graph.has_edge("kdmesh.cli.run", "kdmesh.engine.request")
    assert house.circles(graph) == []


def test_the_drawing_on_the_page_has_exactly_the_rooms(house: Any) -> None:
    """Lines, and who imports whom, may have changed since it was drawn."""
    drawn = house.PAGE.read_text(encoding="utf-8").partition(house.BEGIN)[2].partition(house.END)[0]
    rows = [line.split()[0] for line in drawn.splitlines() if line.strip("`")]
    assert sorted(rows) == sorted(house.rooms(house.imports())), "python docs/house.py --write"


def test_no_two_files_of_tests_have_one_name():
    """pytest imports each by its name alone."""
    names = Counter(path.name for room in ("tests", "plugins") for path in (ROOT / room).rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []


def test_functions_are_short():
    """A file is as long as its one thought; a function that is long has several."""
    assert {name: lines for name, lines in lengths().items() if lines > 80} == {}
    assert median(lengths().values()) <= 15


@pytest.mark.parametrize("path", ENGINE, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_engine_knows_no_method_by_name(path):
    assert methods_named(path.read_text(encoding="utf-8")) == []


def test_the_engine_asks_the_registry_for_no_method_by_name():
    asked = re.compile(r"\.(?:find|check)\(\s*[\"']\w+[\"'],\s*[\"'](\w+)[\"']")
    sources = {path: asked.findall(path.read_text(encoding="utf-8")) for path in ENGINE}
    assert {str(path): names for path, names in sources.items() if names} == {}


def tasks_named(source: str) -> list[str]:
    """Return ``line: word`` for every string literal of a source text that is the name of a task."""
    tasks = set(registry().names("tasks"))
    return [f"{line}: {word}" for line, word, literal in words(source) if literal and word in tasks]


@pytest.mark.parametrize("path", KDMESH, ids=lambda path: str(path.relative_to(ROOT)))
def test_nobody_asks_for_a_task_by_name(path):
    """What depends on the task asks its offer; one name alone stands for a mesh that names none.

    Transformers calls one kind of model by a word that is the name of a task, too.
    """
    source = path.read_text(encoding="utf-8")
    if path == ROOT / "kdmesh" / "text" / "heads.py":
        source = source.replace('\nVALUES = "regression"', "")
    if path == ROOT / "kdmesh" / "spec" / "base.py":
        source = source.replace(f'\nDEFAULT_TASK = "{DEFAULT_TASK}"\n', "")
    assert tasks_named(source) == []


def test_the_search_for_tasks_finds_them():
    assert tasks_named('if plan.task.name == "classification":\n    pass\n') == ["1: classification"]
    assert tasks_named('table = {"language_modelling": 1}\n') == ["1: language_modelling"]
    assert tasks_named('"""classification as prose"""\nregression = 1\n') == []


def test_the_search_for_names_finds_them():
    name = sorted(NAMES - PLAIN - OWN.keys())[0]
    assert methods_named(f"if strategy == '{name}':\n    pass\n") == [f"1: {name}"]
    assert methods_named(f"\n{name} = 1\n") == [f"2: {name}"]
    assert methods_named("x.mean(0)\n") == [] and methods_named('rule = "mean"\n') == ["1: mean"]
    assert methods_named(f"x = 'no {name} here'  # {name}\n") == []


@pytest.mark.parametrize(("kind", "offer"), METHODS, ids=[f"{kind}-{offer.name}" for kind, offer in METHODS])
def test_every_method_names_its_paper(kind, offer):
    module = offer.factory.partition(":")[0]
    text = ast.get_docstring(ast.parse((ROOT / (module.replace(".", "/") + ".py")).read_text(encoding="utf-8"))) or ""
    assert len(text) > 60, f"{module} says too little"
    assert PAPER.search(text) or "no paper" in text.lower(), (
        f"{module} names no paper (author, year) nor says `no paper`"
    )


@pytest.mark.parametrize("path", COOKBOOK, ids=lambda path: path.stem)
def test_every_plugin_of_the_cookbook_names_its_paper(path):
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    assert PAPER.search(text) or "no paper" in text.lower()


@pytest.mark.parametrize(
    "statement",
    [
        "import kdmesh",
        "import kdmesh.cli",
        "import kdmesh.spec.read",
        "from kdmesh.plugins import registry; registry()",
    ],
)
def test_imports_that_must_stay_light_bring_nothing_heavy(statement):
    probe = f"import sys\n{statement}\nprint(sorted({{'torch', 'ray', 'transformers'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


def behind_the_door(source: str) -> list[str]:
    """Return ``line: name`` for everything of kdmesh that a plugin's source uses, by import or as text, unasked."""
    found: list[tuple[int, str, bool]] = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                found += [(node.lineno, name.name, name.name in PUBLIC) for name in names]
            case ast.ImportFrom(module=str(module), names=names, level=0):
                for name in names:
                    public = module in PUBLIC and not name.name.startswith("_")
                    known = module != "kdmesh" or name.name in kdmesh.__all__ or f"kdmesh.{name.name}" in PUBLIC
                    found.append((node.lineno, f"{module}.{name.name}", public and known))
            case ast.Attribute(value=ast.Name(id="kdmesh"), attr=name):
                found.append((node.lineno, f"kdmesh.{name}", name in kdmesh.__all__ or f"kdmesh.{name}" in PUBLIC))
            case ast.Constant(value=str(text)) if re.fullmatch(r"kdmesh(\.\w+)+(:\w+)?", text):
                found.append((node.lineno, text, text.partition(":")[0] in PUBLIC))
    return [f"{line}: {name}" for line, name, fine in found if not fine and re.match(r"kdmesh(\.|$)", name)]


@pytest.mark.parametrize("path", PLUGINS, ids=lambda path: str(path.relative_to(ROOT)))
def test_packages_come_in_through_the_public_door(path):
    assert behind_the_door(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("kind", KINDS)
def test_what_new_writes_comes_in_through_the_public_door(kind):
    files = package("kdmesh-foo", kind)
    assert [behind_the_door(text) for path, text in files.items() if path.endswith(".py")] == [[]] * 3


def test_the_search_for_private_names_finds_them():
    assert {"kdmesh", "kdmesh.offers", "kdmesh.testing"} <= PUBLIC and "kdmesh.plugins" not in PUBLIC
    for source, name in (
        ("import kdmesh.engine.run", "kdmesh.engine.run"),
        ("from kdmesh import plugins", "kdmesh.plugins"),
        ("from kdmesh.graph.canvas import Canvas", "kdmesh.graph.canvas.Canvas"),
        ("from kdmesh.consensus import _base", "kdmesh.consensus._base"),
        ("from kdmesh.builtin.consensus._base import Rule", "kdmesh.builtin.consensus._base.Rule"),
        ("import kdmesh; kdmesh.plugins.registry()", "kdmesh.plugins"),
        ("import_module('kdmesh.streams')", "kdmesh.streams"),
    ):
        assert behind_the_door(source) == [f"1: {name}"]
    fine = "import kdmesh, torch; from kdmesh.offers import Config; from kdmesh import Mesh; kdmesh.hookimpl"
    assert behind_the_door(f"{fine}; import kdmesh_foo._own; 'kdmesh_foo.rule:Rule'") == []
