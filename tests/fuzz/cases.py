"""Run one case: a random experiment on a random model, by every engine and by plain passes."""

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from traceback import extract_tb
from typing import Any
from unittest.mock import patch

import torch
from transformers import PreTrainedModel

import hydrascope as hs
from fuzz.comparison import TOLERANCE, numbers
from fuzz.drawing import Draw
from fuzz.expected import Expected
from fuzz.experiments import Experiment, draw_experiment
from fuzz.models import architecture_of, draw_model
from fuzz.oracle import NoSuchModelError, Oracle
from hydrascope.components.component import Override
from hydrascope.engines.kernels.matmul import FORCE, ROUTINES
from hydrascope.loading import self_check
from hydrascope.models.float64 import Float64Mode
from hydrascope.models.language_model import LanguageModel
from hydrascope.runs.batch_check import BatchCheck, MeasuredAlone
from hydrascope.utils.errors import HydrascopeError, HydrascopeWarning

#: The outcomes of a case: numbers agree, or hydrascope rightly refuses.
AGREES, REFUSED = "agrees", "refused"
#: The defects: a wrong number, an exception, a model measured whose outputs don't add up, a needless refusal.
WRONG, BROKEN, UNNOTICED, NEEDLESS = "wrong", "broken", "unnoticed", "needlessly refused"
FAILURES = (WRONG, BROKEN, UNNOTICED, NEEDLESS)

#: Words of a right refusal, and settings of models that hydrascope isn't for.
REASONS = ("has no final norm", "projects its residual stream", "never calls the module")
UNSUPPORTED = ("use_bidirectional_attention", "apply_residual_connection_post_layernorm")

#: The share of models that are self-checked first, as at every load.
SELF_CHECKED = 0.25


@dataclass(frozen=True)
class Outcome:
    """The outcome of a case.

    Attributes:
        ended: one of the outcomes above.
        detail: the reason, the largest error or the exception, in a line.
        case: the experiment and the settings of the model, in a line.
        engines: the number of engines compared.
        refusals: a line for each configuration that transformers didn't take before this one.
    """

    seed: int
    architecture: str
    ended: str
    detail: str
    case: str
    engines: int
    refusals: list[str]


def run_case(seed: int, architecture: str | None = None, *, planted: bool = False) -> Outcome:
    """Draw a case, measure it and compare it.

    Args:
        planted: a fault is planted; the checks of models and of runs, which would find it first, are left out.
    """
    name = architecture_of(seed, architecture)
    drawn = draw_model(seed, name)
    case, engines, checked = str(drawn.settings), 0, False
    with warnings.catch_warnings(), _computing_in(drawn.dtype, drawn.draw):
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", "(?s).*don't trust them", HydrascopeWarning)
        try:
            model = LanguageModel(drawn.hf)
            if checked := drawn.draw.chance(SELF_CHECKED) and not planted:
                self_check.require_valid(model)
            experiment = draw_experiment(drawn.draw, model)
            case = f"{experiment}; {case}"
            names = ["reference", "wavefront"][: 1 + model.anatomy.supports_wavefront]
            engines = len(names)
            ended, detail = _compare(drawn.hf, model, experiment, names, planted)
        except HydrascopeError as error:
            ended, detail = REFUSED, str(error)
        except Exception as error:
            ended, detail = BROKEN, f"{type(error).__name__}: {error} ({_last_line(error)})"
        if ended in FAILURES and not (planted or checked):
            # No user gets as far with a model that fails the self-check.
            ended, detail = _self_checked(drawn.hf, ended, detail)
    if ended == REFUSED and not _is_right(detail, drawn.settings):
        ended = NEEDLESS
    return Outcome(seed, name, ended, detail, case, engines, drawn.refused)


def _compare(
    hf: PreTrainedModel, model: LanguageModel, experiment: Experiment, engines: Sequence[str], planted: bool
) -> tuple[str, str]:
    """Measure a case by each engine; return the outcome and a line about it.

    Raises:
        HydrascopeError: The experiment is refused.
    """
    found, must = [], None
    for engine in engines:
        with unchecked() if planted or not experiment.checked else nullcontext():
            results = hs.sweep(model, experiment.prompts, experiment.ablation, engine=engine, **experiment.options())
        if must is None:
            try:
                with Float64Mode():
                    expected = Expected(Oracle(hf), experiment, results["patch_prompt"].values)
                    overrides = [Override.parse(label) for label in results["ablated"].values.tolist()]
                    must = numbers(expected, overrides, results.sizes["patch"])
            except NoSuchModelError as error:
                return UNNOTICED, f"measured by the {engine} engine, though {error}"
        found.append((engine, must.worst(results)))
    engine, difference = max(found, key=lambda each: each[1].error)
    if difference.error <= TOLERANCE[model.dtype]:
        return AGREES, f"to {difference.error:.0e}"
    return WRONG, f"{engine} engine: {difference}"


def _self_checked(hf: PreTrainedModel, ended: str, detail: str) -> tuple[str, str]:
    """Return the outcome of a failure if its model is self-checked first, as at every load."""
    try:
        self_check.require_valid(LanguageModel(hf))
    except HydrascopeError as error:
        return REFUSED, str(error)
    except Exception as error:
        return BROKEN, f"{type(error).__name__}: {error} ({_last_line(error)})"
    return ended, detail


def _is_right(refusal: str, settings: dict[str, Any]) -> bool:
    """Return whether a user should get this refusal; a fault may hide behind any other."""
    doubled = settings.get("new_decoder_architecture") and not settings["parallel_attn"]
    return bool(doubled or any(map(settings.get, UNSUPPORTED)) or any(reason in refusal for reason in REASONS))


def _last_line(error: BaseException) -> str:
    """Return the innermost line of hydrascope or of the fuzzer that an error passed through."""
    frames = [
        each for each in extract_tb(error.__traceback__) if "hydrascope" in each.filename or "fuzz" in each.filename
    ]
    return f"{frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno}" if frames else "elsewhere"


@contextmanager
def _computing_in(dtype: torch.dtype, draw: Draw) -> Iterator[None]:
    """Compute all of a float64 model in float64, and a float32 model by a random matrix product."""
    product = {FORCE: draw.choice(list(ROUTINES))}
    with Float64Mode() if dtype == torch.float64 else patch.dict(os.environ, product):
        yield


@contextmanager
def unchecked() -> Iterator[None]:
    """Leave out a run's own checks, which take longer than the run."""
    sound, alone = BatchCheck(0.0, 1.0, "logit", "prompt 1"), MeasuredAlone((), (), ())
    with ExitStack() as stack:
        stack.enter_context(patch("hydrascope.runs.start.precision", lambda *arguments: {}))
        stack.enter_context(patch("hydrascope.runs.start.check_before", lambda *arguments: sound))
        stack.enter_context(patch("hydrascope.runs.sweep.check_after", lambda *arguments: sound))
        for module in ("sweep", "start"):
            stack.enter_context(patch(f"hydrascope.runs.{module}.measure_alone", lambda *arguments: alone))
        yield


torch.set_num_threads(1)
