"""For programs that use LeRobot: `patch()` has its datasets decode with millpond. Three lines, the rest stays as it is.

    import millpond.lerobot

    millpond.lerobot.patch()
    dataset = LeRobotDataset("lerobot/svla_so101_pickplace")  # LeRobot's own class, and its samples

Needs an installed `lerobot` when `patch` is called, not when this module is imported.
"""

from millpond._lerobot.patching import Patch, patch

__all__ = ["Patch", "patch"]
