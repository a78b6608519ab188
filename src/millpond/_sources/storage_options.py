"""What users say about access to a store: fsspec's names and obstore's own, made into what obstore takes.

No name is passed over in silence: one that is not known is a ValueError that lists those that are.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any
from urllib.parse import urlsplit

from millpond._sources.addresses import Address
from millpond._urls import redacted

Options = dict[str, Any]

_SHARED = ("client_options",)
_S3 = (
    "access_key_id", "secret_access_key", "session_token", "region", "endpoint", "default_region", "request_payer",
    "role_arn", "role_session_name", "web_identity_token_file", "skip_signature", "virtual_hosted_style_request",
    "unsigned_payload", "s3_express", "imdsv1_fallback", "metadata_endpoint", "container_credentials_relative_uri",
    "container_credentials_full_uri", "container_authorization_token_file", "sse_customer_key_base64",
)  # fmt: skip
_GS = (
    "service_account", "service_account_path", "service_account_key", "application_credentials", "bearer_token",
    "skip_signature", "base_url",
)  # fmt: skip
_AZ = (
    "account_name", "account_key", "client_id", "client_secret", "tenant_id", "authority_host", "sas_key",
    "use_emulator", "use_fabric_endpoint", "endpoint", "msi_endpoint", "object_id", "msi_resource_id",
    "federated_token_file", "use_azure_cli", "skip_signature", "credential_type", "authority_id",
)  # fmt: skip
_FSSPEC = {
    "s3": ("key", "secret", "token", "anon", "endpoint_url", "client_kwargs", "config_kwargs", "profile", "use_ssl",
           "requester_pays"),
    "gs": ("token", "project", "endpoint_url", "anon"),
    "az": ("account_name", "account_key", "sas_token", "connection_string", "anon", "token", "account_host"),
    "http": ("headers", "auth", "client_kwargs"),
    "file": ("auto_mkdir",),
}  # fmt: skip
_S3_CLIENT = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token", "endpoint_url", "region_name")
_OBSTORE = {"s3": _S3, "gs": _GS, "az": _AZ, "http": (), "file": ()}
_PREFIXES = {"s3": "aws_", "gs": "google_", "az": "azure_"}


@dataclass(frozen=True, slots=True)
class Access:
    """How to reach a store with obstore. Never shown: it holds secrets.

    Attributes:
        config: Of `S3Store`, `GCSStore` or `AzureStore`.
        client: `client_options`, where they do not depend on limits.
        profile: Of an AWS configuration file.
        needs_credentials: Nothing explicit was given: what the environment or a profile has is looked for.
        has_own_client: Some of `client` only obstore's client knows.
    """

    config: Options = field(default_factory=dict, repr=False)
    client: Options = field(default_factory=dict, repr=False)
    profile: str | None = None
    needs_credentials: bool = False
    has_own_client: bool = False


def access_of(address: Address, options: Mapping[str, Any] | None, token: str | None) -> Access:
    """Translate options.

    Raises:
        ValueError: A name that is not known, or a value that does not fit; values are not shown.
    """
    known = sorted({*_FSSPEC[address.kind], *_OBSTORE[address.kind], *_SHARED})
    given = {_without_prefix(name, address.kind): value for name, value in dict(options or {}).items()}
    _require_known("storage_options", address, given, known)
    if address.kind in _PREFIXES:
        address.bucket_and_prefix()
    client = _mapping(given, "client_options")
    made = _MAKERS[address.kind](address, given, token)
    return Access(made.config, {**made.client, **client}, made.profile, made.needs_credentials, bool(client))


def _require_known(what: str, address: Address, given: Mapping[str, Any], known: Sequence[str]) -> None:
    unknown = sorted(set(given) - set(known))
    if not unknown:
        return
    meant = sorted({match for name in unknown for match in get_close_matches(name, known, 1)})
    hint = f"; did you mean {', '.join(map(repr, meant))}?" if meant else ";"
    raise ValueError(
        f"{what} for {address.name!r}: not known: {', '.join(map(repr, unknown))}{hint} known are {', '.join(known)}"
    )


def _require_url(endpoint: str) -> None:
    parts = urlsplit(endpoint)
    if endpoint and not (parts.scheme in ("http", "https") and parts.hostname):
        raise ValueError(
            f"the endpoint {redacted(endpoint)!r} (endpoint_url of storage_options, or AWS_ENDPOINT_URL) is no URL: "
            "write https://HOST:PORT or http://HOST:PORT"
        )


def _without_prefix(name: str, kind: str) -> str:
    return name.lower().removeprefix(_PREFIXES.get(kind, "-"))


def _s3(address: Address, given: Options, token: str | None) -> Access:
    config = _own_names(given, "s3")
    more = _mapping(given, "client_kwargs")
    _require_known("client_kwargs", address, more, _S3_CLIENT)
    _rename(given, config, {"key": "access_key_id", "secret": "secret_access_key", "token": "session_token"})
    _rename(given, config, {"anon": "skip_signature", "requester_pays": "request_payer", "endpoint_url": "endpoint"})
    _rename(more, config, {"endpoint_url": "endpoint", "region_name": "region"})
    _rename(more, config, {"aws_access_key_id": "access_key_id", "aws_secret_access_key": "secret_access_key"})
    _rename(more, config, {"aws_session_token": "session_token"})
    style = _mapping(_mapping(given, "config_kwargs"), "s3").get("addressing_style")
    if style is not None:
        config["virtual_hosted_style_request"] = style == "virtual"
    if token is not None:
        config["session_token"] = token
    endpoint = str(config.get("endpoint") or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
                   or os.environ.get("AWS_ENDPOINT") or "")  # fmt: skip
    _require_url(endpoint)
    if bool(config.get("access_key_id")) != bool(config.get("secret_access_key")):
        raise ValueError(f"storage_options for {address.name!r}: give both, key and secret, or neither")
    is_plain = endpoint.startswith("http://") or given.get("use_ssl") is False
    explicit = {"access_key_id", "skip_signature", "web_identity_token_file", "role_arn"} & {
        name for name, value in config.items() if value
    }
    return Access(config, {"allow_http": True} if is_plain else {}, given.get("profile"), not explicit)


def _gs(address: Address, given: Options, token: str | None) -> Access:
    config = _own_names(given, "gs")
    _rename(given, config, {"anon": "skip_signature", "endpoint_url": "base_url"})
    secret = given.get("token")
    if isinstance(secret, Mapping):
        config["service_account_key"] = json.dumps(dict(secret))
    elif isinstance(secret, str) and os.path.exists(secret):
        config["application_credentials"] = secret
    elif secret == "anon":
        config["skip_signature"] = True
    elif isinstance(secret, str) and secret not in ("google_default", "cloud"):
        config["bearer_token"] = secret
    elif secret is not None and not isinstance(secret, str):
        raise ValueError("storage_options for gs://: token is a path, an access token, 'anon' or a mapping")
    if token is not None:
        config["bearer_token"] = token
    is_plain = str(config.get("base_url", "")).startswith("http://")
    return Access(config, {"allow_http": True} if is_plain else {})


def _az(address: Address, given: Options, token: str | None) -> Access:
    text = given.get("connection_string") or (
        None if given.keys() - {"client_options"} else os.environ.get("AZURE_STORAGE_CONNECTION_STRING")
    )
    config = {**_of_connection_string(text), **_own_names(given, "az")}
    _rename(given, config, {"sas_token": "sas_key", "anon": "skip_signature", "token": "token"})
    if host := given.get("account_host"):
        config["endpoint"] = f"https://{host}"
        config.setdefault("account_name", str(host).partition(".")[0])
    if account := address.account():
        config.setdefault("account_name", account)
    if token is not None:
        config["token"] = token
    if isinstance(config.get("sas_key"), str):
        config["sas_key"] = config["sas_key"].lstrip("?")
    is_plain = str(config.get("endpoint", "")).startswith("http://") or bool(config.get("use_emulator"))
    return Access(config, {"allow_http": True} if is_plain else {})


def _of_connection_string(text: str | None) -> Options:
    pairs = dict(part.split("=", 1) for part in (text or "").split(";") if "=" in part)
    names = {"AccountName": "account_name", "AccountKey": "account_key", "BlobEndpoint": "endpoint",
             "SharedAccessSignature": "sas_key"}  # fmt: skip
    return {name: pairs[theirs] for theirs, name in names.items() if theirs in pairs}


def _http(address: Address, given: Options, token: str | None) -> Access:
    more = _mapping(given, "client_kwargs")
    _require_known("client_kwargs", address, more, ("auth", "headers", "trust_env"))
    headers = {
        str(name): str(value) for name, value in {**_mapping(more, "headers"), **_mapping(given, "headers")}.items()
    }
    login = given.get("auth", more.get("auth"))
    user = address.user_and_password() if login is None else ":".join(_user_and_password(login))
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    elif user is not None:
        headers["Authorization"] = f"Basic {base64.b64encode(user.encode()).decode()}"
    return Access({}, {"allow_http": True, "default_headers": headers})


def _user_and_password(login: Any) -> tuple[str, str]:
    """Of a pair, or of aiohttp's BasicAuth, which is one of three."""
    try:
        user, password = str(login[0]), str(login[1])
    except (TypeError, IndexError, KeyError):
        raise ValueError("storage_options for http://: auth is a pair (user, password)") from None
    return user, password


def _file(address: Address, given: Options, token: str | None) -> Access:
    if token is not None:
        raise ValueError(f"token= has no meaning for {address.name!r}, which is local")
    address.local_path("")
    return Access()


_MAKERS = {"s3": _s3, "gs": _gs, "az": _az, "http": _http, "file": _file}


def _own_names(given: Options, kind: str) -> Options:
    """What has obstore's own name already."""
    return {name: value for name, value in given.items() if name in _OBSTORE[kind] and value is not None}


def _rename(given: Mapping[str, Any], config: Options, names: Mapping[str, str]) -> None:
    config.update({new: given[old] for old, new in names.items() if given.get(old) is not None})


def _mapping(given: Mapping[str, Any], name: str) -> Options:
    value = given.get(name)
    if value is not None and not isinstance(value, Mapping):
        raise ValueError(f"storage_options: {name} is a mapping, not a {type(value).__name__}")
    return dict(value or {})
