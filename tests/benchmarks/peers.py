"""The other packages that measurements and parity tests compare against."""

import sys
from functools import cache
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bert_score import BERTScorer


@cache
def load_cell2sentence() -> ModuleType:
    """Import cell2sentence.utils alone.

    The package's __init__ also imports its models, and utils imports plotnine for pictures that
    nothing here draws; where plotnine is not installed an empty module stands in for it.

    Raises:
        ModuleNotFoundError: If cell2sentence is not installed.
    """
    package = find_spec("cell2sentence")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("cell2sentence must be installed for this comparison, got none")
    has_plotnine = find_spec("plotnine") is not None
    if not has_plotnine:
        sys.modules["plotnine"] = ModuleType("plotnine")
    spec = spec_from_file_location("c2s_utils", Path(package.origin).parent / "utils.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    if not has_plotnine:
        del sys.modules["plotnine"]
    return module


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
