"""Make ablations from their names on the command line and on the page."""

from dataclasses import replace

from hydrascope.ablations.ablation import Ablation, Counterfactual, Mean, Noise, Resample, Zero
from hydrascope.ablations.names import DRAWN
from hydrascope.utils.errors import HydrascopeError


def ablation(name: str, patches: int | None, noise_scale: float | None, seed: int, different_target: bool) -> Ablation:
    """Return the ablation that the options of `hydrascope run` describe.

        >>> ablation("noise", 3, None, 0, False)
        Noise(patches=3, scale=3.0, seed=0)

    Args:
        name: `zero`, `mean`, `noise`, `resample` or `counterfactual`.
        patches: the number of patches of `noise` and `resample`; None for the default.
        noise_scale: the scale of `noise`; None for the default.
        seed: the seed of `noise` and `resample`.
        different_target: whether `resample` draws only prompts with another target.

    Raises:
        HydrascopeError: an option belongs to another ablation.
    """
    if patches is not None and name not in DRAWN:
        raise HydrascopeError(f"--ablation {name} has one patch: leave out --patches")
    if noise_scale is not None and name != "noise":
        raise HydrascopeError(f"--ablation {name} has no noise: leave out --noise-scale")
    if different_target and name != "resample":
        raise HydrascopeError(f"--ablation {name} takes nothing from other prompts: leave out --different-target")
    if name == "resample":
        return Resample(15 if patches is None else patches, seed, different_target)
    if name == "noise":
        noise = Noise(15 if patches is None else patches, seed=seed)
        return noise if noise_scale is None else replace(noise, scale=noise_scale)
    others: dict[str, Ablation] = {"zero": Zero(), "mean": Mean(), "counterfactual": Counterfactual()}
    return others[name]
