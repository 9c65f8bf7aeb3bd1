"""Hooks on a model's modules that are always removed again."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from hydrascope.components.component import Component
from hydrascope.models.attached_dictionary import AttachedDictionary
from hydrascope.models.language_model import LanguageModel

Handle = Any

#: Takes x and the vector that stands at a dictionary's site, `[prompt, position, …]`, and returns the change of the
#: latter, or None.
VisitSite = Callable[[Tensor, Tensor], Tensor | None]


@contextmanager
def hooked(handles: Iterable[Handle]) -> Iterator[None]:
    """Keep hooks for the length of the context.

    `handles` may be a generator, which registers its hooks as the context is entered.
    """
    with ExitStack() as stack:
        for handle in handles:
            stack.callback(handle.remove)
        yield


@contextmanager
def without_backward_hooks(hf: nn.Module) -> Iterator[None]:
    """Take the user's hooks on gradients off for the length of the context.

    They change no activation, so they are no part of the model.
    """
    taken = [
        (hooks, hooks.copy())
        for module in hf.modules()
        for hooks in (module._backward_hooks, module._backward_pre_hooks)
        if hooks
    ]
    try:
        for hooks, _ in taken:
            hooks.clear()
        yield
    finally:
        for hooks, before in taken:
            hooks.update(before)


def on_site(model: LanguageModel, site: Component, change: Callable[[Tensor], Tensor | None]) -> Handle:
    """Call `change` with the activations at `site`; a returned tensor replaces them.

    They are the output of a sublayer, the values of all its heads or neurons, or the stream that enters a block.
    """
    if site.kind == "stream":
        return on_input(model.blocks[site.block], change)
    if site.sublayer == site:
        return on_output(model.output(site), change)
    return on_input(model.projection(site.sublayer).module, change)


def on_dictionary(
    model: LanguageModel, attached: AttachedDictionary, prompts: int, visit: VisitSite
) -> Iterator[Handle]:
    """Yield hooks that call `visit` at a dictionary's site in every pass.

    Args:
        model: the model.
        attached: the dictionary.
        prompts: the number of prompts in a pass.
        visit: the function to call.
    """
    received: list[Tensor] = []

    def take(hidden: Tensor) -> None:
        received.append(by_prompt(hidden, prompts))

    def change(hidden: Tensor) -> Tensor | None:
        standing = by_prompt(hidden, prompts)
        added = visit(received.pop() if attached.mlp_input is not None else standing, standing)
        return None if added is None else as_given(standing + added.to(standing.dtype), hidden)

    home, place = attached.home, attached.declared.place
    if attached.mlp_input is not None:
        yield on_input(attached.mlp_input, take)
    if place == "stream":
        yield on_input(model.blocks[home.block], change)
    elif place == "heads":
        yield on_input(model.projection(home).module, change)
    elif attached.projection is not None:
        assert attached.projection.norm is not None
        yield on_input(attached.projection.norm, change)
    else:
        yield on_output(model.output(home), change)


def on_input(module: nn.Module, change: Callable[[Tensor], Tensor | None]) -> Handle:
    """Call `change` with the input of `module`; a returned tensor replaces it."""

    def hook(
        module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        if args:
            changed = change(args[0])
            return None if changed is None else ((changed, *args[1:]), kwargs)
        changed = change(kwargs["hidden_states"])
        return None if changed is None else (args, {**kwargs, "hidden_states": changed})

    return module.register_forward_pre_hook(hook, with_kwargs=True)


def on_output(module: nn.Module, change: Callable[[Tensor], Tensor | None]) -> Handle:
    """Call `change` with the output of `module`; a returned tensor replaces it."""

    def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        hidden = output[0] if isinstance(output, tuple) else output
        changed = change(hidden)
        if changed is None:
            return None
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    return module.register_forward_hook(hook)


def by_prompt(hidden: Tensor, prompts: int) -> Tensor:
    """Return hidden states as `[prompt, position, width]`; OPT's MLPs flatten the first two."""
    return hidden if hidden.ndim == 3 else hidden.view(prompts, -1, hidden.shape[-1])


def as_given(changed: Tensor, hidden: Tensor) -> Tensor:
    """Return `changed`, `[prompt, position, width]`, flattened if `hidden` is."""
    return changed if hidden.ndim == 3 else changed.flatten(0, 1)
