"""The contender's half of `_process.Contender`: answers lines of JSON until they end."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

Operation = Callable[..., dict[str, Any]]


def serve(operations: dict[str, Operation], **facts: Any) -> None:
    """Say that we are here, then do as told until standard input ends."""
    print(json.dumps(facts), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(operations[request.pop("do")](**request)), flush=True)
