"""Token ids of prompts, by a model's tokenizer."""

from collections.abc import Sequence

from hydrascope.prompts.prompt import Prompt, Tokenizes, prompt_label, spaced
from hydrascope.utils.errors import HydrascopeError


def tokenize(model: Tokenizes, prompts: Sequence[Prompt]) -> list[list[int]]:
    """Return the token ids of each prompt, special tokens of the model's tokenizer included.

        >>> tokenize(model, [Prompt("the fox is"), Prompt(tokens=(2, 14))])
        [[2, 14, 4], [2, 14]]

    Raises:
        HydrascopeError: a prompt has no tokens, an unknown token, or more tokens than the model's context.
    """
    return [
        fitting_tokens(model, prompt.tokens or prompt.text, prompt_label(number, prompt))
        for number, prompt in enumerate(prompts, start=1)
    ]


def texts(model: Tokenizes, prompts: Sequence[Prompt]) -> list[str]:
    """Return the text of each prompt; token ids are decoded.

    A model without a tokenizer shows the ids themselves.

        >>> texts(model, [Prompt("the fox is"), Prompt(tokens=(2, 14))])
        ['the fox is', 'the fox']
    """

    def decoded(tokens: Sequence[int]) -> str:
        return spaced(tokens) if model.tokenizer is None else str(model.tokenizer.decode(list(tokens)))

    return [prompt.text if prompt.tokens is None else decoded(prompt.tokens) for prompt in prompts]


def ids_of(model: Tokenizes, prompt: str | tuple[int, ...]) -> list[int]:
    """Return the token ids of a text, or given ids as they are."""
    return model.encode(prompt) if isinstance(prompt, str) else list(prompt)


def fitting_tokens(model: Tokenizes, prompt: str | tuple[int, ...], where: str) -> list[int]:
    """Return the token ids of `prompt`, checked against the model's vocabulary and context."""
    ids = ids_of(model, prompt)
    if not ids:
        raise HydrascopeError(f"{where} has no tokens: remove it")
    if model.context_length is not None and len(ids) > model.context_length:
        raise HydrascopeError(
            f"{where} is {len(ids):,} tokens long, the context of {model.name} holds {model.context_length:,}: shorten "
            "it or remove it"
        )
    for token in ids:
        require_known(model, token, where)
    return ids


def require_known(model: Tokenizes, token: int, where: str) -> None:
    """Make sure that the model has a token id.

    Args:
        where: the name of the prompt or of its field in messages.

    Raises:
        HydrascopeError: the model doesn't have the token.
    """
    if not 0 <= token < model.known_tokens:
        raise HydrascopeError(
            f"{where} has token {token}, {model.name} knows 0 to {model.known_tokens - 1}: "
            "take the tokenizer that belongs to the model"
        )
