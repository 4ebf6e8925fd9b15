"""SQL over the tables of many sessions, which are Parquet files: DuckDB executes it and reads no more than it needs.

Nothing of what SQL can say reaches anything but these tables: one SELECT, no files, no extensions, no settings.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO, Final, TypeAlias

from tracesvc.analysis.query import Answer, QueryError, tables_in
from tracesvc.model.schema import OF_SESSION, SESSIONS, TABLES

__all__ = ["BrokenOffError", "File", "query_many"]

File: TypeAlias = str | BinaryIO
"""a path, or what can be read from and sought in"""

_SESSIONS: Final = "sessions"


class BrokenOffError(QueryError):
    """The query was begun, and broken off: files are damaged or gone, or it wants what is not there."""


def query_many(
    files: Callable[[str], Sequence[File]],
    sql: str,
    *,
    limit: int | None = None,
    memory: str = "1GB",
    gaps: int = 0,
) -> Answer:
    """Ask the tables of many sessions.

    Each of `tracesvc.model.schema.TABLES` begins with the columns ``session`` and ``source`` here, and there is a table
    ``sessions``.

    Args:
        files: Gives the Parquet files of a table, one for each session that has rows in it; asked only for tables that
            the query mentions.
        sql: One SELECT.
        limit: The most rows to give.
        memory: What DuckDB may use, in its words; beyond that it writes to temporary files.
        gaps: Places where events are missing in these sessions, for the answer.

    Raises:
        ImportError: DuckDB or Arrow is not installed.
        QueryError: The query is not one SELECT, or names what is not there.
        BrokenOffError: It cannot be executed to its end.
    """
    try:
        import duckdb
        import pyarrow as pa

        from tracesvc.model.arrow import arrow_schema
    except ImportError as exc:
        raise ImportError(
            "queries need DuckDB and Arrow: pip install 'tracesvc[analysis]'"
        ) from exc
    wanted = {*tables_in(sql), *([_SESSIONS] if _SESSIONS in sql.lower() else [])}
    with (
        tempfile.TemporaryDirectory(prefix="tracesvc-") as spill,
        duckdb.connect(":memory:") as connection,
    ):
        for setting in (
            "threads = 2",
            f"memory_limit = '{memory}'",
            f"temp_directory = '{spill}'",
            "enable_external_access = false",
            "python_enable_replacements = false",
        ):
            connection.execute(f"set {setting}")
        for name in (*TABLES, _SESSIONS):
            columns = SESSIONS if name == _SESSIONS else (*OF_SESSION, *TABLES[name])
            schema = arrow_schema(columns)
            found = files(name) if name in wanted else []
            connection.register(name, _dataset(found, schema) if found else schema.empty_table())
        connection.execute("set lock_configuration = true")
        try:
            _demand_one_select(connection.extract_statements(sql))
            result = connection.execute(sql)
            names = [column[0] for column in result.description or ()]
            rows = result.fetchall() if limit is None else result.fetchmany(limit + 1)
        except (
            duckdb.ParserException,
            duckdb.SyntaxException,
            duckdb.BinderException,
            duckdb.CatalogException,
            duckdb.PermissionException,
        ) as exc:
            raise QueryError(str(exc)) from None
        except (duckdb.Error, pa.ArrowException, OSError) as exc:
            raise BrokenOffError(str(exc)) from None
    truncated = limit is not None and len(rows) > limit
    return Answer(names, rows[:limit] if truncated else rows, gaps, truncated)


def _dataset(files: Sequence[File], schema: Any) -> Any:
    """The files as one table; each page that is read is checked."""
    from pyarrow import dataset, fs

    options = dataset.ParquetFragmentScanOptions(page_checksum_verification=True, pre_buffer=True)
    form = dataset.ParquetFileFormat(default_fragment_scan_options=options)
    local = fs.LocalFileSystem()
    fragments = [
        form.make_fragment(file, local) if isinstance(file, str) else form.make_fragment(file)
        for file in files
    ]
    return dataset.FileSystemDataset(fragments, schema, form)


def _demand_one_select(statements: Sequence[Any]) -> None:
    kinds = [str(one.type).rpartition(".")[2] for one in statements]
    if kinds not in (["SELECT"], ["EXPLAIN"]):
        raise QueryError(f"one SELECT is executed here, not {' and '.join(kinds) or 'nothing'}")
