"""Versions of what is installed: what millpond asks for, and torch with torchcodec, which must fit together."""

from __future__ import annotations

import platform
import re
import time
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import PackageNotFoundError, requires, version

from millpond._doctor.findings import Finding, error, fine, warning

_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)\s*>=\s*(\d+(?:\.\d+)*)(.*)")
_TOLD = ("av", "numpy", "pyarrow", "obstore", "pillow")
_OLDEST_TORCH = (2, 4)
_DAY_SECONDS = 86400.0
"""Clocks of two machines may differ, and packages come from other machines."""

Version = tuple[int, ...]

_TORCH_OF_TORCHCODEC: dict[Version, Version] = {
    (0, 0): (2, 4),
    (0, 1): (2, 5),
    (0, 2): (2, 6),
    (0, 3): (2, 7),
    (0, 4): (2, 7),
    (0, 5): (2, 7),
    (0, 6): (2, 8),
    (0, 7): (2, 8),
    (0, 8): (2, 9),
    (0, 9): (2, 9),
    (0, 10): (2, 10),
    (0, 11): (2, 11),
}
"""Which torch each torchcodec was built for, by the table in its README (as of 0.17)."""
_FIRST_STABLE, _OLDEST_STABLE_TORCH = (0, 12), (2, 11)
"""From this torchcodec on it takes any torch from that one on."""


def installed_version(package: str) -> str | None:
    """None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def python() -> Finding:
    """Of Python and the C library."""
    libc = " ".join(part for part in platform.libc_ver() if part)
    told = f"{platform.python_version()} on {platform.system()} {platform.release()}{f', {libc}' if libc else ''}"
    return fine("Python", told)


def clock(now: float, installed: float) -> Finding:
    """Whether the time can be right: not before millpond was installed. Both in seconds since 1970."""
    told = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
    if now < installed - _DAY_SECONDS:
        return warning("clock", f"{told}, before millpond was installed", "set it: timedatectl set-ntp true")
    return fine("clock", told)


def packages(
    wanted: Iterable[str] | None = None, installed: Callable[[str], str | None] = installed_version
) -> list[Finding]:
    """Whether what millpond needs is there, in versions that it works with.

    Args:
        wanted: Requirements as its metadata has them; None: as they are installed.
        installed: Gives a package's version, None where it is not there.
    """
    if wanted is None:
        try:
            wanted = requires("millpond") or ()
        except PackageNotFoundError:  # run from a checkout
            wanted = ()
    problems = [problem for text in wanted if (problem := _unmet(text, installed)) is not None]
    told = ", ".join(f"{package} {installed(package) or 'not installed'}" for package in _TOLD)
    return problems or [fine("packages", told)]


def _unmet(requirement: str, installed: Callable[[str], str | None]) -> Finding | None:
    match = _REQUIREMENT.fullmatch(requirement)
    if match is None or "extra ==" in match[3]:
        return None
    name, least = match[1], match[2]
    found = installed(name)
    if found is None:
        return error(name, "not installed", f"pip install '{name}>={least}'")
    if parse_version(found) < parse_version(least):
        return error(name, f"{found}, and millpond needs {least} or later", f"pip install -U '{name}>={least}'")
    return None


def torch_and_torchcodec(torch: str | None, torchcodec: str | None) -> Finding:
    """Whether these versions fit each other; None: not installed."""
    if torch is None:
        subject = "torch"
        if torchcodec is None:
            return fine(subject, "not installed; batches are numpy arrays")
        return warning(subject, f"not installed, but torchcodec {torchcodec} is, which needs it", "pip install torch")
    has = parse_version(torch)[:2]
    if has < _OLDEST_TORCH:
        return error("torch", f"{torch}, and millpond.torch needs 2.4 or later", "pip install -U 'torch>=2.4'")
    if torchcodec is None:
        return fine("torch", f"{torch}, without torchcodec; PyAV decodes")
    told, codec = f"{torch} with torchcodec {torchcodec}", parse_version(torchcodec)[:2]
    if codec >= _FIRST_STABLE:
        fits, needs = has >= _OLDEST_STABLE_TORCH, f"torch {_text(_OLDEST_STABLE_TORCH)} or later"
    else:
        built_for = _TORCH_OF_TORCHCODEC.get(codec)
        fits, needs = built_for is None or built_for == has, f"torch {_text(built_for or ())}"
    if fits:
        return fine("torch", f"{told}, which fit each other")
    return warning(
        "torch",
        f"{told}, which needs {needs}; millpond decodes by PyAV all the same",
        f"pip install '{_torchcodec_for(has)}', which goes with torch {_text(has)}",
    )


def _torchcodec_for(torch: Version) -> str:
    if torch > max(_TORCH_OF_TORCHCODEC.values()):
        return f"torchcodec>={_text(_FIRST_STABLE)}"
    fitting = [codec for codec, built_for in _TORCH_OF_TORCHCODEC.items() if built_for == torch]
    return f"torchcodec=={_text(max(fitting))}.*"


def parse_version(text: str) -> Version:
    """The numbers of it: (2, 13, 0) of "2.13.0+cpu"."""
    match = re.match(r"\d+(?:\.\d+)*", text)
    return tuple(map(int, match[0].split("."))) if match else ()


def _text(numbers: Sequence[int]) -> str:
    return ".".join(map(str, numbers))
