"""Whatever is written, found and read, in any order, by several stores on one folder: it is what a dict would say."""

from __future__ import annotations

from dataclasses import replace

import torch
from hypothesis import settings, strategies
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule
from test_entries import HERE, digests

from kdmesh.store import EntryKey, Store, merging

SAMPLES = strategies.lists(strategies.integers(0, 30), max_size=12)
PRINTS = [HERE, replace(HERE, threads=99), replace(HERE, name="another")]
KEYS = [EntryKey({"n": number}, {}) for number in range(2)]


def value(key, sample, fingerprint):
    """What a producer says of a sample: it depends on who, of what, and on which machine; many rows, or none."""
    counts = (sample % 4) if key else 1
    return torch.full((counts, 2), 100 * sample + 10 * key + fingerprint, dtype=torch.float32)


class AsADict(RuleBasedStateMachine):
    stores = Bundle("stores")

    @initialize()
    def begin(self):
        import tempfile

        self.folder = tempfile.TemporaryDirectory()
        self.kept = {}
        self.many, merging.MANY = merging.MANY, 3

    @rule(target=stores)
    def open(self):
        return Store.open(self.folder.name)

    @rule(store=stores, key=strategies.sampled_from([0, 1]), samples=SAMPLES, by=strategies.integers(0, 2))
    def write(self, store, key, samples, by):
        rows = [value(key, one, by) for one in samples]
        starts = torch.tensor([0, *[len(one) for one in rows]]).cumsum(0) if key else None
        given = torch.cat(rows) if rows else torch.zeros(0, 2)
        written = store.entry(KEYS[key]).write(digests(*samples), {"v": given}, starts, PRINTS[by])
        new = {(key, one, by) for one in samples} - self.kept.keys()
        assert written == len(new)
        self.kept |= dict.fromkeys(new, True)

    @rule(store=stores, key=strategies.sampled_from([0, 1]), samples=SAMPLES, by=strategies.integers(0, 2))
    def read(self, store, key, samples, by):
        entry = store.entry(KEYS[key])
        found = entry.find(digests(*samples), PRINTS[by])
        there = [{of for of in range(3) if (key, one, of) in self.kept} for one in samples]
        assert found.found.tolist() == [bool(of) for of in there]
        assert found.foreign.tolist() == [bool(of) and by not in of for of in there]
        assert {*found.elsewhere} <= {*PRINTS} - {PRINTS[by]} and bool(found.elsewhere) == bool(found.foreign.any())
        known = [(one, of) for one, of in zip(samples, there, strict=True) if of]
        values, starts = entry.read(digests(*(one for one, _ in known)))
        for number, (one, of) in enumerate(known):
            here = slice(number, number + 1) if starts is None else slice(*starts[number : number + 2].tolist())
            choices = [by] if by in of else sorted(of)
            assert any(torch.equal(values["v"][here], value(key, one, choice)) for choice in choices)

    @rule(store=stores)
    def close(self, store):
        store.close()

    @rule(store=stores)
    def prune(self, store):
        gone = {one.digest for one in store.prune(0)}
        for number, key in enumerate(KEYS):
            if key.digest in gone:
                self.kept = {one: True for one in self.kept if one[0] != number}

    @invariant()
    def nothing_is_wrong(self):
        if hasattr(self, "folder"):
            assert [*Store.open(self.folder.name).verify()] == []

    def teardown(self):
        if hasattr(self, "folder"):
            self.folder.cleanup()
            merging.MANY = self.many


TestAsADict = AsADict.TestCase
TestAsADict.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
