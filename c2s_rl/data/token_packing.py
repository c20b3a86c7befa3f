"""Best-fit-decreasing packing of samples into rows: longest first, each where it fits most tightly.

The same rule as TRL's 'bfd', over a window that the caller chooses. No sample is cut. How samples
of one row are kept apart in training: `c2s_rl.pipeline.sft_data.RowCollator`.
"""

from collections.abc import Sequence


def best_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Pack samples into rows of at most `capacity` tokens.

    Args:
        lengths: Tokens of each sample, in the order that rows shall follow.
        capacity: Most tokens of a row.

    Returns:
        Rows of places in `lengths`, ascending within a row; rows ascend by their first place, so
        that samples in random order give rows in random order. Every place is in exactly one row.

    Raises:
        ValueError: If a sample has no tokens or does not fit any row.
    """
    open_rows: list[list[int]] = [[] for _ in range(capacity + 1)]  # by space left: rows
    spaces = 0  # bit s is set where some row has s tokens of space left
    rows: list[list[int]] = []
    for place in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        length = lengths[place]
        if not 1 <= length <= capacity:
            raise ValueError(f"a sample must have 1 to {capacity} tokens, got {length}")
        fitting = spaces >> length
        if fitting:
            space = length + (fitting & -fitting).bit_length() - 1  # lowest bit: tightest fit
            row = open_rows[space].pop()
            if not open_rows[space]:
                spaces ^= 1 << space
            rows[row].append(place)
        else:
            space, row = capacity, len(rows)
            rows.append([place])
        left = space - length
        open_rows[left].append(row)
        spaces |= 1 << left
    return sorted((sorted(row) for row in rows), key=lambda row: row[0])
