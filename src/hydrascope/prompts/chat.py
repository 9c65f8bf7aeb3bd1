"""Put prompts into the chat template of a model's tokenizer, each as a user's message.

A prompt then ends where the model's reply begins. Its answer and its foil are read there, without a space if white
space comes before; its subject is found in the message; its twin is put into the template as well. A template is a
program of the model's makers, in Jinja. It is rendered in the sandbox of transformers, and only when a set asks for it.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from hydrascope.prompts.prompt import Prompt, Tokenizes, prompt_label, quote
from hydrascope.prompts.subjects import last_occurrence
from hydrascope.utils.errors import HydrascopeError, cause


def as_messages(model: Tokenizes, prompts: Sequence[Prompt]) -> tuple[list[Prompt], str]:
    """Return each prompt as a user's message in the chat template, and a note for the user.

        as_messages(model, [Prompt("The capital of France is")])

    Special tokens that the tokenizer adds to every text are added once, as to any text. The note names those that the
    template doesn't have.

    Raises:
        HydrascopeError: the tokenizer has no chat template, or it can't be rendered; or a prompt or its twin is given
            as token ids; or the template holds the prompt's subject, too.
    """
    template_of(model)
    made: list[Prompt] = []
    added: list[int] = []
    for number, prompt in enumerate(prompts, start=1):
        where = prompt_label(number, prompt)
        if prompt.tokens is not None or isinstance(prompt.counterfactual, tuple):
            raise HydrascopeError(f"{where} or its twin is given as token ids: give texts, or leave out chat (--chat)")
        text, added = _rendered(model, prompt.text)
        _require_same_subject(prompt, text, where)
        made.append(
            replace(
                prompt,
                text=text,
                answer=_reply(prompt.answer, text),
                foil=_reply(prompt.foil, text),
                counterfactual=prompt.counterfactual and _rendered(model, prompt.counterfactual)[0],
            )
        )
    note = f"chat template of {model.name} applied ({template_hash(model)[:14]}…)"
    names = " ".join(map(str, model.tokenizer.convert_ids_to_tokens(added)))
    return made, f"{note}; the tokenizer adds {names} before it" if added else note


def template_hash(model: Tokenizes) -> str:
    """Return `sha256:` and the hash of the chat template of a model's tokenizer.

    Raises:
        HydrascopeError: it has none.
    """
    return f"sha256:{hashlib.sha256(template_of(model).encode()).hexdigest()}"


def template_of(model: Tokenizes) -> str:
    """Return the chat template of a model's tokenizer.

    Raises:
        HydrascopeError: it has none.
    """
    try:
        return str(model.tokenizer.get_chat_template())
    except (AttributeError, ValueError) as error:
        raise HydrascopeError(
            f"{model.name} has no chat template: leave out chat (--chat), or give a model that was trained to chat"
        ) from error


def _rendered(model: Tokenizes, text: str) -> tuple[str, list[int]]:
    """Return a text as a message up to the reply, and the tokens that only the tokenizer adds."""
    try:
        message = [{"role": "user", "content": text}]
        rendered = str(model.tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True))
    except Exception as error:
        raise HydrascopeError(
            f"the chat template of {model.name} can't be applied to {quote(text)} ({cause(error)}): leave out chat "
            "(--chat)"
        ) from error
    if text.strip() not in rendered:
        raise HydrascopeError(
            f"the chat template of {model.name} changes the message {quote(text)}: leave out chat (--chat)"
        )
    own, whole = list(model.tokenizer(rendered, add_special_tokens=False)["input_ids"]), model.encode(rendered)
    added = whole[: len(whole) - len(own)]
    # What the template has, too, is left to the tokenizer. `encode` sees to the beginning-of-text token.
    if added and own[: len(added)] == added:
        return rendered.removeprefix(str(model.tokenizer.decode(added))), []
    return rendered, added


_Continuation = TypeVar("_Continuation")


def _reply(continuation: _Continuation, text: str) -> _Continuation | str:
    """Return an answer or a foil as it begins a reply; token ids stay as they are."""
    return continuation.lstrip() if isinstance(continuation, str) and text[-1:].isspace() else continuation


def _require_same_subject(prompt: Prompt, rendered: str, where: str) -> None:
    """Make sure that the subject that is found in the template is that of the message."""
    if prompt.subject is None or not prompt.subject.strip():
        return
    message = prompt.text.strip()
    start, there = last_occurrence(prompt.subject, message), last_occurrence(prompt.subject, rendered)
    if there is not None and (start is None or there != rendered.rfind(message) + start):
        raise HydrascopeError(
            f"{where}: its subject {quote(prompt.subject)} also occurs in the chat template: give another "
            "subject, or leave out chat (--chat)"
        )
