"""How fast is a shuffled epoch, over the ceiling and over peers, and what does it cost in CPU, memory and mixing?"""

from __future__ import annotations

from _compare import run, settings_parser

if __name__ == "__main__":
    assert __doc__ is not None
    run("epoch", __doc__, settings_parser(__doc__, window_frames=1, image_size=None).parse_args())
