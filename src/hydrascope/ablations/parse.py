"""Make ablations from their names on the command line and on the page."""

from collections.abc import Callable
from dataclasses import fields
from typing import Any

from hydrascope.ablations.ablation import Counterfactual, Mean, NamedAblation, Noise, Resample, Zero
from hydrascope.ablations.optimal import Optimal
from hydrascope.utils.errors import HydrascopeError

#: The class of each ablation that has a name on the command line and on the page.
CLASSES: dict[str, type[NamedAblation]] = {
    each.__name__.lower(): each for each in (Resample, Zero, Mean, Noise, Counterfactual, Optimal)
}

#: The field of an ablation that each option sets.
_FIELDS = {"patches": "patches", "noise_scale": "scale", "seed": "seed", "different_target": "different_target"}

#: The reason to refuse an option for an ablation without its field. A seed is always given, and may go unused.
_REFUSED = {
    "patches": "has one patch: leave out --patches",
    "noise_scale": "has no noise: leave out --noise-scale",
    "different_target": "takes nothing from other prompts: leave out --different-target",
}


def ablation(
    name: str,
    patches: int | None = None,
    noise_scale: float | None = None,
    seed: int = 0,
    different_target: bool = False,
) -> NamedAblation:
    """Return the ablation that the options of `hydrascope run` describe.

        >>> ablation("noise", patches=3)
        Noise(patches=3, scale=3.0, seed=0)

    Args:
        name: one of `names.ABLATIONS`.
        patches: the number of patches; None for the ablation's default, as for `noise_scale`.
        noise_scale: the scale of the noise.
        seed: the seed; an ablation without draws ignores it.
        different_target: whether only prompts with another target are drawn.

    Raises:
        HydrascopeError: there is no such ablation, or it has no such option.
    """
    known = options_of(name)
    given: dict[str, Any] = {
        "patches": patches,
        "noise_scale": noise_scale,
        "seed": seed,
        "different_target": different_target or None,
    }
    given = {option: value for option, value in given.items() if value is not None}
    for option in given:
        if option in _REFUSED and option not in known:
            raise HydrascopeError(f"--ablation {name} {_REFUSED[option]}")
    make: Callable[..., NamedAblation] = class_of(name)
    return make(**{_FIELDS[option]: value for option, value in given.items() if option in known})


def options_of(name: str) -> tuple[str, ...]:
    """Return the options that an ablation has.

        >>> options_of("noise")
        ('patches', 'noise_scale', 'seed')

    Raises:
        HydrascopeError: there is no such ablation.
    """
    known = {field.name for field in fields(class_of(name))}
    return tuple(option for option, field in _FIELDS.items() if field in known)


def class_of(name: str) -> type[NamedAblation]:
    """Return the class of an ablation.

    Raises:
        HydrascopeError: there is no such ablation.
    """
    if name not in CLASSES:
        raise HydrascopeError(f"there is no ablation {name}: choose from {', '.join(CLASSES)}")
    return CLASSES[name]
