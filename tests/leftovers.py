"""Finds what a test leaves behind: processes, threads, descriptors, shared memory, temporary files, a realtime thread.

tests/conftest.py imports the three fixtures, which makes them run around every test. Zygotes may stay warm between
tests; the session's end ends them. Temporary files go to a folder of the session's own, so that what other test
processes do at the same time is not blamed on a test.
"""

from __future__ import annotations

import gc
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from millpond._workers.zygote import live_zygotes, shutdown

_PATIENCE_SECONDS = 3.0
# Of the standard library, once per process and for its life.
_KEPT_PROCESSES = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")
# Until the process ends: clips that tests/media_zoo.py makes when first wanted; the address of the fork server.
_KEPT_FILES = ("millpond-zoo-", "pymp-", "torchinductor_")  # the last: a folder of torch's own, for what it compiles
# Opened once per process, for its life, by the libraries that use them.
_KEPT_TARGETS = ("/dev/urandom", "/dev/nvidia", "/dev/null", "/dev/shm/pym-")  # the last: multiprocessing's heap


@dataclass(frozen=True)
class Belongings:
    """What this process has at one moment, and what other processes there are."""

    processes: frozenset[str]
    threads: frozenset[str]
    descriptors: frozenset[str]
    shared_memory: frozenset[str]
    temporary_files: frozenset[str]
    scheduling: frozenset[str]

    @classmethod
    def now(cls) -> Belongings:
        """Taken without waiting."""
        return cls(_processes(), _threads(), _descriptors(), _shared_memory(), _temporary_files(), _scheduling())

    def beyond(self, before: Belongings) -> dict[str, list[str]]:
        """What is here and was not before, by kind."""
        kinds = self.__dataclass_fields__
        new = {kind: sorted(getattr(self, kind) - getattr(before, kind)) for kind in kinds}
        new["processes"] = _ours(new["processes"])
        return {kind: names for kind, names in new.items() if names}


def _processes() -> frozenset[str]:
    """Whose they are is asked of new ones alone: asking each took a millisecond, twice around every test."""
    return frozenset(map(str, psutil.pids()))


def _ours(pids: list[str]) -> list[str]:
    zygotes = {zygote.pid for zygote in live_zygotes()}
    ours = [process for pid in pids if int(pid) not in zygotes for process in _if_ours(int(pid))]
    return sorted(_describe(process) for process in ours if not _is_kept(process))


def _if_ours(pid: int) -> list[psutil.Process]:
    """The process, where it descends from this one and has not gone."""
    try:
        process = psutil.Process(pid)
        return [process] if os.getpid() in (parent.pid for parent in process.parents()) else []
    except psutil.Error:  # gone, or somebody else's
        return []


def _describe(process: psutil.Process) -> str:
    try:
        # a server that serves several tests runs now and sleeps then: that does not make it another one
        return f"{process.pid} {process.name()}{' (zombie)' if process.status() == psutil.STATUS_ZOMBIE else ''}"
    except psutil.NoSuchProcess:
        return f"{process.pid} (gone)"


def _is_kept(process: psutil.Process) -> bool:
    try:
        return any(name in argument for argument in process.cmdline() for name in _KEPT_PROCESSES)
    except psutil.NoSuchProcess:
        return True


def _threads() -> frozenset[str]:
    return frozenset(f"{thread.name} ({thread.ident})" for thread in threading.enumerate())


def _descriptors() -> frozenset[str]:
    folder = Path("/proc/self/fd")
    if not folder.is_dir():
        return frozenset()
    kept = {zygote.control_descriptor for zygote in live_zygotes()} | _tracker_descriptors()
    targets = {int(name): _target(folder / name) for name in os.listdir(folder)}
    mine = {number: target for number, target in targets.items() if target is not None and number not in kept}
    return frozenset(f"{number} {target}" for number, target in mine.items() if not target.startswith(_KEPT_TARGETS))


def _target(link: Path) -> str | None:
    try:
        return os.readlink(link)
    except FileNotFoundError:  # the descriptor with which the folder was listed
        return None


def _tracker_descriptors() -> set[int]:
    """Pipes to the processes of _KEPT_PROCESSES."""
    kept = set()
    for module, name in (("resource_tracker", "_resource_tracker"), ("forkserver", "_forkserver")):
        keeper = getattr(sys.modules.get(f"multiprocessing.{module}"), name, None)
        for attribute in ("_fd", "_forkserver_alive_fd"):
            descriptor = getattr(keeper, attribute, None)
            if isinstance(descriptor, int):
                kept.add(descriptor)
    return kept


def _shared_memory() -> frozenset[str]:
    folder = Path("/dev/shm")
    names = os.listdir(folder) if folder.is_dir() else []
    # Beside other test processes only our own names say anything.
    ours_only = "PYTEST_XDIST_WORKER" in os.environ
    return frozenset(name for name in names if not ours_only or "millpond" in name)


def _temporary_files() -> frozenset[str]:
    return frozenset(name for name in os.listdir(tempfile.gettempdir()) if not name.startswith(_KEPT_FILES))


def _scheduling() -> frozenset[str]:
    """Of this thread: an encoder that makes it a realtime one makes its children such, too."""
    return frozenset([f"policy {os.sched_getscheduler(0)}"] if hasattr(os, "sched_getscheduler") else [])


def _settled(look: Callable[[], dict[str, list[str]]]) -> dict[str, list[str]]:
    """What `look` finds once it finds nothing, or patience is over; what other processes do has no event to await."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    found = look()
    while found and time.monotonic() < deadline:
        gc.collect()  # cycles hold sockets and files; more than once, because what a finalizer frees may be in another
        found = look()
        if found:
            time.sleep(0.01)
    return found


@pytest.fixture(scope="session", autouse=True)
def temporary_folder_of_the_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Sends temporary files, also those of child processes, to a folder that no other process writes to."""
    folder = str(tmp_path_factory.mktemp("temporary"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", folder)
        patch.setattr(tempfile, "tempdir", folder)
        yield


@pytest.fixture(scope="session", autouse=True)
def runtime_of_obstore() -> None:
    """Begins the runtime that obstore keeps for the life of a process, with three descriptors."""
    import obstore
    from obstore.store import MemoryStore

    obstore.put(MemoryStore(), "begun", b"")


@pytest.fixture(autouse=True)
def nothing_left_behind(temporary_folder_of_the_session: None) -> Iterator[None]:
    """Fails a test that leaves a process, thread, descriptor, piece of shared memory or temporary file of ours."""
    before = Belongings.now()
    yield
    left = _settled(lambda: Belongings.now().beyond(before))
    assert not left, f"left behind: {left}"


@pytest.fixture(scope="session", autouse=True)
def zygotes_end_with_the_session() -> Iterator[None]:
    """Ends the warm zygotes, and fails the session if one does not go."""
    yield
    pids = [zygote.pid for zygote in live_zygotes()]
    shutdown()
    assert not [pid for pid in pids if psutil.pid_exists(pid)], "a zygote outlived shutdown()"
