"""The contract of a data set."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from kdmesh.hosts import guard
from kdmesh.offers import DatasetOffer
from kdmesh.streams.table import Table
from kdmesh.streams.texts import Texts
from kdmesh.testing import small
from kdmesh.testing.alike import Alike, At, here


class DatasetContract(Alike):
    """Checks the table that a data set is read as.

    Where the files are made by the test, override the fixture ``settings``:

        @pytest.fixture
        def settings(self, tmp_path):
            write_samples(tmp_path / "rows.csv")
            return {"path": str(tmp_path / "rows.csv")}
    """

    __test__ = False
    kind = "datasets"
    device = False  # it is read on the CPU

    @pytest.fixture
    def table(self, offer: DatasetOffer, settings: dict[str, Any]) -> Table:
        """The data set, read once."""
        made: Table = offer.make(settings)
        assert isinstance(made, Table), f"the factory made a {type(made).__name__}, not a Table"
        return made

    def small_mesh(self, offer: DatasetOffer, settings: dict[str, Any]) -> tuple[dict[str, Any], None]:
        """Two agents that learn what its samples have labels for, and one from the other."""
        found: Table = offer.make(settings)
        task, kind, head = small.task_of(found)
        own = small.model(kind, head=head)
        connect = [{"ensemble": {"teachers": "a", "student": "b", **small.compared(kind)}}]
        fields = small.mesh(("a", "b"), own, task, connect=connect)
        fields["data"] = {"dataset": {offer.name: settings}, "validation": 0.5 if len(found) < 40 else 0.1}
        fields["train"]["batch_size"] = 4
        return fields, None

    def made(self, offer: DatasetOffer, settings: dict[str, Any]) -> Table:
        """The data set, read."""
        found: Table = offer.make(settings)
        return found

    def asked(self, offer: DatasetOffer, thing: Table, number: int, at: At = here) -> Any:
        """All that is in it; of one that is not deterministic, its labels' names."""
        if not thing.deterministic:
            return thing.classes, thing.labels
        samples = list(map(repr, thing.x)) if isinstance(thing.x, Texts) else thing.tensor
        splits = {name: thing.official[name] for name in sorted(thing.official)}
        return samples, thing.y, thing.classes, thing.labels, splits, thing.columns, thing.features

    def test_reading_draws_nothing(self, offer: DatasetOffer, settings: dict[str, Any]) -> None:
        """It neither draws from the default generators of torch, numpy and Python nor seeds them: others do."""
        try:
            with guard.seeded(3, strict=True):
                self.made(offer, settings)
        except ValueError as error:
            raise AssertionError(str(error)) from None

    def test_samples(self, table: Table) -> None:
        """Finite float32 samples ``[N, ...]``, or texts that are not empty; at least one."""
        if isinstance(table.x, Texts):
            assert len(table), "there are no texts"
            empty = [row for row, sample in enumerate(table.x) if not (sample.text or sample.messages)]
            assert not empty, f"empty texts in rows {empty[:5]}"
            return
        x = table.tensor
        assert x.dtype == torch.float32, f"x is {x.dtype}"
        assert x.dim() >= 2 and x.numel(), f"x has shape {tuple(x.shape)}"
        assert x.isfinite().all(), "x is not finite everywhere"

    def test_labels_are_in_range(self, table: Table) -> None:
        """Int64 labels ``[N]`` in ``0 .. classes - 1``, or none; class names, if any, one per class.

        Or finite values ``[N, T]`` of float32, or indicators ``[N, K]`` of int64, 0 and 1, and no class.

        Texts that nothing classifies have 0 classes; samples of an official `transfer` split may have no label.
        """
        known = torch.ones(len(table), dtype=torch.bool)
        known[table.official.get("transfer", torch.arange(0))] = False
        if table.y is not None and table.kind != "classes":
            assert table.classes == 0, f"{table.kind} have no classes"
            wanted = torch.float32 if table.kind == "values" else torch.int64
            assert table.y.dtype == wanted and table.y.dim() == 2, f"y is {table.y.dtype} {tuple(table.y.shape)}"
            assert len(table.y) == len(table) and table.y.shape[1], f"{tuple(table.y.shape)} for {len(table)} samples"
            assert len(table.labels) in (0, table.y.shape[1]), f"{len(table.labels)} names of {table.y.shape[1]}"
            own = table.y[known]
            assert own.isfinite().all(), "y is not finite everywhere"
            assert table.kind == "values" or ((own == 0) | (own == 1)).all(), "y is not 0 or 1 everywhere"
            return
        assert table.classes >= (0 if table.is_text and table.y is None else 1)
        assert len(table.labels) in (0, table.classes), f"{len(table.labels)} names for {table.classes} classes"
        if table.y is not None:
            assert table.y.dtype == torch.int64, f"y is {table.y.dtype}"
            assert table.y.shape == (len(table),), f"y has shape {tuple(table.y.shape)} for {len(table)} samples"
            low, high = int(table.y[known].min()), int(table.y[known].max())
            assert 0 <= low <= high < table.classes, f"labels {low} to {high} of {table.classes} classes"

    def test_official_splits_are_disjoint(self, table: Table) -> None:
        """Splits name rows of the table; no row is in two, nor twice in one."""
        taken: dict[int, str] = {}
        for name, rows in table.official.items():
            assert rows.dtype == torch.int64 and rows.dim() == 1, f"split {name}: rows are int64 numbers [n]"
            for row in rows.tolist():
                assert 0 <= row < len(table), f"split {name}: there is no row {row}"
                assert row not in taken, f"row {row} is in split {taken[row]} and in {name}"
                taken[row] = name

    def test_columns_have_a_value_per_row(self, table: Table) -> None:
        """Every further column is as long as the table."""
        wrong = [name for name, values in table.columns.items() if len(values) != len(table)]
        assert not wrong, f"columns of another length: {', '.join(wrong)}"

    def test_reading_again_gives_the_same(self, offer: DatasetOffer, settings: dict[str, Any], table: Table) -> None:
        """Hosts read the data set for themselves, so that a row is the same sample everywhere."""
        if not table.deterministic:
            pytest.skip("the table says that it is not deterministic")
        again: Table = offer.make(settings)
        if isinstance(table.x, Texts):
            assert list(again.texts) == list(table.x), "texts differ from one reading to the next"
        else:
            assert torch.equal(again.tensor, table.tensor), "samples differ from one reading to the next"
        assert (again.y is None) == (table.y is None)
        assert table.y is None or again.y is None or torch.equal(again.y, table.y), "labels differ"
        assert again.official.keys() == table.official.keys() and again.columns == table.columns
        assert all(torch.equal(again.official[name], rows) for name, rows in table.official.items()), "splits differ"
