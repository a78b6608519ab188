"""For programs that use Ray Data: `read_lerobot(url)` decodes on the nodes of a cluster. Needs Ray Data.

import millpond.ray

dataset = millpond.ray.read_lerobot("s3://bucket/pusht", shuffle=True)
for batch in dataset.drop_columns(["task"]).iter_torch_batches(batch_size=64):
    ...
"""

try:
    import ray.data as _ray_data  # noqa: F401
except ModuleNotFoundError as _error:
    if (_error.name or "").partition(".")[0] not in ("ray", "pandas", "pyarrow"):
        raise
    raise ModuleNotFoundError("millpond.ray needs Ray Data: pip install 'millpond[ray]'", name=_error.name) from None

from millpond._ray.read_lerobot import read_lerobot

__all__ = ["read_lerobot"]
