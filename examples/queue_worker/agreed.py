"""What the parts have agreed on. It imports nothing heavy: loader workers import it, for every job."""

from __future__ import annotations

from typing import TypedDict

IMAGE_PIXELS = 128
"""Height and width of every image that the detector sees."""
CROP_PIXELS = 16
"""Height and width of what the classifier sees of an object."""
MAX_OBJECTS = 4
"""In one image."""
COLOURS = {
    "red": (220, 40, 40),
    "green": (40, 200, 40),
    "blue": (40, 60, 220),
    "yellow": (210, 210, 30),
    "magenta": (210, 40, 210),
    "cyan": (40, 210, 210),
}
"""The classes, and the RGB of each, 0 to 255."""


class Task(TypedDict):
    """What a service is told of a task."""

    id: str
    image_url: str
    reply_subject: str
