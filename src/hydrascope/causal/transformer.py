"""A loaded language model as a causal model (section 3 of the paper).

The exogenous variable is the prompt. The endogenous variables are the outputs of sublayers, the final residual stream
and the centred logits. Each variable's function is a plain forward pass in which everything that the variable reads is
set to its parents' values. Effects follow from the definitions of `hydrascope.causal`. They agree with the engines'
numbers, but take much longer.

The residual stream between sublayers is no variable. It is written out as a sum (Eq. 21): each sublayer reads the
embedding and every sublayer before it. If the stream were a variable, the direct effect of Def. 3.3 would freeze it,
and no sublayer would have a direct effect.

The variables and their values (`width` is that of the residual stream):

- `prompt` (exogenous): a text, token ids, or token embeddings `[position, width]`, to which noise can be added;
- `embed`: e, the residual stream before the first block, `[width]`;
- `attn.0`, `mlp.0`, `attn.1`, …: y_c, the sublayer's addition to the residual stream, `[width]`;
- `residual`: z, the final residual stream before the final norm, `[width]`;
- `logits`: π̂, the model's logits centred over the vocabulary (Eq. 9), before any soft-cap, `[vocabulary]`;
- `scale`, added by `with_scale`: σ of the final norm (Eq. 8), a number.

    >>> from hydrascope.causal import total_effect, value_in
    >>> scm = final_position_scm(model)
    >>> context, other = ({"prompt": prompt.text} for prompt in prompts.prompts[:2])
    >>> effect = total_effect(scm, {"attn.3": value_in(other)}, "logits", context)
    >>> effect.shape == (model.vocabulary,)
    True
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

#: A variable in a forward pass: its name and a token position.
_Site = tuple[str, int]

#: The token of a pass in which every value that is read has been set; any token will do.
_ANY_TOKEN = 0


def final_position_scm(model: LanguageModel, prompts: Sequence[Prompt] = ()) -> CausalModel:
    """Return the causal model of a prompt's final position.

    Attention reads the prompt, through earlier keys and values, and the final position. MLPs read the final position
    alone.

        >>> final_position_scm(model).endogenous["mlp.0"].parents
        ('embed', 'attn.0')

    Args:
        model: the language model.
        prompts: the support of P(u), which is uniform over it. Without prompts, contexts can't be sampled.

    Returns:
        The causal model. Its evaluation raises a `HydrascopeError` if the prompt is empty, longer than the model's
        context, or neither a text, token ids nor embeddings.
    """
    last = -1
    variables: list[Exogenous | Endogenous] = [
        _prompt(prompts),
        Endogenous("embed", lambda prompt: _run(model, prompt, {}, ("embed", last)), ("prompt",)),
    ]
    for component in model.sublayers:
        read = {name: (name, last) for name in ["embed", *_upstream(model, component)]}
        site = (str(component), last)
        if component.kind == "attn":
            variables.append(Endogenous(str(component), _function_of_prompt(model, read, site), ("prompt", *read)))
        else:
            variables.append(Endogenous(str(component), _function(model, read, site), tuple(read)))
    read = {name: (name, last) for name in ["embed", *map(str, model.sublayers)]}
    variables.append(Endogenous("residual", _function(model, read, ("residual", last)), tuple(read)))
    variables.append(Endogenous("logits", _function(model, read, ("logits", last)), tuple(read)))
    return CausalModel(*variables)


def every_position_scm(model: LanguageModel, length: int, prompts: Sequence[Prompt] = ()) -> CausalModel:
    """Return the causal model of all positions of prompts with `length` tokens.

    Its variables are `embed@0`, `attn.0@0`, …, with positions counted from 0; `residual` and `logits` are those of the
    final position. Attention at a position reads that position and all before it. The number of edges grows with the
    square of sublayers × positions, so the model must be small and the prompts short.

        >>> every_position_scm(model, 2).endogenous["mlp.0@1"].parents
        ('embed@1', 'attn.0@1')

    Args:
        model: the language model.
        length: the length of the prompts, in tokens.
        prompts: the support of P(u), which is uniform over it. Without prompts, contexts can't be sampled.

    Returns:
        The causal model. Its evaluation raises a `HydrascopeError` if the prompt has another length.

    Raises:
        HydrascopeError: `length` isn't positive.
    """
    if length < 1:
        raise HydrascopeError(f"a prompt has at least one token, not {length}")
    variables: list[Exogenous | Endogenous] = [_prompt(prompts)]
    for i in range(length):
        variables.append(Endogenous(f"embed@{i}", partial(_embed_at, model, length, i), ("prompt",)))
    for component in model.sublayers:
        upstream = ["embed", *_upstream(model, component)]
        for i in range(length):
            positions = range(i + 1) if component.kind == "attn" else [i]
            read = {f"{name}@{j}": (name, j) for j in positions for name in upstream}
            function = _function(model, read, (str(component), i))
            variables.append(Endogenous(f"{component}@{i}", function, tuple(read)))
    last = length - 1
    read = {f"{name}@{last}": (name, last) for name in ["embed", *map(str, model.sublayers)]}
    variables.append(Endogenous("residual", _function(model, read, ("residual", last)), tuple(read)))
    variables.append(Endogenous("logits", _function(model, read, ("logits", last)), tuple(read)))
    return CausalModel(*variables)


def with_scale(model: LanguageModel, scm: CausalModel) -> CausalModel:
    """Return `scm` with one more variable, `scale`: σ of the final norm, a parent of `logits`.

    A direct effect freezes every other variable, and so σ too. It is then linear, and the contribution of a component
    (`hydrascope.causal.contribution`) is its unembedding ⟨y_c, r(σ)⟩ (Eq. 10, 25–28). Without `scale`, the final norm
    is recomputed. Total effects are the same.

        >>> scm = with_scale(model, final_position_scm(model))
        >>> scm.endogenous["logits"].parents[-1]
        'scale'

    Args:
        model: the language model.
        scm: the model's causal model, from `final_position_scm` or `every_position_scm`.

    Raises:
        HydrascopeError: `scm` has no variable `logits`, or has `scale` already.
    """
    if "logits" not in scm.endogenous or "scale" in scm.endogenous:
        raise HydrascopeError("with_scale takes the causal model of a language model, without a variable 'scale' yet")
    components = scm.endogenous["logits"].parents

    def residual(values: Sequence[Value]) -> Tensor:
        set_values = {(name.partition("@")[0], 0): value for name, value in zip(components, values, strict=True)}
        return _run(model, [_ANY_TOKEN], set_values, ("residual", 0))

    def scale(*values: Value) -> Tensor:
        return _sigma(model, residual(values))

    def logits(*values: Value) -> Tensor:
        *outputs, sigma = values
        return _logits_at_scale(model, residual(outputs), sigma)

    kept = [variable for name, variable in scm.endogenous.items() if name != "logits"]
    return CausalModel(
        *scm.exogenous.values(),
        *kept,
        Endogenous("scale", scale, components),
        Endogenous("logits", logits, (*components, "scale")),
        intervened=scm.intervened,
    )


def token_embeddings(model: LanguageModel, prompt: Prompt) -> Float[Tensor, "position width"]:
    """Return the embeddings of a prompt's tokens `[position, width]`.

    As the value of `prompt`, they are numeric, so noise can be added to them (Eq. 37).

    >>> context = {"prompt": token_embeddings(model, prompts.prompts[0].text)}
    """
    embeddings: Tensor = model.hf.get_input_embeddings()(_inputs(model, prompt)["input_ids"])
    return embeddings[0].detach()


def _prompt(prompts: Sequence[Prompt]) -> Exogenous:
    if not len(prompts):
        return Exogenous("prompt")
    return Exogenous("prompt", lambda rng: prompts[int(rng.integers(len(prompts)))])


def _upstream(model: LanguageModel, component: Component) -> list[str]:
    return [str(other) for other in model.sublayers if model.stage(other) < model.stage(component)]


def _function(model: LanguageModel, read: Mapping[str, _Site], site: _Site) -> Callable[..., Tensor]:
    """Return the function of a variable that depends on `read` but not on the prompt."""
    length = 1 + max(position for _, position in read.values())

    def function(*values: Value) -> Tensor:
        return _run(model, [_ANY_TOKEN] * max(length, 1), dict(zip(read.values(), values, strict=True)), site)

    return function


def _function_of_prompt(model: LanguageModel, read: Mapping[str, _Site], site: _Site) -> Callable[..., Tensor]:
    """Return the function of a variable that depends on `read` and on the prompt."""

    def function(prompt: Prompt, *values: Value) -> Tensor:
        return _run(model, prompt, dict(zip(read.values(), values, strict=True)), site)

    return function


def _embed_at(model: LanguageModel, length: int, position: int, prompt: Prompt) -> Tensor:
    inputs = next(iter(_inputs(model, prompt).values()))
    if inputs.shape[1] != length:
        raise HydrascopeError(f"the prompt has {inputs.shape[1]} tokens: this causal model takes {length}")
    return _run(model, prompt, {}, ("embed", position))


@torch.no_grad()
def _run(model: LanguageModel, prompt: Prompt, values: Mapping[_Site, Value], site: _Site) -> Tensor:
    """Return the value at `site` in a forward pass in which all sites in `values` are set."""
    inputs = _inputs(model, prompt)

    def visit(name: str, multiplier: float, hidden: Tensor) -> Tensor:
        changed = hidden.clone()
        stream = by_prompt(changed, 1)[0]
        for (component, position), value in values.items():
            if component == name:
                stream[position] = torch.as_tensor(value, dtype=stream.dtype, device=stream.device) / multiplier
        if name == site[0]:
            raise _Reached(stream[site[1]] * multiplier)
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
        return _centred(model, reached.value) if site[0] == "logits" else reached.value
    raise AssertionError(f"the forward pass of {model.name} does not reach {site[0]}")


class _Reached(Exception):
    """The signal that ends a forward pass once the value to return is reached."""

    def __init__(self, value: Tensor) -> None:
        self.value = value


def _centred(model: LanguageModel, logits: Tensor) -> Tensor:
    """Return the centred logits π̂ (Eq. 9) from the unembedding's output."""
    logits = logits.to(wider(logits.dtype)) * model.logit_scale
    return logits - logits.mean(-1, keepdim=True)


def _sigma(model: LanguageModel, residual: Tensor) -> Tensor:
    """Return σ(z) (Eq. 8); for LayerNorm, the standard deviation."""
    residual = residual.to(wider(residual.dtype))
    if model.anatomy.norm_kind == "layer":
        residual = residual - residual.mean()
    return (residual.square().mean() + model.norm_eps).sqrt()


@torch.no_grad()
def _logits_at_scale(model: LanguageModel, residual: Tensor, sigma: Value) -> Tensor:
    """Return π̂ of a residual stream with `sigma` in place of σ(z) in the final norm.

    A norm's output is its bias (its output for 0) plus a term divided by σ(z). Only that term is rescaled.
    """
    bias = model.final_norm(torch.zeros_like(residual))
    normed = bias + (model.final_norm(residual) - bias) * (_sigma(model, residual) / sigma).to(residual.dtype)
    return _centred(model, model.unembedding(normed))


def _inputs(model: LanguageModel, prompt: Any) -> dict[str, Tensor]:
    """Return the model's arguments for one prompt: a text, token ids or token embeddings."""
    if isinstance(prompt, str):
        prompt = model.encode(prompt)
    values = torch.as_tensor(np.asarray(prompt) if not isinstance(prompt, Tensor) else prompt, device=model.device)
    if not len(values):
        raise HydrascopeError("the prompt has no tokens: give at least one")
    if model.context_length is not None and len(values) > model.context_length:
        raise HydrascopeError(f"the prompt has {len(values)} tokens: the model takes at most {model.context_length}")
    if values.ndim == 2 and values.is_floating_point():
        return {"inputs_embeds": values.to(model.dtype)[None]}
    if values.ndim == 1 and not values.is_floating_point():
        return {"input_ids": values.long()[None]}
    raise HydrascopeError("a prompt is a text, a list of token ids, or token embeddings [position, width]")
