"""Rules that count what they are asked: by teaching alone, and as often in a run that was broken off as in others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import kdmesh
from kdmesh.consensus import Rule
from kdmesh.errors import MeshError, RunFailed
from kdmesh.offers import Config, ConsensusOffer
from kdmesh.plugins import PluginRecord, registry

FROZEN = {"update": "frozen", "model": {"mlp": {"hidden": [8]}}}


class Budget(Config):
    """How it answers."""

    budget: int = 60
    what: str = ""


class Queries(Rule):
    """As PATE's: a vote with noise, of whom it says no more once so many samples were asked about.

    Its queries are numbered: the noise of one depends on its number and on the sample's id alone.
    """

    def __init__(self, budget: int, what: str) -> None:
        super().__init__()
        self.budget, self.what = budget, what
        self.register_buffer("asked", torch.zeros((), dtype=torch.int64))
        self.register_buffer("about", torch.zeros((), dtype=torch.int64))

    def forward(self, values: Tensor, *, ids: Tensor, **given: Any) -> tuple[Tensor, Tensor]:
        number = self.asked + torch.arange(len(ids))
        noise = ((number[:, None] * 7919 + ids[:, None] * 104729 + torch.arange(values.shape[-1])) % 13) / 13.0
        self.asked += len(ids)
        self.about += ids.sum()
        votes = torch.nn.functional.one_hot(values.argmax(-1), values.shape[-1]).sum(0) + noise
        return torch.nn.functional.one_hot(votes.argmax(-1), votes.shape[-1]).to(values), number < self.budget

    def report(self) -> Any:
        if self.what:
            return {"list": [1], "text": {"asked": "many"}, "key": {1: 2.0}}[self.what]
        return {"queries": int(self.asked), "ids": int(self.about)}


class Learned(Rule):
    """A weighted mean whose weights are learned, and a running mean of what was said."""

    def setup(self, sources: tuple[str, ...], classes: int, inputs: Any) -> None:
        self.scores = nn.Parameter(torch.zeros(len(sources)))
        self.register_buffer("seen", torch.zeros(classes))

    def forward(self, values: Tensor, **given: Any) -> Tensor:
        mixed = (values * self.scores.softmax(0)[:, None, None]).sum(0)
        self.seen.mul_(0.9).add_(mixed.detach().mean(0), alpha=0.1)
        mixed = mixed + 0.1 * self.seen
        return mixed / mixed.sum(-1, keepdim=True)

    def report(self) -> dict[str, float]:
        return {"first": float(self.seen[0])}


class Unset(Rule):
    """A state of which some is not known yet."""

    def setup(self, sources: tuple[str, ...], classes: int, inputs: Any) -> None:
        self.register_buffer("last", torch.full((len(sources),), float("nan")))
        self.register_buffer("asked", torch.zeros(()))

    def forward(self, values: Tensor, **given: Any) -> Tensor:
        self.asked += 1
        return values.nan_to_num().mean(0)


class Grows(Rule):
    """A state that has another shape after each batch."""

    def setup(self, sources: tuple[str, ...], classes: int, inputs: Any) -> None:
        self.register_buffer("asked", torch.zeros(0))

    def forward(self, values: Tensor, **given: Any) -> Tensor:
        self.asked = torch.cat([self.asked, torch.ones(1)])
        return values.mean(0)


@pytest.fixture(autouse=True)
def offered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both, of a plugin of version 2."""
    record = PluginRecord("odd", "kdmesh-odd", "2")
    for offer in (
        ConsensusOffer("queries", f"{__name__}:Queries", Budget, stateful=True, abstains=True, needs=("ids",)),
        ConsensusOffer("unset", f"{__name__}:Unset", stateful=True, partial=True),
        ConsensusOffer("grows", f"{__name__}:Grows", stateful=True),
        ConsensusOffer("learned", f"{__name__}:Learned", stateful=True, trained=True, spaces=("probs",)),
    ):
        monkeypatch.setitem(registry()._offers["consensus"], offer.name, offer)
        record.claims["consensus", offer.name] = offer
    monkeypatch.setattr(registry(), "records", [*registry().records, record])


def stored(mesh: Any, **fields: Any) -> kdmesh.Mesh:
    """Asked once about the whole stream."""
    made: kdmesh.Mesh = mesh({"t1": FROZEN, "t2": FROZEN, "s": {}, "z": {}}, seed=4, **fields)
    made.consensus("c", "queries")
    made.flow(["t1", "t2"], "c")
    made.flow("c", ["s", "z"], objective="kl")
    return made


def live(mesh: Any, **fields: Any) -> kdmesh.Mesh:
    """Asked in each step, of peers that change."""
    made: kdmesh.Mesh = mesh(["a", "b", "s"], seed=4, **fields)
    made.flow("labels", ["a", "b"], objective="ce")
    made.consensus("c", {"queries": {"budget": 150}})
    made.flow(["a", "b"], "c", refresh="step")
    made.flow("c", "s", objective="kl")
    return made


def rounds(mesh: Any, **fields: Any) -> kdmesh.Mesh:
    """Asked once a round."""
    made: kdmesh.Mesh = mesh(
        ["a", "b"], streams={"half": {"of": "train", "size": 40, "labels": False}}, seed=3, **fields
    )
    made.connect("rounds", students=["a", "b"], rounds=3, stream="half", consensus={"queries": {"budget": 100}})
    return made


def apart(mesh: Any, **fields: Any) -> kdmesh.Mesh:
    """The same of two parties: it is kept, and asked, by their coordinator."""
    return rounds(mesh, parties={"north": "a", "south": "b"}, **fields)


def through(mesh: Any, **fields: Any) -> kdmesh.Mesh:
    """Trained by its reader, with a buffer beside; another consensus reads it too."""
    made: kdmesh.Mesh = mesh(["a", "b", "s"], seed=4, **fields)
    made.flow("labels", ["a", "b"], objective="ce")
    made.consensus("c", "learned")
    made.flow(["a", "b"], "c", refresh="step")
    made.flow("c", "s", objective="kl", detach=False)
    return made


MESHES = {
    "stored": (stored, 90),
    "live": (live, 270),
    "rounds": (rounds, 120),
    "apart": (apart, 120),
    "through": (through, None),
}
every = pytest.mark.parametrize("name", MESHES)


def outcome(summary: dict[str, Any]) -> Any:
    """What must be equal: weights, and what rules say of themselves."""
    nodes = {name: node["report"] for name, node in summary["consensus"].items()}
    return {name: agent["weights_sha256"] for name, agent in summary["agents"].items()}, nodes


@every
def test_state_moves_by_teaching_alone(mesh: Any, name: str) -> None:
    make, queries = MESHES[name]
    plain = make(mesh).run(backend="inline").summary
    (node,) = plain["consensus"]
    if queries is not None:
        assert plain["consensus"][node]["report"]["queries"] == queries
    often = make(mesh, train={"evaluate_every": 1}).run(backend="inline").summary
    assert outcome(often) == outcome(plain)


@every
def test_a_run_that_was_broken_off_ends_as_an_unbroken_one(mesh: Any, name: str, broken_off: Any) -> None:
    make, _ = MESHES[name]
    expected = outcome(make(mesh).run(backend="inline").summary)
    for summary in broken_off(lambda: make(mesh)):
        assert outcome(summary) == expected


@pytest.mark.parametrize("name", ["stored", "live", "rounds"])
def test_placement_changes_nothing(mesh: Any, name: str) -> None:
    make, _ = MESHES[name]
    assert outcome(make(mesh, placement="spread").run(backend="inline").summary) == outcome(
        make(mesh).run(backend="inline").summary
    )


def test_stages_that_share_a_state_take_turns(mesh: Any) -> None:
    waits = {stage.name: stage.waits for stage in stored(mesh).plan().stages}
    assert waits == {"s": set(), "z": {"s"}}


def test_a_nested_rule_with_a_state_has_one_host(mesh: Any) -> None:
    made = mesh({"t1": FROZEN, "t2": FROZEN, "s": {}, "z": {}}, placement="spread")
    made.consensus("c", "queries")
    made.consensus("outer", "mean")
    made.flow(["t1", "t2"], "c")
    made.flow(["c", "t1"], "outer")
    made.flow("outer", ["s", "z"], objective="kl")
    plan = made.plan()
    assert plan.host_of["s"] == plan.host_of["z"] == plan.evaluator("c") == plan.evaluator("outer")
    assert made.run(backend="inline").summary["consensus"]["c"]["report"]["queries"] == 90


@pytest.mark.parametrize("what", ["list", "text", "key"])
def test_a_report_that_is_none_is_named(mesh: Any, what: str) -> None:
    made = mesh({"t1": FROZEN, "t2": FROZEN, "s": {}})
    made.consensus("c", {"queries": {"what": what}})
    made.flow(["t1", "t2"], "c")
    made.flow("c", "s", objective="kl")
    with pytest.raises(RunFailed, match=r"rule 'queries' of kdmesh-odd 2 failed to report: TypeError: it gave"):
        made.run(backend="inline")


@pytest.mark.parametrize("name", ["stored", "through"])
@pytest.mark.parametrize("placement", ["together", "spread"])
def test_a_rule_with_a_state_is_saved_and_loaded_as_an_agent_is(
    mesh: Any, name: str, placement: str, tmp_path: Path
) -> None:
    if (name, placement) == ("through", "spread"):
        placement = {"one": ["a"], "two": ["b", "s"]}  # type: ignore[assignment]
    result = MESHES[name][0](mesh, placement=placement).run(backend="inline", out=tmp_path)
    node = result.summary["consensus"]["c"]
    assert node["export"]["difference"] == 0.0 and node["export"]["problem"] == ""
    loaded: Any = kdmesh.load(result.folder / "consensus" / "c")
    assert list(loaded.sources) == node["sources"] and loaded.space == "probs" and not loaded.training
    assert loaded.rule.report() == node["report"]
    logits = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    if name == "through":
        kept: dict[str, Tensor] = {}
        for file in sorted(result.folder.glob("checkpoints/a/*/hosts/*.safetensors")):  # the last one's stay
            kept |= {key[10:]: value for key, value in load_file(file).items() if key.startswith("weights/c/")}
        assert all(torch.equal(kept[key], value) for key, value in loaded.rule.state_dict().items()) and len(kept) == 2
        assert kept["scores"].abs().max() > 0
        mixed = (logits.softmax(-1) * kept["scores"].softmax(0)[:, None, None]).sum(0)
        mixed = mixed + 0.1 * (0.9 * kept["seen"] + 0.1 * mixed.mean(0))
        with torch.no_grad():
            value = loaded({"a": logits[0], "b": logits[1]})
        torch.testing.assert_close(value, mixed / mixed.sum(-1, keepdim=True))
    else:
        value, answered = loaded(logits, ids=torch.arange(5))
        assert value.shape == (5, 3) and not answered.any()  # its budget was spent in training
        with pytest.raises(MeshError, match="'z' is no source of this consensus"):
            loaded({"z": logits[0]})
        with pytest.raises(MeshError, match=r"found logits of shape \(5, 3\)"):
            loaded(logits[0])


def taught(mesh: Any, rule: str, agents: Any, **fields: Any) -> kdmesh.Mesh:
    """A consensus of two that train before its reader."""
    made: kdmesh.Mesh = mesh(agents, train={"epochs": 1}, **fields)
    made.flow("labels", ["a", "b", "s"], objective="ce")
    made.consensus("c", rule)
    made.flow(["a", "b"], "c")
    made.flow("c", "s", objective="kl")
    return made


def test_a_saved_rule_knows_its_sources_classes_and_a_state_of_nan(mesh: Any, tmp_path: Path) -> None:
    made = taught(mesh, "unset", {"a": {"labels": ["2", "0"]}, "b": {}, "s": {}})
    result = made.run(backend="inline", out=tmp_path)
    node = result.summary["consensus"]["c"]
    assert node["export"]["difference"] == 0.0 and node["export"]["problem"] == ""
    loaded: Any = kdmesh.load(result.folder / "consensus" / "c")
    assert loaded.rule.last.isnan().all() and loaded.rule.asked > 0
    draws = torch.Generator().manual_seed(0)
    a, b = torch.randn(4, 2, generator=draws), torch.randn(4, 3, generator=draws)
    wide = torch.full((4, 3), float("-inf"))
    wide[:, [2, 0]] = a
    wanted = (wide.softmax(-1) + b.softmax(-1)) / 2
    assert torch.equal(loaded({"a": a, "b": b}), wanted)
    assert torch.equal(loaded(torch.stack([wide, b])), wanted)
    for odd, said in (({"a": b, "b": b}, r"a gave logits of shape \(4, 3\)"), ({"a": a, "b": b[:2]}, "b gave logits")):
        with pytest.raises(MeshError, match=said):
            loaded(odd)
    with pytest.raises(MeshError, match=r"found logits of shape \(2, 4, 2\)"):
        loaded(torch.stack([a, a]))


def test_a_state_that_no_fresh_rule_takes_is_refused_by_check(mesh: Any) -> None:
    with pytest.raises(MeshError, match="does not load into the rule as `setup` leaves it") as error:
        taught(mesh, "grows", ["a", "b", "s"]).run(backend="inline")
    assert error.value.where == "consensus.c" and "copy_" in (error.value.instead or "")


def test_rules_without_a_state_have_no_folder(mesh: Any, tmp_path: Path) -> None:
    made = mesh(["a", "s"], train={"epochs": 1})
    made.flow("labels", "a", objective="ce")
    made.consensus("c", "mean")
    made.flow("a", "c")
    made.flow("c", "s", objective="kl")
    result = made.run(backend="inline", out=tmp_path)
    assert not (result.folder / "consensus").exists() and "export" not in result.summary["consensus"]["c"]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ({"rule": {"gone": {}}}, "unknown consensus rule 'gone'"),
        ({"rule": {"queries": {"budget": "x"}}}, "budget"),
        ({"rule": {"a": {}, "b": {}}}, "consensus.json is damaged"),
        ({"outputs": 0}, "consensus.json is damaged"),
        ({"classes": [[0, 9], None]}, "consensus.json is damaged"),
        ({"classes": [None]}, "consensus.json is damaged"),
        ({"kdmesh": 2}, "consensus.json is of version 2, and this kdmesh reads version 1"),
        ({"kdmesh": None}, "consensus.json is damaged"),
        ({"sources": []}, "consensus.json is damaged"),
        ({"temperature": "hot"}, "consensus.json is damaged"),
        ({"sha256": "0"}, "model.safetensors is not what was written"),
        (b"[", "damaged"),
        (None, "model.safetensors"),
    ],
)
def test_a_damaged_folder_is_named(mesh: Any, damage: Any, said: str, tmp_path: Path) -> None:
    root = stored(mesh).run(backend="inline", out=tmp_path).folder / "consensus" / "c"
    file = root / "consensus.json"
    if damage is None:
        (root / "model.safetensors").unlink()
    elif isinstance(damage, bytes):
        file.write_bytes(damage)
    else:
        file.write_text(json.dumps(json.loads(file.read_text()) | damage))
    with pytest.raises(MeshError, match=said) as error:
        kdmesh.load(root)
    assert error.value.file == str(root)
