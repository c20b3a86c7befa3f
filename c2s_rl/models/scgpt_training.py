"""Training a small scGPT on cells as rewards give them: values are guessed, cells recognised.

Four objectives are trained together, the first three through the package's own heads:

1. the bin of a masked gene from that gene's output (masked value prediction);
2. the same from the output of <cls> alone (the package's MVC objective);
3. from <cls> alone, the bins of the genes of another cell of the batch, which are 0 where this
   cell does not write them: a sentence says what is not expressed by leaving it out;
4. a cell's embedding from one part of its genes must be nearer, by cosine, to the same cell's from
   another part than to those of other cells (the package's contrastive objective, which tells two
   passes apart by dropout alone). It is what brings cells of a kind together.

Left out: batch labels, and classifying cell types (no label is looked at).

Shape suffixes: C cells, B cells of a batch, T genes of the longest cell, V tokens of the model.
"""

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from c2s_rl.models.scgpt_config import EmbedderConfig
from c2s_rl.models.scgpt_files import CLS, ScGPTArgs, build_model
from c2s_rl.models.scgpt_tokens import CellTokens

WARMUP_SHARE = 0.05  # of all steps
CLIP_NORM = 1.0
TWIN_TEMPERATURE = 0.2  # of the cosine; the package's 0.5 leaves other cells nearly as near
EVAL_CELLS = 256  # cells of one forward pass of the held-out loss


@dataclass(frozen=True, eq=False)
class CellBatch:
    """Cells filled up to one length."""

    genes_B_T: Tensor
    """[B, T] tokens; the padding token behind the last gene."""
    bins_B_T: Tensor
    """[B, T] float bins, 1 and above; 0 behind the last gene."""

    @property
    def is_gene_B_T(self) -> Tensor:
        """[B, T] False behind the last gene."""
        return self.bins_B_T > 0

    def __getitem__(self, rows: Tensor | slice) -> "CellBatch":
        """Some cells."""
        return CellBatch(self.genes_B_T[rows], self.bins_B_T[rows])

    def __len__(self) -> int:
        return len(self.genes_B_T)


@dataclass(frozen=True, eq=False)
class Masked:
    """A batch with some values hidden, as the model takes it, <cls> in front."""

    src_B_L: Tensor
    values_B_L: Tensor
    is_padding_B_L: Tensor
    is_masked_B_T: Tensor


@dataclass(frozen=True)
class HeldOutLoss:
    """Mean squared error of masked bins on cells that were not trained on, in squared bins."""

    model: float
    from_cls: float
    """Guessed from the embedding alone."""
    mean_bin: float
    """Guessing the mean of all bins: the trivial baseline."""
    gene_mean: float
    """Guessing each gene's mean bin over the training cells."""


@dataclass(frozen=True, eq=False)
class TrainedScGPT:
    """A trained model and how well it guesses."""

    model: nn.Module
    held_out: HeldOutLoss


class Masker:
    """Hides values and shows parts of cells, in the package's token conventions."""

    def __init__(self, args: ScGPTArgs, token_ids: Mapping[str, int]) -> None:
        self.pad, self._cls = token_ids[args.pad_token], token_ids[CLS]
        self._args = args

    def filled(self, cells: Sequence[CellTokens]) -> CellBatch:
        """Fill cells up to the length of the longest."""
        length = max(len(cell.genes_T) for cell in cells)
        genes_C_T = torch.full((len(cells), length), self.pad)
        bins_C_T = torch.zeros(len(cells), length)
        for row, cell in enumerate(cells):
            genes_C_T[row, : len(cell.genes_T)] = torch.from_numpy(cell.genes_T).long()
            bins_C_T[row, : len(cell.bins_T)] = torch.from_numpy(cell.bins_T).float()
        return CellBatch(genes_C_T, bins_C_T)

    def part(self, batch: CellBatch, share: float) -> CellBatch:
        """Show a random part of each cell's genes: `share` of the longest cell's number."""
        draw_B_T = torch.rand_like(batch.bins_B_T).masked_fill(~batch.is_gene_B_T, 2.0)
        num = max(1, round(share * batch.bins_B_T.shape[1]))
        chosen = draw_B_T.argsort(dim=1)[:, :num]  # padding comes last
        return CellBatch(batch.genes_B_T.gather(1, chosen), batch.bins_B_T.gather(1, chosen))

    def hide(self, batch: CellBatch, ratio: float, generator: torch.Generator | None) -> Masked:
        """Hide the values of a share of genes, drawn gene by gene."""
        is_gene = batch.is_gene_B_T
        draw = torch.rand(batch.bins_B_T.shape, generator=generator)
        is_masked = (draw < ratio) & is_gene
        values = batch.bins_B_T.masked_fill(is_masked, float(self._args.mask_value))
        values = values.masked_fill(~is_gene, float(self._args.pad_value))
        ones = torch.ones(len(batch), 1)
        return Masked(
            src_B_L=torch.cat([ones.long() * self._cls, batch.genes_B_T], dim=1),
            values_B_L=torch.cat([ones * self._args.pad_value, values], dim=1),
            is_padding_B_L=torch.cat([ones > 1, ~is_gene], dim=1),
            is_masked_B_T=is_masked,
        )


def train_scgpt(
    train: Sequence[CellTokens],
    held_out: Sequence[CellTokens],
    args: ScGPTArgs,
    token_ids: Mapping[str, int],
    config: EmbedderConfig,
    on_step: Callable[[int, Mapping[str, float]], None],
) -> TrainedScGPT:
    """Train a model from random weights; the same input gives the same bits on a CPU.

    Args:
        train: Cells to learn from, as tokens.
        held_out: Cells for the held-out loss.
        args: Shape of the model.
        token_ids: Its tokens.
        config: How to train.
        on_step: Called with the number of the step, from 1, and its figures.
    """
    # Dropout draws from torch's global generator: it is set for the block and given back after it.
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        model = build_model(args, token_ids, has_mvc=True)
        masker = Masker(args, token_ids)
        cells, judge = masker.filled(train), _Judge(masker, train, held_out, config)
        _initialise(model, judge.mean_bin, args.n_bins)
        optimiser = torch.optim.AdamW(model.parameters(), lr=config.lr)
        scale = 1.0 / max(judge.variance, 1.0)
        model.train()
        for step, rows in enumerate(_batches(len(cells), config), start=1):
            for group in optimiser.param_groups:
                group["lr"] = config.lr * _schedule(step, config.num_steps)
            losses = _losses(model, cells[rows], masker, config)
            optimiser.zero_grad(set_to_none=True)
            twins = losses["twins"]
            guesses = torch.stack([loss for name, loss in losses.items() if name != "twins"])
            (scale * guesses.sum() + twins).backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
            optimiser.step()
            figures = {name: float(loss.detach()) for name, loss in losses.items()}
            if step % config.eval_every == 0 or step == config.num_steps:
                found = judge.loss(model)
                figures |= {"held_out": found.model, "held_out_from_cls": found.from_cls}
                figures |= {"mean_bin": found.mean_bin, "gene_mean": found.gene_mean}
            on_step(step, figures)
        return TrainedScGPT(model.eval(), found)


def _batches(num_cells: int, config: EmbedderConfig) -> Iterator[Tensor]:
    """Rows of each step's cells; each cell once an epoch, what does not fill a batch left over."""
    size = min(config.batch_size, num_cells)
    done = 0
    while True:
        order = torch.randperm(num_cells)
        for start in range(0, num_cells - size + 1, size):
            if done == config.num_steps:
                return
            yield order[start : start + size]
            done += 1


def _schedule(step: int, num_steps: int) -> float:
    """Rise linearly over the first steps, then fall as a cosine to 0."""
    warmup = max(1, round(WARMUP_SHARE * num_steps))
    if step <= warmup:
        return step / warmup
    return 0.5 * (1.0 + math.cos(math.pi * (step - warmup) / max(1, num_steps - warmup)))


def _initialise(model: nn.Module, mean_bin: float, num_bins: int) -> None:
    """Begin where training comes along slowly otherwise; all shapes are the package's.

    The value head begins with the trivial guess instead of 0. The first layer of the value encoder
    begins with its kinks spread over the bins: torch's own start puts nearly all of them near 0,
    and the normalisation behind it then makes bins from 10 to 50 look alike for long. One unit in
    eight tells the negative values of <cls>, padding and masked genes from bins.
    """
    heads = dict(model.get_submodule("decoder").named_parameters())
    first = dict(model.get_submodule("value_encoder.linear1").named_parameters())
    weight_D_1, bias_D = first["weight"], first["bias"]
    with torch.no_grad():
        heads["fc.4.bias"].fill_(mean_bin)
        slope_D = torch.empty_like(bias_D).uniform_(-1, 1).sign() * 4.0 / num_bins
        kink_D = torch.rand_like(bias_D) * num_bins
        slope_D[::8], kink_D[::8] = -1.0, 0.0
        weight_D_1.copy_(slope_D[:, None])
        bias_D.copy_(-slope_D * kink_D)


def _losses(
    model: nn.Module, batch: CellBatch, masker: Masker, config: EmbedderConfig
) -> dict[str, Tensor]:
    """Mean squared errors of the three guesses, in squared bins, and the loss of the fourth aim."""
    shown = masker.part(batch, _share(config))
    masked = masker.hide(shown, config.mask_ratio, None)
    output = model(masked.src_B_L, masked.values_B_L, masked.is_padding_B_L, MVC=True)
    # Batches are shuffled: the next cell is any other cell.
    other_B_T, is_other = batch.genes_B_T.roll(1, 0), batch.is_gene_B_T.roll(1, 0)
    queries = model.get_submodule("encoder")(other_B_T)
    guessed = model.get_submodule("mvc_decoder")(output["cell_emb"], queries)["pred"]
    num_tokens = dict(model.named_parameters())["encoder.embedding.weight"].shape[0]
    bins_B_V = torch.zeros(len(batch), num_tokens).scatter(1, batch.genes_B_T, batch.bins_B_T)
    # The same cells through another part of their genes.
    second = masker.hide(masker.part(batch, _share(config)), 0.0, None)
    twin_B_D = model(second.src_B_L, second.values_B_L, second.is_padding_B_L)["cell_emb"]
    return {
        "masked": _error(output["mlm_output"][:, 1:], shown.bins_B_T, masked.is_masked_B_T),
        "masked_from_cls": _error(
            output["mvc_output"][:, 1:], shown.bins_B_T, masked.is_masked_B_T
        ),
        "others_from_cls": _error(guessed, bins_B_V.gather(1, other_B_T), is_other),
        "twins": _twin_loss(output["cell_emb"], twin_B_D),
    }


def _share(config: EmbedderConfig) -> float:
    """Draw the share of genes that a batch shows."""
    return config.min_share + (1.0 - config.min_share) * float(torch.rand(()))


def _twin_loss(cells_B_D: Tensor, twins_B_D: Tensor) -> Tensor:
    """Cross-entropy of finding each cell's twin in the batch by the cosine of embeddings."""
    unit_B_D = functional.normalize(cells_B_D, dim=1)
    cosine_B_B = unit_B_D @ functional.normalize(twins_B_D, dim=1).T
    return functional.cross_entropy(cosine_B_B / TWIN_TEMPERATURE, torch.arange(len(cells_B_D)))


def _error(guess: Tensor, truth: Tensor, where: Tensor) -> Tensor:
    """Mean squared error over some places; 0 where there are none."""
    return ((guess - truth).square() * where).sum() / where.sum().clamp(min=1)


class _Judge:
    """Held-out loss on masks that stay the same, beside the guesses that need no model."""

    def __init__(
        self,
        masker: Masker,
        train: Sequence[CellTokens],
        held_out: Sequence[CellTokens],
        config: EmbedderConfig,
    ) -> None:
        self._cells = masker.filled(held_out)
        generator = torch.Generator().manual_seed(config.seed)
        self._masked = masker.hide(self._cells, config.mask_ratio, generator)
        learnt = masker.filled(train)
        bins = learnt.bins_B_T[learnt.is_gene_B_T]
        self.mean_bin, self.variance = float(bins.mean()), float(bins.var(unbiased=False))
        guesses = _gene_means(learnt, self.mean_bin)(self._cells.genes_B_T)
        truth, where = self._cells.bins_B_T, self._masked.is_masked_B_T
        self._gene_mean = float(_error(guesses, truth, where))
        self._mean_bin = float(_error(torch.full_like(truth, self.mean_bin), truth, where))

    @torch.no_grad()
    def loss(self, model: nn.Module) -> HeldOutLoss:
        """Judge a model; leaves it in training mode."""
        model.eval()
        by_gene, by_cls = [], []
        with warnings.catch_warnings():
            # torch's own layers warn of the nested tensors that they use.
            warnings.filterwarnings("ignore", message=".*nested tensors")
            for start in range(0, len(self._cells), EVAL_CELLS):
                rows = slice(start, start + EVAL_CELLS)
                output = model(
                    self._masked.src_B_L[rows],
                    self._masked.values_B_L[rows],
                    self._masked.is_padding_B_L[rows],
                    MVC=True,
                )
                by_gene.append(output["mlm_output"][:, 1:])
                by_cls.append(output["mvc_output"][:, 1:])
        model.train()
        truth, where = self._cells.bins_B_T, self._masked.is_masked_B_T
        return HeldOutLoss(
            model=float(_error(torch.cat(by_gene), truth, where)),
            from_cls=float(_error(torch.cat(by_cls), truth, where)),
            mean_bin=self._mean_bin,
            gene_mean=self._gene_mean,
        )


def _gene_means(learnt: CellBatch, fallback: float) -> Callable[[Tensor], Tensor]:
    """Each gene's mean bin over the cells that write it; `fallback` for a gene that none writes."""
    genes = learnt.genes_B_T[learnt.is_gene_B_T]
    bins = learnt.bins_B_T[learnt.is_gene_B_T].double()
    size = int(learnt.genes_B_T.max()) + 1
    counts = torch.bincount(genes, minlength=size)
    means = torch.bincount(genes, weights=bins, minlength=size) / counts.clamp(min=1)
    means = torch.where(counts > 0, means, fallback).float()
    return lambda wanted: means[wanted.clamp(max=size - 1)]
