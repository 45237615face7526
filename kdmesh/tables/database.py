"""Rows of a database, which is only read: the answer to one query, by SQLAlchemy."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import Any

from kdmesh.errors import MeshError, text_of
from kdmesh.tables.files import most_cells, refuse_cells, regular
from kdmesh.tables.rows import Rows, cell, number_of

READS = ("select", "with", "values", "table")
READ_ONLY = {
    "postgresql": "SET TRANSACTION READ ONLY",
    "mysql": "SET SESSION TRANSACTION READ ONLY",
    "mariadb": "SET SESSION TRANSACTION READ ONLY",
}
AT_ONCE = 4096  # rows


def engine_of(path: str | None, url: str | None, url_env: str | None, where: str) -> Any:
    """An engine for an SQLite file that is opened for reading alone, or for what a URL names."""
    try:
        library = import_module("sqlalchemy")
    except ModuleNotFoundError:
        what, instead = "databases need SQLAlchemy", 'pip install "kdmesh[sql]"'
        raise MeshError(what, where=where, instead=instead) from None
    if path is not None:
        regular(Path(path), f"{where}.path")
        return library.create_engine(f"sqlite:///file:{_quoted(path)}?mode=ro&uri=true")
    key = "url" if url is not None else "url_env"
    if url is None:
        url = os.environ.get(url_env or "", "")
        if not url:
            what = f"the environment has no variable {url_env!r}"
            raise MeshError(what, where=f"{where}.url_env", instead="the variable that holds the URL")
    try:
        made = library.make_url(url)
        if key == "url" and made.password is not None:
            what, instead = "this URL has a password, which would stand in the run's files", "url_env: VARIABLE"
            raise MeshError(what, where=f"{where}.url", instead=instead)
        if made.get_backend_name() == "sqlite":
            raise MeshError("an SQLite file", where=f"{where}.{key}", instead="path: FILE, which is opened read-only")
        return library.create_engine(made)
    except (library.exc.SQLAlchemyError, ModuleNotFoundError, ValueError) as error:  # a driver that is not installed
        instead = "dialect+driver://host/database, and the driver's package"
        raise MeshError(f"no such database: {text_of(error)}", where=f"{where}.{key}", instead=instead) from None


def read_query(engine: Any, query: str, source: str, where: str) -> Rows:
    """The rows that a query gives, in its order. MeshError for one that is not of reading, or that fails."""
    library = import_module("sqlalchemy")
    words = query.strip().split(None, 1)
    if not words or words[0].lower() not in READS:
        raise MeshError(f"{query.strip()[:60]!r} reads nothing", where=where, instead="SELECT ... ORDER BY ...")
    dialect = engine.dialect.name
    try:
        with engine.connect() as connection:
            if dialect in READ_ONLY:
                connection.execute(library.text(READ_ONLY[dialect]))
            # As it stands: `:name` and `%` are no parameters, for there are none.
            reading = connection.execution_options(stream_results=True, no_parameters=True)
            found = reading.exec_driver_sql(query)
            if not found.returns_rows:
                raise MeshError("this query gives no rows", where=where, instead="SELECT ... ORDER BY ...")
            columns = [str(name) for name in found.keys()]  # noqa: SIM118  # a result is no mapping
            if len(set(columns)) < len(columns):
                raise MeshError(f"columns {columns}", where=where, instead="a name for each column, each once (AS)")
            most, cells = most_cells(), list[dict[str, Any]]()
            for part in found.partitions(AT_ONCE):
                refuse_cells(Path(source), (len(cells) + len(part)) * len(columns), most, where)
                cells += [{name: cell(one) for name, one in zip(columns, row, strict=True)} for row in part]
            connection.rollback()
    except library.exc.SQLAlchemyError as error:
        what = f"{source}: {text_of(getattr(error, 'orig', None) or error)}"
        raise MeshError(
            what, where=where, instead="a query that this database answers, and that changes nothing"
        ) from None
    if not cells:
        raise MeshError(f"{source}: no rows", where=where, instead="a query with at least one row")
    return Rows(source, where, columns, list(range(len(cells))), cells, number_of, noun="row")


def _quoted(path: str) -> str:
    from urllib.parse import quote

    return quote(str(Path(path).absolute()))
