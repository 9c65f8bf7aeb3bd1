"""Words and numbers on the pages of studies."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import wraps
from typing import Any, ParamSpec

from hydrascope.reports.summary.interval import number

#: The display names of models and controls.
NAMES = {"smollm2": "SmolLM2-135M-Instruct", "gemma3-270m": "Gemma 3 270M", "phantom": "the phantom"}
#: The models' originals on the hub.
HUB = {"smollm2": "HuggingFaceTB/SmolLM2-135M-Instruct", "gemma3-270m": "google/gemma-3-270m"}

#: The outcome of a prediction in words.
OUTCOMES = {
    "holds": "**The prediction holds.**",
    "refuted": "**The prediction is refuted.**",
    "can't tell": "**It can't be told by the declared rule.**",
}

Bounds = Sequence[float | None]
_Arguments = ParamSpec("_Arguments")


def markdown(lines: Callable[_Arguments, Iterator[str]]) -> Callable[_Arguments, str]:
    """Turn a function that yields lines into one that returns them as a page."""

    @wraps(lines)
    def page(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> str:
        return "\n".join(lines(*args, **kwargs)) + "\n"

    return page


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


def p_value(p: float) -> str:
    """Return a p.

    >>> p_value(0.0123), p_value(2e-9)
    ('0.012', '< 0.0001')
    """
    return "< 0.0001" if p < 1e-4 else f"{p:.2g}"


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


def prediction(settings: Mapping[str, Any], outcome: str) -> Iterator[str]:
    """Yield what a study asked and predicted, and the outcome in words."""
    yield "## Question and prediction"
    yield ""
    yield f"- **Question**: {settings['question']}"
    yield f"- **Quantity**: {settings['estimand']}."
    yield f"- **Predicted**, before measuring: {settings['prediction']}."
    yield f"- **Refuted if** {settings['refuted_if']}; {settings['otherwise']}."
    yield f"- **Outcome**: {outcome}"


def correction(settings: Mapping[str, Any], p: float) -> str:
    """Return how a study corrects for many claims, and the p of its primary one."""
    return f"{settings['correction'][0].upper()}{settings['correction'][1:]}. Primary p: {p:.2g}."


def weights(models: Iterable[str], origins: Mapping[str, Any]) -> Iterator[str]:
    """Yield the weights of each model, and the caution that one is an Instruct model."""
    for model in models:
        origin = origins[model]["origin"]
        yield f"- {name(model)}: weights {origin['quantization'] or 'as shipped'}; {origin['weights'][:19]}…"
    yield "- SmolLM2 is an Instruct model, read here on plain text without its chat template."


def repetition(study: str, models: Iterable[str]) -> Iterator[str]:
    """Yield the commands that repeat a study of facts, and those for the originals on the hub."""
    yield "## Repeat it"
    yield ""
    yield "```sh"
    yield "hydrascope fetch smollm2"
    yield "hydrascope fetch gemma3-270m"
    yield f"make study NAME={study}                      # downloads the facts"
    yield f"make study NAME={study} PROMPTS=facts.json   # or takes them from a file"
    yield "```"
    yield ""
    yield from _with_originals(f"{study} --prompts facts.json", models)


def repetition_of_shipped(study: str, models: Iterable[str]) -> Iterator[str]:
    """Yield the commands that repeat a study of shipped prompts, and those for the originals on the hub."""
    known = [model for model in models if model in HUB]
    yield "## Repeat it"
    yield ""
    yield "```sh"
    yield from (f"hydrascope fetch {model}" for model in known)
    yield f"make study NAME={study}"
    yield "```"
    yield ""
    yield from _with_originals(study, known)


def _with_originals(arguments: str, models: Iterable[str]) -> Iterator[str]:
    yield "It resumes if it is interrupted. The originals on the Hugging Face hub, without dequantised weights:"
    yield ""
    yield "```sh"
    originals = " ".join(f"--model {HUB[model]}" for model in models if model in HUB)
    yield f"python -m studies {arguments} {originals}"
    yield "```"
    yield ""
