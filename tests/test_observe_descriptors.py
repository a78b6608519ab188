"""Open descriptors are counted by kind, and a process that is gone has none."""

from __future__ import annotations

import os
import socket
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from millpond._observe import descriptors
from millpond._observe.descriptors import Descriptors, count_descriptors

NOBODY = 2**22 + 1
"""No process: above what Linux gives out (proc(5), pid_max)."""

linux = pytest.mark.skipif(sys.platform != "linux", reason="kinds are read from /proc")


@linux
def test_each_kind_is_counted_as_what_it_is(tmp_path: Path) -> None:
    before = count_descriptors(os.getpid())
    with ExitStack() as stack:
        for end in os.pipe():
            stack.callback(os.close, end)
        stack.callback(os.close, os.memfd_create("slot"))
        stack.callback(os.close, os.eventfd(0))
        stack.enter_context((tmp_path / "removed").open("wb"))
        (tmp_path / "removed").unlink()
        stack.enter_context(socket.socket())
        after = count_descriptors(os.getpid())
    assert after == before + Descriptors(pipes=2, sockets=1, files=1, memfds=1, others=1)
    assert after.total == before.total + 6


@linux
def test_what_is_beyond_the_limit_is_counted_without_its_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    everything = count_descriptors(os.getpid())
    monkeypatch.setattr(descriptors, "MOST_READ", 1)
    assert count_descriptors(os.getpid()).total == everything.total
    assert count_descriptors(os.getpid()).others >= everything.total - 1


def test_a_process_that_is_gone_has_none() -> None:
    assert count_descriptors(NOBODY) == Descriptors()
