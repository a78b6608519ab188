"""Access to stores is said in fsspec's words or obstore's, taken from where each ecosystem keeps it, and never told."""

from __future__ import annotations

import base64
import json
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from millpond._sources.addresses import Address
from millpond._sources.backends import BackendMaker
from millpond._sources.limits import FetchLimits
from millpond._sources.object_store import ObjectStore
from millpond._sources.storage_options import Access, access_of
from millpond._values import ByteRange
from millpond.errors import FetchError, MillpondError, UnsupportedFormat
from real_servers import BUCKET, KEYS, put, s3_options, s3_server
from store_server import StoreServer, serving_store

DATA = bytes(range(256))
SECRET = "hunter2-sesame"


def access(url: str, token: str | None = None, **options: Any) -> Access:
    return access_of(Address.of(url), options, token)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[StoreServer]:
    for place in ("a", "bucket/p/a", "container/p/a"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_bytes(DATA)
    with serving_store(tmp_path) as running:
        yield running


@pytest.fixture(autouse=True)
def nobody_is_logged_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_ENDPOINT_URL",
                 "AZURE_STORAGE_CONNECTION_STRING", "GOOGLE_APPLICATION_CREDENTIALS"):  # fmt: skip
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))


def test_words_of_fsspec_for_s3() -> None:
    given = access("s3://b/p", key="k", secret="s", token="t", requester_pays=True,
                   client_kwargs={"endpoint_url": "http://h", "region_name": "eu-west-1"},
                   config_kwargs={"s3": {"addressing_style": "virtual"}})  # fmt: skip
    assert given.config == {
        "access_key_id": "k", "secret_access_key": "s", "session_token": "t", "request_payer": True,
        "endpoint": "http://h", "region": "eu-west-1", "virtual_hosted_style_request": True,
    }  # fmt: skip
    assert given.client == {"allow_http": True}
    assert not given.needs_credentials


@pytest.mark.parametrize(("options", "config"), [
    ({"aws_access_key_id": "k", "aws_secret_access_key": "s", "region": "r"},
     {"access_key_id": "k", "secret_access_key": "s", "region": "r"}),
    ({"anon": True}, {"skip_signature": True}),
    ({"endpoint_url": "https://h"}, {"endpoint": "https://h"}),
    ({"key": None, "anon": False}, {"skip_signature": False}),
])  # fmt: skip
def test_words_of_obstore_and_half_of_fsspecs(options: dict[str, Any], config: dict[str, Any]) -> None:
    given = access("s3://b", **options)
    assert given.config == config
    assert "allow_http" not in given.client


def test_words_for_google(tmp_path: Path) -> None:
    key = tmp_path / "key.json"
    key.write_text("{}")
    assert access("gs://b", project="p").config == {}
    assert access_of(Address.of("gs://b"), {"token": "anon"}, None).config == {"skip_signature": True}
    assert access_of(Address.of("gcs://b"), {"token": str(key)}, None).config == {"application_credentials": str(key)}
    assert access_of(Address.of("gs://b"), {"token": "ya29.x"}, None).config == {"bearer_token": "ya29.x"}
    assert access_of(Address.of("gs://b"), {"token": {"a": 1}}, None).config == {"service_account_key": '{"a": 1}'}
    assert access_of(Address.of("gs://b"), {"token": "google_default"}, "mine").config == {"bearer_token": "mine"}


def test_words_for_azure(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "DefaultEndpointsProtocol=https;AccountName=acc;AccountKey=a2V5==;EndpointSuffix=core.windows.net"
    assert access("az://c/p", connection_string=text).config == {"account_name": "acc", "account_key": "a2V5=="}
    assert access("abfs://c@acc.dfs.core.windows.net/p", sas_token="?sv=1").config == {
        "account_name": "acc", "sas_key": "sv=1"}  # fmt: skip
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", text)
    assert access("az://c").config["account_name"] == "acc"
    assert access("az://c", account_name="other").config == {"account_name": "other"}


@pytest.mark.parametrize(("url", "options"), [
    ("s3://b", {"kee": SECRET}), ("gs://b", {"key": SECRET}), ("az://c", {"secret": SECRET}),
    ("http://h", {"key": SECRET}), ("/path", {"key": SECRET}), ("http://h", {"client_kwargs": {"timeout": SECRET}}),
])  # fmt: skip
def test_a_name_that_is_not_known_is_told_with_those_that_are(url: str, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"not known: .*known are") as caught:
        ObjectStore(url, storage_options=options)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(("url", "options"), [
    ("s3://b", {"client_kwargs": SECRET}), ("http://h", {"auth": 7}), ("gs://b", {"token": 7}), ("s3:///x", {}),
])  # fmt: skip
def test_a_value_that_does_not_fit_is_told_without_it(url: str, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"storage_options|names no bucket") as caught:
        ObjectStore(url, storage_options=options)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("url", ["/path", "file:///path", "memory://x"])
def test_a_token_where_nobody_asks_for_one_is_a_value_error(url: str) -> None:
    with pytest.raises(ValueError, match="token= has no meaning") as caught:
        ObjectStore(url, token=SECRET)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(("settings", "prefix", "arguments"), [
    ({"bearer": SECRET}, "", {"token": SECRET}),
    ({"bearer": SECRET}, "", {"storage_options": {"headers": {"Authorization": f"Bearer {SECRET}"}}}),
    ({"basic": f"ann:{SECRET}"}, f"ann:{SECRET}@", {}),
    ({"basic": f"ann:{SECRET}"}, "", {"storage_options": {"auth": ("ann", SECRET)}}),
    ({"basic": f"ann:{SECRET}"}, "", {"storage_options": {"client_kwargs": {"auth": ("ann", SECRET, "utf-8")}}}),
])  # fmt: skip
def test_http_is_asked_with_what_was_given(
    settings: dict[str, str], prefix: str, arguments: dict[str, Any], server: StoreServer
) -> None:
    server.set(**settings)
    with ObjectStore(server.url.replace("//", f"//{prefix}"), **arguments) as store:
        assert store.read("a", ByteRange(0, 10)) == DATA[:10]
    with ObjectStore(server.url) as store, pytest.raises(FetchError, match="HTTP status 401") as caught:
        store.read("a", ByteRange(0, 10))
    assert caught.value.status == 401


def test_a_query_goes_with_every_request_and_is_not_told(server: StoreServer) -> None:
    with ObjectStore(f"{server.url}/?sig={SECRET}") as store:
        store.read("a", ByteRange(0, 10))
        assert server.requests[-1][1] == f"/a?sig={SECRET}"
        assert SECRET not in store.name_of("a")


def test_google_is_asked_through_its_endpoint(server: StoreServer) -> None:
    options = {"endpoint_url": server.url, "token": SECRET}
    with ObjectStore("gs://bucket/p", storage_options=options) as store:
        assert store.read("a", ByteRange(0, 10)) == DATA[:10]
        assert server.requests[-1][2]["Authorization"] == f"Bearer {SECRET}"


def test_azure_is_asked_through_its_endpoint(server: StoreServer) -> None:
    key = base64.b64encode(SECRET.encode()).decode()
    text = f"AccountName=acc;AccountKey={key};BlobEndpoint={server.url}"
    with ObjectStore("az://container/p", storage_options={"connection_string": text}) as store:
        assert store.read("a", ByteRange(0, 10)) == DATA[:10]
        assert server.requests[-1][2]["Authorization"].startswith("SharedKey acc:")
    options = {"account_name": "acc", "endpoint": server.url, "sas_token": f"sv=1&sig={SECRET}"}
    with ObjectStore("abfs://container/p", storage_options=options) as store:
        assert store.read("a", ByteRange(0, 10)) == DATA[:10]
        assert f"sig={SECRET}" in server.requests[-1][1]


@pytest.fixture(scope="module", autouse=True)
def s3() -> Iterator[str]:
    with s3_server() as endpoint:
        yield endpoint


@pytest.mark.parametrize("place", ["environment", "profile", "named profile", "options"])
def test_s3_is_asked_with_keys_from_where_they_are(
    place: str, s3: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    put(s3, "a", DATA)
    options: dict[str, Any] = {"endpoint_url": s3, "region": "us-east-1"}
    if place == "environment":
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEYS["key"])
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEYS["secret"])
    elif place == "options":
        options = s3_options(s3)
    else:
        name = "default" if place == "profile" else "work"
        keys = f"aws_access_key_id={KEYS['key']}\naws_secret_access_key={KEYS['secret']}\n"
        (tmp_path / "credentials").write_text(f"[{name}]\n{keys}")
        options |= {} if place == "profile" else {"profile": "work"}
    with ObjectStore(f"s3://{BUCKET}", storage_options=options) as store:
        assert store.read("a", ByteRange(0, 10)) == DATA[:10]


def test_a_profile_that_is_not_there_is_told() -> None:
    with ObjectStore("s3://b", storage_options={"profile": "nobody"}) as store:
        with pytest.raises(UnsupportedFormat, match="profile 'nobody' gives no credentials"):
            store.identity("a")


def test_profiles_without_boto3_name_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "boto3", None)
    with ObjectStore("s3://b", storage_options={"profile": "work"}) as store:
        with pytest.raises(UnsupportedFormat, match=r"millpond\[s3\]"):
            store.identity("a")


def _told(error: BaseException) -> str:
    chain = "".join(traceback.format_exception(error))
    facts = error.facts if isinstance(error, MillpondError) else ""
    return f"{chain} {error!r} {facts} {error.__cause__!r} {json.dumps(getattr(error, '__notes__', []))}"


@pytest.mark.parametrize("url", ["hf://datasets/a/b", "s3://b", "gs://b", "az://c", "https://h", "pond://x"])
def test_no_secret_is_in_what_a_store_is_made_by(url: str) -> None:
    kind = url.partition(":")[0]
    name = {"s3": "secret", "gs": "endpoint_url", "az": "sas_token", "https": "headers"}.get(kind, "password")
    options: dict[str, Any] = {name: {"X-Key": SECRET} if name == "headers" else SECRET}
    options |= {"key": "k"} if kind == "s3" else {}
    token = None if kind == "pond" else SECRET
    maker = BackendMaker.of(Address.of(url), options, token, FetchLimits())
    assert SECRET not in f"{maker!r} {maker.access!r} {maker.address!r}"


@pytest.mark.parametrize("fault", [403, 404, 500, "reset", "truncated"])
def test_no_secret_is_in_any_error(fault: str | int, server: StoreServer) -> None:
    key = base64.b64encode(SECRET.encode()).decode()
    limits = FetchLimits(max_tries=2)
    stores = [
        ObjectStore(f"{server.url.replace('//', f'//ann:{SECRET}@')}?sig={SECRET}", limits=limits),
        ObjectStore(server.url, token=SECRET, limits=limits),
        ObjectStore("s3://bucket/p", limits=limits, storage_options={"key": SECRET, "secret": SECRET, "token": SECRET,
                                                                     "endpoint_url": server.url}),
        ObjectStore("gs://bucket/p", token=SECRET, limits=limits, storage_options={"endpoint_url": server.url}),
        ObjectStore("az://container/p", limits=limits, storage_options={"account_name": "acc", "account_key": key,
                                                                        "endpoint": server.url}),
        ObjectStore("az://container/p", limits=limits, storage_options={"account_name": "acc", "endpoint": server.url,
                                                                        "sas_token": f"sig={SECRET}"}),
    ]  # fmt: skip
    for store in stores:
        for path in ("/a", "/bucket/p/a", "/container/p/a"):
            server.script(path, fault, fault)
        with store, pytest.raises(MillpondError) as caught:
            store.read("a", ByteRange(0, 10))
        told = _told(caught.value) + repr(store) + store.url
        assert SECRET not in told
        assert key not in told


def test_an_address_that_is_none_is_told_without_its_password() -> None:
    for address in ("no such host", "127.0.0.1:port", "[::1", "127.0.0.1:99999"):
        with ObjectStore(f"http://ann:{SECRET}@{address}/clip") as store, pytest.raises(FetchError) as caught:
            store.read("a", ByteRange(0, 10))
        assert SECRET not in _told(caught.value)
