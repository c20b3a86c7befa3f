"""Weights into a running vLLM engine: tied and untied, full, merged and as adapters."""

import time
from pathlib import Path

import numpy as np
import pytest
import ray
import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, LlamaConfig, LlamaForCausalLM

from actors.calls import wait_each
from actors.engine_weights import EngineSync
from actors.launch import rollout_pool
from actors.rollout import RolloutConfig
from actors.session import RayConfig, ray_session
from actors.shared_weights import SharedWriter
from actors.weight_publish import AdapterPublisher, SyncTarget
from actors.weight_source import WeightSource
from c2s_rl.cells.vocabulary import Vocabulary
from c2s_rl.decoding.constraint import GeneConstraint, GeneMode
from c2s_rl.errors import DeadlineError
from c2s_rl.grpo.batch import pad_rows, rows_of
from c2s_rl.grpo.roles import RolloutRequest
from c2s_rl.grpo.sampling import SamplingConfig
from c2s_rl.models.lora import LoraConfig, add_adapter, is_adapter
from c2s_rl.models.policy import CompletionScorer
from c2s_rl.models.tokenizer import train_bpe
from c2s_rl.pipeline.align_figures import mean_difference
from c2s_rl.types import PromptRecord, Split, Task

pytestmark = pytest.mark.integration

SYMBOLS = tuple(f"GENE{i}" for i in range(40))
VOCABULARY = Vocabulary(SYMBOLS, SYMBOLS)
TEMPERATURE = 0.7
SAMPLING = SamplingConfig(
    group_size=4, max_tokens=24, temperature=TEMPERATURE, genes=GeneConstraint(mode=GeneMode.OFF)
)
LORA = LoraConfig(rank=4, alpha=8.0)
NO_GENES = np.zeros(0, dtype=np.int32)


def make_model(kind, num_tokens):
    torch.manual_seed(0)
    sizes = {
        "vocab_size": num_tokens,
        "hidden_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 256,
        "max_position_embeddings": 128,
    }
    if kind == "gpt_neox, untied head":
        return GPTNeoXForCausalLM(GPTNeoXConfig(**sizes, tie_word_embeddings=False))
    return LlamaForCausalLM(LlamaConfig(**sizes, num_key_value_heads=2, tie_word_embeddings=True))


@pytest.fixture(scope="module")
def session():
    with ray_session(RayConfig(), num_cpus=1):
        yield


def difference(model, groups, pad_id):
    """Mean |engine - model| log-probability over all sampled tokens."""
    rows = rows_of(groups, [[0.0] * len(g.completions_G) for g in groups])
    batch = pad_rows(rows, pad_id)
    with torch.no_grad():
        scored = CompletionScorer(model.eval(), TEMPERATURE)(
            batch.input_ids_B_L,
            batch.attention_mask_B_L,
            batch.prompt_lengths_B,
            batch.completion_ids_B_T,
        ).tolist()
    scored = [
        logprobs[: len(row.completion_ids)] for logprobs, row in zip(scored, rows, strict=True)
    ]
    size = SAMPLING.group_size
    return mean_difference(groups, [scored[i * size : (i + 1) * size] for i in range(len(groups))])


def write_policy(folder, kind):
    """A policy's folder, the model in it, and three requests."""
    texts = [" ".join(SYMBOLS[i:] + SYMBOLS[:i]) for i in range(40)]
    tokenizer = train_bpe(texts, vocabulary_size=600, max_length=128)
    model = make_model(kind, len(tokenizer))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    requests = [
        RolloutRequest(
            PromptRecord(
                str(i), f"{texts[i]}:", " x", Task.CELL_GENERATION, "c", "", "", Split.TRAIN,
                NO_GENES, NO_GENES,
            ),
            seed=i,
        )
        for i in range(3)
    ]  # fmt: skip
    return model, requests, tokenizer.pad_token_id


def move(model, *, only_adapter=False):
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if is_adapter(name) or not only_adapter:
                parameter.add_(0.05 * torch.randn_like(parameter))


def versions(groups):
    return {c.policy_version for g in groups for c in g.completions_G}


@pytest.mark.parametrize("kind", ["gpt_neox, untied head", "llama, tied head"])
def test_engine_answers_with_the_published_weights(session, tmp_path, kind):
    model, requests, pad_id = write_policy(tmp_path / "policy", kind)
    writer = SharedWriter(tmp_path, deadline_s=5, num_threads=1)
    with rollout_pool(tmp_path / "policy", VOCABULARY, SAMPLING, RolloutConfig()) as pool:
        before = pool.generate(requests)
        assert difference(model, before, pad_id) < 1e-4
        move(model)
        # the engine still has the former weights, and the comparison sees it
        assert difference(model, before, pad_id) > 1e-2
        # three versions: both slots are used, and the first one again
        source = WeightSource(model, is_sharded=False, bucket_bytes=2**18)
        for version in (1, 2, 3):
            move(model)
            weights = writer.publish(source, version)
            pool.update_weights(weights)
            after = pool.generate(requests)
            assert difference(model, after, pad_id) < 1e-4
            assert versions(after) == {version}
        assert before[0].completions_G[0].token_ids_T != after[0].completions_G[0].token_ids_T

        # an adapter that is merged on the way
        add_adapter(model, LORA)
        move(model, only_adapter=True)
        assert difference(model, after, pad_id) > 1e-2
        merged = WeightSource(model, is_sharded=False, bucket_bytes=2**18, lora=LORA)
        pool.update_weights(writer.publish(merged, version=4))
        # what the engine loaded is its own by now: the slots may be overwritten
        for path in tmp_path.glob("slot-*"):
            path.write_bytes(bytes(path.stat().st_size))
        assert difference(model, pool.generate(requests), pad_id) < 1e-4

        weights = writer.publish(merged, version=5)
        with Path(weights.location).open("r+b") as file:
            file.seek(weights.buckets[-1].offset)
            byte = file.read(1)
            file.seek(weights.buckets[-1].offset)
            file.write(bytes([byte[0] ^ 1]))
        with pytest.raises(Exception, match="published weights must arrive unaltered"):
            pool.update_weights(weights)


def test_engine_answers_with_the_newest_adapter(session, tmp_path):
    model, requests, pad_id = write_policy(tmp_path / "policy", "llama, tied head")
    adapted = add_adapter(model, LORA)
    source = WeightSource(
        model, is_sharded=False, bucket_bytes=2**18, lora=LORA, is_adapter_only=True
    )
    sync = EngineSync(adapter_rank=LORA.rank, num_adapters=2)
    publisher = AdapterPublisher(source, adapted, SyncTarget(tmp_path, sync, 2**18), rank=0)
    policy = tmp_path / "policy"
    with rollout_pool(policy, VOCABULARY, SAMPLING, RolloutConfig(), sync=sync) as pool:
        pool.update_weights(publisher.publish(0))
        groups = pool.generate(requests)
        # a new adapter is the model before it
        with adapted.disable_adapter():
            assert difference(model, groups, pad_id) < 1e-4
        # the same prompts each time: stale prefix caches would show. A version may come again
        for version in (1, 2, 3, 3):
            move(model, only_adapter=True)
            assert difference(model, groups, pad_id) > 1e-3
            pool.update_weights(publisher.publish(version))
            groups = pool.generate(requests)
            assert difference(model, groups, pad_id) < 1e-4
            assert versions(groups) == {version}
    # as many folders as the engine has room for
    assert sorted(path.name for path in tmp_path.glob("adapter-*")) == [
        "adapter-4-version-3",
        "adapter-5-version-3",
    ]


class Sleeper:
    def sleep(self, seconds):
        time.sleep(seconds)
        return seconds


def test_the_peer_that_is_late_is_named(session):
    workers = [ray.remote(Sleeper).options(num_cpus=0).remote() for _ in range(2)]
    ray.get([worker.sleep.remote(0) for worker in workers])
    peers = ["rollout worker 0 (taking weights version 7)", "rollout worker 1 (taking ...)"]
    calls = [worker.sleep.remote(s) for worker, s in zip(workers, (0, 0.1), strict=True)]
    assert wait_each(calls, deadline_s=20, peers=peers) == [0, 0.1]
    calls = [worker.sleep.remote(s) for worker, s in zip(workers, (0, 9), strict=True)]
    message = r"rollout worker 1 \(taking \.\.\.\) must answer within 0.5 s, got no answer"
    with pytest.raises(DeadlineError, match=message):
        wait_each(calls, deadline_s=0.5, peers=peers)
    for worker in workers:
        ray.kill(worker)
