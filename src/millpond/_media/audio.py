"""Sound: one stream of a file, decoded through its container and resampled."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import av
import av.audio
import av.container
import av.error
import numpy as np
from numpy.typing import NDArray

from millpond._media.clip_source import Source, local_media
from millpond._media.containers import open_container, packets_of, pick_audio_stream, reason_of
from millpond._media.media_path import MediaPath
from millpond._media.resample import Resampled, require_room
from millpond._media.wholeness import frames_of_mp3, require_checksums, require_whole_file
from millpond._values import no_progress
from millpond.errors import CorruptMedia

Progress = Callable[[], None]

_GAP_SECONDS = 0.1
"""A pause between the times of two frames that is longer than any container's rounding is a hole in the recording."""


@dataclass(frozen=True, slots=True)
class Audio:
    """Decoded sound.

    Attributes:
        samples: float32, (C, N), -1 to 1, CPU; its own memory.
        sampling_rate: Samples per second.
        first_seconds: When the first sample is heard; MP3 and cut clips do not start at 0.
    """

    samples: NDArray[np.float32]
    sampling_rate: int
    first_seconds: float

    @property
    def duration_seconds(self) -> float:
        """N over the sampling rate."""
        return int(self.samples.shape[1]) / self.sampling_rate


def decode_audio(
    source: Source,
    *,
    sampling_rate: int | None = None,
    mono: bool = False,
    start_seconds: float | None = None,
    max_seconds: float | None = None,
    progress: Progress = no_progress,
) -> Audio:
    """See `millpond.decode_audio`, which also takes URLs."""
    if sampling_rate is not None and sampling_rate <= 0:
        raise ValueError(f"sampling_rate is {sampling_rate}, it must be positive or None")
    with local_media(source, kind="audio", progress=progress) as path:
        job = _Job(path, sampling_rate, mono, start_seconds, max_seconds, progress)
        try:
            require_whole_file(path)
            with open_container(path) as container:
                audio = job.run(container)
            require_checksums(path, job.stop_bytes, progress)
            return audio
        except (av.error.FFmpegError, ValueError) as error:
            reason = reason_of(error) if isinstance(error, av.error.FFmpegError) else error
            raise CorruptMedia(f"{path} does not decode as audio: {reason}", path=path.label) from error


def aligned_to(audio: Audio, start_seconds: float, max_seconds: float | None = None) -> Audio:
    """The same sound, so that sample i is heard at start_seconds + i / rate, to the nearest sample.

    Args:
        audio: Decoded sound.
        start_seconds: The time of the new first sample; where there is no sound yet, it is silence.
        max_seconds: Cut off what comes behind.

    Raises:
        CorruptMedia: The silence in front would be larger than any clip.
    """
    shift = round((audio.first_seconds - start_seconds) * audio.sampling_rate)
    stop = None if max_seconds is None else max(round(max_seconds * audio.sampling_rate), 0)
    samples = audio.samples[:, max(-shift, 0) :][:, :stop]
    if shift > 0:
        silent = shift if stop is None else min(shift, stop)
        require_room((silent + samples.shape[1]) * len(samples), f"sound that begins {audio.first_seconds:g} s late")
        silence = np.zeros((len(samples), silent), np.float32)
        samples = np.concatenate((silence, samples[:, : None if stop is None else stop - silent]), axis=1)
    return Audio(np.ascontiguousarray(samples), audio.sampling_rate, start_seconds)


class _Job:
    """One call of `decode_audio`.

    Attributes:
        stop_bytes: Where the last packet begins that was decoded; None when all were.
    """

    def __init__(
        self,
        path: MediaPath,
        sampling_rate: int | None,
        mono: bool,
        start_seconds: float | None,
        max_seconds: float | None,
        progress: Progress,
    ) -> None:
        self._path = path
        self._start_seconds = start_seconds
        self._max_seconds = max_seconds
        self._progress = progress
        self._sound = Resampled(path, sampling_rate, mono)
        self._num_packets = self._num_source_samples = 0
        self._last_bytes = 0
        self.stop_bytes: int | None = None
        self._first_seconds: float | None = None

    def run(self, container: av.container.InputContainer) -> Audio:
        stream = pick_audio_stream(container, self._path)
        stream.codec_context.thread_count = 1
        if stream.codec_context.name == "flac":
            stream.codec_context.options = {"err_detect": "crccheck+explode"}  # its frames have checksums
        is_whole = self._decode(self._frames(container, stream))
        if is_whole:
            self._require_every_packet(stream)
            self._require_every_sample(stream)
        else:
            self.stop_bytes = self._last_bytes
        if self._sound.is_empty:
            raise CorruptMedia(f"{self._path}: no audio frame decodes", path=self._path.label)
        audio = Audio(self._sound.samples(), self._sound.rate, self._first_seconds or 0.0)
        if self._start_seconds is None and self._max_seconds is None:
            return audio
        start_seconds = audio.first_seconds if self._start_seconds is None else self._start_seconds
        return aligned_to(audio, start_seconds, self._max_seconds)

    def _decode(self, frames: Iterator[av.AudioFrame]) -> bool:
        """Resample every frame; False if that ended early because there is enough."""
        expected_seconds: float | None = None
        for frame in frames:
            if self._first_seconds is None:
                self._first_seconds = frame.time or 0.0
            if expected_seconds is not None and frame.time is not None and self._start_seconds is not None:
                self._bridge(frame, frame.time - expected_seconds)
            self._sound.add(frame)
            if frame.time is not None:
                expected_seconds = frame.time + frame.samples / frame.sample_rate
            if self._has_enough():
                return False
        self._sound.flush()
        return True

    def _frames(self, container: av.container.InputContainer, stream: av.audio.AudioStream) -> Iterator[av.AudioFrame]:
        # of a WAV without a length, written into a pipe, the last packet is shorter than FFmpeg thinks
        may_lack_length = container.format.name == "wav"
        for packet in packets_of(container, stream):
            self._num_packets += packet.size > 0
            self._last_bytes = max(self._last_bytes, packet.pos or 0)
            frames = packet.decode()
            if not may_lack_length and (packet.is_corrupt or any(frame.is_corrupt for frame in frames)):
                raise CorruptMedia(f"{self._path}: some of its sound is marked as corrupt", path=self._path.label)
            self._num_source_samples += sum(frame.samples for frame in frames)
            yield from frames
            self._progress()

    def _has_enough(self) -> bool:
        if self._max_seconds is None or self._sound.is_empty:
            return False
        skipped_seconds = 0.0 if self._start_seconds is None else self._start_seconds - (self._first_seconds or 0.0)
        return self._sound.num_samples > (skipped_seconds + self._max_seconds) * self._sound.rate

    def _bridge(self, frame: av.AudioFrame, gap_seconds: float) -> None:
        """Fill a hole before `frame` with silence, a second at a time."""
        missing = round(gap_seconds * frame.sample_rate) if gap_seconds > _GAP_SECONDS else 0
        if missing and self._max_seconds is None:
            require_room(round(gap_seconds * self._sound.rate), f"{self._path}, with a hole of {gap_seconds:g} s,")
        while missing > 0 and not self._has_enough():
            count = min(missing, frame.sample_rate)
            self._sound.add_silence(frame, count)
            self._progress()
            missing -= count

    def _require_every_packet(self, stream: av.audio.AudioStream) -> None:
        """A file that was cut short ends early without an error; where its header counts packets, that tells."""
        expected = 0
        if "mp4" in stream.container.format.name:
            expected = len(stream.index_entries)
        elif stream.container.format.name == "mp3":
            expected = frames_of_mp3(self._path)
        if self._num_packets < expected:
            raise CorruptMedia(
                f"{self._path} is cut short: {self._num_packets} of {expected} audio packets are there; fetch or write "
                "the file again",
                path=self._path.label,
            )

    def _require_every_sample(self, stream: av.audio.AudioStream) -> None:
        """A FLAC says how many samples it has."""
        if stream.container.format.name != "flac" or not stream.duration or stream.time_base is None:
            return
        expected = round(stream.duration * stream.time_base * stream.codec_context.sample_rate)
        if self._num_source_samples < expected:
            raise CorruptMedia(
                f"{self._path} is damaged or cut short: {self._num_source_samples} of {expected} samples are there; "
                "fetch or write the file again",
                path=self._path.label,
            )
