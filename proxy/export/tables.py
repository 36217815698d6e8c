"""CSV (RFC 4180) and Parquet: a flat row a call."""

from __future__ import annotations

import csv
import importlib
import io
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Final

from proxy.export.columns import COLUMNS, flat
from proxy.export.formats import Tally
from storage.records import StoredCall

__all__ = ["Csv", "Parquet", "PyarrowMissing"]

# Of a row group of Parquet, which is in memory at once: rows, and bytes of bodies.
_MOST_ROWS: Final = 10_000
_MOST_BYTES: Final = 16 * 1024 * 1024


class Csv:
    """Null is an empty field, a boolean ``true`` or ``false``."""

    media_type = "text/csv"

    def __init__(self) -> None:
        self.tally = Tally()
        self._text = io.StringIO(newline="")
        self._writer = csv.writer(self._text)
        self._writer.writerow(COLUMNS)

    def add(self, calls: Sequence[StoredCall]) -> Iterator[bytes]:
        """A record a call."""
        for stored in calls:
            self.tally.read += 1
            self.tally.written += 1
            values = flat(stored)
            self._writer.writerow([str(value).lower() if isinstance(value, bool) else value for value in values])
            yield self._take()

    def end(self) -> Iterator[bytes]:
        """The header, if there was no call."""
        yield self._take()

    def close(self) -> None:
        """Nothing."""

    def _take(self) -> bytes:
        written = self._text.getvalue().encode("utf-8")
        self._text.seek(0)
        self._text.truncate()
        return written


class PyarrowMissing(Exception):
    """Parquet is written by a library that is not installed."""

    def __init__(self) -> None:
        super().__init__("the format parquet needs pyarrow: pip install 'kibitz[parquet]'")


class Parquet:
    """Row groups of `_MOST_ROWS` at most, packed by zstd. Raises `PyarrowMissing`."""

    media_type = "application/vnd.apache.parquet"

    def __init__(self) -> None:
        self.tally = Tally()
        try:
            self._arrow = importlib.import_module("pyarrow")
            parquet = importlib.import_module("pyarrow.parquet")
        except ImportError:
            raise PyarrowMissing from None
        types = {
            "text": self._arrow.string(),
            "integer": self._arrow.int64(),
            "number": self._arrow.float64(),
            "boolean": self._arrow.bool_(),
            "time": self._arrow.timestamp("us", tz="UTC"),
        }
        self._schema = self._arrow.schema([(name, types[kind]) for name, kind in COLUMNS.items()])
        self._sink = _Sink()
        self._file = parquet.ParquetWriter(self._sink, self._schema, compression="zstd")
        self._rows: list[list[Any]] = []
        self._size = 0

    def add(self, calls: Sequence[StoredCall]) -> Iterator[bytes]:
        """A row group, as often as one is full."""
        for stored in calls:
            self.tally.read += 1
            self.tally.written += 1
            self._rows.append(flat(stored))
            self._size += stored.call.request.size + stored.call.response.size
            if len(self._rows) >= _MOST_ROWS or self._size >= _MOST_BYTES:
                self._write_group()
                yield self._sink.take()

    def end(self) -> Iterator[bytes]:
        """The last row group, and where all of them are."""
        if self._rows:
            self._write_group()
        self._file.close()
        yield self._sink.take()

    def close(self) -> None:
        """Nothing; a writer that was left open is closed into a sink that nobody reads."""
        self._file.close()

    def _write_group(self) -> None:
        columns = zip(*self._rows, strict=True)
        kinds = zip(COLUMNS.values(), columns, strict=True)
        arrays = [[_moment(value) for value in column] if kind == "time" else column for kind, column in kinds]
        typed = [self._arrow.array(array, field.type) for array, field in zip(arrays, self._schema, strict=True)]
        self._file.write_table(self._arrow.Table.from_arrays(typed, schema=self._schema))
        self._rows, self._size = [], 0


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


class _Sink(io.RawIOBase):
    """Takes what is written, in order, and hands it on."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._position = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def write(self, data: Any) -> int:
        part = bytes(data)
        self._parts.append(part)
        self._position += len(part)
        return len(part)

    def take(self) -> bytes:
        """What has been written since the last time."""
        parts, self._parts = self._parts, []
        return b"".join(parts)
