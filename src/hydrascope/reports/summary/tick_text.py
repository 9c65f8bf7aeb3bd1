"""The text of a number at an axis or a scale."""

from hydrascope.reports.summary.interval import number


def tick_text(value: float, digits: int = 3) -> str:
    """Format a number with so many significant digits, without zeros at its end.

    >>> [tick_text(value) for value in (-0.30, 0.125, -0.0, 1200.0)]
    ['−0.3', '0.125', '0', '1200']

    Args:
        value: the number; one with more digits before the point is rounded to a whole one, without an exponent.
        digits: the number of significant digits.
    """
    if abs(value) >= 10**digits - 0.5:
        return number(value, 0)
    # Adding 0.0 turns −0 into 0.
    return f"{value + 0.0:.{digits}g}".replace("-", "−")
