"""What does it cost to replace every worker after so many tasks? Its successor is warm before it goes.

Two loaders of the same dataset, one of which recycles its workers, run epochs in turn; each round of recycling is held
against the plain epochs just before and just after it.
"""

from __future__ import annotations

import argparse
import sys

from _epochs import add_options, dataset_of, make_loader, open_dataset, repeats_to_fill, run_epoch, settings_of
from _repeated import RepeatedDataset
from _results import Results


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, seconds=8.0, num_workers=2)
    parser.add_argument("--max-tasks-per-worker", type=int, default=50, help="(default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="(default: %(default)s)")
    return parser.parse_args()


def main() -> None:
    options = parse()
    with dataset_of(options) as root:
        repeats = repeats_to_fill(root, options)
        dataset = RepeatedDataset(open_dataset(root, options), repeats)
        recycling = RepeatedDataset(open_dataset(root, options), repeats)
        with (
            make_loader(dataset, options) as plain_loader,
            make_loader(recycling, options, max_tasks_per_worker=options.max_tasks_per_worker) as loader,
        ):
            run_epoch(loader, crcs=False)  # its workers and files are cold
            plain, recycled = [run_epoch(plain_loader, crcs=False)], []
            for number in range(options.rounds):
                recycled.append(run_epoch(loader, crcs=False))
                plain.append(run_epoch(plain_loader, crcs=False))
                print(f"round {number}: recycling {recycled[-1]}; plain {plain[-1]}", file=sys.stderr, flush=True)
            counts = loader.statistics()
    rates = [epoch.samples_per_second for epoch in plain]
    over_plain = [
        2 * epoch.samples_per_second / (before + after)
        for epoch, before, after in zip(recycled, rates[:-1], rates[1:], strict=True)
    ]
    results = Results("recycle", "what it costs to replace every worker after some tasks", settings_of(options))
    results.add("", "plain", "samples_per_second", "samples/s", rates)
    of_recycled = [epoch.samples_per_second for epoch in recycled]
    results.add("", "recycling", "samples_per_second", "samples/s", of_recycled).over["plain"] = tuple(over_plain)
    same_order = all(epoch.samples == plain[0].samples for epoch in (*recycled, *plain))
    results.claim("all epochs have the same order", float(same_order), 1.0)
    results.details |= {
        "samples": len(dataset),
        "recycles": counts.worker_recycles,
        "restarts": counts.worker_restarts,
        "same_order": same_order,
    }
    results.publish(options.json)


if __name__ == "__main__":
    main()
