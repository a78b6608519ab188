"""A service that pulls image jobs from an HTTP task queue, a loader per job; README.md says how it holds together."""

import os

# From 1.31 or so on, onnxruntime reports to its maker as soon as it is imported, and leaves a file in the temporary
# folder. Whoever wants that sets the variable to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
