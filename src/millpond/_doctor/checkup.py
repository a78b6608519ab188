"""All checks, one after the other; what may hang or crash runs beside them, in processes of its own."""

from __future__ import annotations

import contextlib
import importlib.util
import multiprocessing
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from millpond._cgroups import ControlGroups
from millpond._doctor import cores, limits, memory, packages, shared_memory, surroundings
from millpond._doctor.findings import Finding, Plans, warning
from millpond._doctor.probe_process import told
from millpond._doctor.probes import Probes
from millpond._workers.cores import affinity_cores, usable_cores
from millpond.settings import DataLoaderSettings, Settings, StartMethodSettings

_MODULES = {"torch": "torch", "torchcodec": "torchcodec.decoders"}

_REQUESTS_IN_TURN = 3
"""Of a store that does not answer, within the limit of its probe."""


@dataclass(frozen=True, slots=True)
class Checkup:
    """What is wanted of it.

    Attributes:
        plans: What the machine shall do.
        url: A dataset or an object; None: no store is asked.
        storage_options: For it. Never shown.
        token: For it. Never shown.
        timeout_seconds: Of each probe.
    """

    plans: Plans
    url: str | None = None
    storage_options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    token: str | None = field(default=None, repr=False)
    timeout_seconds: float = 30.0


def run_checkup(wanted: Checkup) -> Iterator[Finding]:
    """Each finding, as soon as it is known; never longer than the limit of the probes, and a little."""
    with Probes(wanted.timeout_seconds) as probes:
        probes.begin("workers", "millpond._doctor.workers:look_at_workers")
        probes.begin("codecs", "millpond._doctor.codecs:look_at_codecs")
        probes.begin("imports", "millpond._doctor.torch_imports:look_at_imports", modules=_modules())
        probes.begin("folders", "millpond._doctor.folders:look_at_folders", **_folders())
        if wanted.url is not None:
            probes.begin(
                "store",
                "millpond._doctor.stores:look_at_store",
                url=wanted.url,
                storage_options=dict(wanted.storage_options) or None,
                token=wanted.token,
                timeout_seconds=wanted.timeout_seconds / _REQUESTS_IN_TURN,
            )
        yield from look_here(wanted.plans)
        yield from probes.findings()


def look_here(plans: Plans) -> Iterator[Finding]:
    """What is learned from the kernel and from versions, at once."""
    for subject, look in _HERE.items():
        try:
            yield from look(plans)
        except (OSError, psutil.Error) as failure:  # a sandbox hides parts of /proc
            yield warning(subject, f"cannot be looked at: {failure}", "run it where /proc and /sys can be read")
        except Exception as failure:  # noqa: BLE001 - packages whose metadata are broken: the other lines go on
            yield warning(subject, f"cannot be looked at: {told(failure)}", "mend what it names, or report this")


def _software(plans: Plans) -> Iterator[Finding]:
    yield packages.python()
    yield packages.clock(time.time(), os.path.getmtime(__file__))
    yield from packages.packages()
    yield packages.torch_and_torchcodec(*map(packages.installed_version, _MODULES))
    yield surroundings.start_methods(multiprocessing.get_all_start_methods(), StartMethodSettings().mp_context)
    yield surroundings.preloaded_libraries(os.environ)
    yield from surroundings.settings(os.environ)


def _cores(plans: Plans) -> Iterator[Finding]:
    yield cores.cores(os.cpu_count() or 1, affinity_cores(), ControlGroups().quota_cores(), plans, os.environ)


def _memory(plans: Plans) -> Iterator[Finding]:
    groups = ControlGroups()
    machine, swap = psutil.virtual_memory(), psutil.swap_memory()
    yield memory.machine_memory(machine.total, machine.available, plans)
    yield memory.group_memory(groups.memory_limits(), plans, kills_whole_group=groups.kills_whole_group())
    yield memory.kills_for_memory(groups.oom_kills())
    yield memory.swap(swap.total, swap.used)
    yield memory.overcommit(*_overcommit(), plans)


def _overcommit() -> tuple[int | None, dict[str, int]]:
    with contextlib.suppress(OSError, ValueError):
        mode = int(Path("/proc/sys/vm/overcommit_memory").read_text())
        return mode, memory.parse_meminfo(Path("/proc/meminfo").read_text())
    return None, {}


def _shared_memory(plans: Plans) -> Iterator[Finding]:
    tried = shared_memory.try_memfd()
    yield shared_memory.memfd(tried, plans)
    if sys.platform == "linux":  # elsewhere POSIX shared memory has no folder
        is_used = bool(tried.problem) or _wants_posix()
        yield shared_memory.shm(shared_memory.look_at_shm(), plans, is_used=is_used)


def _wants_posix() -> bool:
    with contextlib.suppress(ValueError):  # told by the settings' own line
        return Settings().posix_shared_memory
    return False


def _limits(plans: Plans) -> Iterator[Finding]:
    workers = usable_cores() if plans.num_workers is None else plans.num_workers
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield limits.open_files(_number(soft), _number(hard), workers)
    yield limits.processes(_soft(resource.RLIMIT_NPROC), _own_threads(), ControlGroups().tasks_left(), workers)
    yield limits.address_space(_soft(resource.RLIMIT_AS), plans)
    yield limits.file_size(_soft(resource.RLIMIT_FSIZE), plans)
    yield limits.locked_memory(_soft(resource.RLIMIT_MEMLOCK))


def _soft(limit: int) -> float:
    return _number(resource.getrlimit(limit)[0])


def _number(limit: int) -> float:
    return float("inf") if limit == resource.RLIM_INFINITY else limit


def _own_threads() -> int | None:
    """Threads of this user, as the limit counts them; None for root, whom it does not bind."""
    if os.getuid() == 0:
        return None
    found = 0
    for process in psutil.process_iter(["uids", "num_threads"]):
        uids, threads = process.info["uids"], process.info["num_threads"]
        found += threads or 0 if uids is not None and uids.real == os.getuid() else 0
    return found


_HERE: dict[str, Callable[[Plans], Iterator[Finding]]] = {
    "software": _software,
    "cores": _cores,
    "memory": _memory,
    "shared memory": _shared_memory,
    "limits": _limits,
}


def _modules() -> list[str]:
    return [module for package, module in _MODULES.items() if importlib.util.find_spec(package) is not None]


def _folders() -> dict[str, str]:
    cache, quarantine = Path(os.path.expanduser("~")), Path()
    with contextlib.suppress(ValueError):  # told by the settings' own line
        cache = Settings().cache_dir
    with contextlib.suppress(ValueError):
        quarantine = DataLoaderSettings().quarantine
    return {"cache": str(cache), "quarantine": str(quarantine)}
