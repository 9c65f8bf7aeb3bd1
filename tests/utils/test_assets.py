"""What is shipped: the sets hold what they say, and the model answers the demo's prompts."""

import json
from collections import Counter

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from hydrascope.prompts.load import load_prompts
from hydrascope.utils import assets
from hydrascope.utils.errors import HydrascopeError


def _lines(name):
    return [json.loads(line) for line in assets.prompt_path(name).read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("name", assets.PROMPT_SETS)
def test_sets_load_by_name_without_duplicates_and_with_answers(name):
    prompts = load_prompts(name)
    assert prompts.duplicates == 0
    assert all(prompt.answer for prompt in prompts.prompts)
    assert not any(prompt.text[-1].isspace() for prompt in prompts.prompts)


def test_world_facts_has_thousands_of_facts_in_many_relations():
    lines = _lines("world-facts")
    assert len({(line["subject"], line["relation"], line["answer"]) for line in lines}) >= 4000
    assert len({line["relation"] for line in lines}) >= 8
    wordings = {(line["relation"], *line["prompt"].rsplit(line["subject"], 1)) for line in lines}
    assert all(len(wording) == 3 for wording in wordings)
    assert len(wordings) == 6 * 13


def test_demo_is_a_balanced_sample_of_the_other_sets():
    demo = [line["prompt"] for line in _lines("demo")]
    facts = {line["prompt"]: line["relation"] for line in _lines("world-facts")}
    contexts = {line["prompt"]: line["kind"] for line in _lines("contexts")}
    assert len(demo) == len(set(demo)) == 1209
    assert set(demo) <= set(facts) | set(contexts)
    kinds = Counter("bare fact" if prompt in facts else contexts[prompt] for prompt in demo)
    assert set(kinds) == {"bare fact", "prose", "fact"}
    assert min(kinds.values()) >= 300


def test_names_that_are_not_shipped():
    assert assets.model_path("gpt2") is None
    with pytest.raises(HydrascopeError, match="demo"):
        assets.prompt_path("no-such-set")


def test_weights_are_safetensors_and_small():
    sizes = []
    for name in assets.MODELS:
        folder = assets.model_path(name)
        assert folder is not None
        assert {path.suffix for path in folder.iterdir()} <= {".json", ".md", ".safetensors"}
        sizes.append((folder / "model.safetensors").stat().st_size)
        assert json.loads((folder / "config.json").read_text())["num_hidden_layers"] >= 12
    assert max(sizes) <= 24e6
    assert sum(sizes) <= 40e6


@pytest.fixture(scope="module")
def answers():
    """Whether the built-in model answers each of some lines, in one pass of its own for each."""
    torch.set_num_threads(1)
    folder = assets.model_path("built-in")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def right(line):
        before = tokenizer(line["prompt"])["input_ids"]
        together = tokenizer(line["prompt"] + " " + line["answer"])["input_ids"]
        assert together[: len(before)] == before
        assert before[0] == tokenizer.bos_token_id
        with torch.no_grad():
            return model(input_ids=torch.tensor([before])).logits[0, -1].argmax().item() == together[len(before)]

    return right


def test_the_model_answers_the_demo(answers):
    for line in _lines("demo")[::24]:
        assert answers(line), line


def test_the_passages_were_not_chosen_by_what_the_model_answers(answers):
    right = [answers(line) for line in _lines("passages")[::10]]
    assert 0.1 < sum(right) / len(right) < 0.7


@pytest.mark.parametrize("name", assets.MODELS)
def test_the_card_gives_the_measured_recall_and_loss(name):
    folder = assets.model_path(name)
    assert folder is not None
    quality = json.loads((folder / "quality.json").read_text())
    card = (folder / "README.md").read_text()
    for relation, share in quality["recall"].items():
        assert f"| {relation} | {share:.1%} |" in card
    assert f"{quality['loss']['all']['nats_per_token']:.2f}" in card
