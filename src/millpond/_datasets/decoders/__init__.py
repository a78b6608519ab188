"""Frames of a video by index and by time: open decoders, and the cache that bounds them."""
