"""However a program with a loader ends, nothing stays behind: no process, no shared memory, no temporary file."""

from __future__ import annotations

import signal
import textwrap
from pathlib import Path

import pytest

from programs import program

IMPORTS = """
import sys
import threading
from pathlib import Path

from millpond import Loader
from torment import BallastDataset, SpinningDataset
"""
BEGIN = """
dataset = SpinningDataset(BallastDataset(total=4000), Path(sys.argv[1]))
loader = Loader(dataset, batch_size=8, shuffle=True, num_workers=2, memory="300MiB", output="numpy")
iterator = iter(loader)
held = next(iterator)
pids = loader.statistics().worker_pids
print(len(pids), flush=True)
"""
START = IMPORTS + BEGIN
HANG = """
import time

flag = Path(sys.argv[1])
flag.touch()
del held
threading.Thread(target=lambda: [None for _ in iterator], daemon=True).start()
while flag.exists():
    time.sleep(0.001)
"""
GRACE_SECONDS = 2.0

CALM = {
    "close twice": "loader.close(); loader.close()",
    "close, with batches held": "loader.close(); print(held['index'].sum() > 0)",
    "leaving the with": "with loader:\n    next(iterator)",
    "an early break": "for batch in iterator:\n    break\nloader.close()",
    "another thread that closes": "t = threading.Thread(target=loader.close); t.start(); t.join()",
}
"""Endings of a loader after which its program goes on, so that one program has them all, one after the other."""
ENDINGS = {
    ", ".join(CALM): (BEGIN.join(f"{code}\n" for code in CALM.values()), 0, ""),
    "leaving the with by an error": ("with loader:\n    raise RuntimeError('trained badly')", 1, "trained badly"),
    "dropping the loader": ("del iterator, held, loader", 0, ""),
    "an error in the training loop": (
        "for batch in iterator:\n    raise RuntimeError('trained badly')",
        1,
        "trained badly",
    ),
    "sys.exit in the training loop": ("for batch in iterator:\n    sys.exit(3)", 3, ""),
    "the end of the program": ("", 0, ""),
    "the end of an epoch, without close": ("del held\nfor batch in iterator:\n    pass", 0, ""),
    "os._exit": ("import os\nos._exit(4)", 4, ""),
    "the end, while a thread waits for a worker that hangs": (HANG, 0, "ClosedError"),
    "shutdown": ("import millpond\nmillpond.shutdown(); loader.close()", 0, None),  # it may log which tasks that ended
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_nothing_stays_behind_after(ending: str, tmp_path: Path) -> None:
    code, expected_code, expected_error = ENDINGS[ending]
    with program(START + code, tmp_path / "own", str(tmp_path / "spin")) as running:
        assert running.line() == "2"
        exit_code, _, errors = running.ended()
        assert not running.left(GRACE_SECONDS)
    assert exit_code == expected_code, errors
    if expected_error is not None:
        assert expected_error in errors
        assert bool(expected_error) == bool(errors)


LOOP = START + textwrap.dedent(
    """
    import time
    number = 0
    while True:
        loader.set_epoch(0)
        for batch in iterator:
            number += 1
            print(number, flush=True)
        iterator = iter(loader)
    """
)


@pytest.mark.parametrize(
    ("number", "exit_code", "words"),
    [
        (signal.SIGINT, -signal.SIGINT, "KeyboardInterrupt"),
        (signal.SIGTERM, -signal.SIGTERM, ""),
        (signal.SIGKILL, -signal.SIGKILL, ""),
    ],
)
def test_nothing_outlives_a_training_loop_that_is_ended_by(
    number: signal.Signals, exit_code: int, words: str, tmp_path: Path
) -> None:
    with program(LOOP, tmp_path / "own", str(tmp_path / "spin")) as running:
        while running.line() != "5":
            pass
        running.process.send_signal(number)
        found_code, _, errors = running.ended()
        assert not running.left(GRACE_SECONDS)
    assert (found_code, errors.count("Traceback"), words in errors) == (exit_code, int(bool(words)), True), errors


STUCK = """
import millpond
from fakes import FakeDataset

loader = millpond.Loader(FakeDataset(stuck=frozenset(range(400))), batch_size=8, num_workers=2, memory="300MiB")
iterator = iter(loader)
print("waiting", flush=True)
next(iterator)
"""


def test_ctrl_c_ends_a_wait_for_a_batch_that_never_comes(tmp_path: Path) -> None:
    with program(STUCK, tmp_path / "own") as running:
        assert running.line() == "waiting"
        running.process.send_signal(signal.SIGINT)
        exit_code, _, errors = running.ended()
        assert not running.left(GRACE_SECONDS)
    assert (exit_code, errors.count("Traceback")) == (-signal.SIGINT, 1)
