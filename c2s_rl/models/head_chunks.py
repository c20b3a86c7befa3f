"""The LM head's softmax for a few completion tokens at a time, and its gradient.

Everything of vocabulary width lives in work buffers that all chunks of a call share, and is
written in place. Without autograd; `c2s_rl.models.logprobs` ties it in.

With z = h W' + b, cap c and temperature T, the logits are l = z / T, or l = (c / T) tanh(z / c).
Shape suffixes: N completion tokens, n those of a chunk, D hidden, V vocabulary, U the columns
scored: the vocabulary, or the reachable part of it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from c2s_rl.models.columns import RestrictedColumns

# Work buffers of vocabulary width, all together, by default. On a CPU they should stay in the last
# cache; a GPU has to read the whole weight for each chunk, and few chunks keep it busy.
CHUNK_BYTES = {"cpu": 32 * 2**20, "cuda": 2**30}
# With fewer tokens to a chunk the matrix products wait for the weight to be read.
MIN_CHUNK_TOKENS = 128
# Rows of the weight that are converted at a time when it is stored in 16 bits.
CONVERTED_ROWS = 8192
# Logit of a forbidden token. Not minus infinity: exp() is 0 all the same, and 0 times it is 0.
FORBIDDEN = -1e30


@dataclass(frozen=True)
class FusedOptions:
    """How logits become the distribution that was sampled from.

    Raises:
        ValueError: If a number is not positive.
    """

    temperature: float = 1.0
    """Logits are divided by it, after the cap."""
    softcap: float | None = None
    """Gemma-2's `final_logit_softcapping`; None for models without."""
    chunk_tokens: int | None = None
    """Tokens whose logits live at once; None: what `CHUNK_BYTES` hold, or `MIN_CHUNK_TOKENS`."""
    with_entropy: bool = False
    """Compute the entropy too; costs a second work buffer."""

    def __post_init__(self) -> None:
        for name, value in {
            "temperature": self.temperature,
            "softcap": self.softcap,
            "chunk_tokens": self.chunk_tokens,
        }.items():
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be above 0, got {value}")


@dataclass(frozen=True, eq=False)
class HeadCall:
    """What a call scores, apart from the tensors that have gradients."""

    positions_N: torch.Tensor
    """[N] int64 each target's index among the columns scored."""
    columns: RestrictedColumns | None
    """The columns scored; None for the whole vocabulary."""
    options: FusedOptions


@dataclass(frozen=True, eq=False)
class Chunk:
    """The softmax of some tokens; fields of width U are views of the work buffers."""

    rows: slice
    """Which of the N tokens."""
    exps_n_U: torch.Tensor
    """exp(l - shift), which is p times its row's sum."""
    sums_n: torch.Tensor
    """Row sums of `exps_n_U`."""
    shifted_n_U: torch.Tensor | None
    """l - shift; only where entropy is wanted."""
    slope_n_U: torch.Tensor | None
    """1 - tanh(z / c)^2; only with a cap and where a gradient is wanted."""
    entropy_n: torch.Tensor | None
    """Nats; only where entropy is wanted."""


@dataclass(frozen=True, eq=False)
class Scores:
    """What is kept of a chunk's tokens, or of all chunks' in one."""

    logprobs: torch.Tensor
    """[n] or [N] of the targets, natural logs."""
    logsumexp: torch.Tensor
    """[n] or [N] of the logits l; with it the softmax can be made again."""
    entropy: torch.Tensor | None
    """[n] or [N] nats; None where it is not wanted."""

    @classmethod
    def empty(cls, call: HeadCall, dtype: torch.dtype) -> "Scores":
        """Make room for all tokens of a call."""
        logprobs, logsumexp, entropy = torch.empty(
            3, len(call.positions_N), dtype=dtype, device=call.positions_N.device
        )
        return cls(logprobs, logsumexp, entropy if call.options.with_entropy else None)

    def put_(self, rows: slice, scores: "Scores") -> None:
        """Write a chunk's scores into their place."""
        self.logprobs[rows] = scores.logprobs
        self.logsumexp[rows] = scores.logsumexp
        if self.entropy is not None and scores.entropy is not None:
            self.entropy[rows] = scores.entropy


def accumulation_dtype(hidden_N_D: torch.Tensor) -> torch.dtype:
    """Logits, softmax and sums are in float32, or float64 for float64 input."""
    return torch.float64 if hidden_N_D.dtype == torch.float64 else torch.float32


def add_product_(
    sum_: torch.Tensor, left: torch.Tensor, right: torch.Tensor, *, alpha: float, beta: float = 1.0
) -> None:
    """Set sum_ = beta sum_ + alpha left @ right, summed in sum_'s type whatever the factors' types.

    A GPU multiplies 16-bit factors as they are and adds up in float32; a CPU converts them first.
    """
    narrow = [t.dtype for t in (left, right) if t.dtype != sum_.dtype]
    if narrow and sum_.is_cuda:
        factors = left.to(narrow[0]), right.to(narrow[0])
        torch.addmm(sum_, *factors, beta=beta, alpha=alpha, out_dtype=sum_.dtype, out=sum_)
    else:
        sum_.addmm_(left.to(sum_.dtype), right.to(sum_.dtype), beta=beta, alpha=alpha)


class ChunkedHead:
    """The head for the length of one forward or backward pass."""

    def __init__(
        self,
        call: HeadCall,
        weight_V_D: torch.Tensor,
        bias_V: torch.Tensor | None,
        *,
        dtype: torch.dtype,
        with_entropy: bool,
        with_gradient: bool,
    ) -> None:
        columns, options = call.columns, call.options
        if columns is not None:
            weight_V_D = weight_V_D.index_select(0, columns.columns_U)
            bias_V = bias_V.index_select(0, columns.columns_U) if bias_V is not None else None
        self._call = call
        self._cap = options.softcap
        self._inverse_temperature = 1.0 / options.temperature
        self.weight_U_D = weight_V_D
        self._bias_U = bias_V.to(dtype) if bias_V is not None else None
        num_columns = len(weight_V_D)
        has_slope = with_gradient and options.softcap is not None
        num_buffers = 1 + with_entropy + has_slope
        chunk = options.chunk_tokens or default_chunk_tokens(
            weight_V_D.device, num_columns * num_buffers * dtype.itemsize
        )
        self._chunk = min(chunk, max(1, len(call.positions_N)))
        buffers = weight_V_D.new_empty(num_buffers, self._chunk, num_columns, dtype=dtype)
        self._logits = buffers[0]
        self._shifted = buffers[1] if with_entropy else None
        self._slope = buffers[-1] if has_slope else None

    def chunks(self) -> Iterator[slice]:
        """Cut the N tokens."""
        num_tokens = len(self._call.positions_N)
        for start in range(0, num_tokens, self._chunk):
            yield slice(start, min(start + self._chunk, num_tokens))

    def score(self, hidden_n_D: torch.Tensor, rows: slice) -> tuple[Scores, Chunk]:
        """Compute the softmax of some tokens, overwriting the chunk before."""
        logits_n_U, slope_n_U = self._project(hidden_n_D, rows)
        positions_n_1 = self._call.positions_N[rows].unsqueeze(1)
        chosen_n = logits_n_U.gather(1, positions_n_1).squeeze(1)
        shift_n = logits_n_U.amax(dim=1)
        shifted_n_U = self._exponentiate_(logits_n_U, shift_n)
        sums_n = logits_n_U.sum(dim=1)
        log_sums_n = sums_n.log()
        entropy_n = None
        if shifted_n_U is not None:
            # H = -E[log p] = log sum - E[l - shift]
            entropy_n = log_sums_n - torch.linalg.vecdot(logits_n_U, shifted_n_U) / sums_n
        logsumexp_n = shift_n + log_sums_n
        return (
            Scores(chosen_n - logsumexp_n, logsumexp_n, entropy_n),
            Chunk(rows, logits_n_U, sums_n, shifted_n_U, slope_n_U, entropy_n),
        )

    def score_again(
        self,
        hidden_n_D: torch.Tensor,
        rows: slice,
        logsumexp_n: torch.Tensor,
        entropy_n: torch.Tensor | None,
    ) -> Chunk:
        """Make a chunk once more from what was kept of it."""
        logits_n_U, slope_n_U = self._project(hidden_n_D, rows)
        shifted_n_U = self._exponentiate_(logits_n_U, logsumexp_n)
        ones_n = torch.ones_like(logsumexp_n)
        return Chunk(rows, logits_n_U, ones_n, shifted_n_U, slope_n_U, entropy_n)

    def differentiate_(
        self, chunk: Chunk, grad_logprobs_n: torch.Tensor, grad_entropy_n: torch.Tensor | None
    ) -> torch.Tensor:
        """Turn the chunk's exponentials into the gradient with respect to the logits.

        d log p_y / d l_v = [v = y] - p_v;  d H / d l_v = -p_v (log p_v + H);  with a cap times
        1 - tanh(z / c)^2. What lacks is the factor 1 / T of d l / d z.

        Returns:
            [n, U] T times the gradient with respect to z, in the work buffer.
        """
        grad_n_U, sums_n = chunk.exps_n_U, chunk.sums_n
        entropy_part_n_U = None
        if grad_entropy_n is not None:
            assert chunk.shifted_n_U is not None
            assert chunk.entropy_n is not None
            offset_n = chunk.entropy_n - sums_n.log()
            entropy_part_n_U = chunk.shifted_n_U.add_(offset_n.unsqueeze(1)).mul_(grad_n_U)
        grad_n_U.mul_((-grad_logprobs_n / sums_n).unsqueeze(1))
        if entropy_part_n_U is not None and grad_entropy_n is not None:
            factors_n_1 = (grad_entropy_n / sums_n).unsqueeze(1)
            grad_n_U.addcmul_(entropy_part_n_U, factors_n_1, value=-1.0)
        positions_n_1 = self._call.positions_N[chunk.rows].unsqueeze(1)
        grad_n_U.scatter_add_(1, positions_n_1, grad_logprobs_n.unsqueeze(1))
        if chunk.slope_n_U is not None:
            grad_n_U.mul_(chunk.slope_n_U)
        return grad_n_U

    def add_hidden_gradient_(self, total_n_D: torch.Tensor, grad_n_U: torch.Tensor) -> None:
        """Add what the hidden states of a chunk get."""
        for part in self._parts(grad_n_U.dtype):
            factors = grad_n_U[:, part], self.weight_U_D[part]
            add_product_(total_n_D, *factors, alpha=self._inverse_temperature)

    def add_weight_gradient_(
        self, total_U_D: torch.Tensor, grad_n_U: torch.Tensor, hidden_n_D: torch.Tensor
    ) -> None:
        """Add a chunk's share to the gradient of the scored rows of the weight."""
        for part in self._parts(grad_n_U.dtype):
            factors = grad_n_U[:, part].T, hidden_n_D
            add_product_(total_U_D[part], *factors, alpha=self._inverse_temperature)

    def add_bias_gradient_(self, total_U: torch.Tensor, grad_n_U: torch.Tensor) -> None:
        """Add a chunk's share to the gradient of the scored entries of the bias."""
        total_U.add_(grad_n_U.sum(dim=0), alpha=self._inverse_temperature)

    def _project(
        self, hidden_n_D: torch.Tensor, rows: slice
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Write the logits, and with a cap their slope, into the work buffers."""
        logits_n_U = self._logits[: len(hidden_n_D)]
        scale = self._inverse_temperature if self._cap is None else 1.0 / self._cap
        for part in self._parts(logits_n_U.dtype):
            factors = hidden_n_D, self.weight_U_D[part].T
            add_product_(logits_n_U[:, part], *factors, alpha=scale, beta=0.0)
        if self._bias_U is not None:
            logits_n_U.add_(self._bias_U, alpha=scale)
        slope_n_U = None
        if self._cap is not None:
            logits_n_U.tanh_()
            if self._slope is not None:
                slope_n_U = self._slope[: len(hidden_n_D)]
                torch.square(logits_n_U, out=slope_n_U).neg_().add_(1.0)
            logits_n_U.mul_(self._cap * self._inverse_temperature)
        if self._call.columns is not None:
            logits_n_U.masked_fill_(self._call.columns.forbidden(rows), FORBIDDEN)
        return logits_n_U, slope_n_U

    def _exponentiate_(
        self, logits_n_U: torch.Tensor, shift_n: torch.Tensor
    ) -> torch.Tensor | None:
        """Turn logits into exp(l - shift) in place; returns l - shift where entropy is wanted."""
        if self._shifted is None:
            logits_n_U.sub_(shift_n.unsqueeze(1)).exp_()
            return None
        shifted_n_U = self._shifted[: len(logits_n_U)]
        torch.sub(logits_n_U, shift_n.unsqueeze(1), out=shifted_n_U)
        torch.exp(shifted_n_U, out=logits_n_U)
        return shifted_n_U

    def _parts(self, dtype: torch.dtype) -> Iterator[slice]:
        """Cut the columns, so that no converted copy of the whole weight is made."""
        num_columns = len(self.weight_U_D)
        step = num_columns if self.weight_U_D.dtype == dtype else CONVERTED_ROWS
        for start in range(0, num_columns, step):
            yield slice(start, start + step)


def default_chunk_tokens(device: torch.device, bytes_per_token: int) -> int:
    """Choose how many tokens' logits live at once."""
    return max(MIN_CHUNK_TOKENS, CHUNK_BYTES[device.type] // bytes_per_token)
