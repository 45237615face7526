"""The fixture `run_mesh`: what it takes, what it gives, and one Ray for all."""

from __future__ import annotations

import os
import sys

import pytest
import yaml

from kdmesh.errors import HostLost, MeshError, RunFailed
from kdmesh.offers import ObjectiveOffer
from kdmesh.plugins import registry
from kdmesh.spec.read import parse
from kdmesh.testing import small
from kdmesh.testing.run_mesh import RUNS, lent, shared_ray

pytest_plugins = ["kdmesh.testing.run_mesh", "pytester"]
MESH = """
agents: {a: {model: {mlp: {hidden: [4]}}}, b: {model: {mlp: {hidden: [4]}}}}
connect: [{ensemble: {teachers: a, student: b}}]
train: {epochs: 1, batch_size: 16, optimizer: {sgd: {lr: 0.1}}}
placement: spread
"""
OWN = ObjectiveOffer("own_loss", "kdmesh.builtin.objectives.mse:MSE", summary="not installed", forms=("logits",))


def test_text_fields_a_file_and_a_spec_are_one_mesh(run_mesh, tmp_path):
    fields = yaml.safe_load(MESH)
    path = tmp_path / "mesh.yaml"
    path.write_text(MESH.replace("agents:", "data: {dataset: 'python:given'}\nagents:", 1))
    spec = parse({**fields, "data": {"dataset": "python:given"}})
    runs = [run_mesh(mesh, out=False) for mesh in (MESH, fields, spec)]
    runs.append(run_mesh(path, data=small.table(), out=False))
    assert all(run.weights == runs[0].weights for run in runs) and set(runs[0].weights) == {"a", "b"}
    assert run_mesh(MESH, "train.epochs=2", out=False).weights != runs[0].weights
    with pytest.raises(ValueError, match="takes no overrides"):
        run_mesh(spec, "train.epochs=2")


def test_what_a_run_gives(run_mesh, tmp_path):
    run = run_mesh(MESH, seeds=2)
    assert run.folder.is_relative_to(tmp_path) and (run.folder / "results.json").exists()
    assert list(run.summaries) == [0, 1] and run.summary is run.summaries[0] and run.results
    assert 0 <= run.metric("b", "accuracy") <= 1 and run.metric("b", "loss", "validation") > 0
    assert run_mesh(MESH, out=False).folder is None


def test_what_is_refused_or_fails_is_raised(run_mesh):
    with pytest.raises(MeshError, match="connect"):
        run_mesh(MESH.replace("teachers: a", "teachers: nobody"))
    with pytest.raises(RunFailed, match="the loss became"):
        run_mesh(MESH, "train.optimizer.sgd.lr=1e30", "train.epochs=8")


def flows(name):
    fields = yaml.safe_load(MESH)
    del fields["connect"]
    return {
        **fields,
        "flows": [{"from": "labels", "to": "a", "objective": "ce"}, {"from": "a", "to": "b", "objective": name}],
    }


def test_offers_need_not_be_installed(run_mesh):
    with pytest.raises(MeshError, match="own_loss"):
        run_mesh(flows("own_loss"))
    assert run_mesh(flows("own_loss"), offers=(OWN,), out=False).weights == run_mesh(flows("mse"), out=False).weights
    assert "own_loss" not in registry().names("objectives")


def test_lent_offers_nest_and_go():
    with lent((OWN,)), lent((ObjectiveOffer("kl", OWN.factory),)):
        assert registry().find("objectives", "own_loss") is OWN
        assert registry().find("objectives", "kl").factory == OWN.factory
    assert registry().find("objectives", "kl").factory != OWN.factory and registry().lent == ()


@pytest.mark.ray
def test_ray_is_shared_and_knows_lent_offers(run_mesh, request):
    shared = shared_ray(request.config)
    shared._runs = 0  # none of these is the one that begins it anew
    first = run_mesh(MESH, backend="ray")
    session = shared.session()
    workers = {id(worker) for group in session.backend._workers.values() for worker in group}
    assert run_mesh(flows("own_loss"), backend="ray", offers=(OWN,)).weights == run_mesh(flows("mse")).weights
    again = {id(worker) for group in session.backend._workers.values() for worker in group}
    assert workers == again and len(workers) >= 2, "the second run started actors of its own"
    assert first.weights == run_mesh(MESH).weights and first.backend == "ray" and first.folder.exists()


@pytest.mark.ray
@pytest.mark.parametrize("why", ["a host was lost", "many runs"])
def test_ray_begins_anew(run_mesh, request, why):
    shared = shared_ray(request.config)
    shared.session()
    folder, weights = shared._folder, run_mesh(MESH).weights
    if why == "many runs":
        shared._runs = RUNS
    else:
        with pytest.raises(HostLost), shared.session():
            raise HostLost("b was lost")
    assert run_mesh(MESH, backend="ray").weights == weights
    assert shared._folder != folder and not os.path.exists(folder)


def test_a_contract_without_ray_says_so(pytester, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    pytester.makepyfile("""
        import pytest
        from kdmesh.plugins import registry
        from kdmesh.testing import GateContract

        class TestIt(GateContract):
            config = {"epochs": 3}
            ray = False

            @pytest.fixture
            def offer(self):
                return registry().find("gates", "small_loss")
    """)
    result = pytester.runpytest_subprocess(
        "-p", "no:cacheprovider", "-q", "-rs", "-k", "gives_the_same_bits or runs_with_it"
    )
    result.assert_outcomes(passed=1, skipped=1)
    result.stdout.fnmatch_lines(["*TestIt says `ray = False`*"])


def test_answers_of_another_test_are_not_found(run_mesh, tmp_path, monkeypatch):
    monkeypatch.setenv("KDMESH_STORE", str(tmp_path / "answers"))
    mesh = (
        "data: digits\n"
        "agents: {t: {model: {mlp: {hidden: [4]}}, update: frozen}, s: {model: {mlp: {hidden: [4]}}}}\n"
        "connect: [{ensemble: {teachers: [t], student: s}}]\n"
        "train: {epochs: 1}\n"
    )
    made = [run_mesh(mesh).summary["agents"]["t"]["forwards"] for _ in range(2)]
    assert made[0] == made[1] and not (tmp_path / "answers").exists()
    kept = run_mesh(mesh, store=str(tmp_path / "answers"))
    assert (tmp_path / "answers").is_dir(), kept.summary["store"]
