"""The model class of the scgpt package, without the rest of it.

`import scgpt` runs the whole package: torchtext (end of life, no build for this torch), IPython,
single-cell databanks. Its `TransformerModel` needs torch alone. So the package's `model` folder is
imported under a name of our own, which leaves `scgpt` itself as whoever else imports it wants it.
Left out: everything else of the package; folders are read in `scgpt_files.py`.
"""

import importlib
import sys
import warnings
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, module_from_spec
from pathlib import Path

from torch import nn

from c2s_rl.errors import MissingFileError

ALIAS = "_c2s_rl_scgpt_model"


def transformer_class() -> Callable[..., nn.Module]:
    """Return `scgpt.model.TransformerModel`.

    Raises:
        MissingFileError: If the package is not installed.
    """
    if ALIAS not in sys.modules:
        _register_alias()
    with warnings.catch_warnings():
        # It warns that flash-attn is missing; the same layers of torch are used on purpose.
        warnings.simplefilter("ignore")
        module = importlib.import_module(f"{ALIAS}.model")
    model: Callable[..., nn.Module] = module.TransformerModel
    return model


def _register_alias() -> None:
    package = find_spec("scgpt")  # finds a top-level package without running it
    if package is None or not package.submodule_search_locations:
        raise MissingFileError("an scGPT embedding needs the package scgpt, got none installed")
    folder = Path(package.submodule_search_locations[0]) / "model"
    spec = ModuleSpec(ALIAS, loader=None, is_package=True)
    spec.submodule_search_locations = [str(folder)]
    sys.modules[ALIAS] = module_from_spec(spec)
