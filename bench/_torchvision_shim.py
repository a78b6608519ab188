"""Let a torchvision that was built for CUDA be imported beside a torch for CPUs; where there is none this does nothing.

Import it before what imports torchvision: LeRobot, torchcodec's transforms, WebDataset.

It cannot load its operators there, and its import fails at the two that it describes to the compiler. Once those are
declared it imports. Nothing that LeRobot's datasets use calls an operator; the resize is plain torch.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec

import torch

try:
    if find_spec("torchvision"):
        import_module("torchvision")
except RuntimeError:
    _operators = torch.library.Library("torchvision", "FRAGMENT")
    for _name in ("nms", "qnms"):
        _operators.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    for _half_imported in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[_half_imported]
    import_module("torchvision")
