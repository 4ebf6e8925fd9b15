"""`query`: SQL over a trace.  DuckDB executes it over Arrow tables; the tables are those of `tracesvc.model.tables`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from tracesvc.model.arrow import parts
from tracesvc.model.reader import Trace
from tracesvc.model.schema import TABLES, Column
from tracesvc.model.tables import Tables

__all__ = ["Answer", "QueryError", "query", "tables_in"]


class QueryError(ValueError):
    """The database does not accept, or cannot execute, the query."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Rows that a query gave."""

    columns: list[str]
    rows: list[tuple[Any, ...]]
    gaps: int
    """places where events are missing in the trace: what was asked is not known of all of it"""
    truncated: bool
    """whether there are more rows than were asked for"""

    def as_dict(self) -> dict[str, Any]:
        """For JSON: a list of rows, each with names."""
        rows = [dict(zip(self.columns, row, strict=True)) for row in self.rows]
        return {
            "columns": self.columns,
            "rows": rows,
            "gaps": self.gaps,
            "truncated": self.truncated,
        }


def tables_in(sql: str) -> list[str]:
    """The tables that a query can mean: those whose names are words of it."""
    words = set(re.findall(r"[a-z_]+", sql.lower()))
    return [name for name in TABLES if name in words]


def query(trace: Trace, sql: str, *, limit: int | None = None, memory: str = "1GB") -> Answer:
    """Ask a trace in SQL.

    ::

        query(trace, "select reason, sum(duration) from waits group by reason").rows

    Only the tables that the query mentions are made.  It cannot read or write files, nor load extensions.

    Args:
        trace: From `tracesvc.read`; read from where it stands to its present end.
        sql: One SELECT (or whatever else DuckDB executes in memory).
        limit: The most rows to give.
        memory: What DuckDB may use, in its words; beyond that the query fails.

    Raises:
        ImportError: DuckDB or Arrow is not installed.
        QueryError: The query cannot be executed.
        FormatError: It is not a trace.
        OSError: It cannot be read.
    """
    try:
        import duckdb
        import pyarrow as pa  # noqa: F401
    except ImportError as exc:
        raise ImportError(
            "queries need DuckDB and Arrow: pip install 'tracesvc[analysis]'"
        ) from exc

    with duckdb.connect(":memory:") as connection:
        connection.execute("set threads = 2")
        connection.execute(f"set memory_limit = '{memory}'")
        connection.execute("set enable_external_access = false")
        maker = Tables(trace, tables_in(sql))
        for name in TABLES:
            connection.execute(f"create table {name} ({_columns(TABLES[name])})")
        try:
            for name, batch in parts(maker):
                connection.register("part", batch)
                connection.execute(f"insert into {name} select * from part")  # noqa: S608
                connection.unregister("part")
            connection.execute("set lock_configuration = true")
            result = connection.execute(sql)
            names = [column[0] for column in result.description or ()]
            rows = result.fetchall() if limit is None else result.fetchmany(limit + 1)
        except duckdb.Error as exc:
            raise QueryError(str(exc)) from None
    truncated = limit is not None and len(rows) > limit
    return Answer(names, rows[:limit] if truncated else rows, maker.replay.walk.gaps, truncated)


_SQL: Final = {"int": "bigint", "float": "double", "text": "varchar", "bool": "boolean"}


def _columns(columns: Sequence[Column]) -> str:
    return ", ".join(f'"{column.name}" {_SQL[column.type]}' for column in columns)
