"""Prompts in a chat template: what is measured, what is found in it, and what is refused."""

import hashlib
from typing import Any

import numpy as np
import pytest
import torch
from plain import loaded
from tiny import tiny_tokenizer
from tokenizers import processors

import hydrascope as hs
from hydrascope.models.language_model import LanguageModel
from hydrascope.prompts.answers import answer_tokens, foil_tokens, whole_answers
from hydrascope.prompts.chat import as_messages, template_hash
from hydrascope.prompts.prepare import prepare
from hydrascope.prompts.subjects import subject_span
from hydrascope.utils.errors import HydrascopeError, HydrascopeWarning

torch.set_num_threads(1)

#: The roles stand in letters, since the tokenizer has no other characters.
TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }} {{ message['content'] | trim }}. {% endfor %}"
    "{% if add_generation_prompt %}bot {% endif %}"
)


def chatting(template: Any = TEMPLATE, *, begins: str = "") -> LanguageModel:
    """A tiny model with a chat template, whose tokenizer may add a token before each text."""
    model = loaded()
    if begins:
        special = [(begins, model.tokenizer.convert_tokens_to_ids(begins))]
        model.tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{begins} $A", special_tokens=special
        )
    model.tokenizer.chat_template = template
    return model


PROMPTS = [
    hs.Prompt("the cat is", " wet", foil=" dry", subject="cat", counterfactual="the cow is"),
    hs.Prompt("no", "way", foil="x", subject="no", counterfactual="on"),
]


def test_a_prompt_is_a_message_up_to_the_reply() -> None:
    model = chatting()
    made, note = as_messages(model, PROMPTS)
    assert made == [
        hs.Prompt("user the cat is. bot ", "wet", foil="dry", subject="cat", counterfactual="user the cow is. bot "),
        hs.Prompt("user no. bot ", "way", foil="x", subject="no", counterfactual="user on. bot "),
    ]
    digest = hashlib.sha256(TEMPLATE.encode()).hexdigest()
    assert template_hash(model) == f"sha256:{digest}"
    assert note == f"chat template of llama applied (sha256:{digest[:7]}…)"
    own = model.tokenizer.apply_chat_template(
        [{"role": "user", "content": "the cat is"}], add_generation_prompt=True, return_dict=False
    )
    assert model.encode(made[0].text) == own
    w, d = model.tokenizer.convert_tokens_to_ids(["w", "d"])
    assert (answer_tokens(model, made)[0], foil_tokens(model, made)[0]) == (w, d)
    assert [[model.decode(token) for token in answer] for answer in whole_answers(model, made)] == [[*"wet"], [*"way"]]
    first, end = subject_span(model, 1, made[0])
    assert "".join(map(model.decode, own[first:end])) == "cat"


def test_an_answer_given_as_ids_begins_the_reply_as_it_is() -> None:
    made, _ = as_messages(chatting(), [hs.Prompt("no", (9, 3)), hs.Prompt("no no", 9)])
    assert [prompt.answer for prompt in made] == [(9, 3), 9]


@pytest.mark.parametrize("template", [TEMPLATE, "{{ bos_token }}" + TEMPLATE])
def test_the_first_token_of_all_comes_once(template: str) -> None:
    model = chatting(template, begins="<s>")
    made, note = as_messages(model, PROMPTS)
    ids = model.encode(made[0].text)
    assert ids.count(model.tokenizer.bos_token_id) == 1
    assert ids[0] == model.tokenizer.bos_token_id
    assert ("the tokenizer adds <s> before it" in note) == (template == TEMPLATE)


def test_another_token_that_template_and_tokenizer_add_comes_once() -> None:
    model = chatting("</s>" + TEMPLATE, begins="</s>")
    made, note = as_messages(model, PROMPTS)
    assert model.encode(made[0].text)[:2] == model.tokenizer.convert_tokens_to_ids(["</s>", "u"])
    assert made[0].text.startswith("user the cat")
    assert "adds" not in note


def test_a_run_says_and_stores_that_the_template_was_applied() -> None:
    model = chatting()
    chat = hs.prompts.PromptSet.of(PROMPTS).chat()
    with pytest.warns(HydrascopeWarning, match="chat template of llama applied"):
        results = hs.sweep(model, chat, hs.Counterfactual(), at="subject-last", readouts=[hs.LogitDifference()])
    assert results.attrs["chat_template"] == template_hash(model)
    assert results["text"].values.tolist() == ["user the cat is. bot ", "user no. bot "]
    texts = [
        hs.Prompt(each.text, each.answer, foil=each.foil, subject=each.subject, counterfactual=each.counterfactual)
        for each in as_messages(model, PROMPTS)[0]
    ]
    written = hs.sweep(model, texts, hs.Counterfactual(), at="subject-last", readouts=[hs.LogitDifference()])
    np.testing.assert_array_equal(results["total"], written["total"])
    assert "chat_template" not in written.attrs
    assert results.attrs["prompts_hash"] == written.attrs["prompts_hash"]


def test_a_set_made_for_the_tokenizer_is_made_before(monkeypatch: pytest.MonkeyPatch) -> None:
    model = chatting()
    made = hs.prompts.PromptSet("made", (hs.Prompt("x"),), fit=lambda model, count: ([hs.Prompt("the cat")], "made"))
    prepared = prepare(model, made.chat())
    assert [prompt.text for prompt in prepared.prompts.prompts] == ["user the cat. bot "]
    assert prepared.notes[0] == "made"
    assert prepared.notes[1].startswith("chat template of llama applied")
    assert made.chat().limit(1).as_messages


@pytest.mark.parametrize(
    ("template", "prompt", "message"),
    [
        (None, hs.Prompt("a"), r"llama has no chat template: leave out chat \(--chat\), or give a model"),
        ({"rag": TEMPLATE}, hs.Prompt("a"), "llama has no chat template"),
        (
            TEMPLATE,
            hs.Prompt(tokens=(4, 5)),
            r"prompt 1 \(token ids 4 5\) or its twin is given as token ids: give texts",
        ),
        (TEMPLATE, hs.Prompt("a", counterfactual=(4,)), "or its twin is given as token ids"),
        ("{{ raise_exception('no user') }}", hs.Prompt("a"), r"can't be applied to \"a\" \(no user\)"),
        ("{% for", hs.Prompt("a"), "the chat template of llama can't be applied"),
        ("{{ messages.__class__.__mro__ }}", hs.Prompt("a"), "can't be applied to .*unsafe"),
        ("bot ", hs.Prompt("a"), 'the chat template of llama changes the message "a"'),
        (TEMPLATE, hs.Prompt("the bot", subject="bot"), 'its subject "bot" also occurs in the chat template'),
        (TEMPLATE, hs.Prompt("the cat", subject="user"), 'its subject "user" also occurs in the chat template'),
    ],
)
def test_what_can_not_be_a_message_is_one_line(template: Any, prompt: hs.Prompt, message: str) -> None:
    with pytest.raises(HydrascopeError, match=message) as caught:
        prepare(chatting(template), hs.prompts.PromptSet.of([prompt]).chat())
    assert "\n" not in str(caught.value)


def test_a_model_without_tokenizer_has_no_template() -> None:
    model = loaded()
    model.tokenizer = None
    with pytest.raises(HydrascopeError, match="has no chat template"):
        prepare(model, hs.prompts.PromptSet.of([[4, 5]]).chat())


def test_a_template_is_rendered_only_if_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    model = chatting("{{ raise_exception('rendered') }}")
    assert prepare(model, PROMPTS).prompts.prompts == tuple(PROMPTS)
    assert tiny_tokenizer().chat_template is None
