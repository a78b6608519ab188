"""Flat memory, no hangs, nothing lost, at the speed of sequential decode: video, audio and images for training.

Every public name is imported from here. Names are loaded when they are first used: a worker needs few of them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from millpond._datasets.clips import ClipDataset
    from millpond._datasets.decoders.by_time import decode_video_frames
    from millpond._datasets.decoders.cache import DecoderCacheStatistics, VideoDecoderCache
    from millpond._datasets.decoders.frame_decoder import FrameDecoder, VideoMetadata
    from millpond._datasets.episode_cache import EpisodeByteCache
    from millpond._datasets.episode_index import EpisodeByteIndex
    from millpond._datasets.frame_batch import Frame, FrameBatch
    from millpond._datasets.lerobot import LeRobotDataset
    from millpond._datasets.load import load_audio, load_image, load_video
    from millpond._datasets.mix import Member, mix
    from millpond._datasets.mixed import MixedDataset
    from millpond._datasets.sound import decode_audio
    from millpond._guard.guard import Guard, GuardStatistics
    from millpond._guard.timeouts import with_timeout
    from millpond._loader.loader import Loader
    from millpond._loader.stage_times import WaitTimes
    from millpond._loader.statistics import LoaderStatistics
    from millpond._media.audio import Audio
    from millpond._media.options import AudioOptions, ImageOptions, VideoOptions
    from millpond._plan.books import Books
    from millpond._plan.memory import MemoryPlan
    from millpond._sources.range_fetcher import RangeFetcher
    from millpond._sweep.cooperation import report_metrics, sweep_jobs
    from millpond._sweep.results import SweepResult
    from millpond._sweep.sweep import sweep
    from millpond._workers.zygote import shutdown
    from millpond.errors import (
        ArenaFull,
        BatchTimeout,
        ClosedError,
        CorruptMedia,
        DataError,
        DeadlineExceeded,
        DecodeTimeout,
        FetchError,
        FetchTimeout,
        FrameTimestampError,
        InternalError,
        JobFailed,
        MillpondError,
        ObjectMissing,
        RemoteError,
        TooManyErrors,
        UnsupportedFormat,
        UsageError,
        WorkerDied,
    )

_HOMES = {
    "millpond._datasets.clips": ("ClipDataset",),
    "millpond._datasets.decoders.by_time": ("decode_video_frames",),
    "millpond._datasets.decoders.cache": ("DecoderCacheStatistics", "VideoDecoderCache"),
    "millpond._datasets.decoders.frame_decoder": ("FrameDecoder", "VideoMetadata"),
    "millpond._datasets.episode_cache": ("EpisodeByteCache",),
    "millpond._datasets.episode_index": ("EpisodeByteIndex",),
    "millpond._datasets.frame_batch": ("Frame", "FrameBatch"),
    "millpond._datasets.lerobot": ("LeRobotDataset",),
    "millpond._datasets.load": ("load_audio", "load_image", "load_video"),
    "millpond._datasets.mix": ("Member", "mix"),
    "millpond._datasets.mixed": ("MixedDataset",),
    "millpond._datasets.sound": ("decode_audio",),
    "millpond._loader.loader": ("Loader",),
    "millpond._loader.stage_times": ("WaitTimes",),
    "millpond._loader.statistics": ("LoaderStatistics",),
    "millpond._media.audio": ("Audio",),
    "millpond._media.options": ("AudioOptions", "ImageOptions", "VideoOptions"),
    "millpond._plan.books": ("Books",),
    "millpond._plan.memory": ("MemoryPlan",),
    "millpond._sources.range_fetcher": ("RangeFetcher",),
    "millpond._guard.guard": ("Guard", "GuardStatistics"),
    "millpond._guard.timeouts": ("with_timeout",),
    "millpond._sweep.cooperation": ("report_metrics", "sweep_jobs"),
    "millpond._sweep.results": ("SweepResult",),
    "millpond._sweep.sweep": ("sweep",),
    "millpond._workers.zygote": ("shutdown",),
    "millpond.errors": (
        "ArenaFull",
        "BatchTimeout",
        "ClosedError",
        "CorruptMedia",
        "DataError",
        "DeadlineExceeded",
        "DecodeTimeout",
        "FetchError",
        "FetchTimeout",
        "FrameTimestampError",
        "InternalError",
        "JobFailed",
        "MillpondError",
        "ObjectMissing",
        "RemoteError",
        "TooManyErrors",
        "UnsupportedFormat",
        "UsageError",
        "WorkerDied",
    ),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "ArenaFull",
    "Audio",
    "AudioOptions",
    "BatchTimeout",
    "Books",
    "ClipDataset",
    "ClosedError",
    "CorruptMedia",
    "DataError",
    "DeadlineExceeded",
    "DecodeTimeout",
    "DecoderCacheStatistics",
    "EpisodeByteCache",
    "EpisodeByteIndex",
    "FetchError",
    "FetchTimeout",
    "Frame",
    "FrameBatch",
    "FrameDecoder",
    "FrameTimestampError",
    "Guard",
    "GuardStatistics",
    "ImageOptions",
    "InternalError",
    "JobFailed",
    "LeRobotDataset",
    "Loader",
    "LoaderStatistics",
    "Member",
    "MemoryPlan",
    "MillpondError",
    "MixedDataset",
    "ObjectMissing",
    "RangeFetcher",
    "RemoteError",
    "SweepResult",
    "TooManyErrors",
    "UnsupportedFormat",
    "UsageError",
    "VideoDecoderCache",
    "VideoMetadata",
    "VideoOptions",
    "WaitTimes",
    "WorkerDied",
    "decode_audio",
    "decode_video_frames",
    "load_audio",
    "load_image",
    "load_video",
    "mix",
    "report_metrics",
    "shutdown",
    "sweep",
    "sweep_jobs",
    "with_timeout",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'millpond' has no attribute {name!r}")
    value = getattr(import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
