"""examples/train_policy and examples/lightning_policy: killed and begun again, they learn the same."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

from programs import Program, program
from synthesized import MakeDataset

pytest.importorskip("torch", reason="torch is not installed")

from examples.train_policy.run_folder import LossCurve, owning, replacing

STEPS, EVERY, BATCH = 14, 4, 16
LENGTHS = (23, 21, 25, 23)
"""Of the episodes: 92 rows, which neither shards nor batches divide."""
WITH_LIGHTNING = pytest.mark.skipif(find_spec("lightning") is None, reason="lightning is not installed")
PLAIN, LIGHTNING = "examples.train_policy.train", "examples.lightning_policy.train"
RUN = "import runpy, sys; del sys.argv[0]; runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)"
TORCHRUN = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts", "1", "-m"]
# Sums of float32 in another order differ by some 2**-24 each; SGD carries that through a dozen steps.
ROUNDING = 1e-4


def curve(out: Path) -> NDArray[np.float64]:
    """Step, loss and valid rows of each line, (lines, 3)."""
    return np.loadtxt(out / "loss.csv", delimiter=",", skiprows=1)


def options(dataset: Path, out: Path) -> list[str]:
    """Of both examples: a run of 14 steps."""
    settings = {"dataset": dataset, "out": out, "steps": STEPS, "checkpoint-every": EVERY, "global-batch": BATCH}
    return [*(f"--{name}={value}" for name, value in settings.items()), "--image-size=32"]


@contextmanager
def training(folder: Path, dataset: Path, out: Path, *command: str, stop_after: str = "") -> Iterator[Program]:
    """A run; nothing of it is left when it has ended, which is up to the caller."""
    environment = {"STOP_AFTER": stop_after, "OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    with program(RUN, folder, *command, *options(dataset, out), environment=environment) as started:
        yield started
    left = [name for name in started.left(10) if name.split()[0].isdigit()]
    assert not left


def train_here(dataset: Path, out: Path) -> NDArray[np.float64]:
    """The curve, after a run in this process to its end."""
    plain = import_module(PLAIN)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plain, "be_deterministic", lambda: None)  # which is for a process's whole life
        plain.main([*options(dataset, out), "--num-workers=0"])
    return curve(out)


def wait_until_stopped(run: Program) -> None:
    while run.line() != "stopped":
        pass


def kill_one(run: Program) -> None:
    """kill -9, of a process of torchrun's."""
    processes = psutil.Process(run.process.pid).children()
    next(process for process in processes if "stopped_training" in process.cmdline()).kill()


def kill_all(run: Program) -> None:
    """kill -9, of a program and all that it has started."""
    top = psutil.Process(run.process.pid)
    for process in [top, *top.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):  # what a loader has started ends with it
            process.kill()
    run.ended()


@pytest.fixture(scope="module")
def dataset(synth: MakeDataset) -> Path:
    return synth(episodes=4, frames=LENGTHS, cameras=1, size=(64, 64))


@pytest.fixture(scope="module")
def whole(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> NDArray[np.float64]:
    """The curve of a run in one process that nobody disturbed."""
    return train_here(dataset, tmp_path_factory.mktemp("whole"))


def require_resumed(
    whole: NDArray[np.float64], killed: NDArray[np.float64], resumed: NDArray[np.float64], checkpoint: int
) -> None:
    """What a checkpoint has is kept, and the rest is what it would have been."""
    np.testing.assert_array_equal(resumed[:checkpoint], killed[:checkpoint])
    np.testing.assert_allclose(resumed, whole, rtol=ROUNDING)


def test_an_epoch_counts_every_row_once(whole: NDArray[np.float64]) -> None:
    assert whole[:, 0].tolist() == [*range(1, STEPS + 1)]
    assert [whole[:6, 2].sum(), whole[6:12, 2].sum()] == [sum(LENGTHS)] * 2


def test_whoever_is_killed_the_curve_goes_on_as_it_was(
    dataset: Path, whole: NDArray[np.float64], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with training(tmp_path / "two", dataset, out, *TORCHRUN, "stopped_training", PLAIN, stop_after="7 11") as run:
        wait_until_stopped(run)
        before = curve(out)
        kill_one(run)  # torchrun ends the other one, and begins both again
        wait_until_stopped(run)
        after = curve(out)
        kill_all(run)
    np.testing.assert_array_equal(after[:7], before)  # steps 5 to 7 were done twice, on 2 processes: the same bits
    assert len(after) == 11
    require_resumed(whole, after, train_here(dataset, out), checkpoint=8)


@WITH_LIGHTNING
def test_lightning_trains_the_same_and_resumes_amid_an_epoch(
    dataset: Path, whole: NDArray[np.float64], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with training(
        tmp_path / "killed", dataset, out, "stopped_training", LIGHTNING, "--num-workers=0", stop_after="10"
    ) as run:
        wait_until_stopped(run)
        killed = curve(out)
        kill_all(run)
    with training(tmp_path / "resumed", dataset, out, LIGHTNING, "--processes=1", "--num-workers=0") as run:
        _, errors = run.process.communicate(timeout=240)  # far below that, where nothing hangs
        assert run.process.returncode == 0, errors
    assert len(killed) == 10
    require_resumed(whole, killed, curve(out), checkpoint=8)


@WITH_LIGHTNING
def test_data_that_stood_at_an_epochs_end_goes_on_with_the_next(dataset: Path) -> None:
    data_module, plain = import_module("examples.lightning_policy.data").PolicyData, import_module(PLAIN)
    arguments = plain.parser().parse_args([f"--dataset={dataset}", "--num-workers=0"])
    state: dict[str, Any] = {}
    begun = []
    for batches in (2, 1, 3):
        data = data_module(arguments)
        data.load_state_dict(state)
        data.setup("fit")
        with plain.process_group():
            loader = data.train_dataloader()
        begun.append((loader.state_dict()["epoch"], loader.state_dict()["batch"]))
        for _ in itertools.islice(loader, batches):
            pass
        state = data.state_dict()
        data.teardown("fit")
    assert begun == [(0, 0), (0, 2), (1, 0)]


def test_a_second_run_is_kept_out_of_a_folder(tmp_path: Path) -> None:
    with owning(tmp_path), pytest.raises(SystemExit, match="another run writes to"), owning(tmp_path):
        raise AssertionError
    with owning(tmp_path):
        pass


def test_a_curve_is_taken_back_to_the_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "loss.csv"
    kept = LossCurve(path)
    kept.rewind(0)
    for step in (1, 2, 3):
        kept.add(step, 1 / step, 4)
    with path.open("a", encoding="utf-8") as file:
        file.write("2,0.")  # a kill amid a line
    kept.rewind(2)
    assert path.read_text(encoding="utf-8") == "step,loss,valid_rows\n1,1.0,4\n2,0.5,4\n"


def test_a_file_that_is_not_finished_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(TypeError), replacing(path) as file:
        file.write("half of the new")  # type: ignore[call-overload]
    assert path.read_bytes() == b"old"
