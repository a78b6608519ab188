"""A LeRobot dataset of whose videos one is damaged, and which samples that leaves good."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import av

from _lerobot_frames import LeRobotFrames

SHARE = 100
"""Of the file that is damaged: one part in so many."""


@dataclass(frozen=True)
class Damaged:
    """What was done to it.

    Attributes:
        root: The copy.
        video: The damaged file.
        num_bytes: That were overwritten.
        bad: Samples of which a picture is decoded from them.
    """

    root: Path
    video: Path
    num_bytes: int
    bad: frozenset[int]


@dataclass(frozen=True)
class Packet:
    """Of a video, in the order in which it is decoded.

    Attributes:
        start: Its first byte in the file.
        stop: One past its last.
        pts: Of its frame.
        is_keyframe: Whether a decoder can begin here.
    """

    start: int
    stop: int
    pts: int
    is_keyframe: bool


def damaged_copy(root: Path, folder: Path, frames: LeRobotFrames) -> Damaged:
    """Links to all files but one: the first camera's video of the middle sample, with zeros amid the packets."""
    camera, middle = frames.cameras[0], len(frames) // 2
    video = Path(frames.file(camera, middle))
    packets = packets_of(video)
    start = packets[len(packets) // 2].start
    data = bytearray(video.read_bytes())
    stop = start + max(1, len(data) // SHARE)
    data[start:stop] = bytes(stop - start)
    for path in root.rglob("*"):
        if path.is_file() and ".millpond" not in path.parts:
            target = folder / path.relative_to(root)
            target.parent.mkdir(parents=True, exist_ok=True)
            if path == video:
                target.write_bytes(data)
            else:
                target.symlink_to(path.resolve())
    hurt = hurt_frames(packets, start, stop)
    bad = (
        sample
        for sample in range(len(frames))
        if frames.file(camera, sample) == str(video) and int(frames.frame_of[camera][sample]) in hurt
    )
    return Damaged(folder, folder / video.relative_to(root), stop - start, frozenset(bad))


def packets_of(video: Path) -> list[Packet]:
    with av.open(str(video)) as container:
        return [
            Packet(packet.pos, packet.pos + packet.size, packet.pts, packet.is_keyframe)
            for packet in container.demux(video=0)
            if packet.size and packet.pos is not None and packet.pts is not None
        ]


def hurt_frames(packets: list[Packet], start: int, stop: int) -> set[int]:
    """Numbers of frames of which a byte is overwritten, and of all that are decoded after them, up to a keyframe."""
    number_of = {pts: number for number, pts in enumerate(sorted(packet.pts for packet in packets))}
    hurt, found = False, set()
    for packet in packets:
        hurt = (hurt and not packet.is_keyframe) or (packet.start < stop and start < packet.stop)
        if hurt:
            found.add(number_of[packet.pts])
    return found
