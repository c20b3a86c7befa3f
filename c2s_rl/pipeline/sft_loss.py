"""The trainers of SFT and pretraining: TRL's, with eval losses by task, and another loss on a CPU.

TRL's trainer computes log-probabilities without ever holding a [tokens, vocabulary] tensor: right
on an accelerator. On a CPU its head makes several passes over the vocabulary, also for prompts and
padding, and takes as long as the rest of a small model. There only the columns that some row learns
from are projected, once. Left out: mixture-of-experts losses, and outputs beside the loss.
Shape suffixes: B rows, L tokens of a row, K of them projected, V vocabulary.
"""

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel
from trl.trainer.sft_trainer import SFTTrainer

from c2s_rl.pipeline.sft_data import IGNORED_LABEL
from c2s_rl.pipeline.sft_evaluation import Batch, EvalRows, eval_losses


class PolicyTrainer(SFTTrainer):
    """TRL's trainer, which evaluates `eval_rows` task by task instead of an eval_dataset."""

    eval_rows: EvalRows | None = None

    def evaluate(
        self,
        eval_dataset: object = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Compute, log and announce the eval losses; every rank must call it.

        Args:
            eval_dataset: Must be None, as the other two must be what transformers' loop gives.
            ignore_keys: Nothing is gathered.
            metric_key_prefix: The figures have names of their own.

        Returns:
            As `eval_losses`.
        """
        assert eval_dataset is None
        assert self.eval_rows is not None
        model = self.model_wrapped
        model.eval()

        def mean_loss(batch: Batch) -> float:
            inputs = self._prepare_inputs(batch)
            with torch.no_grad(), self.compute_loss_context_manager():
                return float(self.compute_loss(model, inputs))  # type: ignore[no-untyped-call]

        figures = eval_losses(self.eval_rows, mean_loss)
        self.log(dict(figures))
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, figures
        )
        return figures

    def _save(
        self, output_dir: str | None = None, state_dict: dict[str, torch.Tensor] | None = None
    ) -> None:
        """Write a tied weight once: DeepSpeed's copy of the weights has it under both names."""
        tied = self.model.all_tied_weights_keys if isinstance(self.model, PreTrainedModel) else {}
        kept = {n: x for n, x in (state_dict or {}).items() if n not in tied}
        super()._save(output_dir, kept or state_dict)


class WholeLogitsTrainer(PolicyTrainer):
    """The same with another way to the same loss."""

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,  # noqa: FBT001, FBT002 transformers' signature
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """Sum the negative log-likelihood of learnt tokens over their number in the whole step.

        Args:
            model: The policy, wrapped or not.
            inputs: As `RowCollator` makes them.
            return_outputs: Must be False: transformers asks for outputs only for metrics that SFT
                does not have.
            num_items_in_batch: Learnt tokens of the step over all ranks and accumulated batches;
                None counts those of this batch.

        Returns:
            Scalar; times the number of ranks where DeepSpeed then averages over them.
        """
        assert not return_outputs
        labels_B_L = inputs["labels"]
        # Token t is predicted at position t - 1; nothing before the first learnt token is read.
        learnt_L = (labels_B_L != IGNORED_LABEL).any(dim=0).nonzero()
        first = max(1, int(learnt_L[0])) if len(learnt_L) else labels_B_L.shape[1]
        kept_K = torch.arange(first - 1, labels_B_L.shape[1] - 1, device=labels_B_L.device)
        logits_B_K_V = model(
            input_ids=inputs["input_ids"],
            position_ids=inputs["position_ids"],
            logits_to_keep=kept_K,
            use_cache=False,
        ).logits
        labels_B_K = labels_B_L[:, first:]
        loss: torch.Tensor = cross_entropy(
            logits_B_K_V.flatten(0, 1).float(),
            labels_B_K.flatten(),
            ignore_index=IGNORED_LABEL,
            reduction="sum",
        )
        if num_items_in_batch is None:
            return loss / (labels_B_K != IGNORED_LABEL).sum().clamp(min=1)
        return loss / max(1, int(num_items_in_batch)) * int(self.accelerator.num_processes)
