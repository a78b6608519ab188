"""What passes from a worker to the training process: torch's ways, held against both classes by the same test."""

from __future__ import annotations

import copy
import datetime
import fractions
import io
import pickle
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

from fixtures_torch import LoaderMaker

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch.nn.utils.rnn import PackedSequence, pack_sequence  # noqa: E402

from torch_parity import Items, Listed, alike, lists  # noqa: E402
from torch_parity_types import Sample, Tagged, tagged  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # on machines of one core


# Each is the batch that a collate function made: it comes out as it went in.
PASSED: dict[str, Any] = {
    "None": None,
    "a text": "ö" * 1000,
    "bytes": b"\x00" * 100_000,
    "numbers": (1, 2.5, 1j, 2**100, True),
    "a set": {1, 2},
    "objects": [datetime.date(2026, 1, 1), fractions.Fraction(1, 3)],
    "a scalar": torch.tensor(3),
    "nothing": torch.empty(0, 4),
    "a transposed tensor": torch.arange(6).reshape(2, 3).t(),
    "a cut tensor": torch.arange(20).reshape(4, 5)[1:3, ::2],
    "an expanded tensor": torch.ones(1).expand(5),
    "channels last": torch.ones(2, 3, 4, 5).to(memory_format=torch.channels_last),
    "bfloat16": torch.ones(3, dtype=torch.bfloat16),
    "float8": torch.ones(3).to(torch.float8_e4m3fn),
    "bools": torch.tensor([True, False]),
    "complex": torch.tensor([1j, 2.0]),
    "with gradient": torch.ones(2, requires_grad=True),
    "a parameter": torch.nn.Parameter(torch.ones(2)),
    "an array": np.arange(6, dtype=np.int16).reshape(2, 3),
    "an array in Fortran's order": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "a cut array": np.arange(20)[::3],
    "an array of texts": np.array(["a", "bc"]),
    "an array of objects": np.array([None, "x"], dtype=object),
    "a record array": np.zeros(2, dtype=[("a", "i4"), ("b", "f8")]),
    "dates": np.array(["2026-01-01"], dtype="datetime64[D]"),
    "a numpy scalar": np.float32(0.5),
    "nested": {"a": [torch.ones(2), (np.zeros(2), {"b": "c"})]},
    "large": torch.arange(500_000),
    "many": [torch.full((2,), number) for number in range(200)],
}


def passed(make: LoaderMaker, values: Iterable[Any]) -> list[Any]:
    """What comes out of two workers whose collate function gives these."""
    return list(make(Listed(list(values)), None, collate_fn=lambda value: value, num_workers=2))


@pytest.mark.filterwarnings("ignore:Sparse :UserWarning")  # they are about to change
def test_every_type_passes_as_with_torchs(make_loader: LoaderMaker, make_torchs: LoaderMaker) -> None:
    values = {**PASSED, "sparse": torch.eye(4).to_sparse(), "sparse rows": torch.eye(4).to_sparse_csr()}
    given, expected = passed(make_loader, values.values()), passed(make_torchs, values.values())
    assert [name for name, *pair in zip(values, given, expected, strict=True) if not alike(*pair)] == []


def collated(make: LoaderMaker, batch: Any) -> Any:
    """The same batch, made by a worker's collate function."""
    (found,) = make(Items(1), collate_fn=lambda _: batch, num_workers=1)
    return found


def test_a_tensor_of_an_own_type_keeps_type_and_attributes(make_loader: LoaderMaker) -> None:
    found = collated(make_loader, tagged())
    assert (type(found), found.tag, found.tolist()) == (Tagged, "kept", [0, 1, 2])


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning", "ignore:.*Storage is dep:UserWarning")
def test_what_torchs_spoils_passes_with_ours(make_loader: LoaderMaker) -> None:
    if not make_loader.is_ours:
        pytest.skip("torch's own loader gives these without quantizer, and not conjugated")
    quantized = torch.quantize_per_tensor(torch.arange(4.0), 0.5, 1, torch.quint8)
    conjugated = torch.tensor([1j, 2.0]).conj()
    found = collated(make_loader, [quantized, conjugated, conjugated.imag])
    assert [value.dequantize().tolist() for value in found[:1]] == [[0, 1, 2, 3]]
    assert [value.tolist() for value in found[1:]] == [[-1j, 2], [-1, 0]]


def test_packed_sequences_pass(make_loader: LoaderMaker) -> None:
    packed = pack_sequence([torch.arange(3), torch.arange(2)])
    found = collated(make_loader, packed)
    assert isinstance(found, PackedSequence)
    assert alike(found.data, packed.data)
    assert alike(found.batch_sizes, packed.batch_sizes)


def test_batches_of_own_types_pass(make_loader: LoaderMaker) -> None:
    found = collated(make_loader, Sample(torch.arange(3), "x"))
    assert isinstance(found, Sample)
    assert (found.pixels.tolist(), found.name) == ([0, 1, 2], "x")


def test_views_of_one_tensor_still_share_their_memory(make_loader: LoaderMaker) -> None:
    if make_loader.is_ours:
        pytest.skip("a known difference: each view is sent by itself, without what lies around it")
    whole = torch.zeros(6)
    one, two = collated(make_loader, [whole[:4], whole[2:]])
    one[2:] = 7
    assert two.tolist() == [7, 7, 0, 0]


def test_one_tensor_twice_is_one_tensor(make_loader: LoaderMaker) -> None:
    tensor = torch.zeros(3)
    one, two = collated(make_loader, [tensor, tensor])
    one += 1
    assert two.tolist() == [1, 1, 1]


def test_batches_may_be_written_to(make_loader: LoaderMaker) -> None:
    sums = []
    for batch in make_loader(Items(20, lambda index: torch.full((1000,), index)), 2, num_workers=2):
        batch.mul_(2)
        batch.numpy()[0] = -1
        sums.append(int(batch[1, 0]))
    assert sums == [4 * index + 2 for index in range(10)]


def test_kept_batches_stay_as_they_are(make_loader: LoaderMaker) -> None:
    kept = list(make_loader(Items(60, lambda index: torch.full((1000,), index)), 2, num_workers=2))
    assert [(batch.min(1).values.tolist(), batch.max(1).values.tolist()) for batch in kept] == [
        ([2 * index, 2 * index + 1],) * 2 for index in range(30)
    ]


def test_a_part_of_a_batch_stays_as_it_is(make_loader: LoaderMaker) -> None:
    loader = make_loader(Items(60, lambda index: {"a": torch.full((1000,), index), "b": index}), 2, num_workers=2)
    parts = [batch["a"][1, :2] for batch in loader]
    assert [part.tolist() for part in parts] == [[2 * index + 1] * 2 for index in range(30)]


def test_batches_outlive_their_loader(make_loader: LoaderMaker) -> None:
    (batch,) = make_loader(Items(2, lambda index: torch.full((1000,), index)), 2, num_workers=1)
    assert batch.sum().item() == 1000


@pytest.mark.parametrize(
    "act",
    [
        torch.clone,
        copy.deepcopy,
        lambda batch: pickle.loads(pickle.dumps(batch)),
        lambda batch: torch.from_numpy(batch.numpy()),
        lambda batch: batch.share_memory_(),
        lambda batch: torch.utils.dlpack.from_dlpack(batch),
        lambda batch: batch.to(torch.int32).to(torch.int64),
    ],
    ids=["clone", "deepcopy", "pickle", "numpy", "share_memory_", "dlpack", "to"],
)
def test_batches_may_be_used_like_any_tensor(make_loader: LoaderMaker, act: Any) -> None:
    (batch,) = make_loader(Items(4), 4, num_workers=1)
    assert act(batch).tolist() == [0, 1, 2, 3]


def test_a_saved_batch_is_no_larger_than_it_is(make_loader: LoaderMaker) -> None:
    file = io.BytesIO()
    for batch in make_loader(Items(4, lambda index: torch.full((100,), index)), 1, num_workers=1):
        file.seek(0)
        torch.save(batch, file)
    assert file.tell() < 3000
    file.seek(0)
    assert torch.load(file).tolist() == [[3] * 100]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_samples_without_tensors_pass(make_loader: LoaderMaker, num_workers: int) -> None:
    loader = make_loader(Items(3, lambda index: {"index": index, "name": str(index)}), 2, num_workers=num_workers)
    assert lists(loader) == [{"index": [0, 1], "name": ["0", "1"]}, {"index": [2], "name": ["2"]}]
