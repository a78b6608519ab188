"""Who belongs to the tree: the processes below a root, and those that once were and have lost their parents."""

from __future__ import annotations

from collections.abc import Collection

from millpond._soak.proc import ProcessStat, child_pids, process_stat


class ProcessTree:
    """Processes below a root, look by look.

    A process that was found stays in it until it ends, also where its parents end before it and it becomes another's
    child: else a leak of processes would leave the tree. So does one whose sibling ended while the kernel made
    the list of children, which then may miss some.

    Args:
        root_pid: Of the root.
        with_root: Whether the root itself belongs to it.
        without: Processes that do not, with all below them.

    Attributes:
        zombies: At the last look: those that have ended, and whose parents have not asked how.
    """

    def __init__(self, root_pid: int, *, with_root: bool = True, without: Collection[int] = ()) -> None:
        self._root_pid = root_pid
        self._with_root = with_root
        self._without = frozenset(without)
        self._known: dict[int, int] = {}
        self.zombies: list[ProcessStat] = []

    def look(self) -> list[ProcessStat]:
        """Those that live now; empty when all have ended."""
        found: dict[int, ProcessStat] = {}
        self._visit([self._root_pid, *self._known], found)
        if not self._with_root:
            found.pop(self._root_pid, None)
        self.zombies = [stat for stat in found.values() if stat.is_zombie]
        alive = {pid: stat for pid, stat in found.items() if not stat.is_zombie}
        self._known = {pid: stat.start_ticks for pid, stat in alive.items()}
        return list(alive.values())

    def _visit(self, pids: Collection[int], found: dict[int, ProcessStat]) -> None:
        unseen = list(pids)
        while unseen:
            pid = unseen.pop()
            if pid in found or pid in self._without:
                continue
            try:
                stat = process_stat(pid)
                if self._known.get(pid, stat.start_ticks) != stat.start_ticks:
                    del self._known[pid]  # it has ended, and its number is another's now
                    continue
                found[pid] = stat
                if not stat.is_zombie:
                    unseen += child_pids(pid, stat.num_threads)
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                pass  # it ended while we looked, or is another user's, which may be hidden
