"""Decoders of episodes: the frames of a container's decode, asked for as from torchcodec, from bytes in memory."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import media_zoo as zoo
from millpond._datasets import episode_decoder, frame_batch
from millpond._datasets.episode_bytes import EpisodeBytes
from millpond._datasets.episode_cache import EpisodeByteCache
from millpond._datasets.episode_decoder import EpisodeDecoder
from millpond._datasets.episode_index import EpisodeByteIndex
from millpond._datasets.episode_spans import ranges_of_frames
from millpond._media.frames import DecodeReport, decode_frames
from millpond._media.media_path import MediaPath
from millpond._synth import read_pattern
from millpond._values import ByteRange
from millpond.errors import CorruptMedia, DataError, UnsupportedFormat
from store_server import serving_store
from synthesized import FRONT, FRONT_PATH, LENGTHS, WRIST, MakeDataset

CAMERAS = (FRONT, WRIST)

pytestmark = pytest.mark.usefixtures("torch_is_imported")


@pytest.fixture(scope="session")
def torchcodec_decoder() -> Any:
    try:
        import torchcodec.decoders
    except (ImportError, RuntimeError, OSError) as error:
        pytest.skip(f"torchcodec is not to be used here: {type(error).__name__}: {str(error).splitlines()[0]}")
    return torchcodec.decoders.VideoDecoder


@pytest.fixture
def decoder_of() -> Iterator[Callable[..., EpisodeDecoder]]:
    """Decoders of a dataset, or of single files."""
    caches: list[EpisodeByteCache] = []

    def open_decoder(source: Any, episode: int = 0, camera: str = "video") -> EpisodeDecoder:
        cache = EpisodeByteCache(EpisodeByteIndex.build(source), max_bytes="100MB")
        caches.append(cache)
        decoder: EpisodeDecoder = cache.get_decoder(episode, camera)
        return decoder

    yield open_decoder
    for cache in caches:
        cache.close()


def shown(data: Any) -> list[NDArray[np.uint8]]:
    """uint8, (H, W, 3), of each of (N, 3, H, W)."""
    pictures = np.asarray(data).transpose(0, 2, 3, 1)
    assert pictures.dtype == np.uint8
    return list(pictures)


def identities(data: Any) -> list[tuple[int, int, int]]:
    return [read_pattern(picture) for picture in shown(data)]


def expected(episode: int, camera: str, frames: Any) -> list[tuple[int, int, int]]:
    return [(episode, CAMERAS.index(camera), int(frame)) for frame in frames]


@pytest.mark.parametrize(
    "name",
    [
        "h264_b_frames",
        "h264_open_gop",
        "h264_intra_refresh",
        "hevc_cra",
        "av1_gop_16",
        "vp9_webm",
        "h264_vfr",
        "h264_faststart",
        "h264_fragmented",
        "h264_turned_90",
        "h264_mkv",
        "h264_avi",
        "h264_ts",
        "mpeg4_mp4",
    ],
)
def test_the_frames_are_those_of_a_container_decode(decoder_of: Callable[..., EpisodeDecoder], name: str) -> None:
    decoder, reference = decoder_of(zoo.clip_path(name)), zoo.clip_reference(name)
    assert len(decoder) == decoder.metadata.num_frames == len(reference)
    assert all(np.array_equal(a, b) for a, b in zip(shown(decoder[:]), reference, strict=True))
    wanted = [49, 3, 3, 17, -1, -50, 18]
    batch = decoder.get_frames_at(wanted)
    assert all(np.array_equal(a, reference[k]) for a, k in zip(shown(batch.data), wanted, strict=True))
    assert np.allclose(batch.pts_seconds, zoo.clip_table(name).frame_seconds[wanted])


@pytest.mark.parametrize("recipe", [{}, {"gop": 40}, {"b_frames": 2, "gop": 7}, {"codec": "av1", "gop": 2}])
def test_an_episode_shows_its_own_frames_and_no_others(
    synth: MakeDataset, decoder_of: Callable[..., EpisodeDecoder], recipe: dict[str, Any]
) -> None:
    for episode, length in enumerate(LENGTHS):
        for camera in CAMERAS:
            decoder = decoder_of(synth(**recipe), episode, camera)
            assert len(decoder) == length
            assert identities(decoder[:]) == expected(episode, camera, range(length))


def test_frames_are_asked_for_in_every_way_that_torchcodec_knows(
    synth: MakeDataset, decoder_of: Callable[..., EpisodeDecoder]
) -> None:
    decoder = decoder_of(synth(b_frames=2), 1, WRIST)
    numbers = np.arange(LENGTHS[1])
    for key in (slice(None), slice(3, 9), slice(None, None, -4), slice(15, 99), slice(5, 5)):
        assert identities(decoder[key]) == expected(1, WRIST, numbers[key])
    assert identities(decoder.get_frames_in_range(2, 12, 3).data) == expected(1, WRIST, [2, 5, 8, 11])
    assert identities(decoder[-2][None]) == expected(1, WRIST, [19])
    frame = decoder.get_frame_at(4)
    assert identities(frame.data[None]) == expected(1, WRIST, [4])
    assert (frame.pts_seconds, frame.duration_seconds) == pytest.approx(((LENGTHS[0] + 4) / 30, 1 / 30))
    batch = decoder.get_frames_at(np.array([7, 0, 7]))
    assert identities(batch.data) == expected(1, WRIST, [7, 0, 7])
    assert len(batch) == 3
    assert identities(batch[1:].data) == expected(1, WRIST, [0, 7])
    assert [float(one.pts_seconds) for one in batch] == pytest.approx([(LENGTHS[0] + k) / 30 for k in (7, 0, 7)])
    data, seconds, duration = decoder.get_frame_at(0)
    assert (data.shape, seconds, duration) == (
        (3, 96, 128),
        decoder.metadata.begin_stream_seconds,
        pytest.approx(1 / 30),
    )
    assert "data: (3, 3, 96, 128)" in repr(batch)


def test_times_are_those_of_the_file(synth: MakeDataset, decoder_of: Callable[..., EpisodeDecoder]) -> None:
    decoder = decoder_of(synth(b_frames=2), 2, FRONT)
    begin, length = (LENGTHS[0] + LENGTHS[1]) / 30, LENGTHS[2]
    numbers = np.arange(length)
    for off_seconds in (0.0, -6.6e-6, 6.6e-6, 0.02):  # as far as metadata was seen to be off, and amid a frame
        batch = decoder.get_frames_played_at(begin + numbers / 30 + off_seconds)
        assert identities(batch.data) == expected(2, FRONT, numbers)
    assert identities(decoder.get_frame_played_at(begin + 0.1).data[None]) == expected(2, FRONT, [3])
    for seconds in (begin - 0.02, begin + length / 30, 0.0):
        with pytest.raises(IndexError, match=r"episode 2 of camera 'observation\.images\.front' shows no frame at"):
            decoder.get_frame_played_at(seconds)


@pytest.mark.parametrize(
    ("indices", "error", "match"),
    [
        ([0, 10], IndexError, "has 10 frames, and no frame 10"),
        ([-11], IndexError, "no frame -11"),
        ([0.5], TypeError, "integers"),
    ],
)
def test_frames_that_are_not_there_are_refused(
    synth: MakeDataset, decoder_of: Callable[..., EpisodeDecoder], indices: Any, error: type[Exception], match: str
) -> None:
    decoder = decoder_of(synth(), 0, FRONT)
    with pytest.raises(error, match=match):
        decoder.get_frames_at(indices)
    assert len(decoder.get_frames_at([])) == 0


def test_each_gop_is_passed_once_whatever_the_order(
    synth: MakeDataset, decoder_of: Callable[..., EpisodeDecoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = decoder_of(synth(gop=6), 1, FRONT)
    reports: list[DecodeReport] = []

    def reported(*arguments: Any) -> DecodeReport:
        reports.append(decode_frames(*arguments))
        return reports[-1]

    monkeypatch.setattr(episode_decoder, "decode_frames", reported)
    decoder.get_frames_at([20, 0, 11, 10, 0, 5, 19, 1])
    # episode 1 begins at the file's frame 10: frames 10 and 11, 15, 20 and 21, 29, 30, each GOP from its key up to them
    assert reports[0].packets_fed == (12 - 6) + (16 - 12) + (22 - 18) + (30 - 24) + 1


def test_threads_may_share_a_decoder(decoder_of: Callable[..., EpisodeDecoder]) -> None:
    for name in ("h264_b_frames", "mpeg4_mp4"):
        decoder, reference = decoder_of(zoo.clip_path(name)), zoo.clip_reference(name)

        def is_right(k: int, decoder: EpisodeDecoder = decoder, reference: Any = reference) -> bool:
            return np.array_equal(shown(decoder.get_frame_at(k).data[None])[0], reference[k])

        with ThreadPoolExecutor(4) as threads:
            assert all(threads.map(is_right, [*range(0, 50, 7), *range(49, 0, -9)]))


def test_a_decoder_goes_on_after_its_cache_is_closed(synth: MakeDataset) -> None:
    with EpisodeByteCache(EpisodeByteIndex.build(synth()), max_bytes="10MB") as cache:
        decoder = cache.get_decoder(3, WRIST)
    assert identities(decoder[:]) == expected(3, WRIST, range(LENGTHS[3]))


def test_without_torch_frames_are_arrays(
    synth: MakeDataset, decoder_of: Callable[..., EpisodeDecoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frame_batch, "_has_torch", lambda: False)
    batch = decoder_of(synth(), 0, FRONT).get_frames_at([1, 2])
    assert isinstance(batch.data, np.ndarray)
    assert (batch.data.shape, batch.data.dtype, batch.pts_seconds.dtype) == ((2, 3, 96, 128), np.uint8, np.float64)
    assert identities(batch.data) == expected(0, FRONT, [1, 2])


@pytest.mark.parametrize("name", ["h264_b_frames", "h264_vfr", "av1_gop_16", "h264_turned_90"])
def test_shapes_times_and_pixels_are_those_of_torchcodec(
    decoder_of: Callable[..., EpisodeDecoder], torchcodec_decoder: Any, name: str
) -> None:
    ours, theirs = decoder_of(zoo.clip_path(name)), torchcodec_decoder(str(zoo.clip_path(name)))
    a, b = ours.get_frames_at([0, 31, 7]), theirs.get_frames_at([0, 31, 7])
    assert (a.data.dtype, a.data.shape, a.data.stride()) == (b.data.dtype, b.data.shape, b.data.stride())
    assert (a.pts_seconds.dtype, a.pts_seconds.shape) == (b.pts_seconds.dtype, b.pts_seconds.shape)
    assert np.allclose(a.pts_seconds, b.pts_seconds)
    if "turned" not in name:  # FFmpeg versions differ there
        assert np.array_equal(a.data, b.data)
    for field in ("num_frames", "width", "height", "codec", "stream_index"):
        assert getattr(ours.metadata, field) == getattr(theirs.metadata, field), field
    assert ours.metadata.begin_stream_seconds == pytest.approx(theirs.metadata.begin_stream_seconds)


@pytest.mark.parametrize("name", ["h264_b_frames", "h264_vfr", "av1_gop_16"])
def test_torchcodec_takes_the_frame_mappings(torchcodec_decoder: Any, name: str) -> None:
    path, reference = zoo.clip_path(name), zoo.clip_reference(name)
    mappings = EpisodeByteIndex.build(path).custom_frame_mappings(0, "video")
    assert set(json.loads(mappings)["frames"][0]) == {"pts", "duration", "key_frame"}
    decoder = torchcodec_decoder(str(path), custom_frame_mappings=mappings)
    assert len(decoder) == len(reference)
    for k in (0, 13, 49):
        assert np.array_equal(shown(decoder[k][None])[0], reference[k])


# What is damaged.


@pytest.mark.parametrize("damage", [bytes(2000), bytes(range(1, 251)) * 8])
def test_damage_at_the_start_comes_out_of_both_calls(damaged: MakeDataset, damage: bytes) -> None:
    root = damaged()
    index = EpisodeByteIndex.build(root)
    span = index.lookup(2, FRONT)
    _overwrite(root / FRONT_PATH, span.mdat_offset + 40, damage)
    with EpisodeByteCache(EpisodeByteIndex.build(root), max_bytes="10MB") as cache:
        cache.submit_prefetch(2)
        for call in (lambda: cache.ensure_ready(2), lambda: cache.get_decoder(2, FRONT)):
            with pytest.raises(CorruptMedia, match=r"^episode 2 of camera 'observation\.images\.front': ") as caught:
                call()
            assert (caught.value.episode, caught.value.camera) == (2, FRONT)
        assert len(cache.get_decoder(2, WRIST)) == LENGTHS[2]


def test_damage_further_on_fails_only_the_frames_concerned_and_names_them(damaged: MakeDataset) -> None:
    root = damaged()
    index = EpisodeByteIndex.build(root)
    table, frames = index.sample_table(1, FRONT), index.frames(1, FRONT)
    row = int(table.frame_rows[frames[12]])
    _overwrite(root / FRONT_PATH, int(table.offset[row]) + 6, bytes([0x5A, 0xC3] * (int(table.size[row]) // 2 - 4)))
    with EpisodeByteCache(EpisodeByteIndex.build(root), max_bytes="10MB") as cache:
        decoder = cache.get_decoder(1, FRONT)
        assert identities(decoder[:2]) == expected(1, FRONT, [0, 1])
        with pytest.raises(
            CorruptMedia, match=r"frame \d+ of episode 1 of camera 'observation\.images\.front'"
        ) as caught:
            decoder[:]
        assert (caught.value.episode, caught.value.camera) == (1, FRONT)


def _overwrite(path: Path, position: int, data: bytes) -> None:
    with open(path, "r+b") as file:
        file.seek(position)
        file.write(data)


def test_a_gop_of_preroll_is_fetched_late_where_a_stream_turns_out_to_need_it() -> None:
    path, table = zoo.clip_path("h264_intra_refresh"), zoo.clip_table("h264_intra_refresh")
    frames = np.arange(int(table.gop_starts[2]), int(table.gop_starts[3]))
    data, late_ranges = path.read_bytes(), []

    def late(wanted: ByteRange) -> bytes:
        late_ranges.append(wanted)
        return data[wanted.start : wanted.stop]

    parts = [(r.start, data[r.start : r.stop]) for r in ranges_of_frames(table, frames)]
    payload = EpisodeBytes(MediaPath.of(path), table, frames, parts, late)
    for _ in range(2):
        decoder = EpisodeDecoder(payload, episode=0, camera="video")
        reference = zoo.clip_reference("h264_intra_refresh")
        assert all(np.array_equal(a, reference[k]) for a, k in zip(shown(decoder[:]), frames, strict=True))
    assert payload.preroll_gops == 1
    assert len(late_ranges) == 2


# An index that only has the four methods.


class ForeignIndex:
    """Tells of a slice of each file, as attributes or as tuples."""

    def __init__(self, index: EpisodeByteIndex, as_tuples: bool = True) -> None:
        self.video_keys = list(index.video_keys)
        self._index = index
        self._as_tuples = as_tuples

    def lookup(self, episode: int, camera: str) -> Any:
        found = self._index.lookup(episode, camera)
        return tuple(found) if self._as_tuples else found

    def file_lookup(self, file_id: int) -> Any:
        found = self._index.file_lookup(file_id)
        return tuple(found) if self._as_tuples else found

    def custom_frame_mappings(self, episode: int, camera: str) -> None:
        return None


@pytest.mark.parametrize("as_tuples", [True, False])
def test_a_foreign_index_gives_the_frames_of_the_file_from_its_slice(synth: MakeDataset, as_tuples: bool) -> None:
    root = synth(b_frames=2)
    index = EpisodeByteIndex.build(root)
    with EpisodeByteCache(ForeignIndex(index, as_tuples), max_bytes="10MB", data_root=str(root)) as cache:
        cache.submit_prefetch(1)
        cache.ensure_ready(1)
        span = index.lookup(1, FRONT)
        header = index.file_lookup(span.file_id).header_length
        assert cache._cache[1, FRONT][1] == header + span.mdat_length
        decoder = cache.get_decoder(1, FRONT)
        assert len(decoder) == sum(LENGTHS)
        numbers = np.arange(LENGTHS[1])
        assert identities(decoder.get_frames_at(numbers + LENGTHS[0]).data) == expected(1, FRONT, numbers)
        seconds = (numbers + LENGTHS[0]) / 30
        assert identities(decoder.get_frames_played_at(seconds).data) == expected(1, FRONT, numbers)
        assert identities(decoder[0][None]) == expected(0, FRONT, [0])  # not in the slice: fetched now


def test_what_is_fetched_late_by_a_foreign_index_is_of_the_same_version(damaged: MakeDataset) -> None:
    root = damaged(b_frames=2)
    index = EpisodeByteIndex.build(root)
    with serving_store(root) as server:
        with EpisodeByteCache(ForeignIndex(index), max_bytes="10MB", data_root=server.url) as cache:
            decoder = cache.get_decoder(1, FRONT)
            assert identities(decoder[0][None]) == expected(0, FRONT, [0])  # not in the slice: fetched now
            os.utime(root / FRONT_PATH, ns=(10**18, 10**18))  # as one that was written anew
            with pytest.raises(CorruptMedia, match="changed since it was indexed"):
                cache.get_decoder(1, FRONT)[0]
            with pytest.raises(CorruptMedia, match="changed since it was indexed"):
                cache.get_decoder(2, FRONT)


def test_a_foreign_index_that_tells_of_no_header_says_so(synth: MakeDataset, tmp_path: Path) -> None:
    class Short(ForeignIndex):
        def file_lookup(self, file_id: int) -> Any:
            path, size, _ = super().file_lookup(file_id)
            return path, size, 24

    root = synth()
    with EpisodeByteCache(Short(EpisodeByteIndex.build(root)), max_bytes="10MB", data_root=str(root)) as cache:
        with pytest.raises(DataError, match="the header was taken to be the first 24 bytes"):
            cache.get_decoder(0, FRONT)


def test_a_foreign_index_of_a_codec_that_is_not_cut_is_refused() -> None:
    index = ForeignIndex(EpisodeByteIndex.build(zoo.clip_path("mpeg4_mp4")))
    index.lookup = lambda episode, camera: (0, 0, 10_000)  # type: ignore[method-assign]
    with EpisodeByteCache(index, max_bytes="10MB") as cache:
        with pytest.raises((UnsupportedFormat, DataError)):
            cache.get_decoder(0, "video")
