"""The doctor asks a store: what it finds of good, bad and strange ones, in a few requests."""

from __future__ import annotations

import math
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from millpond._doctor import stores
from millpond._doctor.findings import Finding
from store_server import StoreServer, serving_store

INFO = b'{"codebase_version": "v3.0", "total_episodes": 2, "total_frames": 20}'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta/info.json").write_bytes(INFO)
    return tmp_path


@pytest.fixture
def server(folder: Path) -> Iterator[StoreServer]:
    with serving_store(folder) as server:
        yield server


@pytest.fixture(autouse=True)
def no_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether this machine is quick is not what is claimed."""
    monkeypatch.setattr(stores, "_SLOW_SECONDS", math.inf)
    monkeypatch.setattr(stores, "_NOTICEABLE_SECONDS", math.inf)


def findings(url: str, token: str | None = None, timeout_seconds: float = 20.0, **options: Any) -> dict[str, Finding]:
    told = stores.look_at_store(url, options or None, token, timeout_seconds)
    return {found.subject: found for found in told if isinstance(found, Finding)}


def test_a_good_store_is_ok_in_every_line(server: StoreServer) -> None:
    found = findings(server.url)
    assert {name: each.level.value for name, each in found.items() if each.level != "ok"} == {}
    assert found["dataset"].found == "LeRobot v3.0, 2 episodes, 20 frames"
    assert found["byte ranges"].found == f"honoured: bytes {len(INFO) // 2} to {len(INFO)} of {len(INFO)} came"
    assert list(found) == ["store", "byte ranges", "versions", "requests at once", "dataset", "clock of the store"]
    assert server.counts.requests < 20


def test_a_local_folder_is_asked_the_same_way(folder: Path) -> None:
    assert [each.level.value for each in findings(str(folder)).values()] == ["ok"] * 5
    assert "is the disk mounted?" in findings(str(folder / "nowhere"))["store"].remedy


def test_a_single_object_will_do(server: StoreServer) -> None:
    assert findings(f"{server.url}/meta/info.json")["dataset"].found.startswith(f"one object of {len(INFO)} bytes")


def test_an_object_that_is_signed_will_do_and_a_page_will_not(server: StoreServer, folder: Path) -> None:
    (folder / "page").write_bytes(b"<!DOCTYPE html><title>Index</title>")
    assert "meta/info.json" in findings(f"{server.url}/page")["store"].remedy
    server.script("/meta/info.json/meta/info.json", 403)
    assert findings(f"{server.url}/meta/info.json")["store"].level == "ok"


def test_a_store_without_ranges_is_an_error(server: StoreServer) -> None:
    server.set(ranges=False)
    found = findings(server.url)["store"]
    assert found.level == "error"
    assert "rclone serve http" in found.remedy


def test_a_store_without_versions_is_a_warning(server: StoreServer) -> None:
    server.set(etags="off", last_modified=False)
    assert findings(server.url)["versions"].level == "warning"


def test_missing_credentials_are_told_and_no_secret_is(server: StoreServer) -> None:
    server.set(bearer="right")
    found = findings(server.url, token="s3cret")["store"]
    assert "--token-env" in found.remedy
    assert "s3cret" not in str(found)
    assert findings(server.url, token="right")["store"].level == "ok"


def test_a_dataset_that_is_not_there_is_an_error(server: StoreServer) -> None:
    found = findings(f"{server.url}/nowhere")["store"]
    assert found.level == "error"
    assert "meta/info.json" in found.remedy


def test_a_store_that_never_answers_is_given_up(server: StoreServer) -> None:
    with server.held():
        found = findings(server.url, timeout_seconds=0.3)["store"]
    assert "firewall" in found.remedy


def test_a_host_that_is_not_there_is_an_error() -> None:
    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        found = findings(f"http://127.0.0.1:{taken.getsockname()[1]}/x")["store"]
    assert found.level == "error"
    assert "no connection" in found.found


def test_options_that_are_not_known_are_told() -> None:
    assert "not known: 'regoin'" in findings("s3://bucket/x", regoin="x")["store"].found


def test_info_of_another_version_or_no_json_is_an_error() -> None:
    assert "convert_dataset_v21_to_v30" in stores.dataset(b'{"codebase_version": "v2.1"}').remedy
    assert stores.dataset(b"<html>").level == "error"
    assert stores.dataset(b"[]").level == "error"


def test_requests_that_wait_for_each_other_or_fail_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "_NOTICEABLE_SECONDS", 0.02)
    assert stores.several(0.1, 0.15, []).level == "ok"
    assert stores.several(0.1, 0.8, []).level == "warning"
    assert stores.several(0.1, 0.1, [OSError("429")]).level == "error"


def test_a_clock_that_is_off_is_a_warning() -> None:
    assert stores.clock(-2.0).level == "ok"
    assert stores.clock(1000.0).found == "1000 s ahead of the server's"
    assert stores.clock(-1000.0).level == "warning"
