"""Where a host's data come from: read by the host itself, or a table given from Python."""

from __future__ import annotations

import sys
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from torch.utils.data import Dataset

from kdmesh.errors import FAULTS, MeshError, untold
from kdmesh.graph.sources import below
from kdmesh.hosts import guard
from kdmesh.imports import maker
from kdmesh.plugins import registry
from kdmesh.spec import DataSpec
from kdmesh.spec.parties import OWN
from kdmesh.streams.private import learnable, own_part
from kdmesh.streams.stream import Stream, resolve
from kdmesh.streams.table import Table
from kdmesh.tables.fitting import Fitted, prepared, prepares
from kdmesh.tables.joined import joined

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from kdmesh.graph.plan import Plan
    from kdmesh.hosts.preprocessing import Read
    from kdmesh.spec import MeshSpec
    from kdmesh.spec.base import DatasetRef


@dataclass
class Source:
    """``table`` None: read what the mesh names. The result is the same in every process.

    ``streams``: where samples are private, the streams over the whole table; a host then gets what :meth:`of` gives.
    ``fitted``: what `prepare` has learned of train, where that was found already: all hosts go by the same numbers.
    ``sizes``: by party whose samples are not here, how many it has.
    ``read``: of hosts in the process that has read the texts before, these as tokens.
    ``expected``: the :func:`digest` of what the driver read, where a host on another machine might read something else.
    """

    table: Table | None = None
    expected: str = ""
    streams: dict[str, Stream] | None = None
    fitted: Fitted | None = None
    sizes: dict[str, int] = field(default_factory=dict)
    read: Read | None = None

    def of(self, host: str, plan: Plan) -> Source:
        """What a host in a process of its own is sent: this, or, of a table that is sent, only its agents' part."""
        if self.table is None or self.streams is None:
            return self
        return replace(self, table=own_part(self.table, self.streams, plan.hosts[host], plan.users))

    def load(self, plan: Plan) -> tuple[Table, dict[str, Stream]]:
        """Return the samples and every stream over them; MeshError if they cannot be read, or are not the expected."""
        spec = plan.spec
        if spec.data is None and self.table is None:
            raise MeshError("this mesh names no data", where="data", instead="data: {dataset: digits}")
        data = spec.data or DataSpec.model_validate("python:given")
        with untold() if data.personal is not None else nullcontext():
            return self._loaded(plan, spec, data)

    def _loaded(self, plan: Plan, spec: MeshSpec, data: DataSpec) -> tuple[Table, dict[str, Stream]]:
        try:
            table = self.table if self.table is not None else _read(data.dataset, "data.dataset", prepares(spec))
            table = self._without_personal(table, data)
            table = self._with_canaries(table, spec, data)
            if self.expected and digest(table) != self.expected:
                raise MeshError(
                    f"{table.source or 'the data set'} has other samples here than where kdmesh was started",
                    where="data.dataset",
                    instead="the same files on every node",
                )
            if plan.task.labels == "relevance" and not table.lists:
                table = replace(table, lists=True)
            if not table.owners and any(party.data for party in spec.parties.values()):
                table = self._with_parties(table, spec, data)
            streams = self.streams or resolve(table, data, spec.streams)
            streams = {name: replace(one, heirs=plan.heirs.get(name, {})) for name, one in streams.items()}
            names = [name for name in ("validation", "test", "transfer") if name in streams]
            others: dict[str, Tensor] = {name: streams[name].rows for name in names}
            table = prepared(table, spec, learnable(streams), self.fitted, others)
        except MeshError:
            raise
        except Exception as error:  # of a user's own data set
            raise MeshError(
                f"the data set cannot be read: {type(error).__name__}"
                f"{'' if data.personal is not None else f': {error}'}",
                where="data.dataset",
                instead="a data set that can be built and indexed",
            ) from (None if data.personal is not None else error)
        return table, streams

    def _without_personal(self, table: Table, data: DataSpec, part: str = "") -> Table:
        """The table without the personal data that the mesh looks for; one that was looked at is as it is."""
        if data.personal is None or table.personal is not None:
            return table
        from kdmesh.hosts.personal import without_personal

        return without_personal(table, data.personal, part)

    def _with_canaries(self, table: Table, spec: MeshSpec, data: DataSpec) -> Table:
        """The table with the canaries that the mesh asks for; one that has them is as it is."""
        if data.canaries is None or table.planted is not None:
            return table
        if any(party.data for party in spec.parties.values()):
            what = "canaries are planted in the samples of `data`, and here parties have others"
            raise MeshError(what, where="data.canaries", instead="parties without `data`, or no canaries")
        if prepares(spec):
            what = "canaries are samples as models see them, and here samples are prepared first"
            raise MeshError(what, where="data.canaries", instead="data without `prepare`")
        from kdmesh.hosts.planting import with_canaries

        return with_canaries(table, data)

    def _with_parties(self, public: Table, spec: MeshSpec, data: DataSpec) -> Table:
        """The public samples with those of parties, all as the mesh prepares them: by what it learns of public ones."""
        open_ = {name: one for name, one in spec.streams.items() if OWN not in (name, *below(spec, name))}
        public = prepared(public, spec, learnable(resolve(public, data, open_)), self.fitted)
        fitted = None if public.prepared is None else Fitted.of(public)
        parts: dict[str, Table | int] = {}
        for name, party in spec.parties.items():
            if name in self.sizes:
                parts[name] = self.sizes[name]
            elif party.data is not None:
                where = f"parties.{name}.data"
                with located("data.dataset", where):
                    own = self._without_personal(_read(party.data, where, prepares(spec)), data, name)
                    if own.personal is not None and public.personal is not None:
                        public.personal.others.append(own.personal)
                        public.notes += own.personal.told()
                    if party.samples not in (None, len(own)):
                        what = f"the file says {party.samples:,}, and there are {len(own):,} samples"
                        raise MeshError(what, where=f"parties.{name}.samples", instead=f"samples: {len(own)}")
                    parts[name] = prepared(own, spec, None, fitted)
        return joined(public, parts, spec)


@contextmanager
def located(part: str, where: str) -> Iterator[None]:
    """Errors of what is usually at ``part`` of the file are of another place: where they name it, they name that."""
    try:
        yield
    except MeshError as error:
        if error.where == part or error.where.startswith(f"{part}."):
            error.where = where + error.where.removeprefix(part)
        raise


def _read(dataset: DatasetRef, where: str, prepares: bool) -> Table:
    """``prepares``: of named columns cells are wanted, which the mesh prepares."""
    if dataset.is_import:
        from kdmesh.streams.from_torch import table_from

        kinds = (Dataset, Table, tuple)
        make = maker(dataset.name, where, kinds, "torch.utils.data.Dataset", _indexed)
        return table_from(make(**dataset.config))
    offer = registry().find("datasets", dataset.name, where)
    if offer.factory.startswith(guard.OURS):
        own: Table = offer.make(dataset.config, **({"cells": True} if prepares and offer.cells else {}))
        return own
    try:
        table: Table = offer.make(dataset.config)
        guard.refuse_table(table)
    except FAULTS as error:
        registry().attribute_error("datasets", offer.name, error, "to give a table", where)
    return table


def _indexed(kind: type) -> bool:
    """Whether a class is one of data sets that knows no torch: with length and index, and none of Python's own."""
    own = kind.__module__.partition(".")[0] not in sys.stdlib_module_names
    return own and hasattr(kind, "__getitem__") and hasattr(kind, "__len__")


def digest(table: Table) -> str:
    """The sha256 of samples and of labels."""
    return " ".join(str(part) for part in table.fingerprint.values())
