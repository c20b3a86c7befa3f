"""The other packages that measurements and parity tests compare against."""

import sys
from functools import cache
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType


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
