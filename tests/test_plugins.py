"""Installed plugins: found by their entry point, each loaded alone."""

from __future__ import annotations

import sys
from importlib.metadata import entry_points

import pytest

from kdmesh.builtin import plugin as builtin
from kdmesh.errors import MeshError
from kdmesh.plugins import Registry

GOOD = """
import kdmesh
from kdmesh.offers import ConsensusOffer

@kdmesh.hookimpl
def kdmesh_consensus():
    return [ConsensusOffer("loudest", "kdmesh_good:Loudest", summary="the most certain source")]
"""
MISSPELT = "import kdmesh\n\n@kdmesh.hookimpl\ndef kdmesh_consensuss():\n    return []\n"
BROKEN = "import nowhere_at_all\n"


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Three distributions as pip leaves them: one good, one with a misspelt hook, one that cannot be imported."""
    for name, source in (("kdmesh_good", GOOD), ("kdmesh_misspelt", MISSPELT), ("kdmesh_broken", BROKEN)):
        (tmp_path / f"{name}.py").write_text(source)
        info = tmp_path / f"{name}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(f"[kdmesh]\n{name} = {name}\n")
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    return Registry([builtin], [entry for entry in entry_points(group="kdmesh") if entry.name.startswith("kdmesh_")])


def test_a_good_plugin_is_found_and_broken_ones_are_left_out_with_their_reason(installed):
    assert installed.find("consensus", "loudest").summary == "the most certain source"
    errors = {record.dist: record.error for record in installed.records}
    assert errors["kdmesh-good"] == ""
    assert "nowhere_at_all" in errors["kdmesh-broken"]
    assert "kdmesh_consensuss" in errors["kdmesh-misspelt"]
    assert installed.find("consensus", "mean").name == "mean"


def test_an_unknown_name_tells_of_plugins_that_did_not_load(installed):
    with pytest.raises(MeshError, match=r"kdmesh-broken 1\.2 did not load \(ModuleNotFoundError"):
        installed.find("consensus", "quietest")


def test_a_name_offered_twice_is_an_error():
    class Again:
        kdmesh_consensus = staticmethod(builtin.kdmesh_consensus)

    with pytest.raises(MeshError, match="two plugins offer the consensus rule 'mean'"):
        Registry([builtin, Again()])
