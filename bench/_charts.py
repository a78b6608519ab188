"""The look of all charts: colours for light and dark pages, and SVG that follows the reader's setting."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

mpl.use("svg")

WIDTH_INCHES, ROW_INCHES = 9.2, 0.26
INK, QUIET, GRID = "#14201c", "#5b6a64", "#c9d2ce"
OURS, PEERS, BOUND = "#1f6fb2", "#c98a2b", "#93a19b"
DARK = {INK: "#e6ede9", QUIET: "#94a49d", GRID: "#46544e", OURS: "#5aa9e6", PEERS: "#e0aa54", BOUND: "#6f7f78"}
"""What each colour becomes on a dark page."""

FONT = {
    "svg.fonttype": "none",  # text stays text: it can be searched, and read aloud
    "svg.hashsalt": "millpond",  # the same figures give the same bytes
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": QUIET,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
}
mpl.rcParams.update(FONT)


def look_of(side: str) -> str:
    """A side's colour: ours, what bounds all, or a peer."""
    name = side.lower()
    if name.startswith(("ceiling", "in process", "from memory", "subprocess")):
        return BOUND
    ours = ("millpond", "guard", "streamed", "decode_video_frames", "get_frame_at", "lerobotdataset of millpond")
    return OURS if name.startswith(ours) else PEERS


def save(figure: Figure, path: Path, words: str) -> None:
    """Write an SVG on a page of any colour; `words` say what it shows to who cannot see it."""
    figure.savefig(path, transparent=True, metadata={"Date": None, "Title": words})
    text = path.read_text(encoding="utf-8")
    start = text.index("<defs>")
    path.write_text(f"{text[:start]}<style>{_style()}</style>\n {text[start:]}", encoding="utf-8")


def _style() -> str:
    rules = [
        f'[style*="{kind}: {light}"] {{ {kind}: {dark} !important }}'
        for light, dark in DARK.items()
        for kind in ("fill", "stroke")
    ]
    return (
        "text { font-family: system-ui, sans-serif !important } "
        "@media (prefers-color-scheme: dark) { " + " ".join(rules) + " }"
    )
