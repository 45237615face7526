"""What the contracts of all kinds have in common: the offer itself, its configuration, and expected failures."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import BaseModel, ValidationError

from kdmesh.offers import API, Config, Offer
from kdmesh.plugins import HEAVY
from kdmesh.streams.table import Table
from kdmesh.testing.run_mesh import MeshRun, RunMesh


@contextmanager
def refuse_other_draws(what: str) -> Iterator[None]:
    """Assert that nothing within draws from the default generators of numpy and Python, which no step seeds."""
    import numpy as np

    before = [part.copy() if hasattr(part, "copy") else part for part in np.random.get_state()], random.getstate()
    yield
    after = np.random.get_state()
    same = all(np.array_equal(one, other) for one, other in zip(before[0], after, strict=True))
    assert same, f"{what}: it draws from numpy's generator, which no step seeds"
    assert before[1] == random.getstate(), f"{what}: it draws from Python's generator, which no step seeds"


class Checks:
    """Base of every contract: pytest collects its subclasses, and expects the failures that these declare.

    ``expected_failures``: a check's name to the reason why it fails; one that passes nevertheless is a failure.
    ``ray``: whether checks run on Ray too; False skips these.
    """

    __test__: ClassVar[bool] = False
    expected_failures: ClassVar[dict[str, str]] = {}
    ray: ClassVar[bool] = True

    @pytest.fixture
    def run_mesh(self, request: pytest.FixtureRequest, tmp_path: Path) -> RunMesh:
        """Runs meshes: see :mod:`kdmesh.testing.run_mesh`."""
        return RunMesh(request.config, tmp_path)

    @pytest.fixture
    def on_ray(self, request: pytest.FixtureRequest) -> None:
        """Skip a check where its class does not want Ray."""
        if not self.ray:
            pytest.skip(f"{type(self).__name__} says `ray = False`")

    def __init_subclass__(cls, **more: Any) -> None:
        super().__init_subclass__(**more)
        if "__test__" not in cls.__dict__:
            cls.__test__ = True
        for name in cls.expected_failures:
            if not name.startswith("test_") or not hasattr(cls, name):
                checks = ", ".join(sorted(check for check in dir(cls) if check.startswith("test_")))
                raise TypeError(f"{cls.__name__}.expected_failures: no check {name!r}; there are {checks}")

    @pytest.fixture(autouse=True)
    def _expected_failure(self, request: pytest.FixtureRequest) -> None:
        """Expect what is declared to fail, strictly."""
        reason = self.expected_failures.get(request.function.__name__)
        if reason is not None:
            request.applymarker(pytest.mark.xfail(reason=reason, strict=True))


class Contract(Checks):
    """Base of the contracts of offers. A subclass has a fixture ``offer``, and what it declares as class attributes.

    ``config``: valid settings with which the checks make the thing; override the fixture ``settings`` where they are
    known only at run time (a path in ``tmp_path``). ``module``: what the entry point names, imported without torch by
    a check; by default the module of the configuration's class, else the factory's package. ``mesh``: fields of the
    small mesh that is run, in place of those that the contract makes up.
    """

    __test__ = False
    kind: ClassVar[str] = ""
    config: ClassVar[dict[str, Any]] = {}
    module: ClassVar[str] = ""
    mesh: ClassVar[dict[str, Any]] = {}

    @pytest.fixture
    def offer(self) -> Offer:
        """The offer to check: every contract test gives its own."""
        raise NotImplementedError(f"{type(self).__name__} needs a fixture `offer` that returns the offer to check")

    @pytest.fixture
    def settings(self) -> dict[str, Any]:
        """The settings with which the thing is made."""
        return dict(self.config)

    def test_offer_is_of_this_kind(self, offer: Offer) -> None:
        """The offer is what the hook of its kind returns, of an api version that this kdmesh knows."""
        assert offer.kind == self.kind, f"an offer of {offer.kind} in a contract of {self.kind}"
        assert offer.name and offer.summary, "an offer has a name and a one-line summary"
        assert "\n" not in offer.summary, "the summary is one line"
        assert 1 <= offer.api <= API, f"api {offer.api} is not one of 1 to {API}"
        assert issubclass(offer.config, BaseModel), "`config` is a pydantic model"

    def test_offer_is_read_without_torch(self, offer: Offer) -> None:
        """Listing and planning import the offer, so its module brings in neither torch, ray nor transformers."""
        heavy = imported(self.module or _home(offer))
        assert not heavy, f"importing {self.module or _home(offer)} imports {', '.join(heavy)}"

    def test_factory_is_found(self, offer: Offer) -> None:
        """``module:attribute`` leads to something that can be called."""
        assert callable(offer.load()), f"{offer.factory} cannot be called"

    def test_config_reads_back_from_json(self, offer: Offer, settings: dict[str, Any]) -> None:
        """A configuration written as JSON is the same configuration when read."""
        fields = offer.config.model_validate(settings)
        assert offer.config.model_validate(json.loads(fields.model_dump_json(by_alias=True))) == fields

    def test_config_refuses_unknown_keys(self, offer: Offer, settings: dict[str, Any]) -> None:
        """A misspelt setting is an error, never ignored."""
        with pytest.raises(ValidationError):
            offer.config.model_validate({**settings, "no_such_setting": 1})

    def test_config_fields_are_described(self, offer: Offer) -> None:
        """Every setting says what it does."""
        silent = [name for name, field in offer.config.model_fields.items() if not field.description]
        assert not silent, f"settings without a description: {', '.join(silent)}"

    def test_config_has_a_schema(self, offer: Offer) -> None:
        """The JSON schema can be written and forbids other keys."""
        schema = json.loads(json.dumps(offer.config.model_json_schema()))
        assert schema.get("additionalProperties") is False, "the schema allows unknown keys: give `config` extra=forbid"

    def small_mesh(self, offer: Any, settings: dict[str, Any]) -> tuple[dict[str, Any], Table | None]:
        """The fields of a small mesh that names the offer, and its data, None where it names these itself."""
        raise NotImplementedError(f"{type(self).__name__} makes no mesh")  # each kind has its own

    def run(self, offer: Any, settings: dict[str, Any], run_mesh: RunMesh, backend: str = "inline") -> MeshRun:
        """Run the small mesh, with what the class says in ``mesh``, on a backend."""
        fields, data = self.small_mesh(offer, settings)
        strict = not getattr(self, "drawn", False)  # then it is an error to draw from a default generator
        return run_mesh(
            {**fields, **self.mesh}, backend=backend, data=data, offers=(offer,), out=False, strict_signals=strict
        )

    def reported(self, run: MeshRun) -> Any:
        """What a run says of the thing, beside the weights that it ends with: nothing, by default."""
        return None

    def test_a_mesh_runs_with_it(self, offer: Offer, settings: dict[str, Any], run_mesh: RunMesh) -> None:
        """A small mesh that names it runs, and run again it ends with the same bits, and figures."""
        one, two = (self.run(offer, settings, run_mesh) for _ in range(2))
        assert one.weights == two.weights, "run again in this process, the mesh ends with other weights"
        before, now = self.reported(one), self.reported(two)
        assert before == now, f"run again in this process, the mesh reports {now}, not {before}"

    def test_ray_gives_the_same_bits(
        self, offer: Offer, settings: dict[str, Any], run_mesh: RunMesh, on_ray: None
    ) -> None:
        """The same mesh on Ray, where every agent has a process of its own, ends with the same bits, and figures."""
        one, two = (self.run(offer, settings, run_mesh, backend) for backend in ("inline", "ray"))
        assert one.weights == two.weights, "on Ray the mesh ends with other weights than in this process"
        here, there = self.reported(one), self.reported(two)
        assert here == there, f"on Ray the mesh reports {there}, and in this process {here}"


def _home(offer: Offer) -> str:
    """Where the offer is most likely written: beside its configuration, else in the package of its factory."""
    return offer.factory.partition(".")[0].partition(":")[0] if offer.config is Config else offer.config.__module__


@cache
def imported(module: str) -> list[str]:
    """Which heavy packages an interpreter of its own has imported after ``import module``; cached by module."""
    probe = (
        f"import json, sys\nsys.path[:] = json.loads(sys.argv[1])\nimport {module}\n"
        f"print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", probe, json.dumps(sys.path)], capture_output=True, text=True)
    assert done.returncode == 0, f"import {module} fails in an interpreter of its own:\n{done.stderr}"
    found: list[str] = json.loads(done.stdout.splitlines()[-1])
    return found
