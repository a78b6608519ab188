"""What is in a URL: what it names, what may be told of it, and what of its query tells objects apart."""

from __future__ import annotations

import pytest

from millpond._urls import query_digest, redacted, scheme_of

SIGNED = "X-Amz-Algorithm=AWS4&X-Amz-Date=20260101&X-Amz-Signature=abc"


@pytest.mark.parametrize(("url", "told"), [
    ("https://h/a", "https://h/a"),
    ("https://ann:hunter2@h/a?sig=hunter2#hunter2", "https://h/a?..."),
    ("https://ann:hunt/er2@h/a", "https://h/a"),
    ("s3://bucket/a b/ü", "s3://bucket/a b/ü"),
    ("http://h:8080/a@b", "http://h:8080/a@b"),
    ("http://[2001:db8::1]:80/a@b", "http://[2001:db8::1]:80/a@b"),
])  # fmt: skip
def test_what_may_be_secret_is_not_told(url: str, told: str) -> None:
    assert redacted(url) == told


@pytest.mark.parametrize(("url", "scheme"), [
    ("S3://b", "s3"), ("simplecache::https://h/a", "simplecache"), ("/a", None), ("a:b", None), ("file:///a", "file"),
])  # fmt: skip
def test_a_url_has_a_scheme_and_a_path_has_none(url: str, scheme: str | None) -> None:
    assert scheme_of(url) == scheme


@pytest.mark.parametrize(("one", "other"), [
    ("?id=1", "?id=2"),
    ("?id=1", ""),
    ("?id=1", "?ID2=1"),
    ("?a=1&b=2", "?a=2&b=1"),
    ("?flag", ""),
    ("?id=1&" + SIGNED, "?id=2&" + SIGNED),
    ("?expires=1", "?expires=2"),  # of no signature: it may mean anything
    ("?versionId=1&" + SIGNED, "?versionId=2&" + SIGNED),
    ("?policy=1&id=1", "?policy=2&id=1"),
    ("?id=%ff", "?id=%fe"),
])  # fmt: skip
def test_queries_tell_objects_apart(one: str, other: str) -> None:
    assert query_digest(f"https://h/a{one}") != query_digest(f"https://h/a{other}")


@pytest.mark.parametrize(("one", "other"), [
    ("", "?" + SIGNED),
    ("?id=1", "?id=1&" + SIGNED),
    ("?id=1&" + SIGNED, "?" + SIGNED.replace("abc", "xyz").replace("20260101", "20270101") + "&id=1"),
    ("", "?x-goog-signature=a&X-Goog-Expires=5"),
    ("", "?sv=2024&se=2030&sr=b&sp=r&sig=hunter2"),
    ("", "?Expires=5&Signature=hunter2&Key-Pair-Id=K"),
    ("", "?AWSAccessKeyId=A&Signature=hunter2&Expires=6"),
    ("?a=1&b=2", "?b=2&a=1"),
    ("?id=1#here", "?id=1#there"),
    ("", "?"),
    ("", "#sig=1&id=2"),
])  # fmt: skip
def test_what_is_signed_anew_is_the_same_object(one: str, other: str) -> None:
    assert query_digest(f"https://h/a{one}") == query_digest(f"https://h/a{other}")


def test_a_digest_is_of_the_query_alone_and_tells_nothing_of_it() -> None:
    assert query_digest("https://h/a") == ""
    assert query_digest("https://h/a?key=hunter2") == query_digest("s3://b/c?key=hunter2")
    assert "hunter2" not in query_digest("https://h/a?key=hunter2")
