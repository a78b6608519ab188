"""Runs a training example that stands still after given steps, so that a test can kill it there: `-m` takes its name.

The first process writes the curve. In its nth life (torchrun counts them) it says "stopped" after the nth of the steps
in STOP_AFTER, and waits for its end; so do the others, for its part of the next step.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys

from examples.train_policy.run_folder import LossCurve

_STEPS = dict(enumerate(map(int, os.environ.get("STOP_AFTER", "").split())))
_LIFE = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
_add = LossCurve.add


def add_and_stop(self: LossCurve, step: int, loss: float, valid_rows: int) -> None:
    _add(self, step, loss, valid_rows)
    if step == _STEPS.get(_LIFE):
        print("stopped", flush=True)
        signal.pause()


if __name__ == "__main__":
    LossCurve.add = add_and_stop  # type: ignore[method-assign]
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
