"""Bytes of objects in stores: S3, GCS, Azure, HTTP, and whatever else fsspec reads."""
