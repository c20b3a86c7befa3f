"""The gene trie's rule written out over lists of symbols, slowly; what tests compare with.

Paths are tuples of token ids; `EOS` ends a completion.
"""

from dataclasses import dataclass

EOS = 0


@dataclass(frozen=True)
class Rule:
    """Paths by symbol, and the limits."""

    paths: dict[str, tuple[int, ...]]
    min_genes: int
    max_genes: int
    max_tokens: int

    def allowed(self, tokens: tuple[int, ...]) -> set[int]:
        """Return the tokens that may follow, by looking at every gene."""
        written, open_tokens = self.split(tokens)
        num_left = self.max_tokens - len(tokens)
        unused = {s: p for s, p in self.paths.items() if s not in written}
        depth = len(open_tokens)
        result = {
            p[depth]
            for p in unused.values()
            if depth and len(p) > depth and p[:depth] == open_tokens
        }
        ended = [s for s, p in unused.items() if p == open_tokens]
        if depth and not ended:
            return result
        written = written + ended
        if len(written) >= self.min_genes:
            result.add(EOS)
        if len(written) < self.max_genes:
            result |= {
                p[0] for s, p in unused.items() if s not in ended and self._fits(p, num_left)
            }
        return result

    def split(self, tokens: tuple[int, ...]) -> tuple[list[str], tuple[int, ...]]:
        """Read tokens as whole genes and the tokens of an open one."""
        written: list[str] = []
        starts = {p[0] for p in self.paths.values()}
        by_path = {p: s for s, p in self.paths.items()}
        open_tokens: tuple[int, ...] = ()
        for token in tokens:
            longer = (*open_tokens, token)
            goes_on = any(p[: len(longer)] == longer for p in self.paths.values())
            if open_tokens and not goes_on and (token in starts or token == EOS):
                written.append(by_path[open_tokens])
                open_tokens = ()
                longer = (token,)
            open_tokens = () if token == EOS else longer
        return written, open_tokens

    def _fits(self, path: tuple[int, ...], num_left: int) -> bool:
        longest = max(len(p) for p in self.paths.values() if p[0] == path[0])
        return longest < num_left


def encode_with(paths: dict[str, tuple[int, ...]]):
    """Return an encoder that knows these symbols only."""
    return lambda texts: [[t for s in text.split() for t in paths[s]] for text in texts]
