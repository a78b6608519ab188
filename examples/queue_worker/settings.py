"""What the environment says: QUEUE_WORKER_*."""

from __future__ import annotations

from pathlib import Path

from pydantic import ByteSize, Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class WorkerSettings(BaseSettings):
    """Of one service. The limits that follow from others are properties, so that they cannot contradict each other."""

    model_config = SettingsConfigDict(env_prefix="QUEUE_WORKER_", env_ignore_empty=True, frozen=True)

    queue_url: str = Field(default="http://127.0.0.1:8400", description="Where the queue is.")
    tasks_per_job: int = Field(default=32, ge=1, description="Tasks leased at once: what one loader goes through.")
    batch_size: int = Field(default=4, ge=1, description="Images in a batch, decoded one after the other.")
    num_workers: int = Field(default=2, ge=1, description="Loader workers.")
    image_timeout_seconds: float = Field(default=5.0, gt=0, description="To download one image, from start to end.")
    slack_seconds: float = Field(
        default=10.0, gt=0, description="For what is not downloading: decoding, a busy machine."
    )
    max_image_bytes: ByteSize = Field(default=ByteSize(20 << 20), description="Of a larger one nothing more is read.")
    memory_limit: ByteSize = Field(
        default=ByteSize(2 << 30), description="Private memory (RssAnon) of the service, beyond which it begins anew."
    )
    poll_seconds: float = Field(default=2.0, ge=0, description="How long one request waits at an empty queue.")
    quarantine: Path = Field(
        default=Path("queue-worker-quarantine.jsonl"), description="Where the loader writes what ended its workers."
    )
    leak_per_task: ByteSize = Field(
        default=ByteSize(0), description="Kept for ever per task: a leak to try the limit with, as demo and tests do."
    )

    @property
    def stall_timeout_seconds(self) -> float:
        """The loader's limit for one image."""
        return self.image_timeout_seconds + self.slack_seconds

    @property
    def batch_timeout_seconds(self) -> float:
        """The loader's limit for a batch: every image of a batch may take its time, and the batch still comes."""
        return self.batch_size * self.image_timeout_seconds + self.slack_seconds

    @property
    def lease_seconds(self) -> float:
        """From one renewal to the next, which is a batch: one that hangs is tried twice before it is given up."""
        return 2 * self.batch_timeout_seconds + self.slack_seconds
