"""The environment variables that a chunk's process has from its sweep."""

JOBS_VARIABLE = "MILLPOND_JOBS"
"""The path of the chunk's jobs file."""

METRICS_VARIABLE = "MILLPOND_METRICS"
"""The path that the chunk's metrics go to."""

CHUNK_VARIABLE = "MILLPOND_CHUNK"
"""The chunk's number. Where it is set, nothing is split again."""

CHILD_VARIABLE = "MILLPOND_SWEEP_CHILD"
"""What a child that cooperates needs besides: JSON of `progress.ChildSettings`."""
