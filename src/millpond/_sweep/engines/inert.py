"""One chunk that runs as its command would by itself: with this process's terminal, in its process group, in no log."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future

from millpond._interrupts import is_in_foreground
from millpond._sweep.orders import ChunkOrder, ChunkOutcome
from millpond._sweep.work_folder import WorkFolder

# PR_SET_PDEATHSIG outlives the exec: the command ends with the sweep, also where that is killed. So does what is
# ignored, as Python does with two signals; `_signal` is built in, `signal` would take longer than all the rest.
_DIE_WITH_PARENT = (
    "import ctypes, os, sys, _signal; sys.platform == 'linux' and ctypes.CDLL(None).prctl(1, 9, 0, 0, 0); "
    "[_signal.signal(number, _signal.SIG_DFL) for number in (_signal.SIGPIPE, _signal.SIGXFSZ)]; "
    "os.getppid() == int(sys.argv[1]) and os.execvp(sys.argv[2], sys.argv[2:])"
)


class InertEngine:
    """An `Engine` of one chunk."""

    capacity = 1

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None
        self._thread: threading.Thread | None = None
        self._is_started = threading.Event()

    def submit(self, orders: Sequence[ChunkOrder]) -> list[Future[ChunkOutcome]]:
        """See `Engine`."""
        (order,) = orders
        future = Future[ChunkOutcome]()
        self._thread = threading.Thread(target=self._run, args=(order, future), name="millpond-sweep-0", daemon=True)
        self._thread.start()
        self._is_started.wait()  # a signal that comes now is the command's
        return [future]

    def _run(self, order: ChunkOrder, future: Future[ChunkOutcome]) -> None:
        try:
            future.set_result(self._outcome(order))
        except BaseException as error:  # noqa: BLE001 - the future's owner is to see it
            future.set_exception(error)
        finally:
            self._is_started.set()

    def _outcome(self, order: ChunkOrder) -> ChunkOutcome:
        began_at, began = time.time(), time.monotonic()
        with WorkFolder(order) as folder:
            shim = (sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, str(os.getpid()))
            self._child = subprocess.Popen([*shim, *folder.command()], env=folder.environment())
            self._is_started.set()
            exit_code = self._child.wait()
            return ChunkOutcome(
                order.number,
                exit_code,
                metrics=folder.metrics(),
                progress=folder.progress(),
                began_at=began_at,
                duration_seconds=time.monotonic() - began,
            )

    def cancel(self, number: int) -> None:
        """Pass a signal on, but for a terminal's Ctrl-C, which the command has had from the terminal."""
        if self._child is not None and not (number == signal.SIGINT and is_in_foreground()):
            self._child.send_signal(number)

    def kill(self) -> None:
        """See `Engine`."""
        if self._child is not None:
            self._child.kill()

    def handles(self) -> Mapping[int, str]:
        """None: it ends with this process."""
        return {}

    def abandon(self, handles: Sequence[str]) -> None:
        """Nothing is left of a sweep that was killed."""

    def close(self) -> None:
        """See `Engine`."""
        if self._thread is not None:
            self.kill()
            self._thread.join()
