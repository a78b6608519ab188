"""Where a guard works: start methods, daemonic processes, DataLoader workers, scripts without a guard, notebooks."""

from __future__ import annotations

import subprocess
import textwrap
from pathlib import Path

import pytest

from programs import run_python

# Everything that a user does, with all of it in `__main__`: it may be run anew by `spawn`, so it starts nothing itself.
DEFINITIONS = textwrap.dedent(
    """
    import os
    import time
    import millpond

    class Clip:
        def __init__(self, frames):
            self.frames = frames

    class BadClip(ValueError):
        pass

    def double(clip):
        return Clip(clip.frames * 2)

    def fail():
        raise BadClip("torn")

    @millpond.with_timeout(20)
    def limited(number):
        return (number, os.getpid()) if number else limited(1)

    @millpond.with_timeout(0.1)
    def hang():
        time.sleep(60)

    def work():
        with millpond.Guard(1, timeout=20) as guard:
            assert isinstance(guard.call(double, Clip(21)), Clip)
            assert guard.call(double, Clip(21)).frames == 42
            assert [clip.frames for clip in guard.map(double, [Clip(1), Clip(2)])] == [2, 4]
            assert guard.call(lambda: len(b"x" * 100_000)) == 100_000
            try:
                guard.call(fail)
            except BadClip as error:
                assert str(error) == "torn"
            worker = guard.call(os.getpid)
        number, pid = limited(0)
        assert number == 1
        assert pid not in (worker, os.getpid())
        assert limited(2)[1] == pid
        try:
            hang()
        except millpond.DecodeTimeout as error:
            assert error.function.endswith("hang"), error
        print("done", flush=True)
    """
)


def check(ran: subprocess.CompletedProcess[str], times: int = 1) -> None:
    assert (ran.returncode, ran.stdout) == (0, "done\n" * times), ran.stderr


def test_a_script_without_an_import_guard(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(f"{DEFINITIONS}\nwork()\n")
    check(run_python(["script.py"], directory=tmp_path))


def test_a_module_that_is_run(tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").touch()
    (tmp_path / "package" / "script.py").write_text(f"{DEFINITIONS}\nwork()\n")
    check(run_python(["-m", "package.script"], directory=tmp_path))


def test_a_program_on_the_command_line_and_on_standard_input(tmp_path: Path) -> None:
    check(run_python(["-c", f"{DEFINITIONS}\nwork()\n"], directory=tmp_path))
    check(run_python(["-"], given=f"{DEFINITIONS}\nwork()\n", directory=tmp_path))


def test_a_notebook_s_namespace(tmp_path: Path) -> None:
    """As IPython does: each cell is executed in the dictionary of a module that stands for `__main__`."""
    kernel = textwrap.dedent(
        f"""
        import sys, types
        module = types.ModuleType("__main__")
        sys.modules["__main__"] = module
        for cell in [{DEFINITIONS!r}, "work()", "work()"]:
            exec(compile(cell, "<cell>", "exec"), module.__dict__)
        """
    )
    (tmp_path / "kernel.py").write_text(kernel)
    check(run_python(["kernel.py"], directory=tmp_path), times=2)


def test_a_namespace_that_is_no_module(tmp_path: Path) -> None:
    check(run_python(["-c", f"exec({DEFINITIONS!r} + 'work()', {{'__name__': 'cell'}})"], directory=tmp_path))


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_processes_of_multiprocessing(tmp_path: Path, method: str) -> None:
    main = textwrap.dedent(
        f"""
        if __name__ == "__main__":
            import multiprocessing
            for daemon in (True, False):
                process = multiprocessing.get_context({method!r}).Process(target=work, daemon=daemon)
                process.start()
                process.join()
                assert process.exitcode == 0, process.exitcode
            work()
        """
    )
    (tmp_path / "script.py").write_text(DEFINITIONS + main)
    check(run_python(["script.py"], directory=tmp_path), times=3)


def test_a_process_that_is_forked_after_its_parent_has_used_the_guard(tmp_path: Path) -> None:
    main = textwrap.dedent(
        """
        import multiprocessing
        work()
        process = multiprocessing.get_context("fork").Process(target=work, daemon=True)
        process.start()
        process.join()
        assert process.exitcode == 0, process.exitcode
        work()
        """
    )
    (tmp_path / "script.py").write_text(DEFINITIONS + main)
    check(run_python(["script.py"], directory=tmp_path), times=3)


DATA_LOADER = textwrap.dedent(
    """
    import os
    import numpy as np
    import torch
    import millpond

    @millpond.with_timeout(20)
    def decode(index):
        return np.full((3, 64, 64), index, np.float32), os.getpid()

    class Clips(torch.utils.data.Dataset):
        def __len__(self):
            return 12

        def __getitem__(self, index):
            frames, pid = decode(index)
            assert pid != os.getpid()
            return torch.from_numpy(frames)

    if __name__ == "__main__":
        decode(0)
        for method, num_workers in ("fork", 2), ("spawn", 1):
            loader = torch.utils.data.DataLoader(Clips(), 4, num_workers=num_workers, multiprocessing_context=method)
            batches = list(loader)
            assert [int(frame.max()) for batch in batches for frame in batch] == list(range(12)), method
            print("done", flush=True)
    """
)


def test_workers_of_a_data_loader(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="a DataLoader is torch's")
    (tmp_path / "train.py").write_text(DATA_LOADER)
    check(run_python(["train.py"], directory=tmp_path), times=2)


def test_standard_streams_may_be_closed(tmp_path: Path) -> None:
    program = f"import os, sys\nos.close(0)\nos.close(2)\n{DEFINITIONS}\nwork()\n"
    check(run_python(["-c", program], directory=tmp_path))


def test_few_descriptors_are_enough(tmp_path: Path) -> None:
    program = f"import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))\n{DEFINITIONS}\nwork()\n"
    check(run_python(["-c", program], directory=tmp_path))


def test_a_limit_of_file_sizes_is_no_hindrance(tmp_path: Path) -> None:
    program = f"import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))\n{DEFINITIONS}\nwork()\n"
    check(run_python(["-c", program], directory=tmp_path))
