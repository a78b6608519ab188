"""Sounds of every kind, made by PyAV's own encoders."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

RATE, SECONDS = 8000, 1.5


def tone(channels: int = 1, rate: int = RATE, seconds: float = SECONDS) -> NDArray[np.float32]:
    """Sines of 300 Hz, 600 Hz, ...: float32, (C, N)."""
    times = np.arange(int(rate * seconds)) / rate
    return np.stack([0.5 * np.sin(2 * np.pi * 300 * (c + 1) * times) for c in range(channels)]).astype(np.float32)


def write_sound(path: Path, codec: str, samples: NDArray[np.float32], *, rate: int = RATE, **options: str) -> Path:
    """Encode samples into a file, whose name says which container it is."""
    with av.open(str(path), "w", options=options) as out:
        stream: Any = out.add_stream(codec, rate=rate, layout="stereo" if len(samples) == 2 else "mono")
        for start in range(0, samples.shape[1], 1024):
            frame = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(samples[:, start : start + 1024]), format="fltp", layout=stream.layout.name
            )
            frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def remux_sound(source: Path, target: Path, *, shift_seconds: float = 0.0, hole: tuple[float, float] = (0, 0)) -> Path:
    """Copy the packets of a sound: later by some seconds, and without those that begin within the hole."""
    with av.open(str(source)) as inp, av.open(str(target), "w") as out:
        stream = inp.streams.audio[0]
        copy = out.add_stream_from_template(stream)
        for packet in inp.demux(stream):
            if packet.pts is None or packet.dts is None or packet.time_base is None:
                continue
            if hole[0] <= packet.pts * packet.time_base < hole[1]:
                continue
            shift = round(shift_seconds / packet.time_base)
            packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, copy
            out.mux(packet)
    return target
