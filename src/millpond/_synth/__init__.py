"""Synthetic datasets: LeRobot v3.0 on disk, every frame of which says who it is."""

from millpond._synth.encode import CODECS, Codec
from millpond._synth.pattern import draw_pattern, read_pattern
from millpond._synth.writer import camera_key, write_dataset

__all__ = ["CODECS", "Codec", "camera_key", "draw_pattern", "read_pattern", "write_dataset"]
