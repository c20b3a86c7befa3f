"""Hashes of the files that are converted, taken beside the conversion.

A file is read twice then, but at the speed of the disk and without waiting; that it did not change
meanwhile is checked.
"""

import threading
from types import TracebackType
from typing import Self

from c2s_rl.cells.vocabulary import shown
from c2s_rl.data.source import hash_source
from c2s_rl.errors import DataError
from c2s_rl.pipeline.convert_config import ConvertConfig
from c2s_rl.pipeline.convert_inputs import versions


class SourceHashes:
    """Hashes files in a thread of its own, from the beginning of the block on."""

    def __init__(self, config: ConvertConfig) -> None:
        """Note which files there are, and which version of them."""
        self._config = config
        self._versions = versions(config)
        self._hashes: list[str] = []
        self._error: Exception | None = None
        # A daemon: whoever gives up on a conversion does not wait for the hash of a large file.
        self._thread = threading.Thread(target=self._hash, name="hash sources", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the thread to itself."""

    def result(self) -> list[str]:
        """Wait for the SHA-256 of each file.

        Raises:
            DataError: If a file changed since the block began.
        """
        self._thread.join()
        if self._error is not None:
            raise self._error
        now = versions(self._config)
        changed = [name for name, version in self._versions.items() if now.get(name) != version]
        if changed:
            raise DataError(
                "a file must not change while it is converted, got another size or time of change "
                f"of {shown(changed)}; convert it again"
            )
        return self._hashes

    def _hash(self) -> None:
        try:
            self._hashes = [hash_source(source) for source in self._config.sources]
        except Exception as error:  # noqa: BLE001  # raised again where it is waited for
            self._error = error
