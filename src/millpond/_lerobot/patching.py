"""`patch()`: others stand for LeRobot's names, in this process and wherever its datasets are unpickled meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import ModuleType, TracebackType
from typing import Any, Self

from millpond._datasets.decoders.cache import VideoDecoderCache, default_cache, require_cache
from millpond._lerobot.installed import FUNCTIONS, dataset_classes, loaded_modules, video_utils
from millpond._lerobot.replacements import stand_in
from millpond.errors import UsageError


@dataclass
class _Installed:
    """One exchange of LeRobot's names, and how to take it back.

    Attributes:
        cache: What the replacements decode with.
        pairs: (theirs, ours) for each function, class and cache exchanged.
        reducers: Each class of LeRobot's that was given a way to be pickled, and what its own `__dict__` had.
    """

    cache: VideoDecoderCache
    pairs: list[tuple[Any, Any]] = field(default_factory=list)
    reducers: list[tuple[Any, Any]] = field(default_factory=list)


_lock = threading.RLock()
_installed: _Installed | None = None


class Patch:
    """That LeRobot decodes with millpond; `patch` makes it. A context manager.

    Attributes:
        cache: What it decodes with; `cache.statistics()` says how much is open.
    """

    def __init__(self, installed: _Installed, is_first: bool) -> None:
        self._installed = installed
        self._is_first = is_first
        self.cache = installed.cache

    def undo(self) -> None:
        """Give LeRobot its own names back, in all its modules that are loaded by now. A second time does nothing.

        Processes that have been started stay as they are, and what has been pickled meanwhile still patches the
        process that it is unpickled in. Decoders stay open in `cache` until its `clear()`.
        """
        global _installed
        with _lock:
            if _installed is self._installed:
                _take_back(self._installed)
                _installed = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._is_first:
            self.undo()

    def __repr__(self) -> str:
        return f"<millpond.lerobot.Patch: {'in force' if _installed is self._installed else 'undone'}>"


def patch(cache: VideoDecoderCache | None = None) -> Patch:
    """Have the installed LeRobot decode with millpond's packet decoder, on a cache that is bounded.

    Replaced, in `lerobot.datasets.video_utils` and in each module of LeRobot's that has them from there:
    `decode_video_frames` and the functions that it calls for its backends, `VideoDecoderCache`, and the cache that is
    used by default. They take the same arguments and give the same samples, and raise LeRobot's `FrameTimestampError`.
    Whatever backend LeRobot is told to use, frames come from the packet decoder (or from what `cache` was made with);
    `log_loaded_timestamps` logs nothing. Depth, open files and whatever else millpond does not know in such a call
    goes to LeRobot's own functions. Damaged or missing media raises millpond's `DataError`.

    Workers have it too: forked ones as they are, others (spawn, forkserver, `millpond.torch.DataLoader`) because a
    `LeRobotDataset` that was pickled while it held patches the process that it is unpickled in. Each process has a
    cache of its own, of the same size.

    Call it before your own modules import these names from LeRobot: those keep what they have.

    Args:
        cache: None: the one of `millpond.decode_video_frames`, which has room for 100 files
            (MILLPOND_VIDEO_DECODER_CACHE_SIZE).

    Returns:
        What undoes it: by `undo()`, or at the end of a `with`. A second patch changes nothing; a `with` over one inside
        a program that is patched already leaves it patched.

    Raises:
        ImportError: LeRobot is not installed, or lacks what its datasets need.
        UnsupportedFormat: A version of LeRobot that decodes in another way.
        UsageError: It is patched already, with another cache.
        TypeError: Not a `VideoDecoderCache` of millpond's.
    """
    global _installed
    require_cache(cache)
    with _lock:
        if _installed is None:
            _installed = _exchange(video_utils(), cache)
            return Patch(_installed, is_first=True)
        if cache is not None and cache is not _installed.cache:
            raise UsageError(
                "LeRobot decodes with millpond already, on another cache: undo() that patch first, or leave out cache="
            )
        return Patch(_installed, is_first=False)


def _exchange(module: ModuleType, cache: VideoDecoderCache | None) -> _Installed:
    classes = dataset_classes()  # imported before names are exchanged, so that they have them exchanged, too
    installed = _Installed(default_cache() if cache is None else cache)
    names = vars(module)
    their_cache, mismatch = names.get("VideoDecoderCache"), names["FrameTimestampError"]
    for function in (names[name] for name in FUNCTIONS if name in names):
        installed.pairs.append((function, stand_in(function, mismatch, their_cache, installed.cache)))
    if their_cache is not None:
        installed.pairs.append((their_cache, VideoDecoderCache))
    if "_default_decoder_cache" in names:
        installed.pairs.append((names["_default_decoder_cache"], installed.cache))
    _put(installed.pairs)
    kind: Any
    for kind in classes:
        installed.reducers.append((kind, vars(kind).get("__reduce_ex__")))
        kind.__reduce_ex__ = _patching_reduce(kind, cache)
    return installed


def _take_back(installed: _Installed) -> None:
    _put([(ours, theirs) for theirs, ours in installed.pairs])
    for kind, reduce in installed.reducers:
        if reduce is None:
            del kind.__reduce_ex__
        else:
            kind.__reduce_ex__ = reduce


def _put(pairs: Sequence[tuple[Any, Any]]) -> None:
    """Let each name of LeRobot's that stands for the first of a pair stand for the second."""
    second_of = {id(first): second for first, second in pairs}
    for module in loaded_modules():
        for name, value in list(vars(module).items()):
            if id(value) in second_of:
                setattr(module, name, second_of[id(value)])


def _patching_reduce(kind: Any, cache: VideoDecoderCache | None) -> Callable[[Any, Any], Any]:
    """For a dataset of LeRobot's: as it would be pickled anyway, but made again by `_rebuild`."""
    reduce: Callable[[Any, Any], Any] = kind.__reduce_ex__

    def __reduce_ex__(self: Any, protocol: Any) -> Any:  # noqa: N807 - the name that tracebacks show
        made = reduce(self, protocol)
        if isinstance(made, str):
            return made
        make, arguments, *state = made
        return _rebuild, (make, arguments, cache), *state

    return __reduce_ex__


def _rebuild(make: Callable[..., Any], arguments: tuple[Any, ...], cache: VideoDecoderCache | None) -> Any:
    """Patch the process that a dataset comes to, unless it is patched already, whatever its cache; then make it."""
    with _lock:
        if _installed is None:
            patch(cache)
    return make(*arguments)
