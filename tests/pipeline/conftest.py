from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def process_group(tmp_path: Path) -> Iterator[None]:
    """A torch.distributed group with this process alone in it."""
    from torch import distributed

    store = distributed.FileStore(str(tmp_path / "store"), 1)
    distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    distributed.destroy_process_group()
