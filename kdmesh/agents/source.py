"""Where a host's data come from: read by the host itself, or a table given from Python."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kdmesh.agents.build import import_path
from kdmesh.errors import MeshError
from kdmesh.plugins import registry
from kdmesh.spec import DataSpec
from kdmesh.streams.stream import Stream, resolve
from kdmesh.streams.table import Table

if TYPE_CHECKING:
    from kdmesh.graph.plan import Plan


@dataclass
class Source:
    """``table`` None: read what the mesh names. The result is the same in every process."""

    table: Table | None = None

    def load(self, plan: Plan) -> tuple[Table, dict[str, Stream]]:
        """Return the samples and every stream over them."""
        spec = plan.spec
        if spec.data is None and self.table is None:
            raise MeshError("this mesh names no data", where="data", instead="data: {dataset: digits}")
        table = self.table if self.table is not None else self._read(spec.data)
        data = spec.data or DataSpec.model_validate("python:given")
        streams = resolve(table, data, spec.streams, spec.seed)
        return table, streams

    @staticmethod
    def _read(data: DataSpec | None) -> Table:
        assert data is not None
        if data.dataset.is_import:
            from kdmesh.streams.from_torch import table_from

            return table_from(import_path(data.dataset.name, "data.dataset")(**data.dataset.config))
        table = registry().find("datasets", data.dataset.name, "data.dataset").make(data.dataset.config)
        assert isinstance(table, Table)
        return table
