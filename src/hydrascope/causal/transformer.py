"""What is a transformer as a causal model? Section 3 of the paper, for a loaded language model.

The exogenous variable is the prompt; the endogenous ones are what each component writes to the residual stream, the
final residual stream and the centred logits. Effects on it are computed by the definitions of `hydrascope.causal`,
slowly and beyond doubt: each variable's function is a plain forward pass of the model in which everything that the
variable reads has been set to its parents' values. The engines give the same numbers, fast.

The residual stream between layers is no variable. It is written out as the sum that it is, the unrolled view of
Eq. 21: each component reads the embedding and every component before it. Were the stream a variable, the direct
effect of Def. 3.3 would hold it fixed, and no component would have any.

The variables, their names and values (width: of the residual stream):

- `prompt` (exogenous): a text, token ids, or the token embeddings themselves `[position, width]` (to which noise
  can be added);
- `embed`: e, the residual stream before the first layer, `[width]`;
- `attn.0`, `mlp.0`, `attn.1`, …: y_c, what the component adds to the residual stream, `[width]`;
- `residual`: z, the final residual stream before the final norm, `[width]`;
- `logits`: π̂, the model's logits centred over the vocabulary (Eq. 9), before any soft-cap, `[vocabulary]`;
- `scale`, where asked for: σ of the final norm (Eq. 8), a number.

    >>> scm = final_position_scm(model)                                      # doctest: +SKIP
    >>> u = {"prompt": "The capital of France is"}                           # doctest: +SKIP
    >>> total_effect(scm, {"attn.3": value_in(other)}, "logits", u)[target]  # doctest: +SKIP
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from hydrascope.causal.model import CausalModel, Endogenous, Exogenous, Value
from hydrascope.components.component import Component
from hydrascope.models.hooks import Handle, by_prompt, hooked, on_input, on_output, on_site
from hydrascope.models.language_model import LanguageModel, wider
from hydrascope.utils.errors import HydrascopeError

#: A text, token ids, or token embeddings `[position, width]`.
Prompt = str | Sequence[int] | Tensor

#: What a forward pass is set to and read at: a part of the model and a position.
_Place = tuple[str, int]

#: Any token does where every value that is read has been set.
_ANY_TOKEN = 0


def final_position_scm(model: LanguageModel, prompts: Sequence[Prompt] = ()) -> CausalModel:
    """The causal model of what happens at a prompt's final position; earlier positions are a function of the prompt.

    Attention reads the prompt (its keys and values) and the final position; MLPs read the final position alone.

    Args:
        model: the language model.
        prompts: P(u) is uniform over them; without them, contexts cannot be sampled.

    Raises (when it is evaluated):
        HydrascopeError: the prompt is empty, longer than the model's context, or of no known form.
    """
    last = -1
    variables: list[Exogenous | Endogenous] = [
        _prompt(prompts),
        Endogenous("embed", lambda prompt: _run(model, prompt, {}, ("embed", last)), ("prompt",)),
    ]
    for component in model.sublayers:
        read = {name: (name, last) for name in ["embed", *_upstream(model, component)]}
        place = (str(component), last)
        if component.kind == "attn":
            variables.append(Endogenous(str(component), _reads_prompt(model, read, place), ("prompt", *read)))
        else:
            variables.append(Endogenous(str(component), _reads(model, read, place), tuple(read)))
    read = {name: (name, last) for name in ["embed", *map(str, model.sublayers)]}
    variables.append(Endogenous("residual", _reads(model, read, ("residual", last)), tuple(read)))
    variables.append(Endogenous("logits", _reads(model, read, ("logits", last)), tuple(read)))
    return CausalModel(*variables)


def every_position_scm(model: LanguageModel, length: int, prompts: Sequence[Prompt] = ()) -> CausalModel:
    """The causal model of all positions of prompts of `length` tokens: `embed@0`, `attn.0@0`, …, counting from 0.

    Attention at a position reads that position and all before it; `residual` and `logits` are the final position's.
    The edges grow with the square of layers × positions: it is for small models and short prompts.

    Args:
        model: the language model.
        length: of the prompts, in tokens.
        prompts: P(u) is uniform over them; without them, contexts cannot be sampled.

    Raises:
        HydrascopeError: the length isn't positive; or, when it is evaluated, the prompt isn't of that length.
    """
    if length < 1:
        raise HydrascopeError(f"a prompt has at least one token, not {length}")
    variables: list[Exogenous | Endogenous] = [_prompt(prompts)]
    for i in range(length):
        variables.append(Endogenous(f"embed@{i}", partial(_embed_at, model, length, i), ("prompt",)))
    for component in model.sublayers:
        upstream = ["embed", *_upstream(model, component)]
        for i in range(length):
            seen = range(i + 1) if component.kind == "attn" else [i]
            read = {f"{name}@{j}": (name, j) for j in seen for name in upstream}
            function = _reads(model, read, (str(component), i))
            variables.append(Endogenous(f"{component}@{i}", function, tuple(read)))
    last = length - 1
    read = {f"{name}@{last}": (name, last) for name in ["embed", *map(str, model.sublayers)]}
    variables.append(Endogenous("residual", _reads(model, read, ("residual", last)), tuple(read)))
    variables.append(Endogenous("logits", _reads(model, read, ("logits", last)), tuple(read)))
    return CausalModel(*variables)


def with_scale(model: LanguageModel, scm: CausalModel) -> CausalModel:
    """`scm` with one more variable, `scale`: σ of the final norm, which `logits` then reads too.

    A direct effect holds every other variable, so here it holds σ too: what is left is linear, and the contribution
    of a component (`hydrascope.causal.contribution`) is its unembedding ⟨y_c, r(σ)⟩ (Eq. 10, 25–28). Where `scale` is
    no variable the final norm is recomputed. Total effects are the same.

    Raises:
        HydrascopeError: `scm` has no variable `logits`, or has `scale` already.
    """
    if "logits" not in scm.endogenous or "scale" in scm.endogenous:
        raise HydrascopeError("with_scale takes the causal model of a language model, without a variable 'scale' yet")
    parts = scm.endogenous["logits"].parents

    def residual(values: Sequence[Value]) -> Tensor:
        places = {(name.partition("@")[0], 0): value for name, value in zip(parts, values, strict=True)}
        return _run(model, [_ANY_TOKEN], places, ("residual", 0))

    def scale(*values: Value) -> Tensor:
        return _sigma(model, residual(values))

    def logits(*values: Value) -> Tensor:
        *parts, sigma = values
        return _logits_at_scale(model, residual(parts), sigma)

    kept = [variable for name, variable in scm.endogenous.items() if name != "logits"]
    return CausalModel(
        *scm.exogenous.values(),
        *kept,
        Endogenous("scale", scale, parts),
        Endogenous("logits", logits, (*parts, "scale")),
        intervened=scm.intervened,
    )


def token_embeddings(model: LanguageModel, prompt: Prompt) -> Float[Tensor, "position width"]:
    """The embeddings of a prompt's tokens: a value of `prompt` to which noise can be added (Eq. 37)."""
    return model.hf.get_input_embeddings()(_inputs(model, prompt)["input_ids"])[0].detach()


def _prompt(prompts: Sequence[Prompt]) -> Exogenous:
    if not len(prompts):
        return Exogenous("prompt")
    return Exogenous("prompt", lambda rng: prompts[int(rng.integers(len(prompts)))])


def _upstream(model: LanguageModel, component: Component) -> list[str]:
    return [str(other) for other in model.sublayers if model.stage(other) < model.stage(component)]


def _reads(model: LanguageModel, read: Mapping[str, _Place], place: _Place) -> Callable[..., Tensor]:
    """The function of a variable that reads nothing but `read`: the prompt's tokens don't matter to it."""
    length = 1 + max(position for _, position in read.values())

    def function(*values: Value) -> Tensor:
        return _run(model, [_ANY_TOKEN] * max(length, 1), dict(zip(read.values(), values, strict=True)), place)

    return function


def _reads_prompt(model: LanguageModel, read: Mapping[str, _Place], place: _Place) -> Callable[..., Tensor]:
    """The function of a variable that reads the prompt's earlier positions too."""

    def function(prompt: Prompt, *values: Value) -> Tensor:
        return _run(model, prompt, dict(zip(read.values(), values, strict=True)), place)

    return function


def _embed_at(model: LanguageModel, length: int, position: int, prompt: Prompt) -> Tensor:
    inputs = next(iter(_inputs(model, prompt).values()))
    if inputs.shape[1] != length:
        raise HydrascopeError(f"the prompt has {inputs.shape[1]} tokens, and this causal model is of {length}")
    return _run(model, prompt, {}, ("embed", position))


@torch.no_grad()
def _run(model: LanguageModel, prompt: Prompt, values: Mapping[_Place, Value], place: _Place) -> Tensor:
    """One forward pass: every place in `values` is set, and what then stands at `place` is returned."""
    inputs = _inputs(model, prompt)

    def visit(name: str, multiplier: float, hidden: Tensor) -> Tensor:
        changed = hidden.clone()
        stream = by_prompt(changed, 1)[0]
        for (part, position), value in values.items():
            if part == name:
                stream[position] = torch.as_tensor(value, dtype=stream.dtype, device=stream.device) / multiplier
        if name == place[0]:
            raise _Reached(stream[place[1]] * multiplier)
        return changed

    scale = model.residual_scale

    def hooks() -> Iterator[Handle]:
        yield on_input(model.blocks[0], partial(visit, "embed", 1.0))
        for component in model.sublayers:
            yield on_site(model, component, partial(visit, str(component), scale))
        yield on_input(model.final_norm, partial(visit, "residual", 1.0))
        yield on_output(model.unembedding, partial(visit, "logits", 1.0))

    try:
        with model.measuring(), hooked(hooks()):
            model.hf(**inputs, use_cache=False)
    except _Reached as reached:
        return _centred(model, reached.value) if place[0] == "logits" else reached.value
    raise AssertionError(f"the forward pass of {model.name} does not come by {place[0]}")


class _Reached(Exception):
    """Ends a forward pass at the place that is read: nothing after it matters."""

    def __init__(self, value: Tensor) -> None:
        self.value = value


def _centred(model: LanguageModel, logits: Tensor) -> Tensor:
    """π̂ (Eq. 9), from what the unembedding gives."""
    logits = logits.to(wider(logits.dtype)) * model.logit_scale
    return logits - logits.mean(-1, keepdim=True)


def _sigma(model: LanguageModel, residual: Tensor) -> Tensor:
    """σ(z) (Eq. 8), or for LayerNorm the standard deviation."""
    residual = residual.to(wider(residual.dtype))
    if model.anatomy.norm_kind == "layer":
        residual = residual - residual.mean()
    return (residual.square().mean() + model.norm_eps).sqrt()


@torch.no_grad()
def _logits_at_scale(model: LanguageModel, residual: Tensor, sigma: Value) -> Tensor:
    """π̂ of a residual stream, the final norm dividing by `sigma` where it would by σ(z).

    A norm is its bias, which is what it makes of 0, plus something divided by σ(z): that part alone is rescaled.
    """
    bias = model.final_norm(torch.zeros_like(residual))
    normed = bias + (model.final_norm(residual) - bias) * (_sigma(model, residual) / sigma).to(residual.dtype)
    return _centred(model, model.unembedding(normed))


def _inputs(model: LanguageModel, prompt: Any) -> dict[str, Tensor]:
    """The model's arguments for one prompt, of any of the three kinds."""
    if isinstance(prompt, str):
        prompt = model.encode(prompt)
    values = torch.as_tensor(np.asarray(prompt) if not isinstance(prompt, Tensor) else prompt, device=model.device)
    if not len(values):
        raise HydrascopeError("the prompt has no tokens: give at least one")
    if model.context_length is not None and len(values) > model.context_length:
        raise HydrascopeError(f"the prompt has {len(values)} tokens, and the model takes {model.context_length}")
    if values.ndim == 2 and values.is_floating_point():
        return {"inputs_embeds": values.to(model.dtype)[None]}
    if values.ndim == 1 and not values.is_floating_point():
        return {"input_ids": values.long()[None]}
    raise HydrascopeError("a prompt is a text, a list of token ids, or token embeddings [position, width]")
