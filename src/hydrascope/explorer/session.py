"""A warm model that answers questions about one prompt, by the numbers of `sweep`."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import xarray as xr

from hydrascope.analyses.attention import measure_attention, select_heads
from hydrascope.analyses.next_tokens import measure_next_tokens
from hydrascope.analyses.one_prompt import require_donors, states_of
from hydrascope.analyses.position_map import measure_positions, plan_of_one
from hydrascope.components.component import Override
from hydrascope.components.selection import select_overrides
from hydrascope.engines import Readings, Request
from hydrascope.engines.clean.clean_pass import compute_clean_pass
from hydrascope.engines.metrics import logits_of
from hydrascope.engines.readouts import Logit
from hydrascope.explorer.answer import (
    answer,
    attention_answer,
    clean_components,
    map_answer,
    next_tokens,
    tokens_answer,
)
from hydrascope.explorer.job_monitor import JobMonitor, StoppedError
from hydrascope.explorer.patch_pool import Pool
from hydrascope.explorer.question import Question
from hydrascope.loading import self_check
from hydrascope.models.language_model import LanguageModel
from hydrascope.models.memory import Batch
from hydrascope.prompts.prompt import AnyPrompts, Prompt
from hydrascope.prompts.subjects import found_subject, subject_span
from hydrascope.prompts.token_ids import tokenize
from hydrascope.reports.pages import report
from hydrascope.runs.assemble import assemble, initial_dataset, measured_variables
from hydrascope.runs.batches import measure_chunks
from hydrascope.runs.config import SweepConfig, SweepOptions
from hydrascope.runs.plan import Plan, make_plan
from hydrascope.runs.sweep import sweep
from hydrascope.storage import reader, writer
from hydrascope.storage.schema import MEASURED_VARIABLES
from hydrascope.utils.errors import HydrascopeError

#: Tokens of a typed prompt, where the model sets no lower limit.
MOST_TOKENS = 2048

#: Of one prompt, so many runs are made at a time: between them it is told how far it is.
_RUNS_AT_ONCE = 64


class Session:
    """One model, and the clean activations of the prompts that patches come from.

        >>> session = Session(hs.load_model("built-in"), hs.load_prompts("demo").limit(64))      # doctest: +SKIP
        >>> session.ablate(Question("The currency of Angola is the", "attn.3|mlp.5"), JobMonitor())  # doctest: +SKIP

    Only one thread at a time may use it.
    """

    def __init__(self, model: LanguageModel, prompts: AnyPrompts) -> None:
        """Prepare the prompts; nothing is run yet.

        Args:
            prompts: the prompts that patches come from.

        Raises:
            HydrascopeError: as `hydrascope.sweep`, of a prompt that the model can't take.
        """
        self.model = model
        self.pool = Pool(model, prompts)
        self._as_found = model.verified_state

    def warm(self, monitor: JobMonitor) -> None:
        """Run the prompts that patches come from, before the first question."""
        with monitor.attach(self.model):
            self.pool.warm(monitor)

    def read(self, question: Question, monitor: JobMonitor) -> dict[str, Any]:
        """Return a prompt's tokens, subject, likeliest next tokens, clean writes and attention."""
        tokens = self._tokens(question)
        with monitor.attach(self.model), torch.no_grad():
            logits = logits_of(self.model, compute_clean_pass(self.model, [tokens], []).final)[0]
        # The clean pass is read in every run: this one is the smallest.
        last = Override(self.model.sublayers[-1:])
        least = replace(question, ablation="zero", at="last")
        results = self.measured(least, [last], monitor)
        return {
            **next_tokens(self.model, tokens, logits),
            "subject": found_subject(self.model, self.pool.prompt_of(question)),
            "components": clean_components(results),
            "attention": self._attention(least, (), monitor),
        }

    def ablate(self, question: Question, monitor: JobMonitor) -> dict[str, Any]:
        """Return the effects of the question's override, and the worth of its frozen components."""
        asked = self._run(question)
        results = self.measured(question, _with_its_parts(asked), monitor)
        return {
            **answer(self.model, results, asked),
            "next": self._next(question, asked, monitor),
            "attention": self._attention(question, states_of(asked), monitor),
        }

    def _next(self, question: Question, asked: Override, monitor: JobMonitor) -> list[dict[str, Any]]:
        """Return the likeliest next tokens: clean, ablated, and with components frozen."""
        plan, index = self._plan(question, states_of(asked))
        with monitor.attach(self.model):
            clean = self.pool.clean_runs(plan, index, question, monitor)
            return tokens_answer(measure_next_tokens(plan, clean, index))

    def _attention(
        self, question: Question, states: tuple[Override, ...], monitor: JobMonitor
    ) -> dict[str, Any] | None:
        """Return the attention of the heads that are read, clean and in some states.

        Without heads it is None. A model whose weights can't be read answers all else, and gives the reason here.
        """
        if not question.heads:
            return None
        heads = select_heads(self.model, [f"heads.{block}" for block in question.heads])
        # Of the clean pass alone, the smallest override is asked, too.
        plan, index = self._plan(question, states or [Override(self.model.sublayers[-1:])])
        with monitor.attach(self.model):
            clean = self.pool.clean_runs(plan, index, question, monitor)
            try:
                found = measure_attention(plan, clean, index, heads)
            except StoppedError:
                raise
            except HydrascopeError as error:
                return {"refused": str(error)}
        return attention_answer(found.isel(state=slice(1 + len(states))))

    def sweep(self, question: Question, monitor: JobMonitor) -> xr.Dataset:
        """Return a result of one prompt with each sublayer ablated alone."""
        return self.measured(question, "layers", monitor)

    def map(self, question: Question, monitor: JobMonitor) -> dict[str, Any]:
        """Return the position map of the prompt, whatever components and positions are asked."""
        self._renew()
        everywhere = replace(question, at="all", run="", heads=())
        tokens = self._tokens(everywhere)
        plan, index = self._plan(everywhere, "layers")
        if question.ablation == "zero":
            # Nothing comes from other prompts: they needn't be run at all of their positions.
            plan, index = plan_of_one(plan, index), 0
        require_donors(plan, index)
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            monitor.progress("mapping tokens", done, len(tokens))

        with monitor.attach(self.model, lambda: monitor.progress("mapping tokens", done, len(tokens))):
            clean = self.pool.clean_runs(plan, index, everywhere, monitor)
            return map_answer(measure_positions(replace(plan, keep="effects"), clean, index, advance))

    def measured(self, question: Question, overrides: str | Sequence[Override], monitor: JobMonitor) -> xr.Dataset:
        """Return the result of `hydrascope.sweep` for the prompt as one of the pool."""
        self._renew()
        self._tokens(question)
        plan, index = self._plan(question, overrides)
        with monitor.attach(self.model):
            clean = self.pool.clean_runs(plan, index, question, monitor)
            watched = replace(plan, engine=replace(plan.engine, measure=_counted(plan, monitor)))
            batch = Batch(1, min(plan.batch(1).overrides, _RUNS_AT_ONCE))
            chunks = list(measure_chunks(watched, clean, [range(index, index + 1)], batch))
            return assemble(initial_dataset(plan, clean).isel(prompt=[index]), measured_variables(plan, chunks), {})

    def save(self, question: Question, place: Path, monitor: JobMonitor) -> dict[str, Any]:
        """Save the prompt's result and its report.

        Args:
            place: the path of both, without an ending.

        Raises:
            HydrascopeError: there is such a result or report, or they can't be written.
        """
        out, page = _new(place)
        results = self.measured(question, self._kept(question), monitor)
        measured = [name for name in MEASURED_VARIABLES if name in results]
        empty = {name: (MEASURED_VARIABLES[name].dims, str(results[name].dtype)) for name in measured}
        sizes = {str(dim): size for dim, size in results.sizes.items()}
        with writer.create(out, results.drop_vars(measured), empty, sizes, 1) as result:
            variables = results[measured]
            result.write(
                0, variables.drop_vars(variables.coords), {"worst_imbalance": results.attrs["worst_imbalance"]}
            )
        return _told(out, page)

    def save_all(self, question: Question, place: Path, monitor: JobMonitor) -> dict[str, Any]:
        """Ask the question of all prompts of the pool, and save the result and its report.

        Nothing is left behind if it is stopped or refused.

        Args:
            place: as for `save`.

        Raises:
            HydrascopeError: as `save`; or one of the prompts can't be patched so.
        """
        out, page = _new(place)
        self._renew()
        self._tokens(question)
        prompts, _ = self.pool.prompts_for(question)
        options = self._options(question, self._kept(question))

        def look() -> None:
            if out.exists():
                monitor.progress("measuring", reader.read_attributes(out)["measured"], len(prompts.prompts))

        try:
            with monitor.attach(self.model, look):
                sweep(self.model, prompts, question.make_ablation(), out=out, batch_size=2, **options)
        except HydrascopeError:
            shutil.rmtree(out, ignore_errors=True)
            raise
        return _told(out, page)

    def _renew(self) -> None:
        """Forget the pool's clean activations if the model has changed, as by training."""
        self_check.revalidate_if_changed(self.model)
        if self.model.verified_state is not self._as_found:
            self.pool = Pool(self.model, self.pool.prompts)
            self._as_found = self.model.verified_state

    def _kept(self, question: Question) -> str | list[Override]:
        """Return the overrides to save: each sublayer alone where the question names none."""
        return list(_with_its_parts(self._run(question))) if question.run else "layers"

    def _plan(self, question: Question, overrides: str | Sequence[Override]) -> tuple[Plan, int]:
        prompts, index = self.pool.prompts_for(question)
        config = replace(SweepConfig(**self._options(question, overrides)), keep="patches")
        return make_plan(self.model, prompts, question.make_ablation(), config), index

    def _options(self, question: Question, overrides: str | Sequence[Override]) -> SweepOptions:
        """Return the options of `hydrascope.sweep` that a question stands for, besides its ablation."""
        heads = [f"heads.{block}" for block in question.heads]
        return {
            "ablate": overrides,
            "read": ",".join(["layers", *heads]),
            "at": question.at,
            "readouts": [Logit()],
            # Of a sweep they would take as long as all else: every run's logits.
            "metrics": [] if overrides == "layers" else ["prob", "top"],
            "target": "argmax" if question.target is None else question.target,
        }

    def _tokens(self, question: Question) -> list[int]:
        """Return the prompt's token ids.

        Raises:
            HydrascopeError: there are too many or too few for the model or the positions, or none of a subject's.
        """
        tokens = tokenize(self.model, [question.prompt()])[0]
        if len(tokens) > MOST_TOKENS:
            raise HydrascopeError(
                f"the prompt is {len(tokens):,} tokens long, and {MOST_TOKENS:,} are read: shorten it"
            )
        if (first := min(question.positions(), default=-1)) < -len(tokens):
            raise HydrascopeError(f"the prompt has no position {first}: it is {len(tokens)} tokens long")
        if question.at_subject:
            self._require_subject(self.pool.prompt_of(question))
        return tokens

    def _require_subject(self, prompt: Prompt) -> None:
        if not (prompt.subject or "").strip():
            raise HydrascopeError("the prompt's subject isn't known: type it as it is written in the prompt")
        subject_span(self.model, 1, prompt)

    def _run(self, question: Question) -> Override:
        """Return the override of the question.

        Raises:
            HydrascopeError: it names no component of the model, or several overrides.
        """
        overrides = select_overrides(self.model, question.run)
        if len(overrides) != 1:
            raise HydrascopeError(f"{question.run!r:.60} are {len(overrides)} runs: write one, as attn.3+mlp.5|mlp.7")
        return overrides[0]


def _new(place: Path) -> tuple[Path, Path]:
    """Return the paths of the result and the report, neither of which may exist."""
    found = place.with_name(f"{place.name}.zarr"), place.with_name(f"{place.name}.html")
    for path in found:
        if path.exists():
            raise HydrascopeError(f"{path.name} exists: choose another name")
    return found


def _told(out: Path, page: Path) -> dict[str, Any]:
    """Write the report of a result, and return the paths of both."""
    results = reader.open_results(out)
    report(results, page)
    return {"result": str(out), "report": str(page), "prompts": results.sizes["prompt"]}


def _with_its_parts(override: Override) -> tuple[Override, ...]:
    """Return an override, with nothing frozen, and with each component frozen alone."""
    single = [Override(override.ablated, (component,)) for component in override.frozen]
    return tuple(dict.fromkeys((override, Override(override.ablated), *single)))


def _counted(plan: Plan, monitor: JobMonitor) -> Callable[[LanguageModel, Request], Readings]:
    """Return the engine of `plan`, reporting the number of overrides that it has measured."""
    done = 0

    def measure(model: LanguageModel, request: Request) -> Readings:
        nonlocal done
        monitor.progress("measuring", done, len(plan.overrides))
        done += len(request.overrides)
        return plan.engine.measure(model, request)

    return measure
