"""Where a DataLoader stands in its epoch: what `state_dict` writes and `load_state_dict` reads, as plain JSON."""

from __future__ import annotations

import base64
import contextlib
import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from millpond._torch.tasks import Place

STATE_VERSION = 1
States = dict[str, bytes]


@dataclass(slots=True)
class Position:
    """In one epoch, after the batches that were delivered.

    Attributes:
        generators: States of the generators that the order comes from, when the sampler's iterator was made: name ->
            bytes.
        first_draw: The same when the first indices were drawn: most samplers draw their seed only then.
        base_seed: Of the workers; None: the epoch has not begun, and draws it.
        delivered: Batches 0 to here were delivered.
        ahead: Numbers of batches beyond that were delivered before their turn (`in_order=False`).
        sampler: State of a sampler that can tell it, after the batches up to `delivered`.
        places: Of an iterable dataset, by seat.
        next_seat: Who makes the next batch of an iterable dataset.
        is_over: Whether the epoch has ended.
    """

    generators: States = field(default_factory=dict)
    first_draw: States = field(default_factory=dict)
    base_seed: int | None = None
    delivered: int = 0
    ahead: set[int] = field(default_factory=set)
    sampler: Any = None
    places: list[Place] = field(default_factory=list)
    next_seat: int = 0
    is_over: bool = False

    def deliver(self, number: int) -> None:
        """This batch was delivered."""
        self.ahead.add(number)
        while self.delivered in self.ahead:
            self.ahead.remove(self.delivered)
            self.delivered += 1

    def to_state(self) -> dict[str, Any]:
        """As JSON has it, but for a sampler's own state."""
        return {
            "generators": _texts(self.generators),
            "first_draw": _texts(self.first_draw),
            "base_seed": self.base_seed,
            "delivered": self.delivered,
            "ahead": sorted(self.ahead),
            "sampler": self.sampler,
            "places": [[place.turn, None if place.state is None else _text(place.state)] for place in self.places],
            "next_seat": self.next_seat,
            "is_over": self.is_over,
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Position:
        """What `to_state` gave.

        Raises:
            ValueError: It is not that.
        """
        found: dict[str, Any] = {}
        for name, read in _READERS.items():
            try:
                found[name] = read(state[name])
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise ValueError(f"this state cannot be loaded: its {name} is damaged ({error!r})") from None
        return cls(**found)


def _texts(states: States) -> dict[str, str]:
    return {name: _text(state) for name, state in states.items()}


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(text: str) -> bytes:
    return base64.b64decode(text)


_READERS: dict[str, Callable[[Any], Any]] = {
    "generators": lambda found: {name: _bytes(text) for name, text in found.items()},
    "first_draw": lambda found: {name: _bytes(text) for name, text in found.items()},
    "base_seed": lambda found: None if found is None else operator.index(found),
    "delivered": operator.index,
    "ahead": lambda found: set(map(operator.index, found)),
    "sampler": lambda found: found,
    "places": lambda found: [Place(operator.index(turn), text and _bytes(text)) for turn, text in found],
    "next_seat": operator.index,
    "is_over": bool,
}


def generators_of(loader: Any) -> dict[str, torch.Generator]:
    """The generators that an epoch's order and seeds may come from: the loader's, its samplers', torch's own."""
    inner = getattr(loader.batch_sampler, "sampler", None)
    found = {
        "loader": loader.generator,
        "batch_sampler": getattr(loader.batch_sampler, "generator", None),
        "sampler": getattr(loader.sampler, "generator", None),
        "inner_sampler": getattr(inner, "generator", None),
    }
    named = {name: generator for name, generator in found.items() if isinstance(generator, torch.Generator)}
    return {**named, "torch": torch.default_generator}


def states_of(generators: dict[str, torch.Generator]) -> States:
    """Of each, as bytes."""
    return {name: generator.get_state().numpy().tobytes() for name, generator in generators.items()}


def put_back(generators: dict[str, torch.Generator], states: States) -> None:
    """Have generators go on from these states."""
    for name, generator in generators.items():
        if name in states:
            generator.set_state(torch.frombuffer(bytearray(states[name]), dtype=torch.uint8))


@contextlib.contextmanager
def as_they_were(generators: dict[str, torch.Generator], states: States) -> Iterator[None]:
    """Within, generators go on from these states; torch's own goes on afterwards as if nothing had been drawn."""
    before = torch.get_rng_state()
    put_back(generators, states)
    try:
        yield
    finally:
        if states:
            torch.set_rng_state(before)


def stateful_sampler(loader: Any) -> Any:
    """The sampler of a loader that can tell where it is; None if none can."""
    candidates: Sequence[Any] = (loader.batch_sampler, loader.sampler, getattr(loader.batch_sampler, "sampler", None))
    for sampler in candidates:
        if hasattr(sampler, "state_dict") and hasattr(sampler, "load_state_dict"):
            return sampler
    return None
