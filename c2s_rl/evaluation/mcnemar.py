"""McNemar's test: are two classifiers right equally often on the same items?

Only items on which exactly one of them is right say anything. Left out: tests of more than two
classifiers, and corrections for testing many pairs.

Shape suffix: S items.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

# Below so many deciding items the chi-square approximation is poor (McNemar 1947; Rosner 2015).
MIN_FOR_CHI_SQUARE = 25


@dataclass(frozen=True)
class McNemar:
    """What the test found."""

    num_only_first: int
    """b: items that only the first classifier got right."""
    num_only_second: int
    """c: items that only the second got right."""
    statistic: float
    """(|b - c| - 1)^2 / (b + c), chi-square with one degree of freedom; 0 where b = c."""
    p_value: float
    """Two-sided; exact where `is_exact`."""
    is_exact: bool
    """p comes from the binomial distribution, because b + c is below MIN_FOR_CHI_SQUARE."""


def mcnemar(is_first_right_S: npt.ArrayLike, is_second_right_S: npt.ArrayLike) -> McNemar:
    """Test whether two classifiers are right equally often, with continuity correction.

    chi^2 = (|b - c| - 1)^2 / (b + c). With fewer than MIN_FOR_CHI_SQUARE deciding items p is that
    of b among b + c throws of a fair coin; the statistic is given all the same. No deciding item:
    statistic 0, p = 1.

    Args:
        is_first_right_S: [S] whether the first was right, booleans.
        is_second_right_S: [S] the same of the second, same items in the same order.

    Returns:
        Counts, statistic and p.

    Raises:
        ValueError: If the sides differ in length or are not booleans.

    Source: C2S-Scale 4.6; McNemar 1947, doi:10.1007/BF02295996; correction: Edwards 1948,
        doi:10.1007/BF02289261.
    """
    from scipy.stats import binomtest, chi2

    first, second = np.asarray(is_first_right_S), np.asarray(is_second_right_S)
    if first.dtype != np.bool_ or second.dtype != np.bool_:
        raise ValueError(f"answers must be right or wrong, got {first.dtype} and {second.dtype}")
    if first.ndim != 1 or first.shape != second.shape:
        raise ValueError(f"both sides must answer the same items, got {first.shape}, "
                         f"{second.shape}")  # fmt: skip
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    num = only_first + only_second
    if num == 0:
        return McNemar(0, 0, 0.0, 1.0, is_exact=True)
    statistic = max(abs(only_first - only_second) - 1, 0) ** 2 / num
    is_exact = num < MIN_FOR_CHI_SQUARE
    p_value = binomtest(only_first, num).pvalue if is_exact else chi2.sf(statistic, df=1)
    return McNemar(only_first, only_second, statistic, float(p_value), is_exact=is_exact)
