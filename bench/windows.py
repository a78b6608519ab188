"""How fast are shuffled windows of 8 frames of every camera, resized, over peers with the same windows and resize?

A frame is decoded once and shown in 8 samples, so the rate may stay near the ceiling, where others decode it 8 times.
"""

from __future__ import annotations

from _compare import run, settings_parser

if __name__ == "__main__":
    assert __doc__ is not None
    run("windows", __doc__, settings_parser(__doc__, window_frames=8, image_size=(224, 224)).parse_args())
