"""The folder of a soak: looks as they come, and at the end the verdicts and the page."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from millpond._whole_files import write_whole
from millpond.errors import UsageError

_log = logging.getLogger("millpond.soak")

ALL_LOOKS = 10_000
"""Of them each is a line; of ten times as many every tenth, and so on: some 2 MB for each factor of ten."""


class SoakFolder:
    """A folder that holds one soak.

    Args:
        path: Of the folder; made if it is not there. It may hold other things.

    Raises:
        UsageError: It holds a soak already, or cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.samples_path, self.result_path = path / "samples.jsonl", path / "soak.json"
        self.report_path = path / "report.html"
        self._made = not path.exists()
        self._num_looks = 0
        self._samples = self._opened()

    def __enter__(self) -> SoakFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it; where nothing came of the soak it goes as it came."""
        self._samples.close()
        if self._num_looks == 0 and not self.result_path.exists():
            self.samples_path.unlink(missing_ok=True)
            if self._made:
                with contextlib.suppress(OSError):  # somebody has put something there
                    self.path.rmdir()

    def _opened(self) -> IO[str]:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if os.path.lexists(self.result_path) or os.path.lexists(self.report_path):
                raise FileExistsError
            return self.samples_path.open("x", encoding="utf-8")
        except FileExistsError:
            if not self.path.is_dir():
                raise UsageError(f"'{self.path}' is a file: give --out a folder", path=str(self.path)) from None
            raise UsageError(
                f"'{self.path}' holds a soak already: give another --out, or remove it", path=str(self.path)
            ) from None
        except OSError as error:
            raise UsageError(
                f"cannot soak into '{self.path}' ({error.strerror}): give --out a folder that can be written",
                path=str(self.path),
            ) from error

    def write_look(self, seconds: float, values: Mapping[str, float]) -> None:
        """Add a line, at once; a full disk is told of once, and ends no soak."""
        self._num_looks += 1
        if self._num_looks % 10 ** max(0, len(str(self._num_looks // ALL_LOOKS)) - (self._num_looks < ALL_LOOKS)):
            return
        try:
            self._samples.write(json.dumps({"seconds": round(seconds, 3), **values}) + "\n")
            self._samples.flush()
        except (OSError, ValueError) as error:
            if not self._samples.closed:
                _log.warning("looks are no longer written to %r: %s", str(self.samples_path), error)
                with contextlib.suppress(OSError):
                    self._samples.close()

    def write_result(self, result: Mapping[str, Any], page: Callable[[], str]) -> None:
        """Write `soak.json` and `report.html`, each in one step; the page is made in between, which takes seconds.

        Raises:
            UsageError: They cannot be written.
        """
        try:
            write_whole(
                self.result_path,
                (json.dumps(result, indent=1, allow_nan=False) + "\n").encode(errors="backslashreplace"),
            )
            write_whole(self.report_path, page().encode(errors="backslashreplace"))
        except OSError as error:
            raise UsageError(
                f"cannot write into '{self.path}' ({error.strerror}); what was seen is in '{self.samples_path}'",
                path=str(self.path),
            ) from error
