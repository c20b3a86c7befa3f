"""Learner rank: DeepSpeed ZeRO 0-3 around the policy, with a frozen reference.

Groups come packed, each prompt once; the LM head is fused with the loss; where sampling was held to
the gene trie, so are all log-probabilities. What a micro-batch's loss is, `c2s_rl.grpo.micro_step`
says. Left out: who packs and deals out (`actors/learner_group.py`).
Shape suffixes: N completion tokens of a micro-batch.
"""

import logging
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel

from actors.deepspeed_cpu import skip_shared_memory_op
from actors.learner_config import LearnerConfig
from actors.learner_lora import TrainedPolicy
from actors.weight_publish import SyncTarget
from c2s_rl.cells.vocabulary import Vocabulary
from c2s_rl.decoding.constraint import gene_trie_for
from c2s_rl.grpo.loss import StepTotals
from c2s_rl.grpo.loss_config import LossConfig
from c2s_rl.grpo.micro_step import MicroBatch, Support, micro_loss
from c2s_rl.grpo.passes import MicroParts
from c2s_rl.grpo.roles import PublishedWeights
from c2s_rl.grpo.sampling import SamplingConfig
from c2s_rl.models.checkpointing import checkpoint_layers
from c2s_rl.models.logprobs import FusedOptions
from c2s_rl.models.policy import load_policy
from c2s_rl.models.scorer import PackedScorer

logger = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"


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
class RankPlan:
    """What a rank has to know of an optimiser step before its first pass."""

    totals: StepTotals
    """Of the whole step, over all ranks."""
    lr: float
    """Learning rate of this step."""


@dataclass(frozen=True)
class RankStats:
    """What one rank measured in a step; sums add up over ranks, of maxima the largest counts."""

    sums: dict[str, float]
    """Of `LossStats`, over all updates; and `loss`, of the first."""
    maxima: dict[str, float]
    """Of `LossStats`."""
    grad_norm: float
    """Before clipping, equal on all ranks; of the last update."""


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
        vocabulary: Vocabulary,
        *,
        config: LearnerConfig,
        loss: LossConfig,
        sampling: SamplingConfig,
    ) -> None:
        self._config = config
        self._loss = loss
        self._sampling = sampling
        self._vocabulary = vocabulary
        self._device = torch.device("cuda" if config.num_gpus > 0 else "cpu")
        self._policy_folder = policy

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
        """Join the other ranks, load the policy and build the DeepSpeed engine.

        Raises:
            DataError: If the gene trie is on and the policy's tokenizer does not fit it.
        """
        if self._device.type == "cpu":
            skip_shared_memory_op()
        import deepspeed
        from transformers import AutoTokenizer

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
        tokenizer = AutoTokenizer.from_pretrained(self._policy_folder, local_files_only=True)
        self._pad_id = int(tokenizer.pad_token_id or 0)
        trie = gene_trie_for(tokenizer, self._vocabulary, self._sampling.genes)
        self._support = Support(trie, self._sampling.max_tokens) if trie else None
        self._policy = TrainedPolicy(
            self._policy_folder,
            self._config.dtype,
            self._config.lora,
            is_sharded=self._config.zero_stage == 3,
        )
        self._scorer = self._scorer_of(self._policy.model)
        optimizer = torch.optim.AdamW(
            self._policy.trainable(), lr=self._config.lr, weight_decay=self._config.weight_decay
        )
        self._engine, *_ = deepspeed.initialize(
            model=self._scorer, optimizer=optimizer, config=deepspeed_config(self._config)
        )
        if self._config.gradient_checkpointing:
            checkpoint_layers(self._policy.model)
        has_reference = self._loss.beta > 0 and self._policy.adapter is None
        self._reference = self._load_reference() if has_reference else None

    def begin(self, plan: RankPlan) -> None:
        """Start an optimiser step together with the other ranks."""
        for group in self._engine.optimizer.param_groups:
            group["lr"] = plan.lr
        self._totals = plan.totals
        self._kept: list[MicroBatch] = []
        self._sums: dict[str, float] = {}
        self._maxima: dict[str, float] = {}

    def accumulate(self, passes: Sequence[MicroParts]) -> None:
        """Add the gradients of some micro-batches, none of them the step's last."""
        for parts in passes:
            self._first_pass(parts, is_last=False)

    def finish(self, passes: Sequence[MicroParts]) -> RankStats:
        """Add the gradients of the step's last micro-batches and update the policy.

        Every further update of `updates_per_batch` goes over all micro-batches of the step again.
        """
        for index, parts in enumerate(passes):
            self._first_pass(parts, is_last=index == len(passes) - 1)
        self._engine.step()
        loss = self._sums["loss"]
        for _ in range(self._loss.updates_per_batch - 1):
            for index, micro in enumerate(self._kept):
                self._pass(micro, is_last=index == len(self._kept) - 1)
            self._engine.step()
        grad_norm = float(self._engine.get_global_grad_norm() or 0.0)
        self._kept = []
        return RankStats(self._sums | {"loss": loss}, self._maxima, grad_norm)

    def _first_pass(self, parts: MicroParts, *, is_last: bool) -> None:
        micro = self._micro_batch(parts)
        micro.reference_N = self._reference_logprobs(micro)
        logprobs_N = self._pass(micro, is_last=is_last)
        if self._loss.updates_per_batch > 1:
            micro.sampling_N = logprobs_N
            self._kept.append(micro)

    def _pass(self, micro: MicroBatch, *, is_last: bool) -> torch.Tensor:
        """Make one forward and backward pass; return the policy's log-probabilities."""
        self._engine.set_gradient_accumulation_boundary(is_last)
        terms = micro_loss(self._loss, self._engine, micro, self._totals)
        # DeepSpeed averages gradients over ranks; the loss is already divided by the whole
        # step's completions, so the average has to become a sum again.
        self._engine.backward(terms.loss * self._place.world_size)
        sums = {"loss": terms.loss.detach(), **terms.stats.sums}
        for name, value in sums.items():
            self._sums[name] = self._sums.get(name, 0.0) + float(value)
        for name, value in terms.stats.maxima.items():
            self._maxima[name] = max(self._maxima.get(name, 0.0), float(value))
        return terms.logprobs_N

    @torch.no_grad()
    def logprobs(self, passes: Sequence[MicroParts]) -> list[list[float]]:
        """Score completions under the current policy, row after row of all passes."""
        rows: list[list[float]] = []
        for parts in passes:
            scores_N = self._engine(self._micro_batch(parts).inputs).logprobs_N.cpu()
            lengths = [len(row.completion_ids) for part in parts for row in part.rows]
            rows += [scores_n.tolist() for scores_n in scores_N[: sum(lengths)].split(lengths)]
        return rows

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
        self.save_policy(folder)

    def save_policy(self, folder: Path) -> None:
        """Write only the policy (Hugging Face form), and its adapter where there is one."""
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

    def _scorer_of(self, model: PreTrainedModel) -> PackedScorer:
        options = FusedOptions(
            temperature=self._sampling.temperature,
            with_entropy=self._loss.entropy_bonus > 0,
        )
        # Evaluation mode: dropout would make the policy another one than the sampler's.
        return PackedScorer(model, options).eval()

    def _load_reference(self) -> torch.nn.Module:
        """Load the policy a second time, frozen; sharded like the policy under ZeRO-3."""
        import deepspeed

        frozen = self._scorer_of(load_policy(self._policy_folder, self._config.dtype))
        frozen.requires_grad_(requires_grad=False)
        if self._config.zero_stage < 3:
            return frozen.to(self._device)
        engine, *_ = deepspeed.initialize(model=frozen, config=deepspeed_config(self._config))
        return engine

    @torch.no_grad()
    def _reference_logprobs(self, micro: MicroBatch) -> torch.Tensor | None:
        if self._loss.beta == 0:
            return None
        if self._reference is None:
            with self._policy.as_reference():
                logprobs_N: torch.Tensor = self._engine(micro.inputs).logprobs_N
        else:
            logprobs_N = self._reference(micro.inputs).logprobs_N
        return logprobs_N

    def _micro_batch(self, parts: MicroParts) -> MicroBatch:
        return MicroBatch.of(parts, pad_id=self._pad_id, support=self._support, device=self._device)
