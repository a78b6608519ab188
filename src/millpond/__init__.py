"""Flat memory, no hangs, nothing lost, at the speed of sequential decode: video, audio and images for training."""
