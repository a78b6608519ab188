"""Sample tables of many files in a few long arrays: what an index of episodes keeps of them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from millpond._plan.sample_table import Backend, SampleTable
from millpond._values import FileIdentity, StreamParameters

COLUMNS = {
    "pts": np.int64,
    "dts": np.int64,
    "offset": np.int64,
    "size": np.int32,
    "is_key": np.bool_,
    "is_discard": np.bool_,
    "crc": np.uint32,
    "crc_known": np.bool_,
}
"""Of a sample table, and of the arrays here."""

_MAX_TABLES = 64
"""Tables that are kept with all that follows from them: of 3,000 rows that is 0.2 MB each."""


@dataclass(frozen=True, slots=True)
class TableFacts:
    """All of a sample table but its columns."""

    stream: StreamParameters
    identity: FileIdentity
    backend: Backend
    is_mirrored: bool

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "stream": {**asdict(self.stream), "extradata": self.stream.extradata.hex()}}

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> TableFacts:
        """What `to_json` gave."""
        stream = dict(facts["stream"])
        stream["extradata"] = bytes.fromhex(stream["extradata"])
        stream["time_base"] = tuple(stream["time_base"])
        identity = FileIdentity(**facts["identity"])
        return cls(StreamParameters(**stream), identity, facts["backend"], facts["is_mirrored"])


class TableColumns:
    """The sample tables of T files. Any thread; picklable.

    Args:
        facts: Of each table.
        bounds: int64, (T + 1,), where the rows of each begin in the columns.
        columns: By the names of `COLUMNS`, each (rows of all tables,).
    """

    def __init__(self, facts: Sequence[TableFacts], bounds: NDArray[np.int64], columns: Mapping[str, Any]) -> None:
        self.facts = tuple(facts)
        self.bounds = bounds
        self.columns = dict(columns)
        self._tables: OrderedDict[int, SampleTable] = OrderedDict()
        self._lock = threading.Lock()

    @classmethod
    def of(cls, tables: Sequence[SampleTable]) -> TableColumns:
        """Copy tables together."""
        bounds = np.concatenate(([0], np.cumsum([table.num_rows for table in tables]))).astype(np.int64)
        columns = {
            name: np.concatenate([np.zeros(0, dtype), *(getattr(table, name) for table in tables)])
            for name, dtype in COLUMNS.items()
        }
        facts = [TableFacts(table.stream, table.identity, table.backend, table.is_mirrored) for table in tables]
        return cls(facts, bounds, columns)

    def __getstate__(self) -> dict[str, Any]:
        return {"facts": self.facts, "bounds": self.bounds, "columns": self.columns}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def table(self, number: int) -> SampleTable:
        """The table of a file; what follows from it is worked out once, as long as few others are asked for."""
        with self._lock:
            table = self._tables.get(number)
            if table is None:
                table = self._tables[number] = self._made(number)
            self._tables.move_to_end(number)
            while len(self._tables) > _MAX_TABLES:
                self._tables.popitem(last=False)
            return table

    def _made(self, number: int) -> SampleTable:
        facts, rows = self.facts[number], slice(int(self.bounds[number]), int(self.bounds[number + 1]))
        return SampleTable(
            stream=facts.stream,
            identity=facts.identity,
            backend=facts.backend,
            is_mirrored=facts.is_mirrored,
            **{name: self.columns[name][rows] for name in COLUMNS},
        )
