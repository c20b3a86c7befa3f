"""Which vocabulary columns may be sampled at each place, as bits.

The sampler's gene trie leaves a few thousand of the vocabulary's tokens reachable at all, and a few
of those at each place. The learner has to score under the same support. Left out: making the bits,
which is the trie's part (`c2s_rl.decoding`).
Shape suffixes: N completion tokens (flat), n those of a chunk, U reachable columns, W bytes of U
bits.
"""

from dataclasses import dataclass
from functools import cache

import torch

from c2s_rl.errors import DataError


@dataclass(frozen=True, eq=False)
class RestrictedColumns:
    """The support of every completion token's distribution.

    Raises:
        ValueError: If the columns are not increasing or the bits do not fit them.
    """

    columns_U: torch.Tensor
    """[U] int64 token ids that may be sampled somewhere, strictly increasing."""
    allowed_bits_N_W: torch.Tensor
    """[N, ceil(U / 8)] uint8, numpy's packbits with bitorder 'little' over U: bit u of row n is set
    where token columns_U[u] may be token n. Bits past U are ignored."""

    def __post_init__(self) -> None:
        if bool((self.columns_U[1:] <= self.columns_U[:-1]).any()):
            raise ValueError(f"columns must be strictly increasing, got {self.columns_U.tolist()}")
        num_bytes = -(-len(self.columns_U) // 8)
        shape = tuple(self.allowed_bits_N_W.shape)
        if self.allowed_bits_N_W.dtype != torch.uint8 or shape[1:] != (num_bytes,):
            raise ValueError(
                f"bits of {len(self.columns_U)} columns must be uint8 of shape [N, {num_bytes}], "
                f"got {self.allowed_bits_N_W.dtype} of shape {list(shape)}"
            )

    def to(self, device: torch.device) -> "RestrictedColumns":
        """Move both tensors."""
        return RestrictedColumns(self.columns_U.to(device), self.allowed_bits_N_W.to(device))

    def positions(self, targets_N: torch.Tensor) -> torch.Tensor:
        """Find each token among the columns; the one place where a support is checked.

        Args:
            targets_N: [N] int64 sampled token ids.

        Returns:
            [N] int64 indices into `columns_U`.

        Raises:
            DataError: If a token is not allowed where it stands: sampler and learner then disagree
                about the support, and its log-probability would be minus infinity.
        """
        if len(targets_N) != len(self.allowed_bits_N_W):
            raise ValueError(
                "every completion token needs a row of bits, "
                f"got {len(targets_N)} tokens and {len(self.allowed_bits_N_W)} rows"
            )
        if len(targets_N) == 0:
            return targets_N
        places_N = torch.searchsorted(self.columns_U, targets_N).clamp(max=len(self.columns_U) - 1)
        bytes_N = self.allowed_bits_N_W.gather(1, (places_N // 8).unsqueeze(1)).squeeze(1)
        bits_N = bytes_N.bitwise_right_shift((places_N % 8).to(torch.uint8)) & 1
        is_wrong_N = (self.columns_U[places_N] != targets_N) | (bits_N == 0)
        if bool(is_wrong_N.any()):
            index = int(is_wrong_N.nonzero()[0, 0])
            raise DataError(
                "a completion token must be allowed where it was sampled, got token "
                f"{int(targets_N[index])} as number {index} of {len(targets_N)} "
                f"({int(is_wrong_N.sum())} such tokens)"
            )
        return places_N

    def forbidden(self, rows: slice) -> torch.Tensor:
        """Unpack the bits of some tokens, inverted: [n, U] bool, true where a token may not be."""
        bits_n_W = self.allowed_bits_N_W[rows]
        words = _forbidden_words(bits_n_W.device).index_select(0, bits_n_W.flatten().int())
        flags_n_8W = words.view(torch.bool).view(len(bits_n_W), -1)
        return flags_n_8W[:, : len(self.columns_U)]


@cache
def _forbidden_words(device: torch.device) -> torch.Tensor:
    """[256] int64: for each byte of bits, eight bytes that read as bool are "bit is not set".

    One look-up a byte instead of eight shifts a byte.
    """
    bytes_256_1 = torch.arange(256).unsqueeze(1)
    is_unset_256_8 = (bytes_256_1 >> torch.arange(8)) & 1 == 0
    return is_unset_256_8.view(torch.int64).squeeze(1).to(device)
