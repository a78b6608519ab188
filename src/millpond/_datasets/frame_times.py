"""When frames are shown, and for how long: sample tables keep the first, the second follows."""

from __future__ import annotations

import json

import numpy as np
from numpy.typing import NDArray

from millpond._plan.sample_table import SampleTable

_SECONDS_BEFORE = 10


def frame_ticks(table: SampleTable) -> NDArray[np.int64]:
    """int64, (F,): how long each frame is shown, in units of the time base: until the next one.

    The last is shown as long as the one before it; one that is alone, for one unit.
    """
    ticks = np.diff(table.pts[table.frame_rows])
    return np.append(ticks, ticks[-1] if len(ticks) else 1).astype(np.int64)[: table.num_frames]


def frame_mappings(table: SampleTable) -> str:
    """The frames of a file as JSON that torchcodec's `VideoDecoder(custom_frame_mappings=...)` takes.

    Where a GOP's own key is not shown, since an edit list cut it off, its first frame stands for it: what is sought is
    the key at that time or before.
    """
    return _mappings(table, table.gop_starts[:-1])


def mappings_from_the_start(table: SampleTable) -> str:
    """The same for a stream that cannot be entered anywhere but at its beginning.

    The first frame is given a time well before its own, as what is sought: a frame that is shown then or later is it.
    """
    numerator, denominator = table.stream.time_base
    return _mappings(table, np.zeros(1, np.int64), first_ticks_earlier=_SECONDS_BEFORE * denominator // numerator)


def _mappings(table: SampleTable, keys: NDArray[np.int64], first_ticks_earlier: int = 0) -> str:
    pts, is_key = table.pts[table.frame_rows], np.zeros(table.num_frames, np.int64)
    is_key[keys] = 1
    pts[:1] -= first_ticks_earlier
    columns = pts.tolist(), frame_ticks(table).tolist(), is_key.tolist()
    frames = [{"pts": p, "duration": d, "key_frame": k} for p, d, k in zip(*columns, strict=True)]
    return json.dumps({"frames": frames}, separators=(",", ":"))
