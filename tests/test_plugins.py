"""Installed plugins: found by their entry point, each loaded alone; and plugins that are one file in a folder."""

from __future__ import annotations

import ast
import inspect
import os
import sys
import textwrap
import tomllib
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import pytest

from kdmesh import hookspecs
from kdmesh import plugins as loading
from kdmesh.builtin import plugin as builtin
from kdmesh.errors import MeshError
from kdmesh.offers import (
    API,
    CommandOffer,
    Config,
    ConsensusOffer,
    MetricOffer,
    ObjectiveOffer,
    Offer,
    SignalOffer,
    TaskOffer,
)
from kdmesh.plugins import KINDS, PluginFile, Registry, carried, fault, heavy_imports, receive, registry
from kdmesh.published import OFFERED

OFFERING = """
import kdmesh
from kdmesh.offers import ConsensusOffer

@kdmesh.hookimpl
def kdmesh_consensus():
    return [{offers}]
"""


def offering(*offers: str) -> str:
    """A plugin that offers consensus rules, each written as the arguments of its offer."""
    return OFFERING.format(offers=", ".join(f"ConsensusOffer({offer})" for offer in offers))


GOOD = {"kdmesh_good": offering("'loudest', 'kdmesh_good:Loudest', summary='the most certain source'")}
BROKEN = {
    "kdmesh_no_import": "import nowhere_at_all\n",
    "kdmesh_misspelt": "import kdmesh\n\n@kdmesh.hookimpl\ndef kdmesh_consensuss():\n    return []\n",
    "kdmesh_argument": "import kdmesh\n\n@kdmesh.hookimpl\ndef kdmesh_run_started(run, walk):\n    pass\n",
    "kdmesh_bad_spec": offering("'sloppy', 'no import string'"),
    "kdmesh_too_new": offering("'modern', 'kdmesh_too_new:Modern', api=99"),
    "kdmesh_one": offering("'same', 'kdmesh_one:Same'", "'first', 'kdmesh_one:First'"),
    "kdmesh_two": offering("'same', 'kdmesh_two:Same'"),
    "kdmesh_usurper": offering("'mean', 'kdmesh_usurper:Mean'"),
}


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Lay distributions out as pip leaves them, and return their entry points."""

    def lay(sources: dict[str, str]) -> list[EntryPoint]:
        for name, source in sources.items():
            (tmp_path / f"{name}.py").write_text(source)
            info = tmp_path / f"{name}-1.2.dist-info"
            info.mkdir()
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 1.2\n")
            (info / "entry_points.txt").write_text(f"[kdmesh]\n{name} = {name}\n")
            monkeypatch.delitem(sys.modules, name, raising=False)
        monkeypatch.syspath_prepend(str(tmp_path))
        return sorted((entry for entry in entry_points(group="kdmesh") if entry.name in sources), key=lambda e: e.name)

    return lay


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of single-file plugins that this process uses; nothing of it stays."""
    monkeypatch.setenv("KDMESH_PLUGINS_DIR", str(tmp_path))
    (tmp_path / "lone_plugin.py").write_text(offering("'lone', 'lone_plugin:Lone'") + "\nclass Lone: pass\n")
    yield tmp_path
    loading.current._received.clear()
    sys.modules.pop("lone_plugin", None)


def test_all_broken_plugins_at_once_are_named_with_their_reason_and_harm_nobody(install):
    found = Registry([builtin], install(GOOD | BROKEN))
    said = {record.dist: (record.status, record.error) for record in found.records}
    assert said.pop("kdmesh-good") == ("ok", "")
    for dist, status, part in (
        ("kdmesh-no-import", "broken", "ModuleNotFoundError: No module named 'nowhere_at_all'"),
        ("kdmesh-misspelt", "broken", "unknown hook 'kdmesh_consensuss'"),
        ("kdmesh-argument", "broken", "{'walk'}"),
        ("kdmesh-bad-spec", "broken", "'sloppy' has the factory 'no import string'"),
        ("kdmesh-too-new", "broken", f"needs plugin API 99, and this kdmesh has {API}: upgrade kdmesh"),
        ("kdmesh-one", "shadowed", "'same', and so does kdmesh-two 1.2"),
        ("kdmesh-two", "shadowed", "'same', and so does kdmesh-one 1.2"),
        ("kdmesh-usurper", "shadowed", "'mean', which is built in"),
    ):
        was, error = said.pop(dist)
        assert was == status and part in error, (dist, was, error)
    assert said == {}
    assert found.find("consensus", "loudest").summary == "the most certain source"
    assert found.find("consensus", "first").factory == "kdmesh_one:First"
    assert found.find("consensus", "mean").factory.startswith("kdmesh.builtin.")
    assert found.origin("consensus", "mean") is None
    assert str(found.origin("consensus", "loudest")) == "kdmesh-good 1.2"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("sloppy", r"kdmesh-bad-spec 1\.2 is broken \(.*no import string"),
        ("modern", r"kdmesh-too-new 1\.2 is broken \(.*API 99"),
        ("same", r"kdmesh-one 1\.2 is shadowed .*kdmesh-two 1\.2 is shadowed"),
        ("quietest", r"kdmesh-no-import 1\.2 did not load \(ModuleNotFoundError"),
    ],
)
def test_naming_what_a_broken_plugin_offers_fails_with_its_reason(install, name, reason):
    with pytest.raises(MeshError, match=reason):
        Registry([builtin], install(BROKEN)).find("consensus", name, "consensus.c")


def test_a_warning_is_given_once(install, capsys):
    found = Registry([builtin], install(BROKEN | GOOD))
    assert capsys.readouterr().err == ""
    found.warn()
    found.warn()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == len(BROKEN) and all(line.startswith("kdmesh: warning: plugin 'kdmesh_") for line in lines)


@pytest.mark.parametrize(
    ("switches", "loaded"),
    [
        ({}, {"kdmesh_good", "kdmesh_one"}),
        ({"only": "kdmesh-good"}, {"kdmesh_good"}),
        ({"only": ""}, set()),
        ({"disabled": "kdmesh_good, other"}, {"kdmesh_one"}),
    ],
)
def test_switches_choose_and_what_is_disabled_is_never_imported(install, switches, loaded):
    entries = install(GOOD | {"kdmesh_one": BROKEN["kdmesh_one"]})
    found = Registry([builtin], entries, **switches)
    assert {record.name for record in found.records if record.status == "ok"} == loaded
    assert {name for name in ("kdmesh_good", "kdmesh_one") if name in sys.modules} == loaded
    assert found.find("consensus", "mean")


def test_a_plugin_that_is_asked_for_and_not_installed_is_broken():
    (record,) = Registry([builtin], only="kdmesh-nowhere").records
    assert (record.status, record.error) == ("broken", "named in KDMESH_PLUGINS, but not installed")


def test_strict_raises_at_the_first_problem(install):
    entries = install({"kdmesh_too_new": BROKEN["kdmesh_too_new"]})
    with pytest.raises(MeshError, match=r"kdmesh-too-new 1\.2 is broken"):
        Registry([builtin], entries, strict=True)


def test_trace_prints_hook_calls(install, capsys):
    Registry([builtin], install(GOOD), trace=True)
    assert "trace: kdmesh_consensus() by kdmesh-good 1.2: kdmesh_good: done" in capsys.readouterr().err


def test_an_observer_that_raises_is_named_once_and_the_others_go_on(install, capsys):
    source = "import kdmesh\n\n@kdmesh.hookimpl\ndef kdmesh_stage_started(stage):\n    "
    entries = install(
        {"kdmesh_falls": source + "raise ValueError('tired')\n", "kdmesh_sees": source + "print(stage)\n"}
    )
    found = Registry([builtin], entries)
    for _ in range(2):
        found.observe("kdmesh_stage_started", run=None, stage="one")
    out, err = capsys.readouterr()
    assert out == "one\none\n"
    assert err == (
        "kdmesh: warning: plugin kdmesh-falls 1.2: kdmesh_falls failed in kdmesh_stage_started: ValueError: tired\n"
    )


class Margin(Config):
    """One setting."""

    margin: float = 1.0


class Loose(Config, extra="ignore"):
    """Settings that let a misspelt one pass."""


@pytest.mark.parametrize(
    ("offer", "part"),
    [
        ("mean", "offers str, not an offer"),
        (Offer("a", "b:c"), "not an offer of kind consensus"),
        (ConsensusOffer("a b", "b:c"), "needs a name"),
        (ConsensusOffer("a", "b:c", Loose), "extra='forbid'"),
        (ConsensusOffer("a", "b:c", dict), "extra='forbid'"),
        (ConsensusOffer("a", "b.c"), "'module:attribute'"),
        (ConsensusOffer("a", "b:c", api=API + 1), "upgrade kdmesh"),
        (ConsensusOffer("a", "b:c", api=0), f"says api=0, which is no plugin API: this kdmesh has {API}"),
        (ConsensusOffer("a", "b:c", api=True), "says api=True"),
        (ConsensusOffer("a", "b:c", api="1"), "says api='1'"),
        (ConsensusOffer("a", "b:c", spaces=("probs", "logit")), "spaces with 'logit', which there is not: did you"),
        (ConsensusOffer("a", "b:c", answers=("ranks",)), "answers with 'ranks'"),
        (ConsensusOffer("a", "b:c", spaces="probs"), "spaces='probs', which is no tuple of names: ('probs',)"),
        (ConsensusOffer("a", "b:c", needs_column="column"), "needs_column='column', which is none of its settings"),
        (ConsensusOffer("a", "b.c:d"), ""),
    ],
)
def test_a_fault_of_an_offer_is_said(offer, part):
    assert part in fault("consensus", offer) and bool(part) == bool(fault("consensus", offer))


@pytest.mark.parametrize(
    ("offer", "part"),
    [
        (ObjectiveOffer("a", "b:c", forms=("logits", "prob")), "the objective 'a' has forms with 'prob'"),
        (ObjectiveOffer("a", "b:c", needs=("label",)), "needs with 'label', which there is not: did you mean 'labels'"),
        (ObjectiveOffer("a", "b:c", needs=("steps",)), "needs with 'steps'"),
        (ObjectiveOffer("a", "b:c", needs="ids"), "needs='ids', which is no tuple"),
        (ObjectiveOffer("a", "b:c", reads="layer"), "reads with 'layer'"),
        (ObjectiveOffer("a", "b:c", labels=("class",)), "labels with 'class'"),
        (ObjectiveOffer("a", "b:c", forms_of={"margin": ("logits",)}), "forms_of with 'margin', which is none of its"),
        (
            ObjectiveOffer("a", "b:c", Margin, forms_of={"margin": ("hidden",)}),
            "forms_of with the form 'hidden', not one",
        ),
        (ObjectiveOffer("a", "b:c", Margin, forms_of={"margin": ("probs",)}), ""),
        (SignalOffer("a", "b:c", form="labels"), "the kind of signal 'a' has form with 'labels'"),
        (SignalOffer("a", "b:c", reads="taps"), "reads with 'taps'"),
        (TaskOffer("a", "b:c", rows="words"), "the task 'a' has rows with 'words'"),
        (TaskOffer("a", "b:c", head="decoder"), "head with 'decoder'"),
        (MetricOffer("a", "b:c", needs=("ids",)), "the metric 'a' has needs with 'ids'"),
        (CommandOffer("a", "b:c", Margin), "the command 'a' has a config, and commands have options of their own"),
        (CommandOffer("a", "b:c"), ""),
    ],
)
def test_a_trait_names_what_there_is(offer, part):
    assert part in fault(offer.kind, offer) and bool(part) == bool(fault(offer.kind, offer))


MARK = "@kdmesh.hookimpl\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (MARK + "def kdmesh_consensus():\n    pass\n", "kdmesh_consensus returns None, not a list of offers"),
        (MARK + "def kdmesh_models():\n    return {}\n", "kdmesh_models returns dict, not a list of offers"),
        (MARK + "def kdmesh_views():\n    yield\n", "kdmesh_views returns generator, not a list of offers"),
        (MARK + "def kdmesh_tasks():\n    return 1 / 0\n", "kdmesh_tasks failed: ZeroDivisionError: division by zero"),
        (
            MARK + "def kdmesh_views():\n    return []\n\ndef kdmesh_models():\n    return []\n",
            "kdmesh_models is not marked @kdmesh.hookimpl",
        ),
        (
            MARK + "def kdmesh_views():\n    return []\n\ndef kdmesh_veiws():\n    return []\n",
            "kdmesh_veiws is no hook, and hooks alone begin with kdmesh_: did you mean 'kdmesh_views'?",
        ),
    ],
)
def test_a_hook_that_would_silently_offer_nothing_is_broken_and_named(install, text, said):
    (record,) = Registry([builtin], install({"kdmesh_odd": f"import kdmesh\n\n{text}"})).records
    assert (record.status, str(record)) == ("broken", "kdmesh-odd 1.2") and said in record.error


def test_a_module_that_imports_torch_is_used_and_named(install, monkeypatch, capsys):
    """As where nothing has imported torch yet: the plugin's module does."""
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    source = "import sys\nsys.modules['ray'] = sys\n" + GOOD["kdmesh_good"]
    entries = install({"kdmesh_heavy": source.replace("kdmesh_good", "kdmesh_heavy").replace("loudest", "heaviest")})
    found = Registry([builtin], entries)
    (record,) = found.records
    assert record.status == "ok" and record.error == "" and found.find("consensus", "heaviest")
    found.warn()
    said = (
        "plugin 'kdmesh_heavy' of kdmesh-heavy 1.2: its module imports ray, for which every listing and plan then waits"
    )
    assert said in capsys.readouterr().err


def test_what_a_module_imports_is_measured_in_a_process_of_its_own(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "torch.py").write_text("")  # in place of the true one, which takes seconds
    (tmp_path / "kdmesh_heavy.py").write_text("import torch\n")
    (tmp_path / "kdmesh_light.py").write_text("chosen = 4\n")
    assert heavy_imports("kdmesh_heavy") == heavy_imports(str(tmp_path / "kdmesh_heavy.py")) == ["torch"]
    assert heavy_imports("kdmesh_light") == heavy_imports("kdmesh_nowhere") == []


def test_the_built_ins_have_no_fault():
    found = Registry([builtin])
    assert [fault(kind, offer) for kind in KINDS for offer in found.offers(kind) if fault(kind, offer)] == []


def test_what_must_load_may_not_offer_a_name_twice():
    class Again:
        kdmesh_consensus = staticmethod(builtin.kdmesh_consensus)

    with pytest.raises(MeshError, match="two plugins offer the consensus rule 'mean'"):
        Registry([builtin, Again()])


def test_a_file_of_the_plugins_folder_is_a_plugin(folder):
    offer = registry().find("consensus", "lone")
    assert registry().origin("consensus", "lone").dist == str(folder / "lone_plugin.py")
    assert offer.load().__name__ == "Lone"


def test_a_file_is_known_where_the_folder_is_not(folder, monkeypatch):
    """What a worker on another machine does; here as if, with the file gone."""
    sent = carried()
    (folder / "lone_plugin.py").unlink()
    monkeypatch.setenv("KDMESH_PLUGINS", "")
    receive(sent)
    assert registry().find("consensus", "lone").load().__module__ == "lone_plugin"


def test_a_file_does_not_take_the_place_of_a_module(tmp_path):
    file = PluginFile("random", str(tmp_path / "random.py"), "chosen = 4")
    (record,) = Registry([builtin], [file]).records
    assert record.status == "broken" and "another module is called 'random'" in record.error


def test_a_folder_that_is_none_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("KDMESH_PLUGINS_DIR", str(tmp_path / "nowhere"))
    with pytest.raises(MeshError, match="is not a folder"):
        registry()


HOOKS = [getattr(hookspecs, name) for name in dir(hookspecs) if name.startswith("kdmesh_")]


@pytest.mark.parametrize("hook", HOOKS, ids=lambda hook: hook.__name__)
def test_the_example_of_every_hook_is_a_plugin(hook, tmp_path, monkeypatch):
    example = textwrap.dedent(inspect.getdoc(hook).split("Example::\n")[1])
    name = f"example_of_{hook.__name__}"
    monkeypatch.setitem(sys.modules, name, None)
    del sys.modules[name]
    found = Registry([builtin], [PluginFile(name, str(tmp_path / f"{name}.py"), example)])
    (record,) = found.records
    assert (record.status, record.error) == ("ok", "")
    impls = getattr(found.manager.hook, hook.__name__).get_hookimpls()
    assert name in {getattr(impl.plugin, "__name__", "") for impl in impls}


def test_a_file_in_another_encoding_is_read_as_it_declares_or_is_broken_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("KDMESH_PLUGINS_DIR", str(tmp_path))
    text = offering("'lone', 'latin_plugin:Lone', summary='\xe9t\xe9'")
    (tmp_path / "latin_plugin.py").write_bytes(f"# coding: latin-1\n{text}".encode("latin-1"))
    (tmp_path / "undeclared_plugin.py").write_bytes(f"{text}".encode("latin-1"))
    os.mkfifo(tmp_path / "pipe_plugin.py")
    found = registry()
    assert found.find("consensus", "lone").summary == "\xe9t\xe9"
    (broken,) = [record for record in found.records if record.name.endswith("d_plugin")]
    assert broken.status == "broken" and "cannot be read" in broken.error and "utf-8" in broken.error
    assert "pipe_plugin" not in {record.name for record in found.records}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def kdmesh_consensus():\n    return []\n", "kdmesh_consensus is not marked @kdmesh.hookimpl"),
        ("chosen = 4\n", "it has no function marked @kdmesh.hookimpl"),
    ],
)
def test_a_file_without_a_hook_is_named(tmp_path, monkeypatch, capsys, text, said):
    monkeypatch.setenv("KDMESH_PLUGINS_DIR", str(tmp_path))
    monkeypatch.setitem(sys.modules, "mute_plugin", None)
    del sys.modules["mute_plugin"]
    (tmp_path / "mute_plugin.py").write_text(text)
    (record,) = [record for record in registry().records if record.name == "mute_plugin"]
    assert record.status == "broken" and said in record.error
    registry().warn()
    assert said in capsys.readouterr().err


def test_the_packages_beside_kdmesh_are_named_where_one_is_not_installed():
    found = {}
    for file in sorted((Path(__file__).parent.parent / "plugins").glob("*/pyproject.toml")):
        project = tomllib.loads(file.read_text(encoding="utf-8"))["project"]
        if project["name"] == "kdmesh-template":  # to be copied
            continue
        for value in project["entry-points"]["kdmesh"].values():
            plugin = EntryPoint("plugin", value, "kdmesh").load()
            for kind in KINDS:
                for offer in getattr(plugin, f"kdmesh_{kind}", list)():
                    found[kind, offer.name] = project["name"]
    assert found == OFFERED
    with pytest.raises(MeshError) as error:
        Registry([]).find("samplers", "optuna", "--sampler")
    assert "install kdmesh-optuna, which offers 'optuna'" in str(error.value)


def test_names_of_the_package_are_what_its_modules_have():
    assert all(getattr(loading, name) is not None for name in loading.__all__)
    assert callable(registry) and loading.registry is registry  # and no module of that name
    made = {name for part in Path(loading.__file__).parent.glob("[!_]*.py") for name in public(part)}
    assert {*loading.__all__} == made - INNER


INNER = {"Hooks", "Loaded", "refused", "hookless", "unmarked"}  # of the package's own modules alone


def public(path):
    body = ast.parse(path.read_text(encoding="utf-8")).body
    found = [node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    named = [target for node in body if isinstance(node, ast.Assign) for target in node.targets]
    found += [target.id for target in named if isinstance(target, ast.Name)]
    return {name for name in found if not name.startswith("_")}
