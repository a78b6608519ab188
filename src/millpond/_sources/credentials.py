"""Credentials of AWS profiles, single sign-on and assumed roles, by boto3 where it is installed."""

from __future__ import annotations

import os
from typing import Any

from millpond._sources.storage_options import Access
from millpond.errors import UnsupportedFormat

_READ_BY_OBSTORE = (
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)


def provider_of(access: Access) -> Any | None:
    """What gives obstore keys when it wants some; None where it finds them itself.

    Raises:
        UnsupportedFormat: A profile was asked for, and boto3, which reads profiles, is not installed.
    """
    profile = access.profile or os.environ.get("AWS_PROFILE")
    if not access.needs_credentials or (not access.profile and any(os.environ.get(name) for name in _READ_BY_OBSTORE)):
        return None
    try:
        import boto3
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ImportError:
        if profile:
            raise UnsupportedFormat("AWS profiles are read by boto3: pip install 'millpond[s3]'") from None
        return None
    try:
        return Boto3CredentialProvider(boto3.Session(profile_name=access.profile))
    except Exception as error:  # noqa: BLE001 - botocore's own, and obstore's ValueError where nothing is found
        if profile:
            raise UnsupportedFormat(
                f"the AWS profile {profile!r} gives no credentials ({type(error).__name__})"
            ) from None
        return None
