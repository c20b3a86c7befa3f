"""Slots in shared memory: round trips, turns, locks and checks."""

import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from actors.shared_weights import CHUNK, HEADER, PAGE, Crew, SharedReader, SharedWriter, page_sums
from actors.weight_source import WeightSource
from c2s_rl.errors import DeadlineError, WeightSyncError


class Tensors(nn.Module):
    """Parameters of given shapes and types, filled with random bits."""

    def __init__(self, shapes, dtype=torch.float32, seed=0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        for index, shape in enumerate(shapes):
            value = torch.randn(shape, generator=generator).to(dtype)
            self.register_parameter(f"p{index}", nn.Parameter(value))


def make_source(model, bucket_bytes=2**30):
    return WeightSource(model, is_sharded=False, bucket_bytes=bucket_bytes)


def take(reader, weights):
    return dict(reader.acquire(weights.location, weights.generation, weights.buckets))


@pytest.fixture
def writer(tmp_path):
    return SharedWriter(tmp_path, deadline_s=0.05, num_threads=1)


@pytest.fixture
def reader():
    return SharedReader(deadline_s=0.05, num_threads=1)


@given(
    shapes=st.lists(st.lists(st.integers(1, 7), max_size=3).map(tuple), min_size=1, max_size=6),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    bucket_bytes=st.sampled_from([1, 64, 10**6]),
)
def test_every_shape_and_type_arrives(tmp_path_factory, shapes, dtype, bucket_bytes):
    model = Tensors(shapes, dtype)
    writer = SharedWriter(tmp_path_factory.mktemp("slots"), deadline_s=1, num_threads=1)
    reader = SharedReader(deadline_s=1, num_threads=1)
    found = take(reader, writer.publish(make_source(model, bucket_bytes), version=3))
    assert list(found) == [name for name, _ in model.named_parameters()]
    for name, parameter in model.named_parameters():
        assert found[name].dtype == dtype
        assert torch.equal(found[name], parameter)


def test_tensors_across_chunks_and_threads_arrive(tmp_path):
    # the second begins within a chunk of the copying threads and ends two chunks later
    model = Tensors([(1000,), (CHUNK // 4 + 77, 2), (5,)])
    writer = SharedWriter(tmp_path, deadline_s=1, num_threads=3)
    reader = SharedReader(deadline_s=1, num_threads=2)
    weights = writer.publish(make_source(model), version=0)
    found = take(reader, weights)
    assert all(torch.equal(found[name], p) for name, p in model.named_parameters())
    # the same bytes give the same checksum whatever the threads
    single = SharedWriter(tmp_path / "single", deadline_s=1, num_threads=1)
    assert single.publish(make_source(model), version=0).buckets == weights.buckets


def test_versions_take_turns_and_the_one_being_read_stays_whole(writer, reader):
    first = Tensors([(3, 5)], seed=1)
    second = Tensors([(3, 5)], seed=2)
    old = writer.publish(make_source(first), version=1)
    held = take(reader, old)["p0"]
    new = writer.publish(make_source(second), version=2)
    assert new.location != old.location
    assert torch.equal(held, first.p0)
    other = SharedReader(deadline_s=0.05, num_threads=1)
    assert torch.equal(take(other, new)["p0"], second.p0)


def test_a_slot_that_is_read_is_never_overwritten(writer, reader):
    source = make_source(Tensors([(3, 5)]))
    weights = writer.publish(source, version=1)
    take(reader, weights)
    writer.publish(source, version=2)
    message = (
        rf"rollout workers must let go of {weights.location} within 0.05 s, got it held by "
        rf"process {os.getpid()}"
    )
    with pytest.raises(DeadlineError, match=message):
        writer.publish(source, version=3)
    reader.release()
    assert writer.publish(source, version=3).version == 3


def test_a_reader_keeps_its_mapping_and_sees_what_is_written_later(writer, reader):
    model = Tensors([(3, 5)])
    for version in range(6):
        with torch.no_grad():
            model.p0.fill_(version)
        weights = writer.publish(make_source(model), version)
        assert take(reader, weights)["p0"].unique().tolist() == [version]


def test_one_flipped_bit_is_found(writer, reader):
    weights = writer.publish(make_source(Tensors([(2000,), (10,)]), bucket_bytes=1), version=1)
    with Path(weights.location).open("r+b") as file:
        file.seek(weights.buckets[1].offset + 3)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 4]))
    with pytest.raises(WeightSyncError, match=r"must arrive unaltered: .* of bucket 1, got"):
        take(reader, weights)


def sums(pages):
    found = np.empty(len(pages) // PAGE, dtype=np.uint64)
    page_sums(pages, found)
    return found.tolist()


def test_two_pages_that_changed_places_are_found():
    pages = np.random.default_rng(0).integers(0, 256, (2, PAGE), dtype=np.uint8)
    assert sums(pages.reshape(-1)) != sums(pages[::-1].reshape(-1))


def test_a_page_is_summed_up_as_64_bit_words_modulo_2_64():
    page = np.zeros(PAGE, dtype=np.uint8)
    page[0] = 5  # the word 5
    page[8:16] = 255  # the word 2^64 - 1, that is -1
    page[17] = 1  # the word 256
    assert sums(page) == [5 - 1 + 256]


@pytest.mark.parametrize("num_threads", [1, 2, 5])
def test_a_crew_does_every_item_once(num_threads):
    done = []
    Crew(num_threads).run(done.append, 100)
    assert sorted(done) == list(range(100))


def test_what_fails_in_a_helping_thread_is_not_lost():
    def work(number):
        time.sleep(0.01)
        if number == 3:
            raise OSError("number 3")

    with pytest.raises(OSError, match="number 3"):
        Crew(2).run(work, 8)


def test_a_slot_that_was_overwritten_since_is_refused(writer, reader):
    source = make_source(Tensors([(3, 5)]))
    stale = writer.publish(source, version=1)
    for version in (2, 3):
        writer.publish(source, version)
    with pytest.raises(WeightSyncError, match=r"must be generation 1 in .* got generation 3 in"):
        take(reader, stale)


def test_a_slot_whose_writer_died_in_the_middle_is_refused(writer, reader):
    weights = writer.publish(make_source(Tensors([(3, 5)])), version=1)
    with Path(weights.location).open("r+b") as file:
        file.write(HEADER.pack(b"c2srlw02", 0, 1))
    with pytest.raises(WeightSyncError, match="got generation 0 in"):
        take(reader, weights)
    # the lock went with the error: the writer may go on
    for version in (2, 3):
        weights = writer.publish(make_source(Tensors([(3, 5)])), version)
    assert len(take(reader, weights)) == 1


def test_a_new_writer_leaves_readers_of_the_former_one_alone(tmp_path, writer, reader):
    first, second = Tensors([(3, 5)], seed=1), Tensors([(400, 5)], seed=2)
    held = take(reader, writer.publish(make_source(first), version=1))["p0"]
    successor = SharedWriter(tmp_path, deadline_s=0.05, num_threads=1)
    weights = successor.publish(make_source(second), version=1)
    assert torch.equal(held, first.p0)
    assert torch.equal(take(reader, weights)["p0"], second.p0)


def test_full_shared_memory_is_an_error_and_not_a_crash(writer, monkeypatch):
    huge = make_source(Tensors([(3, 5)]))
    metas = huge.bucket_metadata()
    # 2^48 rows of 5 float32: no file system here holds 5 PiB
    monkeypatch.setattr(
        huge, "bucket_metadata", lambda: [[type(metas[0][0])("p0", torch.float32, (2**48, 5))]]
    )
    with pytest.raises(WeightSyncError, match=r"must hold 2 copies of the weights, got .* MiB in"):
        writer.publish(huge, version=1)
