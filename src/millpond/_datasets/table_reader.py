"""Reads the numbers of samples: rows of mapped column files, all samples of a call at once."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from millpond._datasets.base import ReadReport, Sink
from millpond._datasets.columns import map_rows
from millpond._datasets.open_files import OpenFiles
from millpond._datasets.places import NOWHERE
from millpond._datasets.sources import Call, Positions, TableSource, explain
from millpond._datasets.windows import PAD_SUFFIX, padded_steps, window_positions
from millpond.errors import CorruptMedia


class _MappedRows:
    """Rows of a column file; letting go of them unmaps the file."""

    def __init__(self, path: str) -> None:
        self.rows = map_rows(path)

    def close(self) -> None:
        self.rows = np.empty(0)


class TableReader:
    """The numbers of a dataset.

    Args:
        source: Where they are.
        max_open_files: Column files mapped at once.
    """

    def __init__(self, source: TableSource, max_open_files: int) -> None:
        self._source = source
        self._tables: OpenFiles[int, _MappedRows] = OpenFiles(max_open_files)

    def close(self) -> None:
        """Unmap all files. Idempotent; they are mapped again as needed."""
        self._tables.close()

    def read(self, call: Call, sink: Sink, report: ReadReport) -> None:
        """Fill every column and every `_is_pad`; zeros where a sample has no row."""
        table, count = self._source, len(call.episodes)
        own_rows = table.places.at(call.episodes, call.positions)
        bad = own_rows == NOWHERE
        files = table.places.file_of[call.episodes]
        windows: dict[str, Positions] = {}
        for name, offsets in table.offsets.items():
            sink.put(name + PAD_SUFFIX, padded_steps(call.positions, call.lengths, offsets))
        for name, _, _ in table.columns:
            if name in table.offsets:
                positions = window_positions(call.positions, call.lengths, table.offsets[name])
                windows[name] = table.places.at(call.episodes, positions)
                if table.places.scattered:
                    bad |= (windows[name] == NOWHERE).any(axis=1)
        unreadable = bad | self._mapped(files, bad, report)
        is_simple = not unreadable.any() and bool((files == files[0]).all())
        whole = self._rows_of(int(files[0])) if is_simple else None
        for name, shape, dtype in table.columns:
            rows = windows.get(name, own_rows)
            if whole is not None:
                sink.put(name, np.asarray(whole[name][rows]))
            else:
                sink.put(name, self._gather(name, (*rows.shape, *shape), dtype, rows, files, unreadable))
        explain(table.places, call, bad, None, report)
        report.counters["table_rows"] = count

    def _mapped(self, files: Positions, bad: NDArray[np.bool_], report: ReadReport) -> NDArray[np.bool_]:
        """Map the files of some samples; where that fails say so, bool (L,)."""
        broken = np.zeros(len(files), np.bool_)
        for file in sorted(set(files[~bad].tolist())):
            try:
                self._rows_of(file)
            except (OSError, ValueError) as error:
                broken |= files == file
                path = self._source.paths[file]
                text = f"the table columns in '{path}' do not map ({error}); open the dataset again"
                report.failures.append((np.flatnonzero(files == file), CorruptMedia(text, path=path)))
        return broken

    def _rows_of(self, file: int) -> NDArray[Any]:
        return self._tables.get(file, lambda: _MappedRows(self._source.paths[file])).rows

    def _gather(
        self, name: str, shape: tuple[int, ...], dtype: str, rows: Positions, files: Positions, bad: NDArray[np.bool_]
    ) -> NDArray[Any]:
        """Values of one column from several files, (L, ...); zeros for bad samples."""
        values = np.zeros(shape, dtype)
        for file in np.unique(files[~bad]).tolist():
            own = (files == file) & ~bad
            values[own] = self._rows_of(file)[name][rows[own]]
        return values
