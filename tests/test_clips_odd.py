"""Odd files among clips: each is a bad sample with a name, no secret is told, and what is not wanted is not read."""

from __future__ import annotations

import io
import json
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile

from clip_sets import make_loader, open_clips, write_manifest
from media_server import serving
from millpond import AudioOptions, ImageOptions, decode_audio, errors
from millpond._media.images import MAX_IMAGE_PIXELS, decode_image, size_of_image
from millpond._media.media_path import MediaPath
from millpond._media.transport_stream import lost_places
from millpond._media.wholeness import require_checksums
from sounds import RATE, remux_sound, tone, write_sound

SOUND = AudioOptions(sampling_rate=RATE)


def picture(format: str = "PNG", size: tuple[int, int] = (6, 4), **options: Any) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, (200, 100, 50)).save(file, format, **options)
    return file.getvalue()


def turned(orientation: int) -> Any:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def flip(path: Path, start: int, count: int = 64) -> None:
    """Alter bytes, and neither the size nor the time of the file."""
    status, data = path.stat(), bytearray(path.read_bytes())
    data[start : start + count] = bytes(255 - byte for byte in data[start : start + count])
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


# ---- opening


def test_one_file_that_its_library_stumbles_over_does_not_keep_the_others_from_opening(tmp_path: Path) -> None:
    (tmp_path / "good.png").write_bytes(picture())
    (tmp_path / "odd.png").write_bytes(picture(exif=b"Exif\0\0II*\0"))
    manifest = write_manifest(tmp_path / "m.jsonl", [{"image": "good.png"}, {"image": "odd.png"}])
    dataset = open_clips(manifest, image=ImageOptions())
    assert list(dataset.problems) == [1]
    assert "odd.png" in str(dataset.problems[1])
    with pytest.raises(errors.CorruptMedia):
        dataset[1]


def test_a_stream_that_begins_in_the_middle_is_a_bad_sample(tmp_path: Path) -> None:
    good = write_sound(tmp_path / "good.ts", "mp2", tone(1, 48_000), rate=48_000)
    options = {"mpegts_start_pid": "0x300", "mpegts_pmt_start_pid": "0x1100"}
    other = write_sound(tmp_path / "other.ts", "mp2", tone(1, 48_000), rate=48_000, **options)
    (tmp_path / "odd.ts").write_bytes(good.read_bytes() * 8 + other.read_bytes())  # beyond what is probed
    manifest = write_manifest(tmp_path / "m.jsonl", [{"audio": "good.ts"}, {"audio": "odd.ts"}])
    assert list(open_clips(manifest, audio=SOUND).problems) == [1]


def test_a_row_that_hangs_is_told_with_its_file_and_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "good.png").write_bytes(picture())
    os.mkfifo(tmp_path / "pipe.png")
    manifest = write_manifest(tmp_path / "m.jsonl", [{"image": "good.png"}, {"image": "pipe.png"}])
    open_clips(write_manifest(tmp_path / "first.jsonl", [{"image": "good.png"}]), image=ImageOptions())
    problem = open_clips(manifest, image=ImageOptions(), timeout=1.0).problems[1]
    assert isinstance(problem, errors.DecodeTimeout)
    assert str(problem).startswith("row 1: 'pipe.png': ")
    assert any("timeout=" in note for note in problem.__notes__)
    assert not any("Guard.map" in note for note in problem.__notes__)


def test_where_no_row_can_be_looked_at_the_first_is_named(tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path / "m.jsonl", [{"image": None}, {"image": "gone.png"}])
    with pytest.raises(errors.ObjectMissing, match=r"^row 0: "):
        open_clips(manifest, image=ImageOptions())


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
def test_the_size_in_a_header_is_that_of_the_picture(format: str, orientation: int) -> None:
    data = picture(format, exif=turned(orientation))
    assert size_of_image(data) == decode_image(data).shape[:2] == ((4, 6) if orientation == 1 else (6, 4))


def test_the_size_of_a_png_is_known_without_its_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(_: object) -> None:
        raise AssertionError("it was decoded")

    data = picture()
    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    assert size_of_image(data) == (4, 6)


def test_a_bomb_is_refused_by_its_header() -> None:
    data = bytearray(picture("BMP"))
    struct.pack_into("<ii", data, 18, MAX_IMAGE_PIXELS, 2)
    with pytest.raises(errors.CorruptMedia, match=r"bomb"):
        size_of_image(bytes(data))


# ---- secrets


def test_no_error_and_no_quarantine_file_tells_the_secret_of_a_url(tmp_path: Path) -> None:
    with serving({"/small.png": picture(), "/large.png": picture(size=(12, 8))}) as server:
        base = server.url.replace("//", "//ann:hunter2@")
        rows = [{"image": f"{base}/{name}.png?token=sesame"} for name in ("small", "large", "gone")]
        manifest = write_manifest(tmp_path / "m.jsonl", rows)
        with pytest.raises(ValueError, match=r"pictures of 4 x 6") as unlike:
            open_clips(manifest, image=ImageOptions())
        dataset = open_clips(manifest, image=ImageOptions(image_size=(4, 6)))
        with make_loader(dataset, on_error="skip", quarantine=tmp_path / "q.jsonl") as loader:
            assert sum(len(batch["image"]) for batch in loader) == 2
        with make_loader(dataset, batch_size=1) as loader, pytest.raises(errors.ObjectMissing) as missing:
            list(loader)
    line = json.loads((tmp_path / "q.jsonl").read_text())
    assert line["image"].endswith("/gone.png?...")
    told = (
        f"{unlike.value} {line} {missing.value} {missing.value.facts} {missing.value.__notes__} {dataset.describe(0)}"
    )
    assert "hunter2" not in told
    assert "sesame" not in told


# ---- large sounds


@pytest.fixture(scope="module")
def long_sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """5 MB of sound that begins at 30 s: more than is looked at as a whole."""
    folder = tmp_path_factory.mktemp("long")
    plain = write_sound(folder / "plain.ts", "mp2", tone(2, 48_000, 110.0), rate=48_000)
    return remux_sound(plain, folder / "late.ts", shift_seconds=30.0)


def test_altered_sound_is_noticed_also_where_it_begins_late(long_sound: Path, tmp_path: Path) -> None:
    path = tmp_path / "late.ts"
    path.write_bytes(long_sound.read_bytes())
    assert path.stat().st_size > 4 << 20
    manifest = write_manifest(tmp_path / "m.jsonl", [{"audio": "late.ts"}])
    options = AudioOptions(sampling_rate=RATE, max_seconds=5.0)
    with make_loader(open_clips(manifest, audio=options), batch_size=1) as loader:
        assert len(list(loader)) == 1
    data = path.read_bytes()
    packet = 188 * (len(data) // 188 // 40)
    flip(path, packet + 100, 40)  # in the third second
    dataset = open_clips(manifest, audio=options)
    with pytest.raises(errors.CorruptMedia):
        dataset[0]


@pytest.mark.parametrize("name", ["sound.ogg", "sound.mka"])
def test_checksums_are_looked_at_as_far_as_the_sound_was_wanted(name: str, tmp_path: Path) -> None:
    path = write_sound(tmp_path / name, "libopus", tone(1, 48_000, 60.0), rate=48_000)
    whole = decode_audio(path, sampling_rate=RATE, max_seconds=2.0).samples
    size = path.stat().st_size
    flip(path, size * 9 // 10)
    assert np.array_equal(decode_audio(path, sampling_rate=RATE, max_seconds=2.0).samples, whole)
    with pytest.raises(errors.CorruptMedia):
        require_checksums(MediaPath.of(path), None, lambda: None)
    with pytest.raises(errors.CorruptMedia):
        decode_audio(path, sampling_rate=RATE)
    flip(path, size * 9 // 10)
    calls: list[None] = []
    require_checksums(MediaPath.of(path), None, lambda: calls.append(None))
    assert len(calls) > 1
    flip(path, size // 60)  # in the first second
    with pytest.raises(errors.CorruptMedia):
        decode_audio(path, sampling_rate=RATE, max_seconds=2.0)


def test_a_transport_stream_full_of_holes_is_walked_through_in_small_steps(tmp_path: Path) -> None:
    packet = b"\x47" + bytes(187)
    (tmp_path / "holes.ts").write_bytes((packet * 6 + bytes(188)) * 500)
    calls: list[None] = []
    places = lost_places(str(tmp_path / "holes.ts"), lambda: calls.append(None))
    assert places == tuple(188 * (7 * k + 6) for k in range(500))
    assert len(calls) >= 500
