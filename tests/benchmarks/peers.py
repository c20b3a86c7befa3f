"""The other packages that measurements and parity tests compare against."""

import importlib
import logging
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bert_score import BERTScorer


@cache
def load_cell2sentence(name: str = "utils") -> ModuleType:
    """Import one module of cell2sentence without the others.

    The package's __init__ also imports its models, with torch, and utils imports plotnine for
    pictures that nothing here draws; while the module is imported, an empty package takes the place
    of the first, and an empty module that of plotnine where it is not installed.

    Args:
        name: Of the module: utils, csdata or prompt_formatter.

    Raises:
        ModuleNotFoundError: If cell2sentence is not installed.
    """
    spec = find_spec("cell2sentence")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("cell2sentence must be installed for this comparison, got none")
    former = {key: sys.modules.pop(key) for key in _loaded("cell2sentence")}
    package = ModuleType("cell2sentence")
    package.__path__ = [str(Path(spec.origin).parent)]
    sys.modules["cell2sentence"] = package
    has_plotnine = find_spec("plotnine") is not None
    if not has_plotnine:
        sys.modules["plotnine"] = ModuleType("plotnine")
    try:
        return importlib.import_module(f"cell2sentence.{name}")
    finally:
        for key in _loaded("cell2sentence"):
            del sys.modules[key]
        sys.modules.update(former)
        if not has_plotnine:
            del sys.modules["plotnine"]


def _loaded(package: str) -> list[str]:
    return [key for key in sys.modules if key.split(".")[0] == package]


def load_bert_scorer(folder: str, layer: int) -> "BERTScorer":
    """Build bert-score's scorer on an encoder's folder, on the CPU.

    bert-score 0.3.13 asks its tokenizer for `build_inputs_with_special_tokens` where a text is
    empty; transformers 5 took that method away, so a stand-in returns what it used to: the special
    tokens alone.

    Raises:
        ModuleNotFoundError: If bert-score is not installed.
    """
    from bert_score import BERTScorer

    scorer = BERTScorer(model_type=folder, num_layers=layer, device="cpu")
    tokenizer = scorer._tokenizer
    if not hasattr(tokenizer, "build_inputs_with_special_tokens"):
        tokenizer.build_inputs_with_special_tokens = lambda ids: tokenizer("")["input_ids"]
    return scorer


class VocabStandIn:
    """Tokens by number and numbers by token: what scgpt's GeneVocab asks of torchtext's Vocab."""

    def __init__(self, tokens: Sequence[str] = ()) -> None:
        self.vocab = list(tokens)  # GeneVocab hands it from one to the next
        self._number = {token: number for number, token in enumerate(self.vocab)}

    def __len__(self) -> int:
        return len(self.vocab)

    def __contains__(self, token: str) -> bool:
        return token in self._number

    def __getitem__(self, token: str) -> int:
        return self._number[token]

    def __call__(self, tokens: Sequence[str]) -> list[int]:
        return [self._number[token] for token in tokens]

    def insert_token(self, token: str, number: int) -> None:
        assert number == len(self.vocab)
        self.append_token(token)

    def append_token(self, token: str) -> None:
        self._number[token] = len(self.vocab)
        self.vocab.append(token)

    def set_default_index(self, number: int) -> None:
        """Unknown tokens are never looked up here."""

    def get_stoi(self) -> dict[str, int]:
        return dict(self._number)


@cache
def load_scgpt() -> ModuleType:
    """Import scgpt whole: its binning, its tokenizer and its own way to cell embeddings.

    It asks for torchtext, which has no build for this torch, and for IPython: stand-ins of this
    file take their place while it is imported.

    Raises:
        ModuleNotFoundError: If scgpt is not installed.
    """
    stand_ins: dict[str, ModuleType] = {}
    if find_spec("torchtext") is None:
        stand_ins |= {name: ModuleType(name) for name in ("torchtext", "torchtext.vocab")}

        def vocab(counts: Mapping[str, int], min_freq: int = 1) -> VocabStandIn:
            return VocabStandIn([token for token, num in counts.items() if num >= min_freq])

        stand_ins["torchtext.vocab"].Vocab = VocabStandIn
        stand_ins["torchtext.vocab"].vocab = vocab
        stand_ins["torchtext"].vocab = stand_ins["torchtext.vocab"]
    if find_spec("IPython") is None:
        stand_ins["IPython"] = ModuleType("IPython")
        stand_ins["IPython"].get_ipython = lambda: None
    sys.modules.update(stand_ins)
    try:
        package = importlib.import_module("scgpt")
        importlib.import_module("scgpt.preprocess")
    finally:
        for name in stand_ins:
            del sys.modules[name]
    logging.getLogger("scGPT").setLevel(logging.ERROR)
    return package
