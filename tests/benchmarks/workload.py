"""What the language-model benchmarks run on: a small GPT-NeoX and prompts of real cells.

The folder written here has the parts of a run folder (`corpus/`, `base/`), so the product's stages
run on it. The model has random weights. Its tokenizer holds every gene of the cells as one token,
so prompts are cut to exactly P tokens; symbols made up after the pattern of LOC genes fill it
to the size asked for. Random weights would end some completions early, so the end token is given a
probability of exp(-80) by its weights: engines need no flag, and all write C tokens.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from actors.engine_env import num_cores
from c2s_rl.cells.vocabulary import Vocabulary
from c2s_rl.config import FrozenConfig
from c2s_rl.data.prompt_set import PromptManifest, write_prompts
from c2s_rl.models.shape import GptNeoxShape
from c2s_rl.types import PromptRecord, Split, Task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

CORPUS, BASE, SHAPE = "corpus", "base", "shape.json"
END_LOGIT = -80.0
SMALL = GptNeoxShape(
    hidden_size=256, num_layers=4, num_heads=4, vocabulary_size=4096, max_position=2048
)
TINY = GptNeoxShape(
    hidden_size=64, num_layers=1, num_heads=2, vocabulary_size=4096, max_position=256
)


class Shape(FrozenConfig):
    """Sizes of a measurement; P, C and G of the workload line."""

    prompt_tokens: int
    completion_tokens: int
    group_size: int
    num_prompts: int
    model: GptNeoxShape = SMALL

    @property
    def num_completions(self) -> int:
        return self.num_prompts * self.group_size

    def __str__(self) -> str:
        model = self.model
        return (
            f"P={self.prompt_tokens} C={self.completion_tokens} G={self.group_size} x "
            f"{self.num_prompts} prompts, GPT-NeoX {model.hidden_size} x {model.num_layers} layers "
            f"of random weights, {model.vocabulary_size} tokens, float32, {num_cores()} cores"
        )


def real_cells() -> list[list[str]]:
    """Genes of the 700 PBMC that come with scanpy, expressed ones only, highest first."""
    import scanpy

    raw = scanpy.datasets.pbmc68k_reduced().raw
    values_C_N = raw.X.toarray()
    names = list(raw.var_names)
    order_C_N = np.argsort(-values_C_N, axis=1, kind="stable")
    counts_C = (values_C_N > 0).sum(axis=1)
    return [
        [names[gene] for gene in order[:count]]
        for order, count in zip(order_C_N, counts_C, strict=True)
    ]


def write_workload(folder: Path, shape: Shape) -> None:
    """Write policy and prompts; every cell is in one prompt only.

    Raises:
        ValueError: If a prompt does not have exactly P tokens.
    """
    cells = real_cells()
    symbols = tuple(sorted({gene for cell in cells for gene in cell}))
    tokenizer = _make_tokenizer(symbols, shape.model.vocabulary_size)
    records = _cut_prompts(cells, Vocabulary(symbols, symbols), shape)
    for record in records:
        num_tokens = len(tokenizer.encode(record.prompt))
        if num_tokens != shape.prompt_tokens:
            raise ValueError(f"a prompt must have {shape.prompt_tokens} tokens, got {num_tokens}")
    for name in (CORPUS, BASE):
        (folder / name).mkdir(parents=True)
    write_prompts(folder / CORPUS, records, _manifest(symbols))
    _write_policy(folder / BASE, tokenizer, shape.model)
    (folder / SHAPE).write_text(shape.model_dump_json(), encoding="utf-8")


def read_shape(folder: Path) -> Shape:
    """Sizes of the workload in a folder."""
    return Shape.model_validate_json((folder / SHAPE).read_text(encoding="utf-8"))


def _make_tokenizer(symbols: tuple[str, ...], vocabulary_size: int) -> "PreTrainedTokenizerFast":
    """Every symbol one token, and as many made-up ones as fill the vocabulary."""
    from c2s_rl.models.tokenizer import train_bpe

    draw = np.random.default_rng(0)
    # several tokens each; the real symbols are written oftener, so they are merged first
    fillers = [f" LOC{number}" for number in draw.integers(10**4, 10**5, size=vocabulary_size)]
    texts = [" " + " ".join(symbols)] * (vocabulary_size // 4) + fillers
    tokenizer = train_bpe(texts, vocabulary_size=vocabulary_size, max_length=2**20)
    if len(tokenizer) != vocabulary_size:
        raise ValueError(f"the tokenizer must hold {vocabulary_size} tokens, got {len(tokenizer)}")
    return tokenizer


def _cut_prompts(
    cells: list[list[str]], vocabulary: Vocabulary, shape: Shape
) -> list[PromptRecord]:
    """Cells one after the other until a prompt has P genes; the next cell is its target."""
    remaining = iter(cells)
    records: list[PromptRecord] = []
    for index in range(shape.num_prompts):
        genes: list[str] = []
        while len(genes) < shape.prompt_tokens:
            genes += next(remaining)
        target = next(remaining)
        records.append(
            PromptRecord(
                prompt_id=str(index),
                prompt=" " + " ".join(genes[: shape.prompt_tokens]),
                target=" " + " ".join(target),
                task=Task.CELL_GENERATION,
                condition="PBMC",
                context_id="",
                target_id=str(index),
                split=Split.TRAIN,
                target_genes_K=np.array([vocabulary.index_of(g) for g in target], dtype=np.int32),
                context_genes_K=np.zeros(0, dtype=np.int32),
            )
        )
    return records


def _manifest(symbols: tuple[str, ...]) -> PromptManifest:
    return PromptManifest(
        organism="Homo sapiens",
        num_genes=len(symbols),
        seed=0,
        counts=(),
        dropped={},
        num_short_targets=0,
        cells_manifest_sha256="0" * 64,
        config={},
        phrasings={},
        symbols=symbols,
        original=symbols,
    )


def _write_policy(folder: Path, tokenizer: "PreTrainedTokenizerFast", shape: GptNeoxShape) -> None:
    """Write the model, its end and padding tokens made improbable.

    The final norm gives hidden unit 0 the value 1 whatever comes in, and those tokens' rows of the
    head read nothing else.
    """
    import torch
    from transformers import GPTNeoXForCausalLM

    from c2s_rl.models.base_model import write_gpt_neox

    write_gpt_neox(folder, tokenizer, shape=shape, seed=0)
    model = GPTNeoXForCausalLM.from_pretrained(folder, local_files_only=True)
    norm, head = model.gpt_neox.final_layer_norm, model.get_output_embeddings()
    token_ids = [tokenizer.eos_token_id, tokenizer.pad_token_id]
    with torch.no_grad():
        norm.weight[0] = 0.0
        norm.bias[0] = 1.0
        head.weight[token_ids] = 0.0
        head.weight[token_ids, 0] = END_LOGIT
    model.save_pretrained(folder)
