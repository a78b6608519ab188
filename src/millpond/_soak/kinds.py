"""The series of a soak: what each counts, in which unit, how often it is looked at, and what bounds it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

MIB = 1 << 20


class Group(StrEnum):
    """Series that one look finds out together; the dearer a look, the less often it is taken."""

    TREE = "tree"
    DESCRIPTORS = "descriptors"
    MEMORY = "memory"
    SURROUNDINGS = "surroundings"


class Bound(StrEnum):
    """What a series may reach."""

    NONE = ""
    MEMORY = "memory"
    SWAP = "swap"
    SHARED_FILES = "/dev/shm"
    DESCRIPTORS = "EMFILE"
    THREADS = "EAGAIN"


@dataclass(frozen=True, slots=True)
class Kind:
    """A series.

    Attributes:
        name: In the JSON.
        title: For people.
        group: With which it is looked at.
        bound: What it may reach.
        is_bytes: Else it is a count.
        is_others: It is not the tree's alone: told, and not held against it.
    """

    name: str
    title: str
    group: Group
    bound: Bound = Bound.NONE
    is_bytes: bool = False
    is_others: bool = False

    @property
    def unit(self) -> str:
        """In the JSON."""
        return "bytes" if self.is_bytes else "count"


KINDS = (
    Kind("pss_bytes", "memory (PSS)", Group.MEMORY, Bound.MEMORY, is_bytes=True),
    Kind("held_bytes", "memory but for mapped files", Group.MEMORY, Bound.MEMORY, is_bytes=True),
    Kind("uss_bytes", "private memory (USS)", Group.MEMORY, Bound.MEMORY, is_bytes=True),
    Kind("rss_bytes", "resident memory (RSS)", Group.TREE, Bound.MEMORY, is_bytes=True),
    Kind("shared_bytes", "shared memory", Group.MEMORY, Bound.MEMORY, is_bytes=True),
    Kind("swap_bytes", "swap", Group.MEMORY, Bound.SWAP, is_bytes=True),
    Kind("dev_shm_bytes", "new files in /dev/shm", Group.SURROUNDINGS, Bound.SHARED_FILES, is_bytes=True),
    Kind("cgroup_bytes", "memory of the cgroup", Group.SURROUNDINGS, Bound.MEMORY, is_bytes=True, is_others=True),
    Kind("descriptors", "descriptors", Group.TREE, Bound.DESCRIPTORS),
    Kind("most_descriptors", "descriptors of one process", Group.TREE, Bound.DESCRIPTORS),
    Kind("pipes", "pipes", Group.DESCRIPTORS, Bound.DESCRIPTORS),
    Kind("sockets", "sockets", Group.DESCRIPTORS, Bound.DESCRIPTORS),
    Kind("files", "files", Group.DESCRIPTORS, Bound.DESCRIPTORS),
    Kind("memfds", "shared memory's descriptors", Group.DESCRIPTORS, Bound.DESCRIPTORS),
    Kind("other_descriptors", "other descriptors", Group.DESCRIPTORS, Bound.DESCRIPTORS),
    Kind("threads", "threads", Group.TREE, Bound.THREADS),
    Kind("processes", "processes", Group.TREE, Bound.THREADS),
    Kind("zombies", "zombies (ended, not waited for)", Group.TREE, Bound.THREADS),
)
"""In the order in which they are told."""

KIND_OF = {kind.name: kind for kind in KINDS}
