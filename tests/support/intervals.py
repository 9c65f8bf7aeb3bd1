"""Where the bounds of an interval lie among the resamples, written out."""

import numpy as np
import scipy.stats


def expanded(confidence: float, prompts: int) -> list[float]:
    """Where a normal distribution of the resamples' spread reaches as far as Student's interval of a mean."""
    student = scipy.stats.t.interval(confidence, prompts - 1, scale=1 / np.sqrt(prompts - 1))
    return list(scipy.stats.norm(scale=1 / np.sqrt(prompts)).cdf(student))
