"""Answers to a page about one override on one prompt."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr
from torch import Tensor

from hydrascope.components.component import Component, Override
from hydrascope.components.order import responding
from hydrascope.measures import SIGMA_NAME, WRITTEN, Bootstrap, Effects, Sigma, budget, change, kinds, per_prompt
from hydrascope.models.language_model import LanguageModel
from hydrascope.prompts.token_text import visible_text
from hydrascope.reports.colour_scale import map_scale
from hydrascope.reports.flow import LAYOUTS, lay_out
from hydrascope.reports.flow.measured import flow_of
from hydrascope.reports.flow.svg import svg_and_style
from hydrascope.reports.flow.words import about, why_not
from hydrascope.reports.summary.map_table import named_cells

#: How many of the most likely next tokens are told.
_LIKELIEST = 10


def next_tokens(model: LanguageModel, tokens: Sequence[int], logits: Tensor) -> dict[str, Any]:
    """Return a prompt's tokens, and the most likely next ones.

    Returns:
        `tokens` as texts; `next`, likeliest first, each its `token` id, `text` and `probability`.
    """
    found = logits.softmax(-1).topk(min(_LIKELIEST, len(logits)))
    return {
        "tokens": [visible_text(model, token) for token in tokens],
        "next": [
            {"token": token, "text": visible_text(model, token), "probability": share}
            for share, token in zip(found.values.tolist(), found.indices.tolist(), strict=True)
        ],
    }


def answer(model: LanguageModel, results: xr.Dataset, override: Override) -> dict[str, Any]:
    """Return the effects of an override, and the worth of each of its frozen components.

    The result of one prompt holds the override itself, with nothing frozen, and with each frozen component alone.

    Returns:
        - `runs`: first the run itself, then the others, each its `label`, and `removed`, `lost` and `restored`, each
          the mean over patches and the least and the largest of them, in `unit`; `share`, restored over removed, NaN
          where patches disagree on the sign of what is removed; the
          `probability` of the target; the `likeliest` tokens, over patches;
        - `frozen`: each frozen component, and all together, with their `worth`: how much more is lost once they are
          frozen (`restored_by` of `hydrascope.measures.mediation`);
        - `readings`: under each reading of σ, each with its `label`,
            - `components`: what each sublayer, and each head that was read, writes in the clean pass and in this row,
              and whether it `responds`;
            - `flow`: the repair flow, as `flow_answer` returns it;
            - `balance`: the change of the ablated sublayers' `own`, which may include responses where units of
              several sublayers are ablated; what `attention`, `mlp` and `norm` add, their `sum`, the `total`
              effect, and how far the two are `off` at worst.
    """
    label, read = str(override), {sigma: per_prompt(results, sigma=sigma) for sigma in SIGMA_NAME}
    whole, made = results, budget(read["clean"]).isel(prompt=0)
    results = results.isel(readout=0, prompt=0)
    alone = str(Override(override.ablated))
    told = [_of_run(model, results, made, name) for name in map(str, results["ablated"].values)]
    return {
        "unit": str(results.attrs["units"]),
        "target": str(results["target_text"].values),
        "logit": float(results["logit"]),
        "probability": float(results["metric_clean"].sel(metric="prob")),
        "patches": results.sizes["patch"],
        "runs": told,
        "frozen": _frozen(results, override, alone),
        "readings": [
            {
                "label": SIGMA_NAME[sigma],
                "components": _components(model, results, override, sigma),
                "flow": flow_answer(whole, effects, label),
                "balance": _balance(effects.sel(ablated=label).isel(prompt=0), results),
            }
            for sigma, effects in read.items()
        ],
    }


def flow_answer(results: xr.Dataset, effects: Effects, label: str) -> dict[str, Any]:
    """Return the repair flow of one prompt: pictures for a wide column and a narrow one.

    Args:
        results: of the prompt alone, with the override.
        effects: on it, at the reading of σ.
        label: the label of the override.

    Returns:
        `wide` and `narrow`, each its `svg`, whose texts are escaped, and its `style`; or `why` there is none.
    """
    flow = flow_of(results, effects, label, None, Bootstrap(), ())
    # The prompt was typed: the set is only what patches come from.
    flow = replace(flow, source=replace(flow.source, prompts="", prompts_hash=""))
    if why := why_not(flow):
        return {"why": why}
    pictures = {name: lay_out(flow, LAYOUTS[layout]).bare for name, layout in (("wide", "page"), ("narrow", "phone"))}
    drawn = {name: svg_and_style(picture, "auto", about(flow)) for name, picture in pictures.items()}
    return {name: {"svg": svg, "style": style} for name, (svg, style) in drawn.items()}


def tokens_answer(found: xr.Dataset) -> list[dict[str, Any]]:
    """Return the likeliest next tokens of each `state` for the page.

    A token has its `text`, its `probability`, and the `rank` that it had in the state before.
    """
    names = ("text", "probability", "rank")
    columns = {name: found[name].transpose("state", "place").values.tolist() for name in names}
    return [
        {
            "state": str(state),
            "tokens": [
                dict(zip(names, each, strict=True))
                for each in zip(*(columns[name][number] for name in names), strict=True)
            ],
        }
        for number, state in enumerate(found["state"].values)
    ]


def attention_answer(found: xr.Dataset) -> dict[str, Any]:
    """Return the attention of heads for the page.

    Returns:
        the `tokens` as texts, the `states`, and by the name of each head, for each state, its `weights` on the tokens
        and the `rest`, which its sink takes.
    """
    weights = found["attention"].transpose("head", "state", "token")
    rest = (1 - weights.sum("token")).round(6).values
    each = zip(map(str, weights["head"].values), weights.values.round(6).tolist(), rest.tolist(), strict=True)
    return {
        "tokens": list(map(str, found["token_text"].values)),
        "states": list(map(str, found["state"].values)),
        "heads": {
            head: [{"weights": one, "rest": left} for one, left in zip(rows, lefts, strict=True)]
            for head, rows, lefts in each
        },
    }


def map_answer(found: xr.Dataset) -> dict[str, Any]:
    """Return a position map for the page.

    Returns:
        `tokens` as texts, `components` with their `name`, `kind` and `block`; `cost`, a row a token, in `unit`;
        `named`, the row and column of the cells to label; the `scale` of the colours; what was ablated by, and the
        `target` with its `logit` and `probability` in the clean pass.
    """
    cost, unit = found["cost"].transpose("token", "component"), str(found.attrs["units"])
    names, scale = list(map(str, cost["component"].values)), map_scale(cost.values, unit)
    parts = zip(names, cost["component_kind"].values, cost["component_block"].values, strict=True)
    return {
        "tokens": list(map(str, found["token_text"].values)),
        "components": [{"name": name, "kind": str(kind), "block": int(block)} for name, kind, block in parts],
        "cost": cost.values.tolist(),
        "named": [[cell.token, names.index(cell.component)] for cell in named_cells(found)],
        "scale": scale.for_page(),
        "unit": unit,
        "ablation": str(found.attrs["ablation"]),
        "target": str(found["target_text"].values),
        "logit": float(found["logit"]),
        "probability": float(found["probability"]),
    }


def clean_components(results: xr.Dataset) -> list[dict[str, Any]]:
    """Return the clean write of each component that was read, from a result of one prompt."""
    written = results["unembed"].isel(readout=0, prompt=0)
    labels = map(str, written["component"].values)
    return [{"name": name, "clean": value} for name, value in zip(labels, written.values.tolist(), strict=True)]


def _of_run(model: LanguageModel, results: xr.Dataset, made: xr.Dataset, label: str) -> dict[str, Any]:
    of = results.sel(ablated=label)
    removed, lost = -of["direct"].astype(np.float64), -of["total"].astype(np.float64)
    means = {name: float(made[name].sel(ablated=label)) for name in ("removed", "lost", "restored")}
    spread = {"removed": removed, "lost": lost, "restored": removed - lost}
    has_share = means["removed"] != 0 and removed.min() * removed.max() > 0
    tops = Counter(of["metric_ablated"].sel(metric="top").values.astype(int).tolist()).most_common(3)
    return {
        "label": label,
        **{name: [means[name], float(spread[name].min()), float(spread[name].max())] for name in means},
        "share": means["restored"] / means["removed"] if has_share else float("nan"),
        "probability": float(of["metric_ablated"].sel(metric="prob").mean()),
        "likeliest": [{"text": visible_text(model, token), "patches": count} for token, count in tops],
    }


def _frozen(results: xr.Dataset, override: Override, alone: str) -> list[dict[str, Any]]:
    total = results["total"].mean("patch", dtype=np.float64)

    def worth(frozen: Override) -> float:
        return float(total.sel(ablated=alone) - total.sel(ablated=str(frozen)))

    each = [
        {"label": str(component), "worth": worth(Override(override.ablated, (component,)))}
        for component in override.frozen
    ]
    together = [{"label": "all of these", "worth": worth(override)}] if len(override.frozen) > 1 else []
    return each + together


def _components(model: LanguageModel, results: xr.Dataset, override: Override, sigma: Sigma) -> list[dict[str, Any]]:
    after = results[WRITTEN[sigma]].sel(ablated=str(override)).values.tolist()
    names = list(map(str, results["component"].values))
    responds = set(map(str, responding(model, override, [Component.parse(name) for name in names])))
    before = results["unembed"].values.tolist()
    return [
        {"name": name, "clean": one, "ablated": other, "change": other - one, "responds": name in responds}
        for name, one, other in zip(names, before, after, strict=True)
    ]


def _balance(effects: Effects, results: xr.Dataset) -> dict[str, float]:
    moved, kind = change(effects).values, np.array(kinds(effects["component"]))
    below, own = effects["downstream"].values, effects["is_ablated"].values
    found = {
        "own": float(moved[own].sum()),
        "attention": float(moved[below & (kind == "attn")].sum()),
        "mlp": float(moved[below & (kind == "mlp")].sum()),
        "norm": float(effects["norm"]),
    }
    total = float(effects["total"])
    return {**found, "sum": sum(found.values()), "total": total, "off": float(results["imbalance"])}
