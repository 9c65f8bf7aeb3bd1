"""Measure the checkpoints of one model alike: a sweep of each, on one target for all.

The likeliest token of each checkpoint would mix a change of the target with a change of repair. So all checkpoints are
read at the same tokens: the answers of the prompts or, where some have none, the likeliest tokens of the last
checkpoint.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack

from hydrascope.ablations.ablation import Ablation
from hydrascope.components.selection import Selection
from hydrascope.loading.load import load_model
from hydrascope.models.language_model import LanguageModel
from hydrascope.prompts.positions import At
from hydrascope.prompts.prepare import prepare
from hydrascope.prompts.prompt import AnyPrompts, PromptSet
from hydrascope.runs.attrs import settings_of
from hydrascope.runs.batches import compute_clean_activations
from hydrascope.runs.config import BatchSize, Keep, Metrics, Readouts, SweepConfig, Target
from hydrascope.runs.plan import Plan, make_plan
from hydrascope.runs.sweep import sweep
from hydrascope.storage.paths import resolve_path
from hydrascope.storage.reader import split_range
from hydrascope.utils.errors import HydrascopeError, printable

#: The target of a trajectory: one for all checkpoints (`shared`), or as for `sweep`.
SharedTarget = Target | Literal["shared"]


class CheckpointOptions(TypedDict, total=False):
    """The keywords of `hydrascope.sweep` that a trajectory hands on to it."""

    ablate: Selection
    read: Selection
    at: At
    readouts: Readouts
    metrics: Metrics
    keep: Keep
    engine: str


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint as it was given.

    Attributes:
        label: its name in results, tables and figures.
        model: the folder, GGUF file or name that `load_model` takes.
        revision: the hub's branch, tag or commit; None if none was given.
    """

    label: str
    model: str
    revision: str | None

    @classmethod
    def of(cls, given: str | Path) -> "Checkpoint":
        """Return the checkpoint that a folder, a file, a name, or `NAME@REVISION` names.

        >>> Checkpoint.of("EleutherAI/pythia-70m@step1000").label
        'step1000'
        """
        path = os.path.expanduser(given)
        if os.path.exists(path):
            folder = Path(os.path.abspath(path))
            return cls(printable(folder.stem if folder.suffix == ".gguf" else folder.name), str(given), None)
        name, _, revision = str(given).rpartition("@")
        if name and revision:
            return cls(printable(revision.replace("/", "-")), name, revision)
        return cls(printable(Path(given).name), str(given), None)


def trajectory(
    checkpoints: Sequence[str | Path],
    prompts: AnyPrompts,
    ablation: Ablation | None = None,
    *,
    out: str | Path,
    target: SharedTarget = "shared",
    loading: Mapping[str, Any] | None = None,
    batch_size: BatchSize = "auto",
    progress: bool = False,
    say: Callable[[str], object] | None = None,
    **options: Unpack[CheckpointOptions],
) -> dict[str, Path]:
    """Measure one sweep of each checkpoint of a model, on the same prompts and targets.

    Each result is written to `out/LABEL.zarr`. Called again, it continues where it was stopped and measures nothing
    twice. The last checkpoint is measured first, since it may decide the targets; the others follow in their order.

        >>> found = hs.analyses.trajectory(["checkpoint-100", "checkpoint-200"], prompts, hs.Zero(),
        ...                                out="repair", ablate="layers")                      # doctest: +SKIP
        >>> hs.measures.trajectory({label: hs.open_results(path) for label, path in found.items()})  # doctest: +SKIP

    Args:
        checkpoints: folders, GGUF files or names that `load_model` takes, or `NAME@REVISION` of the hub, in the order
            in which they are shown. The label of each is the revision, or the last part of its path or name.
        prompts: as for `sweep`.
        ablation: as for `sweep`.
        out: the folder of the results; it is made if it is missing.
        target: the token of `Logit()` and of metrics. `shared` takes the answers of the prompts or, unless all have
            one, the likeliest tokens of the last checkpoint. Others are as for `sweep`; `argmax` takes each
            checkpoint's own likeliest token.
        loading: keywords of `load_model` for all checkpoints.
        batch_size: as for `sweep`.
        progress: as for `sweep`.
        say: as for `sweep`.
        options: as for `sweep`; single patches aren't kept unless `keep` asks for them.

    Returns:
        The path of each result by label, in the order of `checkpoints`.

    Raises:
        HydrascopeError: no checkpoint is given, or two have one label; one can't be loaded, splits the prompts into
            other tokens than the last, or has other components; a stored result has other settings; or as `sweep`. The
            results that are finished stay.
    """
    known = _labelled(checkpoints)
    folder = resolve_path(out)
    paths = {label: folder / f"{label}.zarr" for label in known}
    chosen: dict[str, Any] = {"keep": "means", **options, "target": "argmax" if target == "shared" else target}
    config, settled, last = SweepConfig(**chosen), PromptSet.of(prompts), list(known)[-1]
    expected: Plan | None = None
    for label in (last, *(label for label in known if label != last)):
        with _named(label):
            model = load_model(known[label].model, revision=known[label].revision, **(loading or {}))
            if expected is None and target == "shared":
                settled = _settled(model, settled, ablation, config, batch_size, label)
                config = replace(config, target="answer")
            plan = make_plan(model, settled, ablation, config)
            expected = expected or plan
            _require_alike(plan, expected, last)
            sweep(
                model,
                settled,
                ablation,
                out=paths[label],
                resume=True,
                batch_size=batch_size,
                progress=progress,
                say=say,
                **{**chosen, "target": config.target},
            )
    return paths


def _labelled(checkpoints: Sequence[str | Path]) -> dict[str, Checkpoint]:
    """Return the checkpoints by label, in their order."""
    if isinstance(checkpoints, str | Path) or not checkpoints:
        raise HydrascopeError(f"a trajectory is of several checkpoints, not {checkpoints!r}: give a list of them")
    known: dict[str, Checkpoint] = {}
    for given in checkpoints:
        checkpoint = Checkpoint.of(given)
        if checkpoint.label in known:
            raise HydrascopeError(
                f"two checkpoints are called {checkpoint.label}: give each once, in folders or revisions of other names"
            )
        known[checkpoint.label] = checkpoint
    return known


@contextmanager
def _named(label: str) -> Iterator[None]:
    """Name the checkpoint in errors."""
    try:
        yield
    except HydrascopeError as error:
        raise HydrascopeError(f"checkpoint {label}: {error}") from error


def _settled(
    model: LanguageModel,
    prompts: PromptSet,
    ablation: Ablation | None,
    config: SweepConfig,
    batch_size: BatchSize,
    label: str,
) -> PromptSet:
    """Return the prompts with an answer each: their own, or the model's likeliest token.

    Raises:
        HydrascopeError: as `make_plan`; or a readout is read to each checkpoint's own runner-up.
    """
    fitted, _ = prompts.fit_to(model)
    plan = make_plan(model, fitted, ablation, config)
    if plan.reads_runner_up:
        raise HydrascopeError(
            "without foils a difference is read to each checkpoint's own runner-up: give every prompt a foil, or read "
            "the logit"
        )
    if all(prompt.answer is not None for prompt in fitted.prompts):
        return prompts
    # Whatever needs an answer was refused above, so that tokens don't depend on answers.
    kept = prepare(model, fitted).kept
    batch = plan.batch(batch_size)
    targets = compute_clean_activations(plan, batch, split_range(len(plan.tokens), batch.prompts)).targets
    answered = (replace(fitted.prompts[index], answer=int(target)) for index, target in zip(kept, targets, strict=True))
    return replace(fitted, prompts=tuple(answered), name=f"{fitted.name} answered by {label}")


def _require_alike(plan: Plan, expected: Plan, last: str) -> None:
    """Refuse a checkpoint that reads other tokens, or has other components, than the last."""
    if settings_of(plan)["tokens_hash"] != settings_of(expected)["tokens_hash"]:
        raise HydrascopeError(
            f"its tokenizer splits the prompts or answers into other tokens than that of {last}, so the targets would "
            "mean other words: give checkpoints of one model, each with the same tokenizer"
        )
    if (plan.components, plan.overrides) != (expected.components, expected.overrides):
        raise HydrascopeError(f"it has other components than {last}: give checkpoints of one model")
