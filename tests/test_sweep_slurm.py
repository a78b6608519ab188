"""Chunks as jobs of Slurm: by submitit's local executor for real, and what Slurm is asked by commands that stand in."""

from __future__ import annotations

import json
import os
import pickle
import re
import signal
import sys
import textwrap
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from millpond._sweep.engines import slurm_jobs
from millpond._sweep.engines.slurm import SlurmEngine
from millpond._sweep.engines.slurm_parameters import parameters_of_submitit
from millpond._sweep.orders import ChunkOutcome, EndedBy
from millpond.errors import ClosedError, UsageError
from programs import program
from sweep_chunks import HANGS, KILLS_ITS_WORKER, REPORTS, TELLS_ITS_WORKER_TO_END, order_of, wait_until_it_hangs

AT_REST = EndedBy.ITSELF


@pytest.fixture
def local(tmp_path: Path) -> Iterator[SlurmEngine]:
    engine = SlurmEngine(tmp_path / "slurm", parallel=2, cluster="local")
    yield engine
    engine.close()


def results(futures: Sequence[Future[ChunkOutcome]]) -> list[ChunkOutcome]:
    return [future.result(60) for future in futures]


def test_chunks_of_an_array_come_back_with_metrics_each_from_a_process_of_its_own(
    local: SlurmEngine, tmp_path: Path
) -> None:
    outcomes = results(local.submit([order_of(tmp_path, 1, REPORTS), order_of(tmp_path, 2, REPORTS)]))
    workers = [json.loads(outcome.metrics)[f"job {outcome.number}"]["worker"] for outcome in outcomes]
    assert [(outcome.number, outcome.exit_code, outcome.ended_by) for outcome in outcomes] == [
        (1, 0, AT_REST),
        (2, 0, AT_REST),
    ]
    assert len({*workers, os.getpid()}) == 3
    assert [json.loads(outcome.metrics)[f"job {outcome.number}"]["blocked"] for outcome in outcomes] == [[], []]
    assert [(tmp_path / f"{number}.log").read_text() for number in (1, 2)] == ["at job 1\n", "at job 2\n"]
    local.close()
    assert not (tmp_path / "slurm").exists()


def test_cancelled_chunks_keep_what_they_reported_and_leave_no_process(local: SlurmEngine, tmp_path: Path) -> None:
    running = local.submit([order_of(tmp_path, 1, HANGS)])
    wait_until_it_hangs(tmp_path, 1)
    local.cancel(2)
    late = local.submit([order_of(tmp_path, 2, REPORTS)])
    first, second = results([*running, *late])
    assert (first.ended_by, second.ended_by) == (EndedBy.CANCELLED, EndedBy.CANCELLED)
    assert json.loads(first.metrics) == {"job 1": {"steps": 1}}
    assert not (tmp_path / "2.log").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_terminals_ctrl_c_is_left_to_the_sweep(local: SlurmEngine, tmp_path: Path) -> None:
    local.submit([order_of(tmp_path, 1, HANGS)])
    wait_until_it_hangs(tmp_path, 1)
    controller = local.handles()[1].split()[0]
    (blocked,) = re.findall(r"SigBlk:\s*(\w+)", Path(f"/proc/{controller}/status").read_text())
    assert int(blocked, 16) >> (signal.SIGINT - 1) & 1
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_a_killed_chunk_leaves_no_process(local: SlurmEngine, tmp_path: Path) -> None:
    (running,) = local.submit([order_of(tmp_path, 1, HANGS)])
    wait_until_it_hangs(tmp_path, 1)
    local.kill()
    assert running.result(60).ended_by is EndedBy.CANCELLED
    local.close()
    with pytest.raises(ClosedError):
        local.submit([order_of(tmp_path, 2, REPORTS)])


def test_a_chunk_that_is_preempted_or_whose_process_dies_is_lost_with_the_reason(
    local: SlurmEngine, tmp_path: Path
) -> None:
    codes = TELLS_ITS_WORKER_TO_END, KILLS_ITS_WORKER
    told, killed = results(local.submit([order_of(tmp_path, number, code) for number, code in enumerate(codes)]))
    assert (told.ended_by, told.exit_code, json.loads(told.metrics)) == (EndedBy.LOST, None, {"job 0": {"steps": 1}})
    assert "told to end (SIGUSR2): at its time limit, preempted" in told.problem
    assert (killed.ended_by, json.loads(killed.metrics)) == (EndedBy.LOST, {"job 1": {"steps": 1}})
    assert "ended without a result" in killed.problem
    assert str(tmp_path / "slurm") in killed.problem
    local.close()
    assert list((tmp_path / "slurm").rglob("*.err"))  # what submitit's process said


def test_chunks_that_outlive_a_killed_sweep_are_ended_by_their_handles(local: SlurmEngine, tmp_path: Path) -> None:
    code = """
        import sys, time
        from pathlib import Path
        from millpond._sweep.engines.slurm import SlurmEngine
        from sweep_chunks import HANGS, order_of, wait_until_it_hangs
        folder = Path(sys.argv[1])
        engine = SlurmEngine(folder / "killed", parallel=1, cluster="local")
        engine.submit([order_of(folder, 1, HANGS)])
        wait_until_it_hangs(folder, 1)
        print(engine.handles()[1], flush=True)
        time.sleep(60)
    """
    with program(textwrap.dedent(code), tmp_path / "temporary", str(tmp_path)) as sweep:
        handle = sweep.line()
        sweep.process.kill()
        assert [line for line in sweep.left(0.0) if "python" in line]
        local.abandon([handle, "1 0.0"])
        assert sweep.left(5) == []


class StandIn:
    """Commands of Slurm that do nothing but write down what they are told, first on PATH."""

    def __init__(self, folder: Path, job_id: int) -> None:
        self.folder = folder
        self.job_id = job_id
        self.says("sbatch", f"Submitted batch job {job_id}", 'cp "$1" "$0.script"')
        for name in ("srun", "sacct", "squeue"):
            self.says(name, "")
        self.says("scancel", "", 'echo "$@" >> "$0.log"')

    def says(self, name: str, output: str, action: str = ":") -> None:
        (self.folder / f"{name}.txt").write_text(output)
        new = self.folder / f"{name}.new"
        new.write_text(f'#!/bin/sh\n{action}\ncat "$0.txt"\n')
        new.chmod(0o755)
        new.rename(self.folder / name)

    def states(self, *states: str) -> None:
        lines = [f"{self.job_id}_{index}|{state}|node-1" for index, state in enumerate(states)]
        self.says("sacct", "\n".join(["JobID|State|NodeList", *lines]))

    def cancelled(self) -> list[str]:
        return (self.folder / "scancel.log").read_text().splitlines()


@pytest.fixture
def slurm(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    monkeypatch.setattr(slurm_jobs.SlurmJobs, "look_seconds", 0.01)
    monkeypatch.setattr(slurm_jobs.SlurmJobs, "patience_seconds", 0.0)
    monkeypatch.setattr(slurm_jobs, "_QUESTION_SECONDS_AT_THE_END", 0.1)
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return StandIn(folder, abs(hash(request.node.nodeid)) % 10**9)  # submitit remembers jobs for a process's life


@pytest.fixture
def cluster(slurm: StandIn, tmp_path: Path) -> Iterator[SlurmEngine]:
    engine = SlurmEngine(tmp_path / "slurm", parallel=1, parameters={"timeout_min": "240", "partition": "gpu"})
    yield engine
    engine.close()


def test_chunks_submitted_together_are_one_array_of_slurm(slurm: StandIn, cluster: SlurmEngine, tmp_path: Path) -> None:
    futures = cluster.submit([order_of(tmp_path, number, REPORTS) for number in (4, 5)])
    script = (slurm.folder / "sbatch.script").read_text()
    for line in ("array=0-1%1", "no-requeue", "time=240", "partition=gpu", "job-name=millpond"):
        assert f"#SBATCH --{line}\n" in script
    assert cluster.handles() == {4: f"{slurm.job_id}_0", 5: f"{slurm.job_id}_1"}
    (folder,) = (tmp_path / "slurm").iterdir()
    for index, number in enumerate((4, 5)):  # as submitit's process on a node writes it
        result = ("success", (ChunkOutcome(number, 0), ""))
        (folder / "new").write_bytes(pickle.dumps(result))
        (folder / "new").rename(folder / f"{slurm.job_id}_{index}_0_result.pkl")
    assert [outcome.number for outcome in results(futures)] == [4, 5]
    assert cluster.handles() == {}


def test_jobs_that_slurm_ended_are_lost_with_their_state(slurm: StandIn, cluster: SlurmEngine, tmp_path: Path) -> None:
    slurm.states("OUT_OF_MEMORY", "PREEMPTED", "NODE_FAIL")
    outcomes = results(cluster.submit([order_of(tmp_path, number, REPORTS) for number in range(3)]))
    assert {outcome.ended_by for outcome in outcomes} == {EndedBy.LOST}
    for outcome, state in zip(outcomes, ("OUT_OF_MEMORY", "PREEMPTED", "NODE_FAIL"), strict=True):
        assert f"ended without a result, its state is {state}" in outcome.problem


def test_cancelling_is_up_to_scancel_asked_once_for_all_jobs(
    slurm: StandIn, cluster: SlurmEngine, tmp_path: Path
) -> None:
    (slurm.folder / "states").write_text(f"JobID|State\n{slurm.job_id}_[0-1]|CANCELLED")
    slurm.says("scancel", "", f'echo "$@" >> "$0.log"; mv "{slurm.folder}/states" "{slurm.folder}/sacct.txt"')
    futures = cluster.submit([order_of(tmp_path, number, REPORTS) for number in range(2)])
    cluster.cancel(15)
    assert {outcome.ended_by for outcome in results(futures)} == {EndedBy.CANCELLED}
    assert slurm.cancelled() == [f"{slurm.job_id}_0 {slurm.job_id}_1"]


def test_closing_cancels_what_runs_and_does_not_wait_for_slurm(
    slurm: StandIn, cluster: SlurmEngine, tmp_path: Path
) -> None:
    futures = cluster.submit([order_of(tmp_path, number, REPORTS) for number in range(2)])
    cluster.close()
    assert {outcome.ended_by for outcome in results(futures)} == {EndedBy.CANCELLED}
    ids = f"{slurm.job_id}_0 {slurm.job_id}_1"
    assert slurm.cancelled() == [f"--signal=KILL {ids}", ids]


def test_jobs_of_a_killed_sweep_are_cancelled_and_waited_for(
    slurm: StandIn, cluster: SlurmEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.abandon(["7_0", "7_3"])
    assert slurm.cancelled() == ["7_0 7_3"]
    monkeypatch.setattr(slurm_jobs, "_GONE_SECONDS", 0.0)
    slurm.says("squeue", "7_3 gpu")
    with pytest.raises(TimeoutError, match="7_0, 7_3; look at them with squeue"):
        cluster.abandon(["7_0", "7_3"])


def test_parameters_are_those_of_submitit_or_of_sbatch() -> None:
    said = {
        "slurm_mem": "16GB",
        "cpus-per-task": "4",
        "time": 60,
        "additional_parameters": '{"reservation": "r"}',
    }
    assert parameters_of_submitit(said, parallel=3, needs_time=True) == {
        "name": "millpond",
        "timeout_min": 10080,
        "slurm_time": 60,
        "slurm_array_parallelism": 3,
        "slurm_mem": "16GB",
        "cpus_per_task": 4,
        "slurm_additional_parameters": {"no-requeue": True, "reservation": "r"},
    }


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({}, "submitit's is 5 minutes .* timeout_min=240"),
        ({"timeout_min": 5, "nodes": 2}, "nodes= is given, but a chunk is one process"),
        ({"timeout_min": 5, "colour": "red"}, "Unknown argument 'colour'"),
        ({"timeout_min": "soon"}, "timeout_min"),
    ],
)
@pytest.mark.usefixtures("slurm")
def test_bad_parameters_are_refused(tmp_path: Path, parameters: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        SlurmEngine(tmp_path / "slurm", parameters=parameters)


def test_what_is_not_there_is_named_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="no Slurm on this machine"):
        SlurmEngine(tmp_path / "slurm", parameters={"time": 5})
    with pytest.raises(ValueError, match="takes 'slurm' or 'local'"):
        SlurmEngine(tmp_path / "slurm", cluster="debug")
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(ImportError, match=r"pip install 'millpond\[slurm\]'"):
        SlurmEngine(tmp_path / "slurm", cluster="local")
    assert not (tmp_path / "slurm").exists()
