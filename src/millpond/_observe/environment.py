"""What machine and which versions a figure was measured with."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from millpond._workers.cores import usable_cores

_PACKAGES = ("millpond", "av", "numpy", "pyarrow", "torch", "torchcodec", "lerobot")


def environment_facts() -> dict[str, str]:
    """Name the machine, its cores and memory, Python, and the version of every package that matters here."""
    memory = psutil.virtual_memory()
    return {
        "machine": f"{_processor_name()}, {usable_cores()} cores, {memory.total / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        **package_versions(_PACKAGES),
    }


def package_versions(packages: Iterable[str]) -> dict[str, str]:
    """The version of each distribution, or that it is not installed."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def _processor_name() -> str:
    table = Path("/proc/cpuinfo")
    if table.exists():
        for line in table.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
