"""Histories: who said what in which round, as much of it as is kept, and the average of each sample."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings, strategies
from test_entries import HERE, digests

from kdmesh.cli import main
from kdmesh.errors import MeshError
from kdmesh.signals.lazy import dense
from kdmesh.signals.sparse import TopKLogits
from kdmesh.store import Store
from kdmesh.store.history import History, Retention, history_key


def history(root, told, node="c", seed=0):
    retention = Retention.of(told)
    key = history_key({"mesh": "m", "seed": seed}, node, "train", {}, retention)
    return History(Store.open(root).entry(key), retention)


def say(of, round, samples, values, **more):
    return of.add(
        digests(*samples), torch.tensor(values)[:, None], None, round, HERE, ids=torch.tensor(samples), **more
    )


def read(of, samples, round=None):
    """What was said, by sample."""
    found, value, _ = of.read(digests(*samples), HERE, round)
    known = [one for one, hit in zip(samples, found.tolist(), strict=True) if hit]
    return dict(zip(known, [] if value is None else dense(value)[:, 0].tolist(), strict=True))


def test_all_rounds_can_be_read(tmp_path):
    of = history(tmp_path, "all")
    say(of, 0, [1, 2], [1.0, 2.0])
    say(of, 1, [2, 3], [20.0, 30.0])
    assert of.rounds() == [0, 1]
    assert read(of, [1, 2, 3], 0) == {1: 1.0, 2: 2.0} and read(of, [1, 2, 3], 1) == {2: 20.0, 3: 30.0}
    assert read(of, [3, 1, 2, 9]) == {3: 30.0, 1: 1.0, 2: 20.0}


def test_the_last_is_each_samples_own(tmp_path):
    of = history(tmp_path, "last")
    for round in range(4):
        say(
            of,
            round,
            [1, 2, 3] if round < 2 else [2, 3],
            [round + sample / 8 for sample in ([1, 2, 3] if round < 2 else [2, 3])],
        )
    assert read(of, [1, 2, 3]) == {1: 1.125, 2: 3.25, 3: 3.375}
    assert of.rounds() == [1, 3]  # the first and third have nothing that is not said anew


def test_k_rounds_of_each_sample_are_kept(tmp_path):
    of = history(tmp_path, {"k": 2})
    for round in range(5):
        say(of, round, [1, 2], [float(round), 10.0 + round])
    assert of.rounds() == [3, 4] and read(of, [1, 2], 3) == {1: 3.0, 2: 13.0} and read(of, [1], 2) == {}


def test_the_average_is_of_the_rounds_in_which_a_sample_was_spoken_of(tmp_path):
    of, expected = history(tmp_path, {"ema": 0.75}), {}
    draws = torch.Generator().manual_seed(4)
    for round in range(6):
        samples = torch.randperm(5, generator=draws)[:3].tolist()
        values = torch.randn(3, generator=draws).tolist()
        say(of, round, samples, values)
        for sample, value in zip(samples, values, strict=True):
            expected[sample] = 0.75 * expected[sample] + 0.25 * value if sample in expected else value
    assert read(of, range(5)) == pytest.approx(expected, abs=1e-6) and len(expected) >= 4


def test_a_run_that_is_resumed_says_nothing_twice(tmp_path):
    for told in ("last", "all", {"k": 2}, {"ema": 0.5}):
        root = tmp_path / str(told)
        of, rounds = history(root, told), [(number, [1, 2], [float(number), 2.0 * number]) for number in range(5)]
        for one in rounds:
            assert say(of, *one) == 2
        before = {one: read(of, [1, 2], one) for one in (None, *of.rounds())}
        again = history(root, told)
        for one in rounds[2:]:
            say(again, *one)
        assert {one: read(again, [1, 2], one) for one in (None, *again.rounds())} == before


def test_values_of_many_rows_and_top_k(tmp_path):
    of = history(tmp_path / "a", {"ema": 0.5})
    starts = torch.tensor([0, 2, 3])
    of.add(digests(1, 2), torch.tensor([[1.0], [2.0], [3.0]]), starts, 0, HERE)
    of.add(digests(2, 1), torch.tensor([[5.0], [3.0], [4.0]]), torch.tensor([0, 1, 3]), 1, HERE)
    found, value, begins = of.read(digests(1, 2), HERE)
    assert found.all() and begins.tolist() == [0, 2, 3] and value[:, 0].tolist() == [2.0, 3.0, 4.0]
    with pytest.raises(MeshError, match="another number of rows"):
        of.add(digests(1), torch.zeros(3, 1), torch.tensor([0, 3]), 2, HERE)
    top = TopKLogits.top(torch.randn(2, 9), 3)
    with pytest.raises(MeshError, match="no average of TopKLogits"):
        of.add(digests(1, 2), top, None, 3, HERE)
    of = history(tmp_path / "b", "last")
    for round in range(2):
        of.add(digests(1, 2), top, None, round, HERE)
    assert torch.equal(of.read(digests(2), HERE)[1].index, top.index[1:])


def test_what_another_machine_said_of_a_round_stands(tmp_path):
    of = history(tmp_path, "all")
    say(of, 0, [1], [1.0])
    assert of.add(digests(1), torch.tensor([[9.0]]), None, 0, replace(HERE, threads=7)) == 0
    assert read(of, [1]) == {1: 1.0}


@pytest.mark.parametrize(
    "told", ["", "ema", {"k": 0}, {"k": True}, {"k": 1.5}, {"ema": 1.0}, {"ema": 0}, {"k": 2, "ema": 0.5}, None, 3]
)
def test_what_says_nothing_is_refused(told):
    with pytest.raises(MeshError, match="how much of a history"):
        Retention.of(told)


@pytest.mark.parametrize("told", ["last", "all", {"k": 3}, {"ema": 0.5}])
def test_retention_says_itself(told):
    assert Retention.of(told).told() == told


def test_show_says_what_was_said_in_which_round(tmp_path, capsys):
    of, source, other = (history(tmp_path, "all", *which) for which in (["c"], ["t1"], ["c", 1]))
    for round in range(3):
        say(of, round, [16, 17], [0.5, round / 4])
        say(source, round, [17], [round / 16])
        say(other, round, [17], [99.0])
    digest = of._entry.key.digest
    assert main(["store", "show", digest, "--sample", "17", "--store", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert [f"round {round}" in out for round in range(4)] == [True, True, True, False]
    heads = [line.split(" of ")[0] for line in out.splitlines() if "round" in line]
    assert heads == [f"round {round}: m/{who}" for round in range(3) for who in ("c", "t1")]
    assert "0.25" in out and "0.0625" in out and "99" not in out.replace("torch", "")
    assert main(["store", "ls", "--store", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "history of values, all" in out and "m/c" in out


@settings(max_examples=20)
@given(
    strategies.sampled_from(["last", "all", {"k": 2}]),
    strategies.lists(strategies.sets(strategies.integers(0, 6), min_size=1), min_size=1, max_size=6),
)
def test_a_history_is_what_a_dict_would_say(told, rounds):
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        of, said = history(folder, told), {}
        for round, samples in enumerate(rounds):
            say(of, round, sorted(samples), [round + one / 8 for one in sorted(samples)])
            said |= {(one, round): round + one / 8 for one in samples}
        keep = {"last": 1, "all": 99}.get(told if isinstance(told, str) else "", 2)
        for sample in range(7):
            own = sorted((round for one, round in said if one == sample), reverse=True)
            for round in own[:keep]:
                assert read(of, [sample], round) == {sample: said[sample, round]}
            assert read(of, [sample]) == ({sample: said[sample, own[0]]} if own else {})


def test_an_average_is_right_though_another_writer_forgets_the_round_before(tmp_path, monkeypatch):
    """The files are listed, and then the other adds a round and deletes the one before, which was listed."""
    one, other = (history(tmp_path, {"ema": 0.5}) for _ in range(2))
    say(one, 1, [1, 2], [1.0, 2.0])
    listed = os.listdir

    def late(folder):
        found = listed(folder)
        monkeypatch.setattr(os, "listdir", listed)
        say(one, 2, [1, 2], [3.0, 4.0])
        return found

    monkeypatch.setattr("kdmesh.store.entry.os.listdir", late)
    say(other, 2, [1, 2], [3.0, 4.0])
    fresh = history(tmp_path, {"ema": 0.5})
    assert read(fresh, [1, 2]) == {1: 2.0, 2: 3.0} and fresh.rounds() == [2]
    assert len([*tmp_path.rglob("*.safetensors")]) == 1
