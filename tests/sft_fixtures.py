"""A tiny corpus and tiny models with random weights, for the tests of supervised fine-tuning."""

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from c2s_rl.data.prompt_set import PromptManifest, write_prompts
from c2s_rl.data.token_config import SftDataConfig
from c2s_rl.pipeline.sft import SftFolders
from c2s_rl.pipeline.tokens import TokenInputs, write_token_shards
from c2s_rl.types import PromptRecord, Split, Task

SYMBOLS = tuple(f"G{i}" for i in range(40))
# Ids are places in this list: <eos> 0, <pad> 1, then words, then genes from 8 on.
WORDS = ("<eos>", "<pad>", "A", "cell", "of", "type", "B:", "T:", *SYMBOLS)


def record(
    index: int,
    target: str,
    *,
    prompt: str = "A cell of type B:",
    split: Split = Split.TRAIN,
    task: Task = Task.CELL_GENERATION,
) -> PromptRecord:
    return PromptRecord(
        prompt_id=f"p{index}",
        prompt=prompt,
        target=target,
        task=task,
        condition="B",
        context_id="",
        target_id=f"t{index}",
        target_ids=(f"t{index}",),
        split=split,
        target_genes_K=np.zeros(0, dtype=np.int32),
        context_genes_K=np.zeros(0, dtype=np.int32),
    )


def records(number: int) -> list[PromptRecord]:
    """B cells begin with the first 20 genes and T cells with the last 20, of unequal length."""
    draw = random.Random(0)
    made = []
    for index in range(number):
        kind = index % 2
        genes = SYMBOLS[20 * kind : 20 * kind + draw.randint(4, 20)]
        prompt = f"A cell of type {'BT'[kind]}:"
        made.append(record(index, " " + " ".join(genes), prompt=prompt))
    return made


def annotation_records(number: int) -> list[PromptRecord]:
    """The same kinds of cells as `records` makes, as questions for their type."""
    return [
        record(
            1000 + index,
            f" {'BT'[index % 2]}:",
            prompt=f"{made.target.strip()} A cell of type",
            task=Task.CELL_TYPE_ANNOTATION,
        )
        for index, made in enumerate(records(number))
    ]


def tokenizer() -> PreTrainedTokenizerFast:
    words = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=words, eos_token="<eos>", pad_token="<pad>", model_max_length=128
    )


def model(architecture: str, attention: str, *, hidden: int = 32) -> PreTrainedModel:
    sizes = {
        "vocab_size": len(WORDS),
        "hidden_size": hidden,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 4 * hidden,
        "max_position_embeddings": 128,
        "eos_token_id": 0,
        "bos_token_id": 0,
        "pad_token_id": 1,
        # Weights well away from 0, so that attending to the wrong sample shows.
        "initializer_range": 0.2,
        "attn_implementation": attention,
    }
    torch.manual_seed(0)
    if architecture == "gpt_neox":
        return GPTNeoXForCausalLM(GPTNeoXConfig(**sizes))
    if architecture == "llama":
        return LlamaForCausalLM(LlamaConfig(**sizes, num_key_value_heads=1))
    return Gemma2ForCausalLM(
        Gemma2Config(**sizes, num_key_value_heads=1, head_dim=16, sliding_window=16)
    )


def write_corpus(folder: Path, samples: Sequence[PromptRecord]) -> Path:
    """Write prompt shards of the samples; returns their folder."""
    folder.mkdir(parents=True)
    manifest = PromptManifest(
        organism="Homo sapiens",
        num_genes=20,
        seed=0,
        counts=(),
        dropped={},
        num_short_targets=0,
        cells_manifest_sha256="0" * 64,
        config={},
        phrasings={},
        symbols=SYMBOLS,
        original=SYMBOLS,
    )
    write_prompts(folder, samples, manifest)
    return folder


def write_tokens(folder: Path, samples: Sequence[PromptRecord], config: SftDataConfig) -> Path:
    """Write token shards of the samples under `folder`; returns their folder."""
    inputs = TokenInputs(write_corpus(folder / "corpus", samples), folder / "words")
    tokenizer().save_pretrained(inputs.base_model)
    write_token_shards(inputs, config, folder / "tokens", seed=0)
    return folder / "tokens"


def write_inputs(
    folder: Path, *, number: int, num_annotations: int = 0, hidden: int = 64
) -> SftFolders:
    """Write a corpus of so many prompts of two tasks and a GPT-NeoX under `folder`."""
    folders = SftFolders(folder / "corpus", folder / "base", folder / "sft")
    write_corpus(folders.corpus, [*records(number), *annotation_records(num_annotations)])
    model("gpt_neox", "sdpa", hidden=hidden).save_pretrained(folders.base_model)
    tokenizer().save_pretrained(folders.base_model)
    return folders
