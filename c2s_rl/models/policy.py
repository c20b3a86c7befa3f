"""A causal language model as the learner sees it: completions in, log-probabilities out.

Shape suffixes: B rows, L prompt + completion tokens, T completion tokens, V vocabulary, U token ids
that may ever be sampled.
"""

from pathlib import Path

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from c2s_rl.errors import MissingFileError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class CompletionScorer(nn.Module):
    """Wraps a causal language model so that its forward pass gives completion log-probabilities.

    Being one module, it can be wrapped by DeepSpeed at any ZeRO stage.
    """

    def __init__(self, model: PreTrainedModel, temperature: float) -> None:
        super().__init__()
        self.model = model
        self.temperature = temperature

    def forward(
        self,
        input_ids_B_L: torch.Tensor,
        attention_mask_B_L: torch.Tensor,
        prompt_lengths_B: torch.Tensor,
        completion_ids_B_T: torch.Tensor,
        columns_U: torch.Tensor | None = None,
        allowed_B_T_U: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Score the completion tokens of padded rows.

        log p(token) under softmax(logits / temperature) over the allowed tokens, in float32
        whatever the model's type: the same processed distribution that the sampler draws from.

        Args:
            input_ids_B_L: [B, L] prompt then completion, right-padded.
            attention_mask_B_L: [B, L] 1 for tokens, 0 for padding.
            prompt_lengths_B: [B] where each row's completion starts.
            completion_ids_B_T: [B, T] the completions again, right-padded with any valid id.
            columns_U: [U] token ids that may ever be sampled; None allows every token everywhere.
            allowed_B_T_U: [B, T, U] bool, which of these might have been each token; all True for
                padding.

        Returns:
            [B, T] natural-log probabilities; padded entries hold finite numbers without meaning.
        """
        num_completion = completion_ids_B_T.shape[1]
        first = int(prompt_lengths_B.min()) - 1
        length = input_ids_B_L.shape[1]
        # The logits before the shortest prompt's end are never read: do not project them.
        kept = torch.arange(first, length, device=input_ids_B_L.device)
        logits_B_K_V = self.model(
            input_ids=input_ids_B_L,
            attention_mask=attention_mask_B_L,
            logits_to_keep=kept,
            use_cache=False,
        ).logits
        # Token t of a row is predicted at position prompt_length - 1 + t.
        steps = torch.arange(num_completion, device=kept.device)
        positions_B_T = prompt_lengths_B.unsqueeze(1) - 1 - first + steps
        positions_B_T = positions_B_T.clamp(max=logits_B_K_V.shape[1] - 1)
        rows_B_1 = torch.arange(len(positions_B_T), device=kept.device).unsqueeze(1)
        logits_B_T_V = logits_B_K_V[rows_B_1, positions_B_T].float() / self.temperature
        chosen_B_T = logits_B_T_V.gather(2, completion_ids_B_T.unsqueeze(2)).squeeze(2)
        if columns_U is not None and allowed_B_T_U is not None:
            logits_B_T_V = logits_B_T_V[:, :, columns_U].masked_fill(~allowed_B_T_U, -torch.inf)
        logprobs_B_T: torch.Tensor = chosen_B_T - torch.logsumexp(logits_B_T_V, dim=2)
        return logprobs_B_T


def load_policy(folder: Path, dtype: str) -> PreTrainedModel:
    """Load a Hugging Face causal language model from a local folder, without network.

    Args:
        folder: Holds config.json and safetensors.
        dtype: A key of `DTYPES`.

    Raises:
        MissingFileError: If the folder holds no model.
    """
    if not (folder / "config.json").is_file():
        raise MissingFileError(f"a policy must be a folder with a config.json, got {folder}")
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    # SDPA drops Gemma-2's cap on attention logits without a word; only eager attention applies it.
    has_cap = config.to_dict().get("attn_logit_softcapping") is not None
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=DTYPES[dtype],
        local_files_only=True,
        attn_implementation="eager" if has_cap else "sdpa",
    )
    return model
