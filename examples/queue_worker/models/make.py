"""Make detector.onnx and classifier.onnx: `python -m examples.queue_worker.models.make`.

Nobody trained them. Their weights are arithmetic, so that everybody who runs this gets the same two models, and so that
it is known what they must find in a picture of the demo: coloured discs on grey.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from examples.queue_worker.agreed import COLOURS, CROP_PIXELS, IMAGE_PIXELS, MAX_OBJECTS

FOLDER = Path(__file__).resolve().parent
_OPSET = 17
_IR_VERSION = 8  # of onnx 1.13: older runtimes read it, too
_KERNEL_PIXELS = 31
_STRIDE_PIXELS = 4
_SUPPRESS_CELLS = 9  # one object within 36 pixels


def make_detector() -> onnx.ModelProto:
    """Where colour is: saturation by convolution, smoothed, peaks that are the largest around them, the best few.

    In: uint8 (N, 3, IMAGE_PIXELS, IMAGE_PIXELS). Out: scores, float32 (N, MAX_OBJECTS), 0 to 1; centres, int64
    (N, MAX_OBJECTS, 2), y and x in pixels.
    """
    num_cells = IMAGE_PIXELS // _STRIDE_PIXELS
    constants = {
        "full": np.array(255, np.float32),
        "opponents": _opponents(),
        "blob": _pyramid(_KERNEL_PIXELS),
        # Two cells never score the same: of a plateau one is the peak.
        "tilt": np.arange(num_cells**2, dtype=np.float32).reshape(1, 1, num_cells, num_cells) * np.float32(1e-7),
        "flat": np.array([0, -1], np.int64),
        "wanted": np.array([MAX_OBJECTS], np.int64),
        "cells": np.array(num_cells, np.int64),
        "stride": np.array(_STRIDE_PIXELS, np.int64),
        "last": np.array([-1], np.int64),
    }
    pad, around = _KERNEL_PIXELS // 2, _SUPPRESS_CELLS // 2
    nodes = [
        helper.make_node("Cast", ["images"], ["levels"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["levels", "full"], ["scaled"]),
        helper.make_node("Conv", ["scaled", "opponents"], ["differences"]),
        helper.make_node("ReduceMax", ["differences"], ["saturation"], axes=[1], keepdims=1),
        helper.make_node("Conv", ["saturation", "blob"], ["smooth"], strides=[_STRIDE_PIXELS] * 2, pads=[pad] * 4),
        helper.make_node("Add", ["smooth", "tilt"], ["heat"]),
        helper.make_node(
            "MaxPool", ["heat"], ["highest"], kernel_shape=[_SUPPRESS_CELLS] * 2, strides=[1, 1], pads=[around] * 4
        ),
        helper.make_node("Equal", ["heat", "highest"], ["is_peak"]),
        helper.make_node("Cast", ["is_peak"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["heat", "mask"], ["peaks"]),
        helper.make_node("Reshape", ["peaks", "flat"], ["row"]),
        helper.make_node("TopK", ["row", "wanted"], ["scores", "places"], axis=1),
        helper.make_node("Div", ["places", "cells"], ["row_of"]),
        helper.make_node("Mod", ["places", "cells"], ["column_of"]),
        helper.make_node("Unsqueeze", ["row_of", "last"], ["y"]),
        helper.make_node("Unsqueeze", ["column_of", "last"], ["x"]),
        helper.make_node("Concat", ["y", "x"], ["cell"], axis=2),
        helper.make_node("Mul", ["cell", "stride"], ["centres"]),
    ]
    return _model(
        "detector",
        nodes,
        constants,
        helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", 3, IMAGE_PIXELS, IMAGE_PIXELS]),
        [
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", MAX_OBJECTS]),
            helper.make_tensor_value_info("centres", TensorProto.INT64, ["N", MAX_OBJECTS, 2]),
        ],
    )


def make_classifier() -> onnx.ModelProto:
    """Which colour a crop has: its mean against the direction of each colour from grey.

    In: uint8 (M, 3, CROP_PIXELS, CROP_PIXELS). Out: probabilities, float32 (M, len(COLOURS)).
    """
    colours = np.array(list(COLOURS.values()), np.float32)
    directions = colours - colours.mean(axis=1, keepdims=True)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    constants = {"full": np.array(255, np.float32), "directions": 16 * directions}
    nodes = [
        helper.make_node("Cast", ["crops"], ["levels"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["levels", "full"], ["scaled"]),
        helper.make_node("GlobalAveragePool", ["scaled"], ["means"]),
        helper.make_node("Flatten", ["means"], ["colour"], axis=1),
        helper.make_node("Gemm", ["colour", "directions"], ["logits"], transB=1),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    return _model(
        "classifier",
        nodes,
        constants,
        helper.make_tensor_value_info("crops", TensorProto.UINT8, ["M", 3, CROP_PIXELS, CROP_PIXELS]),
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["M", len(COLOURS)])],
    )


def _opponents() -> NDArray[np.float32]:
    """Each channel less each other one: float32 (6, 3, 1, 1)."""
    pairs = [(first, second) for first in range(3) for second in range(3) if first != second]
    kernel = np.zeros((len(pairs), 3, 1, 1), np.float32)
    for number, (first, second) in enumerate(pairs):
        kernel[number, first], kernel[number, second] = 1, -1
    return kernel


def _pyramid(num_pixels: int) -> NDArray[np.float32]:
    """Highest in the middle, so that a disc has one peak; float32 (1, 1, pixels, pixels), its sum 1."""
    slope = 1 - np.abs(np.linspace(-1, 1, num_pixels + 2, dtype=np.float32)[1:-1])
    kernel = np.outer(slope, slope)
    normed: NDArray[np.float32] = (kernel / kernel.sum()).astype(np.float32)
    return normed[None, None]


def _model(
    name: str,
    nodes: list[onnx.NodeProto],
    constants: Mapping[str, NDArray[Any]],
    given: onnx.ValueInfoProto,
    found: list[onnx.ValueInfoProto],
) -> onnx.ModelProto:
    weights = [numpy_helper.from_array(np.asarray(value), key) for key, value in constants.items()]
    graph = helper.make_graph(nodes, name, [given], found, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)
    onnx.checker.check_model(model, full_check=True)
    return model


def main() -> None:
    """Write both beside this file."""
    onnx.save(make_detector(), str(FOLDER / "detector.onnx"))
    onnx.save(make_classifier(), str(FOLDER / "classifier.onnx"))


if __name__ == "__main__":
    main()
