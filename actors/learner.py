"""Learner rank: DeepSpeed ZeRO 0-3 around the policy, with a frozen reference beside it.

The plain, padded form: every completion carries its prompt through the network. One optimiser
update a batch, so the policy before the update is the policy at sampling and no separate pass is
needed for it. Left out: packing, LoRA, several updates a batch.
Shape suffixes: B rows, T completion tokens, P prompts, G completions of one prompt.
"""

import logging
import os
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field

from actors.deepspeed_cpu import skip_shared_memory_op
from actors.shared_weights import full_tensors, publish_shared
from c2s_rl.cells.vocabulary import Vocabulary
from c2s_rl.config import FrozenConfig
from c2s_rl.decoding.constraint import gene_trie_for
from c2s_rl.grpo.batch import PaddedBatch, Row, micro_batches, pad_rows
from c2s_rl.grpo.gene_masks import allowed_columns
from c2s_rl.grpo.loss import LossConfig, grpo_loss
from c2s_rl.grpo.roles import PublishedWeights
from c2s_rl.grpo.sampling import SamplingConfig

logger = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"


class LearnerConfig(FrozenConfig):
    """Optimiser and sharding of the policy."""

    num_workers: int = Field(1, ge=1, description="Data-parallel ranks")
    zero_stage: Literal[0, 1, 2, 3] = Field(2, description="DeepSpeed ZeRO stage")
    dtype: Literal["float32", "bfloat16"] = Field("float32", description="Policy precision")
    lr: float = Field(1e-6, gt=0, description="Peak learning rate (AdamW)")
    lr_schedule: Literal["constant", "linear"] = Field(
        "constant", description="After warm-up: stay, or fall linearly to 0 at the last step"
    )
    warmup_steps: int = Field(0, ge=0, description="Steps over which the rate rises from 0")
    weight_decay: float = Field(0.0, ge=0, description="AdamW decay")
    max_grad_norm: float = Field(1.0, gt=0, description="Gradients are clipped to this norm")
    micro_batch_tokens: int = Field(8192, ge=1, description="Padded tokens a forward pass may hold")
    num_cpus: float = Field(1.0, ge=0, description="Ray CPUs a rank reserves")
    num_gpus: float = Field(0.0, ge=0, description="Ray GPUs a rank reserves; 0 runs on CPU")
    num_threads: int | None = Field(
        None, ge=1, description="Threads a rank on CPU; default: the cores divided by the ranks"
    )
    deadline_s: float = Field(3600.0, gt=0, description="Longest wait for one step, seconds")


@dataclass(frozen=True)
class NodeAddress:
    """Where an actor runs."""

    node_id: str
    """Ray's id of the node."""
    host: str
    """Address that other nodes reach it by."""
    free_port: int
    """A port nobody listened on when asked."""


@dataclass(frozen=True)
class RankPlace:
    """Where a rank stands among its peers."""

    rank: int
    world_size: int
    master_address: str
    master_port: int


@dataclass(frozen=True)
class RankBatch:
    """One rank's share of an optimiser step."""

    rows: tuple[Row, ...]
    """Completions of whole groups; may be empty when there are more ranks than groups."""
    num_completions: int
    """Of the whole step, over all ranks."""
    num_micro_batches: int
    """Forward passes that every rank must make: ZeRO-3 gathers weights in lockstep."""
    lr: float
    """Learning rate of this step."""


@dataclass(frozen=True)
class RankStats:
    """Sums over one rank's completion tokens, and figures that are equal on all ranks."""

    sums: dict[str, float]
    """loss, kl, clipped, entropy_proxy, mismatch (sum of policy - rollout), mismatch_abs, ..."""
    mismatch_max: float
    """Largest |policy - rollout| log-probability difference of a token."""
    grad_norm: float
    """Before clipping."""


def deepspeed_config(config: LearnerConfig) -> dict[str, object]:
    """Translate to DeepSpeed's configuration for externally driven micro-batches.

    gradient_accumulation_steps is 1 because the loss is already normalised over the whole step;
    the boundary is set by hand before each backward pass.
    """
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": config.max_grad_norm,
        "zero_optimization": {"stage": config.zero_stage},
        "bf16": {"enabled": config.dtype == "bfloat16"},
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 2**31 - 1,
    }


class DeepSpeedLearnerRank:
    """One data-parallel rank; lives in its own process."""

    def __init__(
        self,
        policy: Path,
        config: LearnerConfig,
        loss: LossConfig,
        sampling: SamplingConfig,
        vocabulary: Vocabulary,
    ) -> None:
        self._config = config
        self._loss = loss
        self._device = torch.device("cuda" if config.num_gpus > 0 else "cpu")
        self._policy_folder = policy
        self._sampling = sampling
        self._vocabulary = vocabulary

    def address(self) -> NodeAddress:
        """Tell where this process runs and a port that is free there."""
        import ray

        with socket.socket() as probe:
            probe.bind(("", 0))
            port = int(probe.getsockname()[1])
        return NodeAddress(
            ray.get_runtime_context().get_node_id(), ray.util.get_node_ip_address(), port
        )

    def start(self, place: RankPlace) -> None:
        """Join the other ranks, load the policy and build the DeepSpeed engine."""
        if self._device.type == "cpu":
            skip_shared_memory_op()
        import deepspeed
        from transformers import AutoTokenizer

        from c2s_rl.models.policy import CompletionScorer, load_policy

        self._place = place
        os.environ |= {
            "RANK": str(place.rank),
            "WORLD_SIZE": str(place.world_size),
            "LOCAL_RANK": "0",  # Ray shows an actor only its own devices
            "MASTER_ADDR": place.master_address,
            "MASTER_PORT": str(place.master_port),
        }
        if place.master_address == LOOPBACK:
            os.environ["GLOO_SOCKET_IFNAME"] = "lo"
        backend = "nccl" if self._device.type == "cuda" else "gloo"
        deepspeed.init_distributed(dist_backend=backend, verbose=False)
        model = load_policy(self._policy_folder, self._config.dtype)
        # Evaluation mode: dropout would make the policy another one than the sampler's.
        self._scorer = CompletionScorer(model, self._sampling.temperature).eval()
        tokenizer = AutoTokenizer.from_pretrained(self._policy_folder, local_files_only=True)
        self._pad_id = int(tokenizer.pad_token_id or 0)
        self._trie = gene_trie_for(tokenizer, self._vocabulary, self._sampling.genes)
        optimizer = torch.optim.AdamW(
            self._scorer.parameters(), lr=self._config.lr, weight_decay=self._config.weight_decay
        )
        self._engine, *_ = deepspeed.initialize(
            model=self._scorer, optimizer=optimizer, config=deepspeed_config(self._config)
        )
        self._reference: torch.nn.Module | None = None
        if self._loss.beta > 0:
            frozen = load_policy(self._policy_folder, self._config.dtype)
            reference = CompletionScorer(frozen, self._sampling.temperature).to(self._device)
            self._reference = reference.eval().requires_grad_(requires_grad=False)

    def learn(self, batch: RankBatch) -> RankStats:
        """Take one optimiser step together with the other ranks."""
        for group in self._engine.optimizer.param_groups:
            group["lr"] = batch.lr
        cuts = micro_batches(batch.rows, self._config.micro_batch_tokens)
        # Ranks with fewer passes score a filler row that weighs nothing: collectives stay aligned.
        cuts += [[] for _ in range(batch.num_micro_batches - len(cuts))]
        sums: dict[str, float] = {}
        mismatch_max = 0.0
        for index, cut in enumerate(cuts):
            inputs, padded = self._inputs([batch.rows[i] for i in cut])
            self._engine.set_gradient_accumulation_boundary(index == len(cuts) - 1)
            policy_logprobs = self._engine(*inputs)
            terms = grpo_loss(
                self._loss,
                policy_logprobs_B_T=policy_logprobs,
                # one update a batch: the policy before it is the policy at sampling
                sampling_logprobs_B_T=policy_logprobs.detach(),
                reference_logprobs_B_T=self._reference_logprobs(inputs),
                advantages_B=padded.advantages_B,
                mask_B_T=padded.mask_B_T,
                num_completions=batch.num_completions,
            )
            # DeepSpeed averages gradients over ranks; the loss is already divided by the whole
            # step's completions, so the average has to become a sum again.
            self._engine.backward(terms.loss * self._place.world_size)
            mismatch = (policy_logprobs.detach() - padded.rollout_logprobs_B_T) * padded.mask_B_T
            for name, value in {
                "loss": terms.loss.detach(),
                "kl": terms.kl_sum,
                "clipped": terms.clipped_sum,
                "entropy_proxy": terms.entropy_proxy_sum,
                "mismatch": mismatch.sum(),
                "mismatch_abs": mismatch.abs().sum(),
                "tokens": padded.mask_B_T.sum(),
            }.items():
                sums[name] = sums.get(name, 0.0) + float(value)
            mismatch_max = max(mismatch_max, float(mismatch.abs().max()))
        self._engine.step()
        grad_norm = self._engine.get_global_grad_norm()
        return RankStats(sums, mismatch_max, float(grad_norm or 0.0))

    @torch.no_grad()
    def logprobs(self, rows: Sequence[Row], num_micro_batches: int) -> list[list[float]]:
        """Score the completion tokens of rows under the current policy, in the rows' order."""
        result: list[list[float]] = [[] for _ in rows]
        cuts = micro_batches(rows, self._config.micro_batch_tokens)
        for cut in cuts + [[] for _ in range(num_micro_batches - len(cuts))]:
            inputs, _ = self._inputs([rows[i] for i in cut])
            logprobs = self._engine(*inputs).float().cpu()
            for place, index in enumerate(cut):
                result[index] = logprobs[place, : len(rows[index].completion_ids)].tolist()
        return result

    def publish(self, path: Path, version: int) -> PublishedWeights | None:
        """Stream the policy's weights into a shared-memory file; only rank 0 writes it."""
        tensors = self._full_tensors()
        if self._place.rank == 0:
            return publish_shared(tensors, path=path, version=version)
        for _ in tensors:
            pass  # takes part in gathering the shards
        return None

    def save(self, folder: Path) -> None:
        """Write the policy (Hugging Face form), DeepSpeed's state and this rank's random state."""
        self._engine.save_checkpoint(str(folder), tag="deepspeed", save_latest=False)
        states = {"cpu": torch.get_rng_state()}
        if self._device.type == "cuda":
            states["cuda"] = torch.cuda.get_rng_state()
        torch.save(states, folder / f"rng-rank{self._place.rank}.pt")
        tensors = {name: tensor.cpu().clone() for name, tensor in self._full_tensors()}
        if self._place.rank == 0:
            from transformers import AutoTokenizer

            policy = folder / "policy"
            self._scorer.model.save_pretrained(policy, state_dict=tensors)
            AutoTokenizer.from_pretrained(
                self._policy_folder, local_files_only=True
            ).save_pretrained(policy)

    def load(self, folder: Path) -> None:
        """Restore exactly what `save` wrote."""
        self._engine.load_checkpoint(str(folder), tag="deepspeed")
        states = torch.load(folder / f"rng-rank{self._place.rank}.pt", weights_only=True)
        torch.set_rng_state(states["cpu"])
        if self._device.type == "cuda":
            torch.cuda.set_rng_state(states["cuda"])

    def _inputs(self, rows: list[Row]) -> tuple[tuple[torch.Tensor, ...], PaddedBatch]:
        """Pad rows, and put together what the scorer takes of them."""
        padded = self._pad(rows)
        inputs = (
            padded.input_ids_B_L,
            padded.attention_mask_B_L,
            padded.prompt_lengths_B,
            padded.completion_ids_B_T,
        )
        if self._trie is not None and rows:
            completions = [row.completion_ids for row in rows]
            allowed = allowed_columns(self._trie, completions, max_tokens=self._sampling.max_tokens)
            columns = torch.from_numpy(self._trie.columns_U)
            inputs += (columns.to(self._device), allowed.to(self._device))
        return inputs, padded

    def _pad(self, rows: list[Row]) -> PaddedBatch:
        if rows:
            return pad_rows(rows, self._pad_id).to(self._device)
        filler = Row((self._pad_id,), (self._pad_id,), (0.0,), 0.0)
        padded = pad_rows([filler], self._pad_id).to(self._device)
        padded.mask_B_T.zero_()
        return padded

    @torch.no_grad()
    def _reference_logprobs(self, inputs: tuple[torch.Tensor, ...]) -> torch.Tensor | None:
        if self._reference is None:
            return None
        logprobs: torch.Tensor = self._reference(*inputs)
        return logprobs

    def _full_tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        return full_tensors(self._scorer.model, is_sharded=self._config.zero_stage == 3)
