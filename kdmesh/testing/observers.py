"""The contract of an observer: a module whose hooks are told what runs do."""

from __future__ import annotations

import inspect
import os
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from kdmesh import hookspecs
from kdmesh.contracts.events import Event, Note, Trained
from kdmesh.contracts.run_info import RunInfo
from kdmesh.errors import RunFailed
from kdmesh.hookspecs import hookimpl
from kdmesh.plugins import Registry, registry
from kdmesh.testing import small
from kdmesh.testing.base import Checks, imported
from kdmesh.testing.run_mesh import RunMesh

ROWS = 120
ROUNDS = {"rounds": {"students": ["a", "b"], "rounds": 2}}
TAUGHT = {"ensemble": {"teachers": ["a"], "student": "b"}}
OBSERVERS = tuple(
    name
    for name in vars(hookspecs)
    if name.startswith(("kdmesh_run_", "kdmesh_stage_", "kdmesh_host_")) or name in
    ("kdmesh_trained", "kdmesh_round_finished", "kdmesh_agent_evaluated")
)  # fmt: skip


class ObserverContract(Checks):
    """Checks an observer in small runs that succeed, fail, are interrupted and go on.

    ``module``: what the entry point names, also ``module:object``. Where it writes elsewhere than into a run's folder,
    a fixture of the test sets that up, with ``autouse``.
    """

    __test__ = False
    module: ClassVar[str] = ""

    @pytest.fixture
    def plugin(self) -> Any:
        """The module with the hooks; also an object that has them."""
        if not self.module:
            raise NotImplementedError(f"{type(self).__name__} says no `module`: what the entry point names")
        module, _, name = self.module.partition(":")
        return getattr(import_module(module), name) if name else import_module(module)

    def test_hooks_are_known(self, plugin: Any) -> None:
        """Each hook and its arguments are such as kdmesh has, and one of them at least observes."""
        found = Registry([plugin])
        own = {caller.name for caller in found.manager.get_hookcallers(plugin) or ()}
        assert own & {*OBSERVERS}, f"it has no hook that observes: none of {', '.join(OBSERVERS)}"

    def test_is_read_without_torch(self, plugin: Any) -> None:
        """Commands import the module that the entry point names: it imports neither torch, ray nor transformers."""
        name = self.module.partition(":")[0] or getattr(plugin, "__module__", "")
        heavy = imported(name)
        assert not heavy, f"importing {name} imports {', '.join(heavy)}"

    def test_weights_have_the_same_bits(self, plugin: Any, tmp_path: Path) -> None:
        """A run trains to the same weights with it and without it, and it raises nowhere in it."""
        with left_out(plugin):
            expected = run(tmp_path / "without")
        assert run(tmp_path / "with", plugin) == expected, "with it the run's weights are others"

    def test_ray_gives_the_same_bits(self, plugin: Any, tmp_path: Path, run_mesh: RunMesh, on_ray: None) -> None:
        """It observes a run on Ray as it does one in this process, and the weights are the same."""
        with left_out(plugin):
            expected = run(tmp_path / "without")
        with_it = run(tmp_path / "with", plugin, run_mesh=run_mesh, backend="ray")
        assert with_it == expected, "observed on Ray, weights differ"

    def test_a_run_without_a_folder(self, plugin: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A run from Python may write no files: ``run.folder`` is None. Nothing is left where Python was started."""
        monkeypatch.chdir(tmp_path)
        run(None, plugin)
        left = [path.name for path in tmp_path.iterdir()]
        assert not left, f"a run without a folder leaves {', '.join(left)} in the working folder"

    def test_seeds_and_controls_are_runs_of_their_own(self, plugin: Any, tmp_path: Path) -> None:
        """Two seeds with their controls, one after the other, in one process."""
        run(tmp_path, plugin, TAUGHT, seeds=2, controls=True)

    def test_an_interrupted_run_goes_on(self, plugin: Any, tmp_path: Path) -> None:
        """It is told of the interruption, and then of the run that goes on in the same folder."""
        with left_out(plugin):
            expected = run(tmp_path / "whole")

        def interrupt(event: Event) -> None:
            if isinstance(event, Trained) and event.step > 16:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "broken", plugin, listeners=(interrupt,), checkpoint_seconds=0)
        (folder,) = (tmp_path / "broken").glob("*/*")
        assert run(None, plugin, resume=folder) == expected, "the run that goes on ends with other weights"

    def test_a_run_that_fails(self, plugin: Any, tmp_path: Path) -> None:
        """A loss that is not finite ends the run."""
        with pytest.raises(RunFailed, match="the loss became"):
            run(tmp_path, plugin, optimizer={"sgd": {"lr": 1e30}})

    def test_takes_what_is_not_known(self, plugin: Any, told: Told) -> None:
        """Figures may be None, and epoch, step and round too; names hold any letters."""
        self._refuse_failures(plugin, told, beside={
            "kdmesh_agent_evaluated": {"agent": "größe[1]", "metrics": {"loss": None, "accuracy": 0.5, "ndcg@10": 1.0},
                                       "stage": "", "step": None, "epoch": None, "round": None},
            "kdmesh_trained": {"losses": {"größe[1]": None}, "flows": {"größe[1]": {"labels -> größe[1]": None}},
                               "rewards": {"größe": None}},
        })  # fmt: skip

    def test_runs_do_not_get_mixed_up(self, plugin: Any, told: Told) -> None:
        """Two runs at a time, each told of in turn: what is kept of a run is kept by it."""
        found = Registry([plugin])
        for hook, about in told.calls:
            for run in told.runs:
                assert not found.observe(hook, run=run, **about), f"it raises in {hook} with two runs at a time"

    def test_leaves_the_process_as_it_was(self, plugin: Any, told: Told) -> None:
        """Default generators, torch's settings, signal handlers and the working folder are the run's."""
        before = _process()
        self._refuse_failures(plugin, told)
        changed = [name for name, value in _process().items() if value != before[name]]
        assert not changed, f"it changes {', '.join(changed)}"

    def _refuse_failures(self, plugin: Any, told: Told, beside: dict[str, dict[str, Any]] | None = None) -> None:
        found, one = Registry([plugin]), told.runs[0]
        for hook, about in told.calls:
            assert not found.observe(hook, run=one, **{**about, **(beside or {}).get(hook, {})}), f"it raises in {hook}"

    @pytest.fixture
    def told(self, plugin: Any, tmp_path: Path) -> Told:
        """What observers are told of a short run with rounds, to be told again."""
        recorder = Told()
        with left_out(plugin):
            for name in ("one", "two"):
                run(tmp_path / name, recorder)
        recorder.calls = recorder.calls[: len(recorder.calls) // 2]
        return recorder


class Told:
    """An observer that keeps what it is told: the runs, and (hook, arguments) of every call."""

    def __init__(self) -> None:
        self.runs: list[RunInfo] = []
        self.calls: list[tuple[str, dict[str, Any]]] = []
        for name in (name for name in OBSERVERS if not hasattr(self, name)):
            setattr(self, name, hookimpl(_keeping(self, name)))


def _keeping(told: Told, hook: str) -> Any:
    """A hook that keeps all its arguments."""
    like = getattr(hookspecs, hook)
    signature = inspect.signature(like)

    @wraps(like)  # pluggy reads off it what to give
    def keep(*given: Any) -> None:
        about = dict(zip(signature.parameters, given, strict=True))
        run = about.pop("run")
        if hook == "kdmesh_run_started":
            told.runs.append(run)
        told.calls.append((hook, about))

    return keep


def run(
    out: Path | None,
    plugin: Any = None,
    connect: dict[str, Any] = ROUNDS,
    optimizer: Any = None,
    listeners: tuple[Callable[[Event], None], ...] = (),
    run_mesh: RunMesh | None = None,
    **more: Any,
) -> dict[str, str]:
    """Run two small agents on made-up points; returns the sha256 of their weights. AssertionError where it raises."""
    run_mesh = run_mesh or RunMesh()
    own = {"epochs": 6, "batch_size": 8, "evaluate_every": 1, "optimizer": optimizer or {"adamw": {"lr": 0.01}}}
    fields = small.mesh(("a", "b"), {"mlp": {"hidden": [4]}}, name="observed", connect=[connect], train=own)
    fields["data"]["transfer"] = 0.2
    notes: list[str] = []

    def keep(event: Event) -> None:
        if isinstance(event, Note):
            notes.append(event.text)

    with taken_in(plugin):
        try:
            heard, data = (keep, *listeners), small.table(rows=ROWS)
            found = run_mesh(fields, out=out or False, data=data, listeners=heard, **more)
        finally:
            said = [note for note in notes if note.endswith("is told no more of this run")]
            assert not said, "; ".join(said)
    return {name: about["weights_sha256"] for one in found.summaries.values() for name, about in one["agents"].items()}


@contextmanager
def taken_in(plugin: Any) -> Iterator[None]:
    """Have a plugin among those of this process, for a while, unless it is installed or there is none."""
    manager = registry().manager
    if plugin is None or manager.is_registered(plugin):
        yield
        return
    manager.register(plugin)
    try:
        manager.check_pending()
        yield
    finally:
        manager.unregister(plugin)


@contextmanager
def left_out(plugin: Any) -> Iterator[None]:
    """Take a plugin from those of this process, for a while, where it is installed."""
    manager = registry().manager
    if not manager.is_registered(plugin):
        yield
        return
    name = manager.get_name(plugin)
    manager.unregister(plugin)
    try:
        yield
    finally:
        manager.register(plugin, name=name)


def _process() -> dict[str, Any]:
    """What of the process a run depends on, by its name."""
    return {
        "torch's default generator": torch.get_rng_state().tolist(),
        "numpy's default generator": repr(np.random.get_state()),
        "Python's default generator": random.getstate(),
        "how many threads torch uses": torch.get_num_threads(),
        "whether gradients are recorded": torch.is_grad_enabled(),
        "torch's default type": torch.get_default_dtype(),
        "the handler of SIGINT": signal.getsignal(signal.SIGINT),
        "the handler of SIGTERM": signal.getsignal(signal.SIGTERM),
        "the working folder": os.getcwd(),
    }
