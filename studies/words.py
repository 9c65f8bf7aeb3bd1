"""Words and numbers on the pages of studies."""

from collections.abc import Iterator, Sequence

from hydrascope.reports.summary.interval import number

#: The display names of models and controls.
NAMES = {"smollm2": "SmolLM2-135M-Instruct", "gemma3-270m": "Gemma 3 270M", "phantom": "the phantom"}
#: The models' originals on the hub.
HUB = {"smollm2": "HuggingFaceTB/SmolLM2-135M-Instruct", "gemma3-270m": "google/gemma-3-270m"}

Bounds = Sequence[float | None]


def interval(bounds: Bounds, digits: int = 2) -> str:
    """Return an estimate with its bounds, if it has any.

    >>> interval([0.2, 0.1, 0.3]), interval([1.5, None, None])
    ('0.20 [0.10, 0.30]', '1.50, unbounded')
    """
    estimate, low, high = bounds
    if estimate is None:
        return "–"
    if low is None or high is None:
        return f"{number(estimate, digits)}, unbounded"
    return f"{number(estimate, digits)} [{number(low, digits)}, {number(high, digits)}]"


def share(bounds: Bounds) -> str:
    """Return a share in percent with its bounds.

    >>> share([0.998, 0.991, 0.999])
    '100% [99, 100]'
    """
    estimate, low, high = (100 * float("nan" if each is None else each) for each in bounds)
    return f"{estimate:.0f}% [{low:.0f}, {high:.0f}]"


def name(model: str) -> str:
    """Return the name of a model on a page."""
    return NAMES.get(model, model)


def head(title: str, study: str, told: str, picture: str, caption: str) -> Iterator[str]:
    """Yield the lines that open a study's page: its title, its claim and its picture.

    >>> next(head("Replication", "replication", "It holds.", "Slopes", "Slope of CE on DE."))
    '# Replication'

    Args:
        title: the title of the page.
        study: the study's name.
        told: the claim.
        picture: the picture in words.
        caption: the caption.
    """
    yield f"# {title}"
    yield ""
    yield f"<!-- Written by `make study NAME={study}` from studies/{study}/results.json. -->"
    yield ""
    yield told
    yield ""
    yield f"![{picture}](images/{study}.png)"
    yield ""
    yield f"*{caption}*"
    yield ""
