"""Rows of a database: the answers to a query for each split, by SQLAlchemy; nothing is written."""

from __future__ import annotations

from pathlib import Path

from kdmesh.streams.table import Table
from kdmesh.tables.database import engine_of, read_query
from kdmesh.tables.rows import table_of

WHERE = "data.dataset.sql"


def sql(
    query: str,
    path: str | None = None,
    url: str | None = None,
    url_env: str | None = None,
    validation_query: str | None = None,
    test_query: str | None = None,
    transfer_query: str | None = None,
    label: str | None = None,
    features: list[str] | None = None,
    classes: int | None = None,
    values: list[str] | None = None,
    indicators: list[str] | None = None,
    cells: bool = False,
) -> Table:
    """Return features ``[N, F]`` and labels of the rows that queries give, in their order.

    Rows of ``transfer_query`` have no labels, nor have those of ``query`` in which they are NULL. With ``cells``
    features are prepared later, see :func:`kdmesh.tables.rows.table_of`.
    """
    engine = engine_of(path, url, url_env, WHERE)
    source = Path(path).name if path is not None else f"{engine.url.host or 'the database'}/{engine.url.database or ''}"
    try:
        queries = {
            "query": query,
            "validation_query": validation_query,
            "test_query": test_query,
            "transfer_query": transfer_query,
        }
        parts = {
            "train" if key == "query" else key.removesuffix("_query"): read_query(
                engine, asked, f"{source}, {key}", f"{WHERE}.{key}"
            )
            for key, asked in queries.items()
            if asked is not None
        }
    finally:
        engine.dispose()
    found = table_of(parts, label, features, classes, values, indicators, cells)
    found.source = source
    return found
