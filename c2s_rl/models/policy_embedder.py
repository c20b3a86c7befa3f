"""Texts as vectors by a policy: the mean of its last hidden states over the text's own tokens.

The last hidden state is that of the last layer after the model's final norm (`last_hidden_state` of
Hugging Face models, what their `hidden_states[-1]` also is): GPT-NeoX, Llama and Gemma-2 types have
one. Padding is on the right, where a causal model's tokens cannot see it, and is left out of the
mean. Texts are tokenised as prompts are in training: without special tokens.

Shape suffixes: B texts, T tokens of one text, D hidden size.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from c2s_rl.errors import DataError, MissingFileError
from c2s_rl.models.encoder_dtype import EncoderDtype
from c2s_rl.models.text_encoder import PAD_TO, batches
from c2s_rl.types import FloatArray

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

POOLING = "mean over the tokens of the text"
LAYER = "last hidden state of the last layer, after the final norm"


class PolicyEmbedder:
    """A loaded policy without its LM head, on the GPU if this process has one."""

    def __init__(self, folder: Path, *, dtype: EncoderDtype, batch_tokens: int) -> None:
        """Load tokenizer and weights.

        Args:
            folder: A Hugging Face folder of a causal language model.
            dtype: Precision of the passes; the mean is taken in float32.
            batch_tokens: Tokens of a forward pass, padding included; a text is never split.

        Raises:
            MissingFileError: If the folder holds no model.
            DataError: If its weights or tokenizer cannot be read.
        """
        import torch

        model, self._tokenizer = load_backbone(folder, dtype)
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._model = model
        torch.nn.Module.to(model, self._device)
        torch.nn.Module.eval(model)
        self._batch_tokens = batch_tokens
        settings = model.config.get_text_config()
        self.hidden_size = int(settings.hidden_size)
        self._max_length = int(settings.max_position_embeddings)

    def embed(self, texts: Sequence[str], names: Sequence[str]) -> FloatArray:
        """Embed texts, each by itself: what stands beside it in a batch has no influence.

        Texts share a pass only with texts of the same padded length, so that on a CPU a vector is
        the same to the last bit however the texts are grouped.

        Args:
            texts: [B] texts of at least one token.
            names: [B] what to call each in an error.

        Returns:
            [B, D] float32 in the order of `texts`.

        Raises:
            DataError: If a text has no token, or more than the model's positions.
        """
        tokens = self._tokenise(texts, names)
        order = sorted(range(len(texts)), key=lambda i: len(tokens[i]))
        vectors_B_D = np.zeros((len(texts), self.hidden_size), dtype=np.float32)
        lengths = [-(-len(tokens[i]) // PAD_TO) * PAD_TO for i in order]
        for batch in batches(lengths, self._batch_tokens):
            rows = [order[place] for place in batch]
            vectors_B_D[rows] = self._forward([tokens[row] for row in rows])
        return vectors_B_D

    def _tokenise(self, texts: Sequence[str], names: Sequence[str]) -> list[list[int]]:
        if not texts:
            return []
        rows: list[list[int]] = self._tokenizer(
            list(texts), add_special_tokens=False, verbose=False
        )["input_ids"]
        for name, row in zip(names, rows, strict=True):
            if not 0 < len(row) <= self._max_length:
                raise DataError(
                    f"a text to embed must have 1 to {self._max_length} tokens (the model's "
                    f"positions), got {len(row)} in {name!r}; num_genes shortens cells"
                )
        return rows

    def _forward(self, tokens: Sequence[Sequence[int]]) -> FloatArray:
        """[B, D] means of one batch, whose texts have one padded length."""
        import torch

        lengths = np.array([len(row) for row in tokens])
        # A model of few positions has no room for the padding of its longest texts.
        longest = min(-(-int(lengths.max()) // PAD_TO) * PAD_TO, self._max_length)
        ids_B_T = np.zeros((len(tokens), longest), dtype=np.int64)
        for row_T, row in zip(ids_B_T, tokens, strict=True):
            row_T[: len(row)] = row
        is_token_B_T = np.arange(longest) < lengths[:, None]
        with torch.inference_mode():
            # No attention mask: the padding comes after every token that it could be hidden from.
            hidden_B_T_D = self._model(
                input_ids=torch.from_numpy(ids_B_T).to(self._device), use_cache=False
            ).last_hidden_state
            weights_B_T_1 = torch.from_numpy(is_token_B_T).to(self._device).unsqueeze(2)
            sums_B_D = torch.where(weights_B_T_1, hidden_B_T_D.float(), 0.0).sum(dim=1)
            counts_B_1 = torch.from_numpy(lengths).to(self._device).unsqueeze(1)
            means: FloatArray = (sums_B_D / counts_B_1).cpu().numpy()
        return means


def load_backbone(
    folder: Path, dtype: EncoderDtype
) -> tuple["PreTrainedModel", "PreTrainedTokenizerBase"]:
    """Load a policy without its LM head, and its tokenizer.

    Raises:
        MissingFileError: If the folder holds no model or no tokenizer.
        DataError: If its weights cannot be read.
    """
    from safetensors import SafetensorError
    from transformers import AutoTokenizer, PreTrainedModel

    from c2s_rl.models.policy import load_policy

    try:
        model = load_policy(folder, dtype.value)
    except MissingFileError:
        raise
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"a policy's weights must be whole, got {reason} in {folder}") from error
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            folder, local_files_only=True
        )
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise MissingFileError(f"a policy must have a tokenizer, got {reason}") from error
    backbone = model.base_model
    assert isinstance(backbone, PreTrainedModel), "a causal model stands on a model of its own"
    return backbone, tokenizer
