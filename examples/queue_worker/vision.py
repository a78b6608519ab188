"""The two models: where something is, and what colour it has."""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from examples.queue_worker.agreed import COLOURS, CROP_PIXELS

_FOLDER = Path(__file__).resolve().parent / "models"
_LEAST_SCORE = 0.2  # noise of a JPEG stays below 0.05, the smallest disc of the demo is above 0.4
_LABELS = tuple(COLOURS)


class Found(TypedDict):
    """One object: what it is, and where, as a fraction of width and height from the upper left."""

    label: str
    confidence: float
    score: float
    x: float
    y: float


class Vision:
    """Runs both models on this process's CPU, with one thread: the loader workers have the other cores."""

    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._detector = _session("detector.onnx", options)
        self._classifier = _session("classifier.onnx", options)

    def look(self, images: NDArray[np.uint8]) -> list[list[Found]]:
        """Say what is in each image, the most certain first.

        Args:
            images: uint8, (N, 3, H, W), RGB; N may be 0. Not kept.
        """
        if not len(images):
            return []
        scores, centres = self._detector.run(["scores", "centres"], {"images": images})
        is_found = scores > _LEAST_SCORE
        owners, ranks = np.nonzero(is_found)
        found: list[list[Found]] = [[] for _ in images]
        if not len(owners):
            return found
        crops = _crops(images, owners, centres[is_found])
        (probabilities,) = self._classifier.run(["probabilities"], {"crops": crops})
        height, width = images.shape[2:]
        for owner, rank, chances in zip(owners, ranks, probabilities, strict=True):
            y, x = centres[owner, rank]
            best = int(chances.argmax())
            found[owner].append(
                Found(
                    label=_LABELS[best],
                    confidence=round(float(chances[best]), 4),
                    score=round(float(scores[owner, rank]), 4),
                    x=round(float(x) / width, 4),
                    y=round(float(y) / height, 4),
                )
            )
        return found


def _session(name: str, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(_FOLDER / name), options, providers=["CPUExecutionProvider"])


def _crops(images: NDArray[np.uint8], owners: NDArray[np.intp], centres: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Cut a square around each centre, moved into the image where it would lie outside.

    Args:
        images: uint8, (N, 3, H, W).
        owners: int, (M,), the image of each.
        centres: int64, (M, 2), y and x in pixels.

    Returns:
        uint8, (M, 3, CROP_PIXELS, CROP_PIXELS).
    """
    corners = np.clip(centres - CROP_PIXELS // 2, 0, np.array(images.shape[2:]) - CROP_PIXELS)
    cut = [
        images[owner, :, y : y + CROP_PIXELS, x : x + CROP_PIXELS]
        for owner, (y, x) in zip(owners, corners, strict=True)
    ]
    return np.stack(cut)
