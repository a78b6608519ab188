"""When frames are shown, and for how long: sample tables keep the first, the second follows."""

from __future__ import annotations

import json

import numpy as np
from numpy.typing import NDArray

from millpond._plan.sample_table import SampleTable


def frame_ticks(table: SampleTable) -> NDArray[np.int64]:
    """int64, (F,): how long each frame is shown, in units of the time base: until the next one.

    The last is shown as long as the one before it; one that is alone, for one unit.
    """
    ticks = np.diff(table.pts[table.frame_rows])
    return np.append(ticks, ticks[-1] if len(ticks) else 1).astype(np.int64)[: table.num_frames]


def frame_mappings(table: SampleTable) -> str:
    """The frames of a file as JSON that torchcodec's `VideoDecoder(custom_frame_mappings=...)` takes."""
    rows = table.frame_rows
    columns = table.pts[rows].tolist(), frame_ticks(table).tolist(), table.is_key[rows].tolist()
    frames = [{"pts": p, "duration": d, "key_frame": int(k)} for p, d, k in zip(*columns, strict=True)]
    return json.dumps({"frames": frames}, separators=(",", ":"))
