"""For programs that use LeRobot: `patch()` has its datasets decode with millpond. Two lines, the rest stays as it is.

    import millpond.lerobot
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    millpond.lerobot.patch()
    dataset = LeRobotDataset("lerobot/svla_so101_pickplace")  # LeRobot's own class, and its samples

Needs an installed `lerobot` (0.4.4, or as its main branch is in November 2026) when `patch` is called, not when this
module is imported.
"""

from millpond._lerobot.patching import Patch, patch

__all__ = ["Patch", "patch"]
