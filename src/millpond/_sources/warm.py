"""Imports what reading whole objects by HTTP takes, so that a zygote does it once for all of its workers.

Neither obstore nor asyncio nor fsspec is among it.
"""

from __future__ import annotations

from millpond._sources import http_parts, object_store, whole_reads

__all__ = ["http_parts", "object_store", "whole_reads"]
