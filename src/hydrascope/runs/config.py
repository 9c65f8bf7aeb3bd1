"""Options of a run: what it measures (`SweepConfig`) and where it writes (`Output`)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypedDict

from hydrascope.components.experiments import Experiment
from hydrascope.components.selection import Selection
from hydrascope.engines.kernels.differences import Products
from hydrascope.engines.metrics import MetricFunction
from hydrascope.engines.readouts import Logit, Readout
from hydrascope.prompts.positions import At
from hydrascope.utils.errors import HydrascopeError

#: The token of metrics (but for `answer_log_prob`), `Logit()` and placebos: the likeliest in the clean pass, the first
#: of each prompt's answer, or one token id for all prompts.
Target = Literal["argmax", "answer"] | int

#: What is kept of the writes in ablated rows: nothing (effects only), means over patches, or each patch as well.
Keep = Literal["auto", "effects", "means", "patches"]

Readouts = Readout | Sequence[Readout]
Metrics = str | MetricFunction | Sequence[str | MetricFunction]
BatchSize = int | Literal["auto"]

#: The largest result, in bytes, whose single patches are kept where nothing is asked for.
KEEP_BYTES = 4 * 2**30

#: What is read where nothing else is asked for.
TARGET_LOGIT = (Logit(),)


class SweepOptions(TypedDict, total=False):
    """The keywords of `hydrascope.sweep` that decide what is measured."""

    ablate: Selection | Experiment
    read: Selection
    at: At
    readouts: Readouts
    metrics: Metrics
    target: Target
    keep: Keep
    engine: str
    products: Products


class PathOptions(TypedDict, total=False):
    """The keywords of `hydrascope.sweep` that path patching hands on to it."""

    readouts: Readouts
    target: Target
    engine: str
    batch_size: BatchSize
    progress: bool


class AnalysisOptions(PathOptions, total=False):
    """The keywords of `hydrascope.sweep` that other analyses hand on to it."""

    at: At


class ExperimentOptions(AnalysisOptions, total=False):
    """The keywords of `hydrascope.sweep` that experiments hand on to it."""

    metrics: Metrics


class EstimateOptions(TypedDict, total=False):
    """The keywords of `hydrascope.sweep` that decide what attribution methods estimate."""

    ablate: Selection
    at: At
    readouts: Readouts
    target: Target


class EstimatorOptions(EstimateOptions, total=False):
    """The keywords of `hydrascope.sweep` that attribution methods take."""

    batch_size: BatchSize
    progress: bool


class OutputOptions(TypedDict, total=False):
    """The keywords of `hydrascope.sweep` that say how a result is written."""

    resume: bool
    join: bool
    elsewhere: bool
    overwrite: bool


class StoredSweepOptions(SweepOptions, OutputOptions, total=False):
    """The keywords of `hydrascope.sweep` with `out`."""


@dataclass(frozen=True)
class SweepConfig:
    """The options of a run, documented at `hydrascope.sweep`."""

    ablate: Selection | Experiment = "layers"
    read: Selection = "layers"
    at: At = "last"
    readouts: Readouts = TARGET_LOGIT
    metrics: Metrics = ()
    target: Target = "argmax"
    keep: Keep = "auto"
    engine: str = "auto"
    products: Products = "float32"


@dataclass(frozen=True)
class Output:
    """The place of a result, and the way in which it is written.

    Attributes:
        path: the result's folder.
        resume: continue the result at `path`; start it where there is none.
        join: the same, together with other processes.
        elsewhere: resume on another kind of machine, where rounding differs.
        overwrite: start again, and delete the result at `path` once its successor stands.
    """

    path: Path
    resume: bool = False
    join: bool = False
    elsewhere: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        """Refuse options that exclude each other."""
        if self.overwrite and (self.resume or self.join):
            name = "join" if self.join else "resume"
            raise HydrascopeError(f"{name} and overwrite exclude each other: ask for one of them")
