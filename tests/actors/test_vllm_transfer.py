"""What is handed to vLLM's own transports, as far as it can be checked without a GPU."""

import pytest
import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from actors.vllm_transfer import ipc_info, nccl_info, packed_bytes, rank_offsets
from actors.weight_source import TensorMeta, WeightSource
from c2s_rl.models.lora import LoraConfig, add_adapter

LORA = LoraConfig(rank=4)


def test_every_engine_has_a_rank_of_its_own_in_the_nccl_group():
    # the learner is rank 0, vLLM's offset for the first engine is 1
    infos = rank_offsets({"rank_offset": 1, "world_size": 4}, 3)
    assert [info["rank_offset"] for info in infos] == [1, 2, 3]
    assert {info["world_size"] for info in infos} == {4}


def test_ipc_has_no_ranks():
    assert rank_offsets({"packed": True}, 2) == [{"packed": True}] * 2


def test_the_packing_buffer_holds_the_largest_tensor():
    metadata = [
        TensorMeta("a", torch.bfloat16, (10, 10)),  # 200 bytes
        TensorMeta("b", torch.float32, (10, 10)),  # 400 bytes
    ]
    assert packed_bytes(metadata, 300) == 400
    assert packed_bytes(metadata, 500) == 500


@pytest.fixture(scope="module")
def source():
    torch.manual_seed(0)
    model = GPTNeoXForCausalLM(
        GPTNeoXConfig(
            vocab_size=50,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=48,
        )
    )
    add_adapter(model, LORA)
    return WeightSource(model, is_sharded=False, bucket_bytes=20_000, lora=LORA)


@pytest.mark.integration
def test_vllm_takes_our_source_and_packs_it_without_loss(source):
    from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerWeightTransferEngine
    from vllm.distributed.weight_transfer.packed_tensor import pack_tensors, unpack_tensor

    pairs = NCCLTrainerWeightTransferEngine._checked_iter(source, source.metadata())
    arrived = {}
    while chunk := pack_tensors(pairs, lambda item: item[1], 20_000):
        unpacked = unpack_tensor(
            chunk.packed_tensor, chunk.names, chunk.shapes, chunk.dtypes, chunk.tensor_sizes
        )
        arrived |= dict(unpacked)
    sent = dict(iter(source))
    assert list(arrived) == list(sent)
    assert all(torch.equal(arrived[name], sent[name]) for name in sent)


@pytest.mark.integration
def test_init_infos_are_those_that_vllm_dispatches_on():
    from vllm.distributed.weight_transfer.base import VLLMWeightSyncClient
    from vllm.distributed.weight_transfer.factory import WeightTransferTrainerFactory

    from actors.vllm_transfer import EngineClient

    nccl = nccl_info(rank=1, address=("10.0.0.1", 29500), num_engines=3, buffer_bytes=2**20)
    assert (nccl.backend, nccl.world_size, nccl.is_sender) == ("nccl", 4, False)
    ipc = ipc_info(rank=0, buffer_bytes=2**20)
    assert (ipc.backend, ipc.packed, ipc.is_sender) == ("ipc", True, True)
    assert {nccl.backend, ipc.backend} <= WeightTransferTrainerFactory._registry.keys()
    assert isinstance(EngineClient([], deadline_s=1), VLLMWeightSyncClient)
