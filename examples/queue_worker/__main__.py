"""The service: `python -m examples.queue_worker`."""

from examples.queue_worker.stopping import block_stop_signals

block_stop_signals()

from examples.queue_worker.service import main  # noqa: E402 - numpy, torch and onnxruntime start threads

if __name__ == "__main__":
    main()
