"""The contract of a pruning rule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from kdmesh.contracts.pruning import Pruning
from kdmesh.hosts import loading
from kdmesh.offers import PruningOffer
from kdmesh.testing import small
from kdmesh.testing.base import Contract, refuse_other_draws
from kdmesh.testing.run_mesh import MeshRun, RunMesh


class PruningContract(Contract):
    """Checks what a rule takes out of a small model that was trained, and that a mesh begins with what is left.

    ``network``: of a rule that takes units, the configuration of the model of transformers; it learns texts by
    characters.
    """

    __test__ = False
    kind = "prunings"
    network: ClassVar[dict[str, Any]] = {
        "model_type": "llama",
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 24,
        "max_position_embeddings": 32,
    }

    def begun(self, offer: PruningOffer, run_mesh: RunMesh) -> tuple[dict[str, Any], dict[str, Any]]:
        """A small model that was trained: what a mesh says of its data, and of an agent that begins with it."""
        if offer.takes == "units":
            own = {"hf": {"config": self.network, "tokenizer": {"characters": {}}, "max_length": 32}}
            about, data = small.mesh(("a",), own, small.task(head="causal")), small.texts(classes=False)
        else:
            own = small.model()
            about, data = small.mesh(("a",), own), small.table()
        folder = run_mesh(about, data=data).folder
        assert folder is not None
        home = folder / "agents" / "a"
        if offer.takes == "units":
            return {**about, "given": data}, {"model": {"hf": {"path": str(home), "max_length": 32}}}
        return {**about, "given": data}, {"model": own, "weights": str(home / "model.safetensors")}

    def run(self, offer: PruningOffer, settings: dict[str, Any], run_mesh: RunMesh, backend: str = "inline") -> MeshRun:
        """Run a mesh in which an agent is pruned before it trains; its summary says how many weights are left."""
        about, agent = self.begun(offer, run_mesh)
        data = about.pop("given")
        agents = {"a": {**agent, "prune": [{offer.name: settings}]}}
        found = run_mesh(
            {**about, "agents": agents, **self.mesh}, backend=backend, data=data, offers=(offer,), out=False
        )
        told = found.summary["agents"]["a"]["pruned"]
        less = told["before"] - told["after"] if offer.takes == "units" else told["zeros"]
        assert 0 < less < told["before"], f"of {told['before']} weights it takes {less} out"
        return found

    def reported(self, run: MeshRun) -> Any:
        """How many weights are left."""
        return run.summary["agents"]["a"]["pruned"]

    @pytest.fixture
    def trained(self, offer: PruningOffer, run_mesh: RunMesh) -> Any:
        """The network, or the weights by name, of which something is taken out; a copy each time."""
        _, agent = self.begun(offer, run_mesh)
        if offer.takes == "weights":
            return {f"w{number}": drawn(number, shape) for number, shape in enumerate(((6, 9), (4, 6), (5, 3, 2, 2)))}
        module: Any = loading.load(agent["model"]["hf"]["path"])
        return module.model.net

    def taken(self, offer: PruningOffer, settings: dict[str, Any], given: Any) -> Any:
        """What a fresh rule makes of it, with torch's generator at one place."""
        import copy

        made: Pruning = offer.make(settings)
        torch.manual_seed(3)
        return made.smaller(copy.deepcopy(given)) if offer.takes == "units" else made.left(copied(given))

    def test_it_takes_what_its_offer_says(self, offer: PruningOffer, settings: dict[str, Any], trained: Any) -> None:
        """Units: a network of the same class with fewer weights, as its configuration says. Weights: masks."""
        found = self.taken(offer, settings, trained)
        if offer.takes == "weights":
            assert {name: one.shape for name, one in found.items()} == {n: one.shape for n, one in trained.items()}
            assert {one.dtype for one in found.values()} == {torch.bool}, "masks are bool: True for what is left"
            gone = sum(int((~one).sum()) for one in found.values())
            assert 0 < gone < sum(one.numel() for one in found.values()), f"it leaves out {gone} values"
            return
        assert type(found) is type(trained), f"it gave a {type(found).__name__}"
        assert count(found) < count(trained), "it takes no weight out"
        again = type(found)._from_config(found.config).state_dict()
        assert {n: p.shape for n, p in again.items()} == {n: p.shape for n, p in found.state_dict().items()}, (
            "a network of its configuration has other shapes: its folder could not be loaded"
        )
        with torch.no_grad():
            assert found(torch.arange(1, 9)[None])[0].isfinite().all(), "what is left gives numbers that are not finite"

    def test_it_counts_what_it_leaves_out(self, offer: PruningOffer, settings: dict[str, Any], trained: Any) -> None:
        """How many values become 0 is known of their sizes alone."""
        if offer.takes == "units":
            pytest.skip("it takes units")
        made: Pruning = offer.make(settings)
        said, found = made.zeros([one.numel() for one in trained.values()]), self.taken(offer, settings, trained)
        gone = sum(int((~one).sum()) for one in found.values())
        assert said == gone, f"it says {said}, and leaves {gone} out"

    def test_without_memory_it_gives_the_same_shapes(
        self, offer: PruningOffer, settings: dict[str, Any], trained: Any
    ) -> None:
        """Of weights on the `meta` device, which have shapes alone: so sizes are known ahead."""
        there = self.taken(offer, settings, trained)
        bare = trained.to("meta") if offer.takes == "units" else {n: one.to("meta") for n, one in trained.items()}
        with torch.device("meta"):
            found = self.taken(offer, settings, bare)
        assert shapes(found) == shapes(there), "on `meta` it takes something else out"

    def test_it_decides_by_weights_settings_and_the_seed(
        self, offer: PruningOffer, settings: dict[str, Any], trained: Any
    ) -> None:
        """Made again it takes the same out, and draws from no other generator than torch's."""
        with refuse_other_draws("a pruning rule"):
            one, two = (self.taken(offer, settings, trained) for _ in range(2))
        one, two = (found if isinstance(found, Mapping) else found.state_dict() for found in (one, two))
        assert all(torch.equal(value, two[name]) for name, value in one.items()), "made again, it takes something else"

    def test_what_it_is_given_stays(self, offer: PruningOffer, settings: dict[str, Any], trained: Any) -> None:
        """Weights of which it says what is left are not changed by it: the host does that."""
        if offer.takes == "units":
            pytest.skip("it is given a network to take apart")
        given = copied(trained)
        offer.make(settings).left(given)
        assert given.keys() == trained.keys(), "it adds or takes names"
        assert all(torch.equal(given[name], one) for name, one in trained.items()), "it changes weights"


def drawn(number: int, shape: tuple[int, ...]) -> Tensor:
    """A weight."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(number))


def copied(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same, of tensors of their own."""
    return {name: one.clone() for name, one in weights.items()}


def count(net: torch.nn.Module) -> int:
    """How many weights there are."""
    return sum(one.numel() for one in net.parameters())


def shapes(found: Any) -> dict[str, torch.Size]:
    """By name."""
    state = found if isinstance(found, Mapping) else found.state_dict()
    return {name: one.shape for name, one in state.items()}
