"""Does any damage to a media file break a promise? Corrupted files for as long as one likes, each in a guarded worker.

The promises: every file gives frames, samples or a picture, an error of millpond's that says it is damaged, or a
timeout; no worker dies; no frame comes under another's place; none from a GOP that a plain decode finds damaged; none
differs from the whole file's once the CRCs of its packets are known. `tests/faults/test_corrupt_media.py` holds 2,000
files of this for good. Offenders are kept with what they broke, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import millpond
from _results import Results
from corrupt_clips import FORMATS, Format, make
from corrupt_run import TIMEOUT_SECONDS, Tally, examined

TURN_FILES = 50
OFFENDERS = Path(__file__).resolve().parent.parent / ".cache" / "fuzz-offenders"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long, in all; formats take turns of 50 files")
    parser.add_argument("--files", type=int, help="stop after so many files, whatever the time")
    parser.add_argument(
        "--seed", type=int, help="of the first file of each format; none: the time, so each run differs"
    )
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS), metavar="FORMAT")
    parser.add_argument("--num-workers", type=int, help="none: one per core")
    parser.add_argument(
        "--keep",
        type=Path,
        default=OFFENDERS,
        help="folder for files that broke a promise (default: .cache/fuzz-offenders in the checkout)",
    )
    parser.add_argument("--json", type=Path, help="counts go here, too")
    return parser.parse_args()


def turns(formats: list[str], first_seed: int, files: int | None) -> Iterator[tuple[Format, range]]:
    """A format and its next seeds, over and over; the last turn is cut to the number of files wanted."""
    left, seed = files, first_seed
    while True:
        for name in formats:
            count = TURN_FILES if left is None else min(TURN_FILES, left)
            if not count:
                return
            left = None if left is None else left - count
            yield FORMATS[name], range(seed, seed + count)
        seed += TURN_FILES


def keep(path: Path, folder: Path, broken: tuple[str, ...]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(path, folder / path.name)
    (folder / f"{path.name}.txt").write_text("\n".join(broken) + "\n", encoding="utf-8")


def run(options: argparse.Namespace, first_seed: int, tallies: dict[str, Tally]) -> dict[str, Any]:
    deadline = time.monotonic() + options.seconds
    with (
        tempfile.TemporaryDirectory(prefix="millpond-fuzz-") as name,
        millpond.Guard(options.num_workers, TIMEOUT_SECONDS) as guard,
    ):
        folder = Path(name)
        wholes = {name: folder / name for name in options.formats}
        for name, path in wholes.items():
            path.write_bytes(make(FORMATS[name]))
        for wanted, seeds in turns(options.formats, first_seed, options.files):
            if time.monotonic() >= deadline and options.files is None:
                break
            tally = tallies[wanted.name]
            for seed, mutator, reading, path in examined(guard, wanted, wholes[wanted.name], seeds, folder):
                tally.add(seed, mutator, reading)
                if reading.broken:
                    keep(path, options.keep, reading.broken)
                    print(f"{wanted.name} seed {seed}, {mutator}: {'; '.join(reading.broken)}", file=sys.stderr)
        statistics = guard.statistics()
    return {"worker_restarts": statistics.restarts, "calls_timed_out": statistics.calls_timed_out}


def table(tallies: dict[str, Tally]) -> Iterator[str]:
    yield f"{'format':18} {'files':>6} {'data':>6} {'error':>6} {'timeout':>8} {'broken':>7}   frames  altered  echoes"
    for name, tally in tallies.items():
        data = sum(tally.outcomes[kind] for kind in ("frames", "samples", "picture"))
        late = tally.outcomes["DecodeTimeout"]
        yield (
            f"{name:18} {tally.files:6} {data:6} {tally.files - data - late:6} {late:8} {len(tally.offenders):7} "
            f"{tally.frames:8} {tally.altered:8} {tally.echoes:7}"
        )


def main() -> int:
    options = parse()
    first_seed = int(time.time()) if options.seed is None else options.seed
    tallies = {name: Tally() for name in options.formats}
    began, facts = time.monotonic(), {}
    with suppress(KeyboardInterrupt):
        facts = run(options, first_seed, tallies)
    wall_seconds = time.monotonic() - began
    files, broken = (sum(count) for count in zip(*((t.files, len(t.offenders)) for t in tallies.values()), strict=True))
    print("\n".join(table(tallies)))
    print(f"{files} files from seed {first_seed} in {wall_seconds:.0f} s, {broken} of them broke a promise")
    if broken:
        print(f"they are in {options.keep}, each with what it broke")
    settings = {"seed": first_seed, "formats": options.formats, "num_workers": options.num_workers}
    results = Results("fuzz", "whether any damage to a media file breaks a promise", settings)
    for name, tally in tallies.items():
        results.add(name, "", "files", "files", [tally.files])
    results.claim("files that broke a promise", broken, 0, is_limit=True)
    results.details |= {"files": files, "broken": broken, **facts, "wall_seconds": wall_seconds}
    results.details["formats"] = {name: vars(tally) for name, tally in tallies.items()}
    results.write_results(options.json)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
