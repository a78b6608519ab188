"""Room for episodes: never more than there is, nothing leased is dropped, and whoever waits first is served first."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from millpond._datasets.episode_room import Call, Key, Load, Room

CAMERAS = ("a", "b")


def keys_of(episode: int) -> tuple[Key, ...]:
    return tuple((episode, camera) for camera in CAMERAS)


def fill(room: Room, *keys: Key, size: int = 10) -> None:
    """Fetch and use some keys."""
    for key in keys:
        room.enqueue(key, size, True)
        (load,) = room.admit()
        assert room.settle(load, "payload", size, None)


def submit(room: Room, *keys: Key, size: int = 10) -> list[Load]:
    for key in keys:
        room.enqueue(key, size, True)
        room.expect(key)
    return room.admit()


def test_what_was_used_longest_ago_goes_first() -> None:
    room = Room(30, 4)
    fill(room, (0, "a"), (1, "a"), (2, "a"))
    room.take((0, "a"))
    fill(room, (3, "a"))
    assert list(room.entries) == [(2, "a"), (0, "a"), (3, "a")]


def test_a_prefetch_waits_rather_than_drop_what_was_fetched_ahead() -> None:
    room = Room(20, 4)
    for load in submit(room, *keys_of(0)):
        room.settle(load, "payload", 10, None)
    assert submit(room, *keys_of(1)) == []
    room.take((0, "a"))
    (load,) = room.admit()
    assert load.key == (1, "a")
    assert list(room.entries) == [(0, "b")]


def test_a_call_that_waits_drops_what_was_fetched_ahead_but_nothing_of_its_own() -> None:
    room = Room(30, 4)
    for load in submit(room, *keys_of(0), (1, "a")):
        room.settle(load, "payload", 10, None)
    submit(room, (1, "b"))
    room.enter(Call(keys_of(1)))
    (load,) = room.admit()
    assert load.key == (1, "b")
    assert list(room.entries) == [(0, "b"), (1, "a")]


def test_the_call_that_came_first_takes_from_the_later_one() -> None:
    room = Room(20, 4)
    for load in submit(room, (0, "a"), (1, "a")):
        room.settle(load, "payload", 10, None)
    submit(room, (0, "b"), (1, "b"))
    room.enter(Call(keys_of(1)))
    room.enter(Call(keys_of(0)))
    (load,) = room.admit()
    assert load.key == (1, "b")
    assert list(room.entries) == [(1, "a")]


def test_what_waits_goes_in_order_though_something_smaller_would_fit() -> None:
    room = Room(20, 4)
    fill(room, (0, "a"))
    room.lease((0, "a"))
    room.enqueue((1, "a"), 15, True)
    room.enqueue((2, "a"), 5, True)
    assert room.admit() == []
    assert room.is_stuck


def test_a_camera_nobody_takes_is_not_kept_once_the_next_episode_is_in_use() -> None:
    room = Room(40, 4)
    for load in submit(room, *keys_of(0), *keys_of(1)):
        room.settle(load, "payload", 10, None)
    room.take((0, "a"))
    assert submit(room, (2, "a"))  # in the place of (0, "a")
    assert submit(room, (2, "b")) == []
    room.take((1, "a"))
    assert [load.key for load in room.admit()] == [(2, "b")]
    assert (0, "b") not in room.entries


def test_more_bytes_than_told_are_fetched_again_when_they_have_room() -> None:
    room = Room(30, 4)
    fill(room, (0, "a"))
    room.lease((0, "a"))
    room.enqueue((1, "a"), 5, False)
    (load,) = room.admit()
    assert not room.settle(load, "payload", 25, None)
    assert room.bytes_used == 10
    room.end_lease((0, "a"))
    (load,) = room.admit()
    assert load.reserved_bytes == 25
    assert room.settle(load, "payload", 25, None)


def test_sizes_told_wrongly_are_corrected_by_what_came() -> None:
    room = Room(64, 1)
    room.enqueue((0, "a"), 80, False)
    (load,) = room.admit()
    assert load.reserved_bytes == 64
    room.settle(load, "payload", 32, None)
    room.enqueue((0, "b"), 80, False)
    (load,) = room.admit()
    assert load.reserved_bytes == 32


def test_a_size_that_is_only_told_does_not_make_anybody_wait_for_ever() -> None:
    room = Room(30, 4)
    room.enter(Call(keys_of(0)))
    room.enqueue((0, "a"), 10, False)
    (load,) = room.admit()
    room.settle(load, "payload", 10, None)
    room.enqueue((0, "b"), 25, False)
    (load,) = room.admit()
    assert load.reserved_bytes == 20


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["submit", "call", "settle", "settle", "fail", "lease", "end", "take", "leave"]),
        st.integers(0, 4),
        st.sampled_from(CAMERAS),
        st.integers(1, 40),
    ),
    max_size=60,
)


@settings(max_examples=300)
@given(steps=STEPS, sizes=st.lists(st.integers(1, 50), min_size=10, max_size=10), workers=st.integers(1, 4))
def test_whatever_happens_the_bytes_stay_within_the_limit_and_everybody_gets_served(
    steps: list[tuple[str, int, str, int]], sizes: list[int], workers: int
) -> None:
    room = Room(100, workers)
    size_of = {(e, c): sizes[2 * e + k] for e in range(5) for k, c in enumerate(CAMERAS)}
    running: list[Load] = []
    leased: list[Key] = []
    for kind, episode, camera, other in steps:
        key = episode, camera
        if kind in ("submit", "call"):
            for one in keys_of(episode):
                if one not in room.entries and one not in room.loads:
                    room.enqueue(one, size_of[one] if other % 2 else other, bool(other % 2))
                room.expect(one)
            if kind == "call":
                room.enter(Call(keys_of(episode)))
        elif kind == "settle" and running:
            load = running.pop(0)
            room.settle(load, "payload", size_of[load.key], None)
        elif kind == "fail" and running:
            room.fail(running.pop())
        elif kind == "lease" and key in room.entries:
            room.lease(key)
            leased.append(key)
        elif kind == "end" and leased:
            room.end_lease(leased.pop())
        elif kind == "take" and key in room.entries:
            room.take(key)
        elif kind == "leave" and room.calls:
            room.leave(room.calls[0])
        running += room.admit()
        _require_sound(room, running, leased)
    _require_served(room, running, leased, size_of)


def _require_sound(room: Room, running: list[Load], leased: list[Key]) -> None:
    there = sum(num_bytes for _, num_bytes in room.entries.values())
    assert room.bytes_used == there + sum(load.reserved_bytes for load in running)
    assert room.bytes_used <= room.peak_bytes <= room.max_bytes
    assert room.num_running == len(running) <= room.max_running
    assert set(leased) <= set(room.entries)


def _require_served(room: Room, running: list[Load], leased: list[Key], size_of: dict[Key, int]) -> None:
    """Without leases every call gets all it wants at once, in turn."""
    for key in leased:
        room.end_lease(key)
    while room.calls:
        call = room.calls[0]
        for _ in range(100):
            for key in call.keys:
                if key not in room.entries and key not in room.loads:
                    room.enqueue(key, size_of[key], True)
            running += room.admit()
            _require_sound(room, running, [])
            if all(key in room.entries for key in call.keys):
                break
            assert not room.is_stuck
            load = running.pop(0)
            room.settle(load, "payload", size_of[load.key], None)
        else:
            raise AssertionError(f"{call.keys} never came")
        room.leave(room.calls[0])
