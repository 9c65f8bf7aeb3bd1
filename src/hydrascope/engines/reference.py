"""The reference engine: every row is a plain forward pass of the whole prompt, with hooks.

Slow, for any model, and obviously right: the oracle that the wavefront engine is tested against, and the fallback
for models that it can't carry. Each prompt is run alone, without padding; the centred logit is read off the model's
own logits over the whole vocabulary, not through the readout direction.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from hydrascope.components import Component
from hydrascope.engines.clean import clean_run
from hydrascope.engines.hooks import by_prompt, hooked, on_input, on_output
from hydrascope.engines.rows import CLEAN, Effects, Request, Row
from hydrascope.model import LanguageModel, wider
from hydrascope.readout import Readout

#: Rows run in one forward pass.
ROWS = 16


@torch.no_grad()
def measure(model: LanguageModel, request: Request) -> Effects:
    """Run the plan of `request` on each of its prompts by plain forward passes; see `Effects`."""
    each = [_measure_prompt(model, request, prompt) for prompt in range(len(request.tokens))]

    def stacked(name: str) -> Tensor:
        return torch.stack([getattr(effects, name) for effects in each]).cpu()

    tensors = (name for name in Effects.__dataclass_fields__ if name != "clean_error")
    return Effects(
        **{name: stacked(name) for name in tensors}, clean_error=max(effects.clean_error for effects in each)
    )


def _measure_prompt(model: LanguageModel, request: Request, prompt: int) -> Effects:
    """The effects on one prompt, without the prompt dimension."""
    tokens = request.tokens[prompt]
    wide = wider(model.dtype)
    target = int(request.targets[prompt])
    clean = clean_run(model, [tokens])
    readout = Readout.of(model, request.targets[prompt : prompt + 1])
    scale = readout.scale(clean.final)
    logit = _centred(clean.logits(model), target)
    patches = {component: values[prompt].to(model.device) for component, values in request.patches.items()}
    index = {component: i for i, component in enumerate(model.components)}

    unembed, logits, finals, deltas = [], [], [], []
    for start in range(0, len(request.rows), ROWS):
        rows = request.rows[start : start + ROWS]
        overrides = _overrides(rows, patches, clean.written[0], index)
        written, final, row_logits = _ablated_run(model, tokens, len(rows), overrides)
        delta = torch.zeros(len(rows), model.width, dtype=wide, device=model.device)
        for component, (where, values) in overrides.items():
            delta[where] += values.to(wide) - clean.written[0, index[component]].to(wide)
        unembed.append(readout.unscaled(written[None])[0] / scale)
        logits.append(_centred(row_logits, target))
        finals.append(final)
        deltas.append(delta)
    final, delta = torch.cat(finals).to(wide), torch.cat(deltas)
    return Effects(
        unembed=readout.unscaled(clean.written)[0] / scale,
        embed=(readout.unscaled(clean.embed) / scale)[0],
        logit=logit[0],
        row_unembed=torch.cat(unembed),
        row_logit=torch.cat(logits),
        row_frozen=readout.unscaled(final[None])[0] / scale + readout.constant,
        row_direct=readout.logit((clean.final.to(wide) + delta)[None])[0],
        row_indirect=readout.logit((final - delta)[None])[0],
        row_scale=scale / readout.scale(final),
        clean_error=float((readout.logit(clean.final) - logit).abs().max()),
    )


def _centred(logits: Tensor, target: int) -> Tensor:
    """The centred logit of `target` (Eq. 9)."""
    logits = logits.to(wider(logits.dtype))
    return logits[..., target] - logits.mean(-1)


def _overrides(
    rows: Sequence[Row], patches: dict[Component, Tensor], written: Tensor, index: dict[Component, int]
) -> dict[Component, tuple[list[int], Tensor]]:
    """Per overridden component: which of `rows` override it, and with what `[row, width]`."""
    found: dict[Component, tuple[list[int], list[Tensor]]] = {}
    for number, row in enumerate(rows):
        for component, value in row.overrides:
            where, values = found.setdefault(component, ([], []))
            where.append(number)
            values.append(written[index[component]] if value is CLEAN else patches[component][value])
    return {component: (where, torch.stack(values)) for component, (where, values) in found.items()}


def _ablated_run(
    model: LanguageModel,
    tokens: Sequence[int],
    rows: int,
    overrides: dict[Component, tuple[list[int], Tensor]],
) -> tuple[Tensor, Tensor, Tensor]:
    """`rows` copies of a prompt, run with `overrides` at the final position.

    Returns what every component then writes there `[row, component, width]`, the final residual stream
    `[row, width]` and the logits `[row, vocabulary]`.
    """
    kept: dict[Component | str, Tensor] = {}

    def override(component: Component, hidden: Tensor) -> None:
        last = by_prompt(hidden, rows)[:, -1]
        if component in overrides:
            where, values = overrides[component]
            last[where] = values / model.residual_scale
        kept[component] = last * model.residual_scale

    def keep(name: str, hidden: Tensor) -> None:
        kept[name] = by_prompt(hidden, rows)[:, -1].clone()

    handles = [
        on_input(model.final_norm, partial(keep, "final")),
        on_output(model.final_norm, partial(keep, "normed")),
        *(on_output(model.site(component), partial(override, component)) for component in model.components),
    ]
    with hooked(handles):
        model.hf.base_model(input_ids=torch.tensor([list(tokens)] * rows, device=model.device), use_cache=False)
    written = torch.stack([kept[component] for component in model.components], dim=1)
    return written, kept["final"], model.unembedding(kept["normed"]) * model.logit_scale
