"""Imports what reading media takes, so that a zygote does it once for all of its workers; starts no thread.

A worker that imported it by itself would take 40 ms longer for its first call, and each one that replaces a killed one.
"""

from __future__ import annotations

from PIL import Image, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

from millpond._media import audio, clip_source, frames, images

__all__ = ["JpegImagePlugin", "PngImagePlugin", "WebPImagePlugin", "audio", "clip_source", "frames", "images"]

Image.preinit()
