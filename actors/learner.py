"""Learner rank: DeepSpeed ZeRO 0-3 around the policy, with a frozen reference beside it.

The plain, padded form: every completion carries its prompt through the network. One optimiser
update a batch, so the policy before the update is the policy at sampling and no separate pass is
needed for it. Left out: packing, several updates a batch.
Shape suffixes: B rows, T completion tokens, P prompts, G completions of one prompt.
"""

import logging
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field

from actors.deepspeed_cpu import skip_shared_memory_op
from actors.learner_lora import TrainedPolicy
from actors.weight_publish import SyncTarget
from c2s_rl.config import FrozenConfig
from c2s_rl.grpo.batch import PaddedBatch, Row, micro_batches, pad_rows
from c2s_rl.grpo.loss import LossConfig, grpo_loss
from c2s_rl.grpo.roles import PublishedWeights
from c2s_rl.models.lora import LoraConfig

logger = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"


class LearnerConfig(FrozenConfig):
    """Optimiser and sharding of the policy."""

    num_workers: int = Field(1, ge=1, description="Data-parallel ranks")
    zero_stage: Literal[0, 1, 2, 3] = Field(2, description="DeepSpeed ZeRO stage")
    dtype: Literal["float32", "bfloat16"] = Field("float32", description="Policy precision")
    lora: LoraConfig | None = Field(None, description="Train an adapter instead of every weight")
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
        temperature: float,
    ) -> None:
        self._config = config
        self._loss = loss
        self._device = torch.device("cuda" if config.num_gpus > 0 else "cpu")
        self._policy_folder = policy
        self._temperature = temperature

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
        self._policy = TrainedPolicy(
            self._policy_folder,
            self._config.dtype,
            self._config.lora,
            is_sharded=self._config.zero_stage == 3,
        )
        # Evaluation mode: dropout would make the policy another one than the sampler's.
        self._scorer = CompletionScorer(self._policy.model, self._temperature).eval()
        tokenizer = AutoTokenizer.from_pretrained(self._policy_folder, local_files_only=True)
        self._pad_id = int(tokenizer.pad_token_id or 0)
        optimizer = torch.optim.AdamW(
            self._policy.trainable(), lr=self._config.lr, weight_decay=self._config.weight_decay
        )
        self._engine, *_ = deepspeed.initialize(
            model=self._scorer, optimizer=optimizer, config=deepspeed_config(self._config)
        )
        self._reference: torch.nn.Module | None = None
        if self._loss.beta > 0 and self._policy.adapter is None:
            frozen = load_policy(self._policy_folder, self._config.dtype)
            reference = CompletionScorer(frozen, self._temperature).to(self._device)
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
            padded = self._pad([batch.rows[i] for i in cut])
            self._engine.set_gradient_accumulation_boundary(index == len(cuts) - 1)
            policy_logprobs = self._engine(*_inputs(padded))
            terms = grpo_loss(
                self._loss,
                policy_logprobs_B_T=policy_logprobs,
                # one update a batch: the policy before it is the policy at sampling
                sampling_logprobs_B_T=policy_logprobs.detach(),
                reference_logprobs_B_T=self._reference_logprobs(padded),
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
            padded = self._pad([rows[i] for i in cut])
            logprobs = self._engine(*_inputs(padded)).float().cpu()
            for place, index in enumerate(cut):
                result[index] = logprobs[place, : len(rows[index].completion_ids)].tolist()
        return result

    def connect(self, target: SyncTarget) -> None:
        """Get ready to publish; under nccl and ipc the rollout workers are met here."""
        self._publisher = self._policy.publisher(target, rank=self._place.rank)

    def publish(self, version: int) -> PublishedWeights | None:
        """Publish the policy's weights; only rank 0 answers with a handle."""
        return self._publisher.publish(version)

    def save(self, folder: Path) -> None:
        """Write the policy (Hugging Face form), DeepSpeed's state and this rank's random state."""
        self._engine.save_checkpoint(
            str(folder),
            tag="deepspeed",
            save_latest=False,
            exclude_frozen_parameters=self._policy.adapter is not None,
        )
        states = {"cpu": torch.get_rng_state()}
        if self._device.type == "cuda":
            states["cuda"] = torch.cuda.get_rng_state()
        torch.save(states, folder / f"rng-rank{self._place.rank}.pt")
        self._policy.save(folder, rank=self._place.rank)

    def load(self, folder: Path) -> None:
        """Restore exactly what `save` wrote."""
        # with an adapter the checkpoint lacks the frozen weights: they are there already
        is_whole = self._policy.adapter is None
        self._engine.load_checkpoint(str(folder), tag="deepspeed", load_module_strict=is_whole)
        states = torch.load(folder / f"rng-rank{self._place.rank}.pt", weights_only=True)
        torch.set_rng_state(states["cpu"])
        if self._device.type == "cuda":
            torch.cuda.set_rng_state(states["cuda"])

    def _pad(self, rows: list[Row]) -> PaddedBatch:
        if rows:
            return pad_rows(rows, self._pad_id).to(self._device)
        filler = Row((self._pad_id,), (self._pad_id,), (0.0,), 0.0)
        padded = pad_rows([filler], self._pad_id).to(self._device)
        padded.mask_B_T.zero_()
        return padded

    @torch.no_grad()
    def _reference_logprobs(self, padded: PaddedBatch) -> torch.Tensor | None:
        if self._loss.beta == 0:
            return None
        if self._reference is None:
            with self._policy.as_reference():
                return self._engine(*_inputs(padded))
        logprobs: torch.Tensor = self._reference(*_inputs(padded))
        return logprobs


def _inputs(batch: PaddedBatch) -> tuple[torch.Tensor, ...]:
    return (
        batch.input_ids_B_L,
        batch.attention_mask_B_L,
        batch.prompt_lengths_B,
        batch.completion_ids_B_T,
    )
