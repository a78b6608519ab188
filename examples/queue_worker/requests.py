"""What the queue is asked: anything else is refused with 422 before it reaches the store."""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel, Field, TypeAdapter, model_validator


class NewTask(BaseModel):
    """An image to look at, and where the answer goes. `id` is the sender's, and makes sending it twice harmless."""

    id: str
    image_url: str
    reply_subject: str


class LeaseRequest(BaseModel):
    """So many tasks, for so long; waits for the first."""

    max_tasks: int = Field(ge=1)
    seconds: float = Field(gt=0)
    wait_seconds: float = Field(default=0.0, ge=0)


class Extension(BaseModel):
    """So long from now."""

    seconds: float = Field(gt=0)


class RepliesRequest(BaseModel):
    """At most so many, after the one of that number; waits for the first."""

    after: int = 0
    limit: int = Field(default=1000, ge=1)
    wait_seconds: float = Field(default=0.0, ge=0)


class Failure(BaseModel):
    """Why there is no result. `kind` is one word, for whoever counts."""

    kind: str
    message: str


class Outcome(BaseModel):
    """A result, or an error."""

    id: str
    worker: str
    result: dict[str, Any] | None = None
    error: Failure | None = None

    @model_validator(mode="after")
    def _is_one_of_both(self) -> Self:
        if (self.result is None) == (self.error is None):
            raise ValueError("an outcome has either a result or an error")
        return self


class Outcomes(BaseModel):
    """Of tasks of one lease, which is then good for so long from now."""

    lease: str
    seconds: float = Field(gt=0)
    outcomes: list[Outcome]


NewTasks = TypeAdapter(list[NewTask])
