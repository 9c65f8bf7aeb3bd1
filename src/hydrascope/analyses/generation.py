"""Override components of a model while it generates, or runs in any other way.

The overrides are hooks on the model's own modules, so that everything that runs it (`generate`, a pipeline, a chat)
runs it with them, with its key/value cache.
"""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from hydrascope.analyses.activations import activations
from hydrascope.components.component import Component, Override
from hydrascope.components.selection import Selection, refuse_terms, select_overrides
from hydrascope.loading.any_model import takes_any_model
from hydrascope.models.hooks import Handle, as_given, by_prompt, hooked, on_site
from hydrascope.models.language_model import OVERRIDDEN, LanguageModel
from hydrascope.models.torch_state import plain_torch
from hydrascope.prompts.prompt import AnyPrompts
from hydrascope.utils.errors import HydrascopeError

#: Positions of an override in each forward pass: the last of each row, or all.
Step = Literal["last", "all"]

#: What overridden components write: zeros, their mean over prompts, a vector, or a vector for each component.
By = Literal["zero", "mean"] | Any

_BY = "give 'zero', 'mean' with prompts, a vector, or a vector for each component, {'head.9.6': vector}"


@takes_any_model
@contextmanager
def override(
    model: LanguageModel,
    components: Selection,
    *,
    by: By = "zero",
    at: Step = "last",
    prompts: AnyPrompts | None = None,
) -> Iterator[Any]:
    """Override components of a model for the length of a `with` block, in which it may generate.

        >>> tokens = torch.tensor([model.encode("the fox in the garden is")])
        >>> with hs.override(model, "attn.3+head.4.1", by="zero") as hf:
        ...     answer = hf.generate(tokens, max_new_tokens=1, do_sample=False)
        >>> answer.shape
        torch.Size([1, 7])

    With `at="last"` each forward pass is overridden at the last position of each row: those from which the next tokens
    are predicted. With a key/value cache, as `generate` has by default, earlier positions keep what was written then.
    Without one, they are computed again, without the override. With `at="all"` every position is overridden, those of
    the prompt as well.

    Args:
        model: the model; a transformers model is proven as `hs.load_model` does, each time.
        components: all that are overridden, as for `hs.sweep`; nothing can be frozen.
        by: what they write: `zero`; `mean`, over `prompts` at their last position (`at="last"`) or over all positions
            of all; or an activation `[column]`, as `hs.activations` gives it, or one for each component, by label.
        at: `last` or `all`.
        prompts: those of the mean, as for `hs.sweep`. A transformers model has no tokenizer here: give token ids.

    Yields:
        The transformers model. Its hooks are removed at the end, after an error as well. Until then hydrascope refuses
        to measure with it.

    Raises:
        HydrascopeError: the components, `by` or `at` are wrong; or a pass takes several tokens after cached ones
            (assisted generation, a text in chunks), whose last positions nobody knows.
    """
    if at not in get_args(Step):
        raise HydrascopeError(f"unknown at {at!r}: choose last or all")
    if (by == "mean" if isinstance(by, str) else False) != (prompts is not None):
        raise HydrascopeError("prompts are those of by='mean': give both, or neither")
    values = _values(model, _components(model, components), by, at, prompts)
    hf, base = model.hf, model.hf.base_model
    with hooked(_hooks(model, values, at)):
        setattr(base, OVERRIDDEN, getattr(base, OVERRIDDEN, 0) + 1)
        try:
            yield hf
        finally:
            left = getattr(base, OVERRIDDEN) - 1
            setattr(base, OVERRIDDEN, left)
            if not left:
                delattr(base, OVERRIDDEN)


def _components(model: LanguageModel, selection: Selection) -> tuple[Component, ...]:
    """Return all components that a selection names, to be overridden together.

    Raises:
        HydrascopeError: the selection is wrong, or freezes something.
    """
    overrides = select_overrides(model, selection)
    refuse_terms((component for each in overrides for component in each.overridden), "generation")
    frozen = [each for each in overrides if each.frozen]
    if frozen:
        raise HydrascopeError(f"{frozen[0]} freezes a component, which no generation can: name those to override")
    together = Override(tuple(dict.fromkeys(component for each in overrides for component in each.ablated)))
    return select_overrides(model, together)[0].ablated


@plain_torch()
def _values(
    model: LanguageModel, components: Sequence[Component], by: By, at: Step, prompts: AnyPrompts | None
) -> dict[Component, Float[Tensor, "column"]]:
    """Return what each component writes.

    Raises:
        HydrascopeError: `by` is nothing that it can write.
    """
    if isinstance(by, str):
        if by == "mean":
            assert prompts is not None
            return _means(model, components, at, prompts)
        if by != "zero":
            raise HydrascopeError(f"unknown by {by!r}: {_BY}")
        return {component: torch.zeros(_columns(model, component)) for component in components}
    if isinstance(by, Mapping):
        given = {str(Component.parse(str(label))): vector for label, vector in by.items()}
        named = {str(component) for component in components}
        if given.keys() != named:
            wrong = sorted(given.keys() ^ named)[0]
            raise HydrascopeError(f"by and the components differ in {wrong}: give a vector for each that is overridden")
        return {component: _vector(model, component, given[str(component)]) for component in components}
    if len(components) > 1:
        raise HydrascopeError(f"one vector for {len(components)} components: {_BY}")
    return {components[0]: _vector(model, components[0], by)}


def _means(
    model: LanguageModel, components: Sequence[Component], at: Step, prompts: AnyPrompts
) -> dict[Component, Float[Tensor, "column"]]:
    """Return the mean activation of each component over prompts and positions."""
    means: dict[Component, Tensor] = {}
    for width in {_columns(model, component) for component in components}:
        alike = [component for component in components if _columns(model, component) == width]
        found = activations(model, prompts, alike, at=at, keep=["activation"])["activation"]
        # Slots that a prompt doesn't have are NaN, and don't count.
        values = found.mean(("prompt", "slot"), skipna=True, dtype=np.float64).values
        means |= {component: torch.from_numpy(value) for component, value in zip(alike, values, strict=True)}
    return means


def _vector(model: LanguageModel, component: Component, vector: Any) -> Float[Tensor, "column"]:
    width = _columns(model, component)
    try:
        numbers = vector.detach().clone() if isinstance(vector, Tensor) else torch.from_numpy(np.array(vector, float))
    except (TypeError, ValueError) as error:
        raise HydrascopeError(f"{component} cannot be overridden by a {type(vector).__name__}: {_BY}") from error
    if tuple(numbers.shape) != (width,):
        raise HydrascopeError(f"the vector for {component} has the shape {list(numbers.shape)}: give {width} numbers")
    if not numbers.isfinite().all():
        raise HydrascopeError(f"the vector for {component} holds a number that is not finite: give finite numbers")
    return numbers


def _columns(model: LanguageModel, component: Component) -> int:
    return model.projection(component.sublayer).width if component.is_unit else model.width


def _hooks(model: LanguageModel, values: Mapping[Component, Tensor], at: Step) -> Iterator[Handle]:
    """Register the hooks of an override: some that find the last positions, one on each site."""
    shape: dict[str, Any] = {}

    def look(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        shape.update(rows=None, last=None)
        given = inspect.signature(module.forward).bind(*args, **kwargs).arguments
        ids = given.get("input_ids")
        inputs: Tensor = given["inputs_embeds"] if ids is None else ids
        shape["rows"] = inputs.shape[0]
        if at == "last":
            shape["last"] = _last_positions(given, inputs)

    def change(site: Component, hidden: Tensor) -> Tensor:
        changed = hidden.clone()
        rows = by_prompt(changed, shape["rows"])
        for component, value in values.items():
            if component.site == site:
                _write(rows, shape["last"], model.columns(component), value)
        return as_given(rows, hidden)

    # OPT's goes past its base model; others may be run without the head.
    for module in (model.hf, model.hf.base_model):
        yield module.register_forward_pre_hook(look, with_kwargs=True)
    for site in dict.fromkeys(component.site for component in values):
        yield on_site(model, site, partial(change, site))


def _write(
    rows: Float[Tensor, "row position columns"], last: Int[Tensor, "row"] | None, columns: slice, value: Tensor
) -> None:
    """Write a value at the last positions, or at all."""
    if last is None:
        rows[..., columns] = value.to(rows)
    else:
        rows[torch.arange(len(rows), device=rows.device), last.to(rows.device), columns] = value.to(rows)


def _last_positions(given: Mapping[str, Any], inputs: Tensor) -> Int[Tensor, "row"]:
    """Return the last position of each row that isn't padding.

    Raises:
        HydrascopeError: the pass takes several tokens after cached ones.
    """
    length = inputs.shape[1]
    cache = given.get("past_key_values")
    cached = 0 if cache is None else int(cache.get_seq_length())
    if cached and length > 1:
        raise HydrascopeError(
            f"a pass of {length} tokens after {cached:,} cached ones: with at='last' generate one token a step, "
            "without assistants or chunks, and run a text as a whole; or give at='all'"
        )
    last = torch.full((inputs.shape[0],), length - 1, device=inputs.device)
    mask = given.get("attention_mask")
    if isinstance(mask, Tensor) and mask.ndim == 2 and length > 1:
        numbers = torch.arange(mask.shape[1], device=mask.device)
        last = torch.where(mask.bool(), numbers, -1).amax(-1)
    return last
