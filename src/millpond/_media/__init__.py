"""Reading media: sample tables, the packet decoder, images and audio."""
