"""What the commands take. What they do is imported when one of them runs, so that `--help` is there at once."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from millpond._cli.options import (
    DEMO_CLIPS,
    DEMO_DATA,
    BatchSize,
    DatasetPath,
    DatasetPlace,
    ImageSize,
    Memory,
    NumWorkers,
    Seed,
    StorageOptions,
    TokenEnv,
    check_local,
    check_report_place,
    check_size,
    parse_image_size,
    parse_size,
)


def demo(
    dataset: Annotated[
        Path | None,
        typer.Argument(
            help=f"A LeRobot v3.0 dataset; if not given, a small one is made in {DEMO_DATA}. With --clips, a folder "
            f"that it made, {DEMO_CLIPS} if not given.",
            show_default=False,
            callback=check_local,
        ),
    ] = None,
    clips: Annotated[
        bool, typer.Option("--clips", help="Short clips with sound, one of them corrupt, and one that hangs.")
    ] = False,
    memory: Memory = "512MiB",
    batch_size: Annotated[
        int | None, typer.Option(help="Samples of a batch; 32 if not given, 4 with --clips.", min=1)
    ] = None,
    num_workers: NumWorkers = None,
    seed: Seed = 0,
    report: Annotated[Path, typer.Option(help="Where the page goes.", callback=check_report_place)] = Path(
        "report.html"
    ),
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bars.")] = False,
) -> None:
    """Run one shuffled epoch, show how it went, and write report.html."""
    options: dict[str, Any] = {
        "memory": memory,
        "num_workers": num_workers,
        "seed": seed,
        "report": report,
        "quiet": quiet,
    }
    if clips:
        from millpond._cli.demo_clips import run_clips_demo

        run_clips_demo(dataset or DEMO_CLIPS, batch_size=batch_size or 4, **options)
    else:
        from millpond._cli.demo import run_demo

        run_demo(dataset or DEMO_DATA, batch_size=batch_size or 32, **options)


def synth(
    out: Annotated[
        Path, typer.Argument(help="Folder to make; it must not be there yet, or be empty.", callback=check_local)
    ],
    episodes: Annotated[int, typer.Option(help="How many.", min=1)] = 20,
    frames: Annotated[int, typer.Option(help="Frames of each episode.", min=1)] = 100,
    cameras: Annotated[int, typer.Option(help="Cameras kept as video.", min=0)] = 2,
    size: Annotated[str, typer.Option(help="WIDTHxHEIGHT.", callback=check_size)] = "640x480",
    codec: Annotated[str, typer.Option(help="One of av1, h264, hevc, vp9.")] = "av1",
    gop: Annotated[int, typer.Option(help="Frames from keyframe to keyframe.", min=1)] = 2,
    b_frames: Annotated[int, typer.Option(help="Most B-frames in a row.", min=0)] = 0,
    audio: Annotated[bool, typer.Option(help="Add an audio track to the videos.")] = False,
    fps: Annotated[int, typer.Option(help="Frames a second.", min=1)] = 30,
    episodes_per_file: Annotated[int | None, typer.Option(help="All in one file if not given.", min=1)] = None,
    image_features: Annotated[
        int, typer.Option(help="Cameras kept as PNG in parquet, beside those of --cameras.", min=0)
    ] = 0,
    seed: Annotated[int, typer.Option(help="Of the pictures and the numbers.")] = 0,
) -> None:
    """Make a LeRobot v3.0 dataset in which every frame carries a machine-readable (episode, camera, frame)."""
    from millpond._cli.synth import run_synth

    run_synth(
        out,
        episodes=episodes,
        frames=frames,
        videos=cameras,
        size=parse_size(size),
        codec=codec,
        gop=gop,
        b_frames=b_frames,
        audio=audio,
        fps=fps,
        episodes_per_file=episodes_per_file,
        image_features=image_features,
        seed=seed,
    )


def inspect(
    dataset: DatasetPlace,
    memory: Memory = "2GiB",
    batch_size: BatchSize = 32,
    num_workers: NumWorkers = None,
    image_size: ImageSize = None,
    storage_options: StorageOptions = None,
    token_env: TokenEnv = None,
) -> None:
    """Show episodes, cameras, codecs, GOPs and bytes; the memory plan; the trade of memory, mixing and decoding."""
    from millpond._cli.inspect import run_inspect

    run_inspect(
        dataset,
        memory=memory,
        batch_size=batch_size,
        num_workers=num_workers,
        image_size=parse_image_size(image_size),
        storage_options=storage_options or (),
        token_env=token_env,
    )


def bench(
    dataset: DatasetPath,
    memory: Memory = "2GiB",
    batch_size: BatchSize = 32,
    num_workers: NumWorkers = None,
    image_size: ImageSize = None,
    seed: Seed = 0,
    repeats: Annotated[int, typer.Option(help="Epochs, each beside a slice of the ceiling.", min=1)] = 5,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON, in bytes, and nothing else.")] = False,
    report: Annotated[Path | None, typer.Option(help="Also write a page.", callback=check_report_place)] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
) -> None:
    """Measure samples/s, their ratio to the ceiling, the training process's CPU, peak PSS and mixing."""
    from millpond._cli.bench import run_bench

    run_bench(
        dataset,
        memory=memory,
        batch_size=batch_size,
        num_workers=num_workers,
        image_size=parse_image_size(image_size),
        seed=seed,
        repeats=repeats,
        as_json=json_,
        report=report,
        quiet=quiet,
    )


def index(
    sources: Annotated[
        list[str],
        typer.Argument(
            help="A LeRobot v3.0 dataset: a folder, or a URL such as s3://bucket/pusht. Or one or more video files.",
            metavar="URL",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="Also write the index into this file.", callback=check_report_place)
    ] = None,
    storage_options: StorageOptions = None,
    token_env: TokenEnv = None,
    workers: Annotated[
        int | None, typer.Option(help="Files at a time; 8 of a disk and 32 of a store if not given.", min=1)
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
) -> None:
    """Find out where the frames of each episode are, from headers alone, and keep that for the next time."""
    from millpond._cli.index import run_index

    run_index(
        sources,
        out=out,
        storage_options=storage_options or (),
        token_env=token_env,
        workers=workers,
        as_json=json_,
        quiet=quiet,
    )


class EngineName(StrEnum):
    """Where chunks of a sweep run."""

    LOCAL = "local"
    RAY = "ray"
    SLURM = "slurm"


class OnError(StrEnum):
    """What a sweep does after a failure."""

    STOP = "stop"
    CONTINUE = "continue"


def sweep(
    jobs: Annotated[
        Path, typer.Argument(help="Jobs file: JSON, JSONL or YAML, with a list of jobs, each with a name.")
    ],
    command: Annotated[
        list[str] | None,
        typer.Argument(
            help="Behind --, with {jobs} where it takes its jobs file, and {metrics} where it writes what it measured.",
            metavar="-- COMMAND...",
            show_default=False,
        ),
    ] = None,
    chunk_size: Annotated[
        str | None,
        typer.Option(
            help="Jobs that a process does before a fresh one follows; auto: learned from how its memory grows. "
            "Without this and --max-rss the command runs once, as it is.",
            metavar="N|auto",
            show_default=False,
        ),
    ] = None,
    max_rss: Annotated[
        str | None,
        typer.Option(
            help="Memory (summed PSS) at which a chunk ends, such as 8GiB; without --chunk-size its size is learned.",
            show_default=False,
        ),
    ] = None,
    parallel: Annotated[
        int | None, typer.Option(help="Chunks at a time; 1, or as many as the cluster has room for.", min=1)
    ] = None,
    timeout: Annotated[
        str | None,
        typer.Option(
            help="For a chunk, such as 3600 or 45m; where jobs come from millpond.sweep_jobs(), for each of them.",
        ),
    ] = None,
    grace: Annotated[str, typer.Option(help="From the signal that asks processes to end to SIGKILL.")] = "10s",
    retries: Annotated[int, typer.Option(help="How often a job that failed is tried again.", min=0)] = 0,
    bisect: Annotated[
        bool, typer.Option("--bisect", help="Split a chunk that died until the job that kills it is found.")
    ] = False,
    on_error: Annotated[OnError, typer.Option(help="After a failure: begin nothing new, or go on.")] = OnError.STOP,
    out: Annotated[
        Path | None, typer.Option(help="Folder for results; sweep-<time> if not given.", callback=check_local)
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Run what is not done in --out, and keep what is.")] = False,
    allow_changes: Annotated[
        bool, typer.Option("--allow-changes", help="Resume also with another jobs file or command.")
    ] = False,
    jobs_key: Annotated[str, typer.Option(help="Top-level key of the list of jobs.", metavar="KEY")] = "jobs",
    name_key: Annotated[str, typer.Option(help="Key of a job's name.", metavar="KEY")] = "name",
    jobs_from_environment: Annotated[
        bool, typer.Option("--jobs-from-environment", help="The command reads $MILLPOND_JOBS, and takes no {jobs}.")
    ] = False,
    weight_key: Annotated[
        str, typer.Option(help="Metric that the means of the others are weighted by.", metavar="KEY")
    ] = "count",
    group_by: Annotated[
        str, typer.Option(help="Key of a job, or of its metrics, with a table for each value.", metavar="KEY")
    ] = "group",
    engine: Annotated[EngineName, typer.Option(help="Where chunks run.")] = EngineName.LOCAL,
    address: Annotated[
        str | None, typer.Option(help="Of a Ray cluster; one is started here if not given.", show_default=False)
    ] = None,
    engine_option: Annotated[
        list[str] | None,
        typer.Option(
            help="For ray, such as num_gpus=1; for slurm, submitit's parameters, such as slurm_partition=gpu.",
            metavar="KEY=VALUE",
            show_default=False,
        ),
    ] = None,
    stream: Annotated[
        bool, typer.Option("--stream", help="Also print what chunks of this machine print, behind their number.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No table and no lines; failures are still told.")] = False,
) -> None:
    """Run a command over the jobs of a file, a fresh process for each chunk of them, and merge their metrics.

    Ends with 0 if all is done; with the command's own code where a failure stopped the sweep; with 3 where jobs failed
    and --on-error was continue; with 130 or 143 after SIGINT or SIGTERM; with 2 if what was said cannot work.
    """
    from millpond._cli.sweep import run_sweep_command

    run_sweep_command(
        jobs,
        tuple(command or ()),
        chunk_size=chunk_size,
        max_rss=max_rss,
        parallel=parallel,
        timeout=timeout,
        grace=grace,
        retries=retries,
        bisect=bisect,
        on_error=on_error.value,
        out=out,
        resume=resume,
        allow_changes=allow_changes,
        jobs_key=jobs_key,
        name_key=name_key,
        jobs_from_environment=jobs_from_environment,
        weight_key=weight_key,
        group_by=group_by,
        engine=engine.value,
        address=address,
        engine_options=engine_option or (),
        stream=stream,
        quiet=quiet,
    )


def doctor(
    url: Annotated[
        str | None,
        typer.Argument(
            help="A dataset or an object that shall be read, such as s3://bucket/pusht or a folder; asked a few times.",
            show_default=False,
        ),
    ] = None,
    memory: Memory = "2GiB",
    num_workers: NumWorkers = None,
    storage_options: StorageOptions = None,
    token_env: TokenEnv = None,
    timeout: Annotated[float, typer.Option(help="Seconds for each check that may hang.", min=1.0, max=3600.0)] = 30.0,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Only warnings and errors, and how many there are.")] = False,
) -> None:
    """Say what is wrong, or slow, with this machine, container and store for a run, and what to do about it.

    Ends with 1 if there is an error, with 0 else. Nothing of it hangs.
    """
    from millpond._cli.doctor import run_doctor

    run_doctor(
        url,
        memory=memory,
        num_workers=num_workers,
        storage_options=storage_options or (),
        token_env=token_env,
        timeout_seconds=timeout,
        as_json=json_,
        quiet=quiet,
    )


def soak(
    command: Annotated[
        list[str] | None,
        typer.Argument(help="What to run, after --.", metavar="-- COMMAND", show_default=False),
    ] = None,
    pid: Annotated[
        int | None,
        typer.Option(help="Look at a process that runs already; it is never signalled.", min=1, show_default=False),
    ] = None,
    duration: Annotated[
        str | None,
        typer.Option(help="When to end the command, such as 10m; not given: when it ends.", show_default=False),
    ] = None,
    interval: Annotated[str, typer.Option(help="From look to look, in seconds, or such as 1m.")] = "1",
    warmup: Annotated[
        str, typer.Option(help="Looks of its time are kept, and not judged; in seconds, or such as 10m.")
    ] = "10",
    grace: Annotated[str, typer.Option(help="From the signal that asks the command to end to SIGKILL.")] = "10s",
    core_share: Annotated[
        float, typer.Option(help="Of a core, that looks may cost; what is dear to look at is looked at less often.")
    ] = 0.01,
    out: Annotated[
        Path | None, typer.Option(help="Folder for results; soak-<time> if not given.", callback=check_local)
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress, and no table at the end.")] = False,
) -> None:
    """Watch a command and all that it starts for memory, descriptors, threads and processes that grow.

    Ends with 1 if something grows; else with 130 or 143 after SIGINT or SIGTERM, with the command's own code if it
    ended by itself, with 0 if it was ended after --duration; with 2 if what was said cannot work.
    """
    from millpond._cli.soak import run_soak_command

    run_soak_command(
        tuple(command or ()),
        pid=pid,
        duration=duration,
        interval=interval,
        warmup=warmup,
        grace=grace,
        core_share=core_share,
        out=out,
        quiet=quiet,
    )


COMMANDS = (demo, synth, inspect, bench, index, sweep, soak, doctor)
