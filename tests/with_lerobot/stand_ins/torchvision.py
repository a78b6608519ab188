"""What LeRobot 0.4.4's datasets want of torchvision, for tests: that must have been built for the same torch.

Its `VideoReader`, which LeRobot's backend "pyav" uses, is gone from torchvision itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch


class transforms:  # noqa: N801 - there it is a module
    class ToTensor:
        """From a picture of PIL's to float32, (C, H, W), 0 to 1."""

        def __call__(self, picture: Any) -> Any:
            return torch.from_numpy(np.array(picture)).permute(2, 0, 1) / 255
