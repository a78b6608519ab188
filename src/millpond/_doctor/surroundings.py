"""What the environment says: MILLPOND_* variables, start methods, and what makes forks unsafe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches

from pydantic import ValidationError
from pydantic_settings import BaseSettings

from millpond._doctor.findings import Finding, error, fine, warning
from millpond.settings import DataLoaderSettings, DecoderCacheSettings, Settings, StartMethodSettings

_SETTINGS: tuple[type[BaseSettings], ...] = (Settings, StartMethodSettings, DataLoaderSettings, DecoderCacheSettings)
_PREFIX = "MILLPOND_"
_LIKE = 0.8
_ZYGOTE = "zygote"
_FORKS = "fork"


def settings(environment: Mapping[str, str]) -> list[Finding]:
    """Whether each MILLPOND_* variable of this process, its `environment`, is known, and has a value of use."""
    problems = [*_bad_values(), *_likely_typos(environment)]
    given = sorted(name for name in environment if name in _known())
    told = ", ".join(f"{name}={environment[name]}" for name in given) or "none is set"
    return problems or [fine("MILLPOND_* variables", told)]


def _known() -> set[str]:
    return {f"{_PREFIX}{name.upper()}" for kind in _SETTINGS for name in kind.model_fields}


def _bad_values() -> Iterator[Finding]:
    for kind in _SETTINGS:
        try:
            kind()
        except ValidationError as failure:
            for problem in failure.errors():
                name = f"{_PREFIX}{'_'.join(map(str, problem['loc'])).upper()}"
                found = f"{problem['input']!r}: {problem['msg']}"
                yield error(name, found, f"unset it, or give it what it takes: {_meaning(kind, name)}")
        except ValueError as failure:
            yield error("cache", str(failure), "export HOME, or MILLPOND_CACHE_DIR")


def _meaning(kind: type[BaseSettings], name: str) -> str:
    field = kind.model_fields.get(name.removeprefix(_PREFIX).lower())
    return "" if field is None else str(field.description).removeprefix(f"{name}: ")


def _likely_typos(environment: Mapping[str, str]) -> Iterator[Finding]:
    for name in sorted(environment):
        if name.startswith(_PREFIX) and name not in _known():
            for meant in get_close_matches(name, _known(), 1, _LIKE):
                yield warning(name, "no such variable is read", f"rename it to {meant}")


def start_methods(available: Sequence[str], chosen: str | None) -> Finding:
    """How workers are started.

    Args:
        available: Of multiprocessing.
        chosen: By MILLPOND_MP_CONTEXT.
    """
    subject = "start methods"
    methods = (_ZYGOTE, *available)
    told = f"{', '.join(methods)}; the drop-in DataLoader takes {chosen or _ZYGOTE}"
    if chosen is not None and chosen and chosen not in methods:
        return error(
            subject, f"{told}, which is none of them", f"set MILLPOND_MP_CONTEXT to one of {', '.join(methods)}"
        )
    if chosen == _FORKS:
        return warning(
            subject,
            f"{told}: a fork has the locks of threads, but not the threads that would open them",
            "unset MILLPOND_MP_CONTEXT",
        )
    return fine(subject, told)


def preloaded_libraries(environment: Mapping[str, str]) -> Finding:
    """What LD_PRELOAD puts into every process, workers included."""
    subject, libraries = "LD_PRELOAD", environment.get("LD_PRELOAD", "").replace(":", " ").split()
    if not libraries:
        return fine(subject, "not set")
    hazards = [library for library in libraries if any(word in library for word in ("asan", "tsan", "vgpreload"))]
    if hazards:
        return warning(
            subject, f"{', '.join(hazards)}: slows workers down many times", "unset LD_PRELOAD for real runs"
        )
    return fine(subject, f"{', '.join(libraries)}, in every worker, too")
