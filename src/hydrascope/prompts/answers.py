"""Tokens of answers and foils, as they continue the prompt: first tokens and whole answers."""

import unicodedata
from collections.abc import Sequence
from dataclasses import replace

from hydrascope.prompts.prompt import Prompt, Tokenizes, prompt_label, quote
from hydrascope.prompts.token_ids import require_known
from hydrascope.utils.errors import HydrascopeError

#: Scripts that are written without spaces, by the beginnings of the Unicode names of their letters and signs.
_UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "IDEOGRAPHIC", "FULLWIDTH", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN")


def after_spaces(model: Tokenizes, prompts: Sequence[Prompt], *, in_pairs: bool = False) -> tuple[list[Prompt], int]:
    """Move the space before each answer to the end of its prompt if it is a token.

    In many tokenizers " 5" is two tokens, a bare space and "5". The first is common to all answers, so the prompt is
    read after it. A twin gets the same space.

        after_spaces(model, [Prompt("2 and 3 is", "5")])  # [Prompt("2 and 3 is ", "5")], 1

    Args:
        in_pairs: whether answers are compared with foils only. A prompt with a foil that begins with another token is
            then kept as it is.

    Returns:
        The prompts, and the number of those that were changed.
    """
    moved = [_after_space(model, prompt, in_pairs) for prompt in prompts]
    return moved, sum(new is not old for new, old in zip(moved, prompts, strict=True))


def _after_space(model: Tokenizes, prompt: Prompt, in_pairs: bool) -> Prompt:
    answer, twin = prompt.answer, prompt.counterfactual
    if prompt.tokens is not None or not isinstance(answer, str) or not answer.strip() or isinstance(twin, tuple):
        return prompt
    space = _between(prompt.text, answer) or answer[: len(answer) - len(answer.lstrip())]
    before, after = model.encode(prompt.text), model.encode(prompt.text + space)
    together = model.encode(prompt.text + space + answer.lstrip())
    if not space or after[:-1] != before or together[: len(after)] != after or not _is_blank(model, after[-1]):
        return prompt
    foil = prompt.foil.lstrip() if isinstance(prompt.foil, str) else prompt.foil
    if in_pairs and isinstance(foil, str) and model.encode(prompt.text + space + foil)[: len(after)] != after:
        return prompt
    twin = twin and twin + space
    return replace(prompt, text=prompt.text + space, answer=answer.lstrip(), foil=foil, counterfactual=twin)


def answer_tokens(model: Tokenizes, prompts: Sequence[Prompt], *, in_pairs: bool = False) -> list[int]:
    """Return the first token id of each prompt's answer, as it continues the prompt.

    The prompt and the answer are tokenized together; the first token after the prompt's own is returned. A space is put
    between them unless one of them has white space there, or both are written in a script without spaces. An answer
    given as a token id is that token; of several ids the first counts.

        >>> answer_tokens(model, [Prompt("the fox in the garden is", "red")])
        [5]

    Args:
        in_pairs: whether answers are compared with foils only. One of the two may then begin with a bare space.

    Raises:
        HydrascopeError: a prompt has no answer; its answer is a text but the prompt is token ids; prompt and answer
            share a token (the prompt ends inside a token, often with a space); the answer's first token is a bare
            space, which all answers share; or the tokenizer doesn't know the answer's first word.
    """
    return [
        _first_token(model, prompt, prompt.answer, "answer", prompt_label(number, prompt), in_pairs)
        for number, prompt in enumerate(prompts, start=1)
    ]


def foil_tokens(model: Tokenizes, prompts: Sequence[Prompt], *, in_pairs: bool = False) -> list[int]:
    """Return the first token id of each prompt's foil, by the rules of `answer_tokens`.

        >>> foil_tokens(model, [Prompt("the fox in the garden is", "red", foil="green")])
        [6]

    Raises:
        HydrascopeError: as `answer_tokens`, for the answer or the foil; or both begin with the same token, so that
            their difference would be 0.
    """
    answers = answer_tokens(model, prompts, in_pairs=in_pairs)
    foils = [
        _first_token(model, prompt, prompt.foil, "foil", prompt_label(number, prompt), in_pairs)
        for number, prompt in enumerate(prompts, start=1)
    ]
    for number, (prompt, answer, foil) in enumerate(zip(prompts, answers, foils, strict=True), start=1):
        if answer == foil:
            raise HydrascopeError(
                f"{prompt_label(number, prompt)}: its answer and its foil begin with the same token, so their "
                "difference is 0: give another foil"
            )
    return foils


def whole_answers(model: Tokenizes, prompts: Sequence[Prompt]) -> list[list[int]]:
    """Return all token ids of each prompt's answer, as they continue the prompt.

    The rules are those of `answer_tokens`, but for these: an answer may begin with a bare space, which is then one of
    its tokens; and an answer given as ids is a list of all of them.

        >>> whole_answers(model, [Prompt("the fox in the garden is", "red")])
        [[5]]

    Raises:
        HydrascopeError: a prompt has no answer; its answer is a text but the prompt is token ids, or is one id, which
            says nothing of the answer's other tokens; prompt and answer share a token; or the tokenizer doesn't know a
            word of the answer.
    """
    return [_whole_answer(model, prompt, prompt_label(number, prompt)) for number, prompt in enumerate(prompts, 1)]


def _whole_answer(model: Tokenizes, prompt: Prompt, where: str) -> list[int]:
    answer = prompt.answer
    if isinstance(answer, int):
        raise HydrascopeError(
            f"the answer of {where} is the id of its first token: give its text, or a list of all its ids"
        )
    if not answer or (isinstance(answer, str) and not answer.strip()):
        raise HydrascopeError(f"{where} has no answer: give every prompt one, or leave out the metric answer_log_prob")
    if isinstance(answer, tuple):
        ids = list(answer)
    elif prompt.tokens is not None:
        raise HydrascopeError(f"{where} is given as token ids: give the ids of all tokens of its answer, too")
    else:
        ids = _continuation(model, prompt, answer, "answer", where)
        if getattr(model.tokenizer, "unk_token_id", None) in ids:
            raise _unknown(model, answer, "answer", where)
    for token in ids:
        require_known(model, token, f"the answer of {where}")
    return ids


def _first_token(
    model: Tokenizes,
    prompt: Prompt,
    continuation: str | int | tuple[int, ...] | None,
    field: str,
    where: str,
    blank: bool,
) -> int:
    """Return the first token id of an answer or foil; `blank` allows a bare space."""
    if isinstance(continuation, tuple) and continuation:
        continuation = continuation[0]
    if isinstance(continuation, int):
        require_known(model, continuation, f"the {field} of {where}")
        return continuation
    if not isinstance(continuation, str) or not continuation.strip():
        raise HydrascopeError(f"{where} has no {field}: give every prompt one, or choose another readout")
    if prompt.tokens is not None:
        raise HydrascopeError(f"{where} is given as token ids: give the first token of its {field} as an id, too")
    first = _continuation(model, prompt, continuation, field, where)[0]
    if first == getattr(model.tokenizer, "unk_token_id", None):
        raise _unknown(model, continuation, field, where)
    require_known(model, first, f"the {field} of {where}")
    if not blank and _is_blank(model, first):
        raise HydrascopeError(
            f"the {field} {quote(continuation)} of {where} begins with a bare space, which is a token of its own: end "
            f"the prompt with that space, or give the id of the next token as the {field}"
        )
    return first


def _continuation(model: Tokenizes, prompt: Prompt, continuation: str, field: str, where: str) -> list[int]:
    """Return the token ids of an answer or foil after the prompt's own."""
    before = model.encode(prompt.text)
    together = model.encode(prompt.text + _between(prompt.text, continuation) + continuation)
    if len(together) <= len(before) or together[: len(before)] != before:
        raise HydrascopeError(
            f"{where} and its {field} {quote(continuation)} share a token: end the prompt where a word ends"
        )
    return together[len(before) :]


def _unknown(model: Tokenizes, continuation: str, field: str, where: str) -> HydrascopeError:
    return HydrascopeError(
        f"the {field} {quote(continuation)} of {where} is unknown to the tokenizer of {model.name}: give another"
    )


def _between(text: str, continuation: str) -> str:
    if (
        text[-1:].isspace()
        or continuation[:1].isspace()
        or (_is_unspaced(text[-1:]) and _is_unspaced(continuation[:1]))
    ):
        return ""
    return " "


def _is_unspaced(letter: str) -> bool:
    return bool(letter) and unicodedata.name(letter, "").startswith(_UNSPACED)


def _is_blank(model: Tokenizes, token: int) -> bool:
    """Whether a token is white space only."""
    return not str(model.tokenizer.decode([token])).strip() and token not in model.tokenizer.all_special_ids
