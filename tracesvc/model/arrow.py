"""The tables of a trace as Arrow tables. Needs PyArrow: ``pip install 'tracesvc[analysis]'``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from tracesvc.model.schema import TABLES, Column
from tracesvc.model.tables import Data, Tables

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["arrow_schema", "parts", "schema_of"]

ROWS: Final = 1 << 20
"""rows that are handed on together, at least"""


def schema_of(table: str) -> pa.Schema:
    """Of one of `tracesvc.model.schema.TABLES`."""
    return arrow_schema(TABLES[table])


def arrow_schema(columns: Sequence[Column]) -> pa.Schema:
    """Of a table with these columns."""
    import pyarrow as pa

    return pa.schema([(column.name, _type(column)) for column in columns])


def parts(maker: Tables, rows: int = ROWS) -> Iterator[tuple[str, pa.Table]]:
    """(table, rows of it) as Arrow tables, of about so many rows."""
    import pyarrow as pa

    waiting: dict[str, list[pa.Table]] = {}
    for name, data in maker.parts():
        gathered = waiting.setdefault(name, [])
        gathered.append(_arrow(name, data))
        if sum(part.num_rows for part in gathered) >= rows:
            yield name, pa.concat_tables(waiting.pop(name))
    for name, gathered in waiting.items():
        yield name, pa.concat_tables(gathered)


def _arrow(name: str, data: dict[str, Data]) -> pa.Table:
    import pyarrow as pa

    arrays = {column.name: _array(column, data[column.name]) for column in TABLES[name]}
    return pa.table(arrays)


def _array(column: Column, data: Data) -> Any:
    import pyarrow as pa

    if data.texts is not None:
        codes = pa.array(data.values.astype(np.int32), mask=data.null)
        # Only the texts that occur: what the whole trace has named may be long.
        used, places = np.unique(data.values, return_inverse=True)
        texts = pa.array([data.texts[i] for i in used.tolist()], pa.string())
        codes = pa.array(places.astype(np.int32).reshape(-1), mask=data.null)
        return texts.take(codes)
    return pa.array(data.values, _type(column), mask=data.null)


def _type(column: Column) -> Any:
    import pyarrow as pa

    types = {"int": pa.int64(), "float": pa.float64(), "text": pa.string(), "bool": pa.bool_()}
    return types[column.type]
