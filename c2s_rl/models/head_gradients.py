"""The gradients of the LM head's inputs, added up chunk by chunk.

Sums over tokens are in float32 (float64 for float64 input) and become their tensor's type once, at
the end. What is frozen gets no sum.
Shape suffixes: N completion tokens (flat), n those of a chunk, D hidden, V vocabulary, U columns
scored.
"""

from collections.abc import Sequence

import torch

from c2s_rl.models.head_chunks import ChunkedHead, HeadCall


class HeadGradients:
    """Sums of a call for hidden states, weight and bias; holds no work buffer."""

    def __init__(
        self,
        call: HeadCall,
        hidden_N_D: torch.Tensor,
        weight_V_D: torch.Tensor,
        bias_V: torch.Tensor | None,
        *,
        needs: Sequence[bool],
        dtype: torch.dtype,
    ) -> None:
        columns_U = call.columns.columns_U if call.columns is not None else None
        self._hidden_N_D = torch.zeros_like(hidden_N_D) if needs[0] else None
        self._weight = _ColumnSum(weight_V_D, columns_U, dtype) if needs[1] else None
        self._bias: _ColumnSum | None = None
        if bias_V is not None and needs[2]:
            self._bias = _ColumnSum(bias_V, columns_U, dtype)

    def add_(
        self, head: ChunkedHead, grad_n_U: torch.Tensor, hidden_n_D: torch.Tensor, rows: slice
    ) -> None:
        """Add what follows from the gradient of a chunk's logits."""
        if self._hidden_N_D is not None:
            total_n_D = torch.zeros_like(hidden_n_D, dtype=grad_n_U.dtype)
            head.add_hidden_gradient_(total_n_D, grad_n_U)
            self._hidden_N_D[rows] = total_n_D
        if self._weight is not None:
            head.add_weight_gradient_(self._weight.total, grad_n_U, hidden_n_D)
        if self._bias is not None:
            head.add_bias_gradient_(self._bias.total, grad_n_U)

    def take(
        self, factor: torch.Tensor | None = None
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
        """Hand over the gradients in their tensors' shapes and types, multiplied in place."""
        if factor is not None and self._hidden_N_D is not None:
            self._hidden_N_D.mul_(factor)
        return (
            self._hidden_N_D,
            self._weight.take(factor) if self._weight is not None else None,
            self._bias.take(factor) if self._bias is not None else None,
        )


class _ColumnSum:
    """Sum for the scored rows of a tensor whose first dimension is the vocabulary."""

    def __init__(
        self, of: torch.Tensor, columns_U: torch.Tensor | None, dtype: torch.dtype
    ) -> None:
        self._shape, self._dtype = of.shape, of.dtype
        self._columns_U = columns_U
        num_columns = len(of) if columns_U is None else len(columns_U)
        self.total = of.new_zeros(num_columns, *of.shape[1:], dtype=dtype)

    def take(self, factor: torch.Tensor | None) -> torch.Tensor:
        """Multiply in place, convert, and spread over the whole vocabulary."""
        if factor is not None:
            self.total.mul_(factor)
        total = self.total.to(self._dtype)
        # Autograd keeps a gradient without copying it only where nothing else refers to it.
        del self.total
        if self._columns_U is None:
            return total
        spread = total.new_zeros(self._shape)
        return spread.index_copy_(0, self._columns_U, total)
