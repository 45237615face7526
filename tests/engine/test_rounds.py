"""Programs: lessons, publications, rounds until agreement, and who trains when."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from kdmesh.contracts.events import RoundFinished
from kdmesh.errors import MeshError
from kdmesh.graph.unrun import refuse_unrun
from kdmesh.plugins import registry
from kdmesh.report.page.blocks import Lines
from kdmesh.report.page.facts import page_of
from kdmesh.report.tables import rounds_table
from kdmesh.report.words import say
from kdmesh.streams.order import epoch_order


def council(mesh: Any, **config: Any) -> Any:
    made = mesh(["a", "b"], streams={"half": {"of": "train", "size": 40, "labels": False}}, seed=3)
    made.connect("rounds", students=["a", "b"], **{"rounds": 4, "stream": "half", **config})
    return made


def test_each_round_is_recorded_with_its_gains(mesh: Any) -> None:
    rounds = council(mesh).run(backend="inline").summary["rounds"]
    assert [(entry["round"], entry["rounds"]) for entry in rounds] == [(number, 4) for number in (1, 2, 3, 4)]
    first, last = rounds[0]["metrics"], rounds[-1]["metrics"]
    assert first["churn"] is None and 0 <= last["churn"] <= 1
    assert set(last["accuracy"]) == set(last["gain"]) == {"a", "b"}
    assert last["gain"]["a"] == pytest.approx(last["accuracy"]["a"] - first["accuracy"]["a"] + first["gain"]["a"])


def test_rounds_end_once_the_sources_agree_or_patience_ends(mesh: Any) -> None:
    free = [entry["metrics"]["agreement"] for entry in council(mesh).run(backend="inline").summary["rounds"]]
    agreed = council(mesh, agreement=free[1]).run(backend="inline").summary["rounds"]
    assert len(agreed) == next(number for number, value in enumerate(free, 1) if value >= free[1])
    patient = council(mesh, rounds=50, patience=1).run(backend="inline").summary["rounds"]
    values = [entry["metrics"]["agreement"] for entry in patient]
    assert len(values) < 50 and values[-1] <= max(values[:-1])
    assert all(later > earlier for earlier, later in pairwise(values[:-1]))


def planned(made: Any) -> None:
    refuse_unrun(made.plan(), registry())


def two_councils(mesh: Any, until: dict[str, Any] | None = None, lines: Any = None) -> Any:
    """Two pairs, each with a consensus of its own, that train in one stage."""
    who = ["a", "b", "c", "d"]
    lines = lines or [{"train": who, "epochs": 1}, {"publish": ["a", "b"]}, {"publish": ["c", "d"]}]
    program = [{"of": who, "repeat": 3, "do": lines, **({"until": until} if until else {})}]
    agents = {"a": {}, "b": {}, "c": {}, "d": {"model": {"mlp": {"hidden": [64]}}}}
    made = mesh(agents, train={"batch_size": 90}, program=program)
    made.flow("labels", who, objective="ce")
    for name, two, readers in (("x", ["a", "b"], ["a", "b", "d"]), ("y", ["c", "d"], ["c", "d"])):
        made.consensus(name, "mean")
        made.flow(two, name, refresh="round")
        made.flow(name, readers, objective="kl")
    return made


def test_of_several_consensus_nodes_each_has_its_agreement(mesh: Any) -> None:
    rounds = two_councils(mesh).run(backend="inline").summary["rounds"]
    assert [one["metrics"]["agreement"] for one in rounds] == [None] * 3 == [one["metrics"]["churn"] for one in rounds]
    apart = [one["metrics"]["agreements"] for one in rounds]
    assert all({*one} == {"x", "y"} and one["x"]["agreement"] != one["y"]["agreement"] for one in apart)
    grid = rounds_table(rounds)
    keys = [column.key for column in grid.columns]
    assert "agreement x" in keys and grid.rows[1]["churn y"] == apart[1]["y"]["churn"] is not None
    assert "agreement" not in grid.rows[1]


def test_the_page_and_the_display_have_each_by_its_consensus(mesh: Any, tmp_path: Path) -> None:
    result = two_councils(mesh).run(backend="inline", out=tmp_path)
    (section,) = [section for section in page_of(result.folder).sections if section.id == "rounds"]
    (chart,) = [block for block in section.blocks if isinstance(block, Lines) and block.title == "Agreement and churn"]
    names = {f"{what}, {name}" for what in ("agreement", "churn") for name in "xy"}
    assert {series.name for series in chart.series} == names
    one = result.summary["rounds"][1]
    assert f"agreement x {one['metrics']['agreements']['x']['agreement']:.4f}, churn x 0." in say(RoundFinished(**one))


@pytest.mark.parametrize("of", ["x", "y"])
def test_rounds_end_by_the_agreement_of_the_consensus_that_is_named(mesh: Any, of: str) -> None:
    free = [one["metrics"]["agreements"] for one in two_councils(mesh).run(backend="inline").summary["rounds"]]
    enough = free[1][of]["agreement"]
    ended = next(number for number, one in enumerate(free, 1) if one[of]["agreement"] >= enough)
    rounds = two_councils(mesh, {"agreement": enough, "of": of}).run(backend="inline").summary["rounds"]
    assert [one["metrics"]["agreement"] for one in rounds] == [one[of]["agreement"] for one in free[:ended]]


def test_which_agreement_ends_rounds_has_to_be_known(mesh: Any) -> None:
    with pytest.raises(MeshError) as raised:
        planned(two_councils(mesh, {"agreement": 0.9}))
    assert raised.value.where == "program.0.until"
    assert "publish to 2 consensus nodes, and it is not said" in raised.value.what
    assert raised.value.instead == "until: {agreement: 0.9, of: x}; of: one of x, y"
    with pytest.raises(MeshError, match=r"(?s)program.0.until.of: these rounds publish nothing to 'z'.*x"):
        planned(two_councils(mesh, {"patience": 2, "of": "z"}))
    planned(two_councils(mesh, {"patience": 2, "of": "y"}))
    only = [{"train": ["a", "b", "c", "d"]}, {"publish": ["a", "b"], "to": "x"}]
    planned(two_councils(mesh, {"patience": 2}, only))
    with pytest.raises(MeshError, match=r"program.0.until.of: these rounds publish nothing to 'y'"):
        planned(two_councils(mesh, {"patience": 2, "of": "y"}, only))
    inner = [{"repeat": 2, "do": [{"train": ["a"]}, {"publish": ["c"]}]}, {"publish": ["a", "b"], "to": "x"}]
    with pytest.raises(MeshError, match="publish to 2 consensus nodes"):
        planned(two_councils(mesh, {"patience": 2}, inner))
    with pytest.raises(MeshError, match=r"program.0.until: these rounds publish to no consensus"):
        planned(two_councils(mesh, {"patience": 2}, [{"train": ["a", "b", "c", "d"]}]))
    with pytest.raises(MeshError, match="`until` needs `agreement` or `patience`"):
        planned(two_councils(mesh, {"of": "x"}))


def test_a_round_reads_what_was_published_in_it(mesh: Any, start: Any) -> None:
    made = council(mesh, rounds=2, objective="kl")
    begun = start(made)
    half = begun.found.streams["half"].rows
    x = begun.found.table.x[half]
    modules = [begun.modules[name] for name in "ab"]
    optimizers = [torch.optim.SGD(module.parameters(), lr=0.1, fused=True) for module in modules]

    def descend(which: int, loss: torch.Tensor) -> None:
        optimizers[which].zero_grad()
        loss.backward()
        optimizers[which].step()

    own = iter(begun.batches(2))
    for number in range(2):
        for at in (next(own) for _ in range(3)):
            for which, module in enumerate(modules):
                descend(which, F.cross_entropy(module(begun.x[at]), begun.y[at]))
        with torch.no_grad():
            padded = torch.cat([x, x[-1:].expand(24, -1)]).split(32)
            said = [torch.cat([module(part) for part in padded])[:40].softmax(-1) for module in modules]
        mean = (said[0] + said[1]) / 2
        for at in epoch_order(3, "half", number, 40).split(32):
            for which, module in enumerate(modules):
                q = module(x[at]).log_softmax(-1)
                descend(which, F.kl_div(q, mean[at], reduction="batchmean"))
    result = made.run(backend="inline")
    for name, module in zip("ab", modules, strict=True):
        for ours, theirs in zip(result[name].module.parameters(), module.parameters(), strict=True):
            assert torch.equal(ours, theirs)


def test_owners_of_unequal_shards_visit_their_own_samples_evenly(mesh: Any, opened: Any) -> None:
    """In every round an epoch of the lesson shows each owner each of its samples once."""
    shards = {"own": {"of": "train", "shards": {"by": "dirichlet", "of": ["a", "b"]}}}
    made = mesh(["a", "b"], streams=shards, train={"batch_size": 4})
    made.flow("labels", ["a", "b"], objective="ce", stream="own", lesson="own")
    made.flow(["a", "b"], ["a", "b"], objective="kl", refresh="round", lesson="digest")
    made._fields["program"] = [
        {
            "of": ["a", "b"],
            "repeat": 3,
            "do": [{"lesson": "own", "epochs": 1}, {"publish": ["a", "b"]}, {"lesson": "digest", "epochs": 1}],
        }
    ]
    run, hosts = opened(made)
    host = hosts["host0"]
    seen: dict[str, list[int]] = {"a": [], "b": []}
    lanes = {name: host.loader.shard("own", name, torch.device("cpu")) for name in seen}
    for name, shard in lanes.items():
        cut = shard.batch

        def noting(*args: Any, _name: str = name, _cut: Any = cut) -> Any:
            batch = _cut(*args)
            if _name in host._phases["a"].inputs.ends and host._phases["a"].plan.name == "own":
                seen[_name] += batch.at.tolist()
            return batch

        shard.batch = noting
    run.execute()
    assert len(lanes["a"]) != len(lanes["b"])
    for name, shard in lanes.items():
        size = len(shard)
        rounds = [sorted(seen[name][size * number : size * (number + 1)]) for number in range(3)]
        assert rounds == [list(range(size))] * 3


def test_a_line_trains_only_whom_it_names(mesh: Any) -> None:
    made = mesh(
        ["a", "b"],
        program=[{"of": ["a", "b"], "do": [{"train": ["a"], "epochs": 2}, {"train": ["b"], "steps": 4}]}],
    )
    made.flow("labels", ["a", "b"], objective="ce")
    made.flow(["a", "b"], ["a", "b"], objective="kl", refresh="step")
    result = made.run(backend="inline")
    assert {name: agent["updates"] for name, agent in result.summary["agents"].items()} == {"a": 6, "b": 4}
    assert [stage.name for stage in made.plan().stages] == ["a"]


def test_streams_of_different_length_keep_their_own_epochs(mesh: Any, opened: Any) -> None:
    """The first stream defines the epoch; a shorter one begins anew by itself."""
    made = mesh(["t", "s"], streams={"short": {"of": "train", "size": 40}})
    made.flow("labels", ["t", "s"], objective="ce")
    made.flow("t", "s", objective="kl", stream="short")
    run, hosts = opened(made)
    run.execute()
    shard = hosts["host0"].loader.shard("short", "s", torch.device("cpu"))
    batches = [shard.batch(step, 32, False) for step in range(9)]
    assert [len(batch.at) for batch in batches if batch] == [32, 8] * 4 + [32]
    assert [batch.epoch for batch in batches if batch] == [0, 0, 1, 1, 2, 2, 3, 3, 4]
    assert run.publisher.latest.keys() == {("t", "short")}


def test_everyone_publishes_before_anyone_reads(mesh: Any, opened: Any) -> None:
    """Calls of a host run in order: one that waited for another's publication would hold its own back."""
    made = council(mesh, rounds=2)
    made._fields["placement"] = "spread"
    run, hosts = opened(made)
    calls: list[tuple[str, str]] = []
    submit = run.backend.call

    def noting(host: str, method: str, *args: Any, results: int = 1) -> Any:
        if method in ("publish", "receive") and args[-1] is not True:  # that one is for measuring
            calls.append((method, host))
        return submit(host, method, *args, results=results)

    run.backend.call = noting
    run.execute()
    published, received = ([(method, host) for host in hosts] for method in ("publish", "receive"))
    assert len(hosts) == 2 and len(calls) == 8
    for number in (0, 4):
        assert calls[number : number + 2] == published
        assert calls[number + 2 : number + 4] == received  # of both, in one call
