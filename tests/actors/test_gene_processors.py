"""The logits processors of both vLLM interfaces, called as the two model runners call them.

V1 through vLLM's own InputBatch. V2 needs CUDA to run, so its buffers are stood in for by CPU
tensors of the same names, filled as its model runner fills them.
"""

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from actors.gene_requests import TRIE_KEY, check_params, load_trie
from c2s_rl.decoding.gene_trie import GeneTrie
from tests.decoding_rule import EOS, encode_with

PATHS = {"HLA": (1,), "HLA-A": (1, 11), "CD3": (2, 13), "CD3D": (2, 13, 14), "TNF": (3,)}
NUM_TOKENS, PROMPT, BUDGET = 20, [5, 6, 7], 9


@dataclass
class EngineConfig:
    """What the processors read of vLLM's configuration."""

    additional_config: dict[str, str]
    speculative_config: str | None = None


@pytest.fixture
def trie():
    return GeneTrie.build(list(PATHS), encode_with(PATHS), eos_id=EOS, min_genes=2)


@pytest.fixture
def config(trie, tmp_path):
    trie.save(tmp_path / "trie")
    return EngineConfig({TRIE_KEY: str(tmp_path / "trie")})


def params(*, is_constrained=True):
    from vllm import SamplingParams

    return SamplingParams(max_tokens=BUDGET, extra_args={TRIE_KEY: is_constrained})


@dataclass
class Job:
    """A request of the test: every third is free, and some are preempted once."""

    number: int
    tokens: list[int] = field(default_factory=list)

    @property
    def is_free(self):
        return self.number % 3 == 0

    @property
    def is_ended(self):
        return EOS in self.tokens or len(self.tokens) == BUDGET


def take_tokens(jobs, logits, trie, rng):
    """Check every row against a walk of its own and append a token."""
    for row, job in enumerate(jobs):
        kept = np.flatnonzero(np.isfinite(logits[row].numpy()))
        if job.is_free:
            assert len(kept) == NUM_TOKENS
        else:
            walk = trie.walk(BUDGET)
            for token in job.tokens:
                walk.advance(token)
            assert sorted(walk.allowed().tolist()) == kept.tolist()
            # what is kept is the model's own
            assert logits[row, kept[0]].item() == float(row)
        job.tokens.append(int(rng.choice(kept)))


def padded_logits(num_rows):
    """Logits as an engine has them: a slice of wider ones; each row holds its own number."""
    wide = torch.arange(num_rows).float().unsqueeze(1).repeat(1, NUM_TOKENS + 4)
    return wide[:, :NUM_TOKENS]


def test_v1_rows_follow_requests_that_enter_leave_move_and_are_preempted(config, trie):
    from vllm.v1.sample.logits_processor import LogitsProcessors
    from vllm.v1.worker.gpu_input_batch import CachedRequestState, InputBatch

    from actors.vllm_gene_processor import GeneTrieProcessor

    processor = GeneTrieProcessor(config, torch.device("cpu"), is_pin_memory=False)
    batch = InputBatch(
        max_num_reqs=6,
        max_model_len=64,
        max_num_batched_tokens=64,
        device=torch.device("cpu"),
        vocab_size=NUM_TOKENS,
        block_sizes=[16],
        max_num_blocks_per_req=[4],
        logitsprocs=LogitsProcessors([processor]),
        logitsprocs_need_output_token_ids=True,
    )
    rng = np.random.default_rng(0)
    waiting = [Job(number) for number in range(40)]
    running: dict[str, Job] = {}
    num_preempted = 0
    while waiting or running:
        for name, job in list(running.items()):
            is_preempted = not job.is_ended and rng.random() < 0.05
            if job.is_ended or is_preempted:
                batch.remove_request(name)
                del running[name]
            if is_preempted:
                num_preempted += 1
                waiting.insert(0, job)
        while waiting and len(running) < 6:
            job = waiting.pop(0)
            running[str(job.number)] = job
            batch.add_request(
                CachedRequestState(
                    str(job.number), PROMPT, [], params(is_constrained=not job.is_free), None,
                    ([0],), 0, job.tokens,
                )
            )  # fmt: skip
        batch.condense()
        if len(running) > 1 and rng.random() < 0.2:
            batch.swap_states(0, len(running) - 1)
        batch.refresh_metadata()
        logits = processor.apply(padded_logits(len(running)))
        take_tokens([running[name] for name in batch.req_ids], logits, trie, rng)
    assert num_preempted > 3
    assert not processor.is_argmax_invariant()


@dataclass
class Buffer:
    """One of the V2 runner's buffers, device and host side."""

    gpu: torch.Tensor

    @property
    def np(self):
        return self.gpu.numpy()


@dataclass
class SlotStates:
    """The V2 runner's state of its request slots."""

    all_token_ids: Buffer
    prompt_len: Buffer
    prefill_len: Buffer


@pytest.mark.parametrize("runs_ahead", [False, True])
def test_v2_slots_follow_requests_that_enter_leave_and_are_preempted(config, trie, runs_ahead):
    from vllm.v1.worker.gpu.sample.logits_processor import LogitsContext

    from actors.vllm_gene_processor_v2 import GeneTrieProcessorV2

    num_slots = 6
    states = SlotStates(
        Buffer(torch.zeros(num_slots, 64, dtype=torch.int32)),
        Buffer(torch.zeros(num_slots, dtype=torch.int32)),
        Buffer(torch.zeros(num_slots, dtype=torch.int32)),
    )
    processor = GeneTrieProcessorV2(config, states)
    rng = np.random.default_rng(0)
    waiting = [Job(number) for number in range(40)]
    slots: dict[int, Job] = {}
    num_preempted = 0
    while waiting or slots:
        for slot, job in list(slots.items()):
            is_preempted = not job.is_ended and rng.random() < 0.05
            if job.is_ended or is_preempted:
                del slots[slot]
            if is_preempted:
                num_preempted += 1
                waiting.insert(0, job)
        for slot in set(range(num_slots)) - slots.keys():
            if waiting:
                job = slots[slot] = waiting.pop(0)
                prefill = PROMPT + job.tokens
                states.all_token_ids.gpu[slot, : len(prefill)] = torch.tensor(prefill)
                states.prompt_len.np[slot], states.prefill_len.np[slot] = 3, len(prefill)
                is_held = processor.add_request(slot, params(is_constrained=not job.is_free))
                assert is_held is not job.is_free
        processor.apply_staged_writes()
        order = rng.permutation(list(slots))  # rows are in another order at every step
        jobs = [slots[slot] for slot in order.tolist()]
        lengths = np.array([len(PROMPT) + len(job.tokens) for job in jobs])
        newest = torch.tensor([(PROMPT + job.tokens)[-1] for job in jobs])
        mapping = torch.from_numpy(order)
        context = LogitsContext(
            expanded_idx_mapping=mapping,
            idx_mapping=mapping,
            idx_mapping_np=order,
            expanded_local_pos=torch.zeros_like(mapping),
            input_ids=newest,
            pos=torch.from_numpy(lengths - 1),
            seq_lens_upper_bound_np=lengths,
        )
        take_tokens(jobs, processor.apply(padded_logits(len(jobs)), context), trie, rng)
        for slot, job in slots.items():
            states.all_token_ids.gpu[slot, len(PROMPT) + len(job.tokens) - 1] = job.tokens[-1]
        if runs_ahead:
            ended = [slot for slot, job in slots.items() if job.tokens[-1] == EOS]
            if ended:
                check_step_after_the_end(processor, ended[0], slots[ended[0]])
    assert num_preempted > 3


def check_step_after_the_end(processor, slot, job):
    """An asynchronous scheduler samples once more before it learns of the end."""
    from vllm.v1.worker.gpu.sample.logits_processor import LogitsContext

    if job.is_free:
        return
    mapping = torch.tensor([slot])
    length = np.array([len(PROMPT) + len(job.tokens)])
    context = LogitsContext(
        mapping, mapping, mapping.numpy(), mapping * 0, torch.tensor([EOS]), mapping, length
    )
    logits = processor.apply(padded_logits(1), context)
    assert np.flatnonzero(np.isfinite(logits[0].numpy())).tolist() == [EOS]


def test_v2_leaves_rows_alone_whose_prompt_is_not_read_to_its_end(config):
    from vllm.v1.worker.gpu.sample.logits_processor import LogitsContext

    from actors.vllm_gene_processor_v2 import GeneTrieProcessorV2

    states = SlotStates(*(Buffer(torch.tensor([n])) for n in ([0] * 9, 8, 8)))
    processor = GeneTrieProcessorV2(config, states)
    processor.add_request(0, params())
    zero = torch.tensor([0])
    context = LogitsContext(zero, zero, zero.numpy(), zero, zero, zero, np.array([5]))
    assert processor.apply(padded_logits(1), context).isfinite().all()


def test_a_request_that_could_go_on_after_its_end_is_refused(config):
    from vllm import SamplingParams

    with pytest.raises(ValueError, match="must stop at its end, got ignore_eos"):
        check_params(SamplingParams(max_tokens=9, ignore_eos=True, extra_args={TRIE_KEY: True}))
    with pytest.raises(ValueError, match="must have max_tokens, got None"):
        check_params(SamplingParams(max_tokens=None, extra_args={TRIE_KEY: True}))
    check_params(SamplingParams(max_tokens=None))
    config.speculative_config = "ngram"
    with pytest.raises(ValueError, match="without speculative decoding"):
        load_trie(config)
