"""Cells as scGPT sees them: the output of its token <cls>, faster than the package makes it.

The weights and the result are those of scgpt's `TransformerModel._encode` (first token), the way
there is shorter: the gene and value encoders are tables, since both see a token at a time; cells of
like length go together; attention is fused; and of the last layer only <cls> is computed.
Left out: training (`scgpt_training.py`), and reading folders (`scgpt_files.py`).

Shape suffixes: C cells of a call, B cells of a batch, L tokens of its longest, T tokens of one
cell, H heads, D embedding.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from c2s_rl.cells.vocabulary import Vocabulary
from c2s_rl.models.encoder_dtype import EncoderDtype
from c2s_rl.models.encoding_cache import content_key
from c2s_rl.models.scgpt_files import CLS, ScGPTFolder
from c2s_rl.models.scgpt_tokens import (
    BinScope,
    CellTokenizer,
    CellTokens,
    check_coverage,
    scgpt_rows,
)
from c2s_rl.types import FloatArray, IntArray

# Tokens of a batch: enough to keep the cores busy, few enough to stay in their caches.
TOKENS_PER_BATCH = 8192
TORCH_DTYPES = {EncoderDtype.FLOAT32: torch.float32, EncoderDtype.BFLOAT16: torch.bfloat16}


@dataclass(frozen=True)
class ScGPTView:
    """What of a cell is embedded, and how the embedding is given."""

    genes: IntArray
    """Sorted vocabulary indices of the genes that are looked at."""
    scope: BinScope
    """Which genes share out the bins."""
    is_normalised: bool
    """Scale embeddings to unit length, as the scgpt package does."""
    dtype: EncoderDtype = EncoderDtype.FLOAT32
    """Of the layers; embeddings are given in float32."""


class ScGPTEmbedder:
    """Embeds ranked cells with an scGPT model; a `CellEmbedder`.

    The batches of a call depend on its cells alone, so that the same call gives the same bits.
    A cell without a gene that scGPT knows is embedded as <cls> alone.
    """

    def __init__(
        self, folder: ScGPTFolder, vocabulary: Vocabulary, view: ScGPTView, place: str
    ) -> None:
        """Look genes up and make the tables of both encoders.

        Args:
            folder: What `read_folder` gave.
            vocabulary: Genes of the cells.
            view: What of a cell is embedded.
            place: The folder's name, for messages.

        Raises:
            DataError: If scGPT knows none of the genes that are looked at.
        """
        args = folder.args
        row_N = scgpt_rows(vocabulary, folder.token_ids)
        self.num_genes = check_coverage(row_N, view.genes, vocabulary, place)
        is_seen_N = np.zeros(len(vocabulary), dtype=bool)
        is_seen_N[view.genes] = True
        self.tokenizer = CellTokenizer(
            row_N, is_seen_N, view.scope, args.n_bins, args.max_seq_len - 1
        )
        self._is_normalised = view.is_normalised
        self._num_heads = args.nheads
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._load(folder, TORCH_DTYPES[view.dtype])
        key = content_key(
            folder.digest.encode(), row_N.tobytes(), is_seen_N.tobytes(), view.scope.encode()
        )
        length = "unit length" if view.is_normalised else "own length"
        precision = "" if view.dtype is EncoderDtype.FLOAT32 else f", {view.dtype}"
        self.name = (
            f"scGPT {key[:12]} of {self.num_genes} genes, {view.scope} bins, {length}{precision}"
        )

    def embed(self, cells: Sequence[IntArray]) -> FloatArray:
        """Embed cells.

        Args:
            cells: C rankings, each [K] vocabulary indices, highest first; K may differ and be 0.

        Returns:
            [C, D] in the order of `cells`.
        """
        tokens = [self.tokenizer.tokens(genes_K) for genes_K in cells]
        width = self._cls_D.shape[-1]
        embedded_C_D = np.zeros((len(cells), width), dtype=np.float32)
        for batch in _batches([len(cell.genes_T) + 1 for cell in tokens]):
            embedded_B_D = self._encode([tokens[index] for index in batch]).float()
            if self._is_normalised:
                embedded_B_D = functional.normalize(embedded_B_D, dim=-1)
            embedded_C_D[batch] = embedded_B_D.cpu().numpy()
        return embedded_C_D

    def num_seen(self, genes_K: IntArray) -> int:
        """Count the genes of a cell that become tokens."""
        return len(self.tokenizer.tokens(genes_K).genes_T)

    @torch.inference_mode()
    def _load(self, folder: ScGPTFolder, dtype: torch.dtype) -> None:
        """Put the layers on the device, and both encoders' outputs into tables."""
        parts = {
            name: part.to(self._device)
            for name, part in folder.model.named_children()
            if name in ("encoder", "value_encoder", "transformer_encoder", "bn")
        }
        encoder, self._norm = parts["encoder"], parts.get("bn")
        genes_V_D: Tensor = encoder(torch.arange(len(folder.token_ids), device=self._device))
        # Values are the bins 0 .. n_bins - 1, and the one of <cls> behind them.
        values = torch.arange(folder.args.n_bins + 1, dtype=torch.float32, device=self._device)
        values[-1] = folder.args.pad_value
        values_D: Tensor = parts["value_encoder"](values)
        self._genes_V_D = genes_V_D.to(dtype)
        self._bins_D = values_D[:-1].to(dtype)
        self._cls_D = (genes_V_D[folder.token_ids[CLS]] + values_D[-1]).to(dtype)
        for part in (parts["transformer_encoder"], self._norm):
            if part is not None:
                part.to(dtype)
        layers = parts["transformer_encoder"].get_submodule("layers")
        self._layers = [_Layer(layer) for layer in layers.children()]

    @torch.inference_mode()
    def _encode(self, cells: Sequence[CellTokens]) -> Tensor:
        """[B, D] output of <cls> for B cells."""
        length = max(len(cell.genes_T) for cell in cells)
        genes_B_T = np.zeros((len(cells), length), dtype=np.int64)
        bins_B_T = np.zeros((len(cells), length), dtype=np.int64)
        is_token_B_L = np.zeros((len(cells), 1 + length), dtype=bool)
        for row, cell in enumerate(cells):
            num = len(cell.genes_T)
            genes_B_T[row, :num] = cell.genes_T
            bins_B_T[row, :num] = cell.bins_T
            is_token_B_L[row, : 1 + num] = True
        genes = torch.from_numpy(genes_B_T).to(self._device)
        bins = torch.from_numpy(bins_B_T).to(self._device)
        tokens_B_T_D = functional.embedding(genes, self._genes_V_D)
        tokens_B_T_D += functional.embedding(bins, self._bins_D)
        cls_B_1_D = self._cls_D.expand(len(cells), 1, -1)
        x_B_L_D = torch.cat([cls_B_1_D, tokens_B_T_D], dim=1)
        if self._norm is not None:
            x_B_L_D = self._norm(x_B_L_D.transpose(1, 2)).transpose(1, 2)
        mask = None
        if not is_token_B_L.all():
            mask = torch.from_numpy(is_token_B_L).to(self._device)[:, None, None, :]
        for layer in self._layers[:-1]:
            x_B_L_D = layer(x_B_L_D, x_B_L_D, mask, self._num_heads)
        return self._layers[-1](x_B_L_D[:, :1], x_B_L_D, mask, self._num_heads).squeeze(1)


class _Layer:
    """One transformer layer (normalised after each part), for some of its tokens."""

    def __init__(self, layer: nn.Module) -> None:
        weights = dict(layer.named_parameters())
        width = weights["self_attn.in_proj_weight"].shape[1]
        self._width = width
        self._project = (weights["self_attn.in_proj_weight"], weights["self_attn.in_proj_bias"])
        self._out = layer.get_submodule("self_attn").get_submodule("out_proj")
        self._norm1, self._norm2 = layer.get_submodule("norm1"), layer.get_submodule("norm2")
        self._linear1, self._linear2 = (
            layer.get_submodule("linear1"),
            layer.get_submodule("linear2"),
        )

    def __call__(
        self, x_B_Q_D: Tensor, x_B_L_D: Tensor, mask: Tensor | None, num_heads: int
    ) -> Tensor:
        """[B, Q, D] outputs of the Q tokens that ask, all [B, L, D] tokens being asked."""
        weight, bias = self._project
        width = self._width
        if x_B_Q_D is x_B_L_D:
            q, k, v = functional.linear(x_B_L_D, weight, bias).chunk(3, dim=-1)
        else:
            q = functional.linear(x_B_Q_D, weight[:width], bias[:width])
            k, v = functional.linear(x_B_L_D, weight[width:], bias[width:]).chunk(2, dim=-1)
        q, k, v = (
            part.view(*part.shape[:2], num_heads, width // num_heads).transpose(1, 2)
            for part in (q, k, v)
        )
        attended = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x: Tensor = self._norm1(x_B_Q_D + self._out(attended.transpose(1, 2).flatten(2)))
        hidden = functional.relu(self._linear1(x))
        y: Tensor = self._norm2(x + self._linear2(hidden))
        return y


def _batches(lengths_C: Sequence[int]) -> Iterator[list[int]]:
    """Cut cells, shortest first, into batches of at most `TOKENS_PER_BATCH` padded tokens."""
    batch: list[int] = []
    for index in sorted(range(len(lengths_C)), key=lengths_C.__getitem__):
        # The newcomer is the longest so far: all others are filled up to its length.
        if batch and (len(batch) + 1) * lengths_C[index] > TOKENS_PER_BATCH:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
