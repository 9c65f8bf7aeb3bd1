"""Compute the change of a sublayer's output by overrides in it alone, everything else clean.

It is δ of a direct effect (Def. 3.3), at each prompt's last position.
"""

from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor

from hydrascope.components.component import Component
from hydrascope.models.attached_dictionary import AttachedDictionary, Terms
from hydrascope.models.language_model import LanguageModel, wider


def override_change(
    model: LanguageModel,
    values: Mapping[Component, Float[Tensor, "prompt patch _"]],
    clean: Mapping[Component, Float[Tensor, "prompt _"]],
) -> Float[Tensor, "prompt patch width"]:
    """Return the change of one sublayer's output, before the model's multiplier.

    For terms of `stream.L` it is the change of that residual stream.

    Args:
        model: the model.
        values: the values that are written, all in one sublayer: itself, or some of its units and terms.
        clean: the clean activations at the sites that `sites_of_change` lists.
    """
    wide, home = wider(model.dtype), next(iter(values)).sublayer
    if home in values:
        return values[home].to(wide) - clean[home][:, None].to(wide)
    units = {component: value for component, value in values.items() if component.is_unit}
    terms = {component: value for component, value in values.items() if component.is_term}
    if not units:
        return _change_by_terms(model.dictionaries[home], terms, clean)
    projection = model.projection(home)
    before = clean[next(iter(units)).site][:, None]
    count = next(iter(values.values())).shape[1]
    after = before.repeat(1, count, 1)
    for component, value in units.items():
        after[..., projection.columns(component.unit)] = value.to(after)
    attached = model.dictionaries.get(home) if terms else None
    place = attached.declared.place if attached else ""
    if attached and place == "heads":
        after = after + _change_at(attached, terms, clean, after).to(after)
    projected = projection.apply(after)
    if attached and place.startswith("raw."):
        projected = projected + _change_at(attached, terms, clean, projected).to(projected)
    output = projection.apply_norm(projected).to(wide)
    if attached and place in ("attn", "mlp", "transcoder"):
        output = output + _change_at(attached, terms, clean, output) / attached.factor
    return output - projection.apply_norm(projection.apply(before)).to(wide)


def sites_of_change(model: LanguageModel, components: tuple[Component, ...]) -> list[Component]:
    """Return the sites that `override_change` needs clean activations of."""
    sites = [component.site for component in components if not component.is_input]
    for component in components:
        if not component.is_term:
            continue
        attached = model.dictionaries[component.sublayer]
        if attached.projection is not None:
            # The change goes through a projection or a norm, whose scale follows from all units.
            sites.append(units_site(component.sublayer))
        if attached.mlp_input is not None:
            sites += attached.term_sites
    return list(dict.fromkeys(sites))


def units_site(sublayer: Component) -> Component:
    """Return the site of a sublayer's units."""
    return Component(sublayer.block, "head" if sublayer.kind == "attn" else "neuron")


def _change_by_terms(
    attached: AttachedDictionary,
    terms: Mapping[Component, Float[Tensor, "prompt patch _"]],
    clean: Mapping[Component, Float[Tensor, "prompt _"]],
) -> Float[Tensor, "prompt patch width"]:
    """Return the change of a sublayer's output by terms alone."""
    share = sum(
        (attached.write(each, value - clean[each.site][:, None][..., _columns(each)]) for each, value in terms.items()),
        start=next(iter(terms.values())).new_zeros(1, 1, attached.dictionary.outputs),
    )
    projection = attached.projection
    if projection is None:
        return share / attached.factor
    if attached.declared.place == "heads":
        share = share @ projection.weight(share).T
    if projection.norm is None:
        return share
    before = projection.apply(clean[units_site(attached.home)])[:, None].to(share.dtype)
    return projection.apply_norm(before + share) - projection.apply_norm(before)


def _change_at(
    attached: AttachedDictionary,
    terms: Mapping[Component, Float[Tensor, "prompt patch _"]],
    clean: Mapping[Component, Float[Tensor, "prompt _"]],
    standing: Float[Tensor, "prompt patch output"],
) -> Float[Tensor, "prompt patch output"]:
    """Return the change of y by terms where overridden units have changed it before."""
    if attached.mlp_input is None:
        before = attached.terms(standing, standing)
    else:
        # Its features read the MLP's input, which units don't change.
        code, _, rest = (clean[site][:, None].expand(-1, standing.shape[1], -1) for site in attached.term_sites)
        written = code @ attached.dictionary.decoder + rest
        before = Terms(code, standing.to(written.dtype) * attached.factor - written, rest)
    after = before.clone()
    for component, value in terms.items():
        after[component.kind][..., _columns(component)] = value.to(after.code.dtype)  # type: ignore[index]
    return after.change_from(before, attached.dictionary)


def _columns(component: Component) -> slice:
    return slice(None) if component.unit < 0 else slice(component.unit, component.unit + 1)
