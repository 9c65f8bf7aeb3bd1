"""What a run would take is what it takes: operations as PyTorch counts them, memory and disk from above."""

import re
from collections.abc import Sequence
from typing import Any
from unittest.mock import patch

import pytest
import torch
from plain import loaded
from stored import run_to_disk
from tiny import tiny
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import hydrascope as hs
from hydrascope.components.experiments import Mediation
from hydrascope.engines import fused_attention
from hydrascope.engines.clean.prefix import SharedPrefix
from hydrascope.engines.clean.prefix_store import PrefixStore
from hydrascope.models import memory
from hydrascope.models.memory import Batch
from hydrascope.runs import batches
from hydrascope.runs.config import SweepConfig
from hydrascope.runs.cost import cost_of, count_operations, count_shared, request
from hydrascope.runs.plan import Plan, make_plan
from hydrascope.utils.errors import HydrascopeError

torch.set_num_threads(1)

TOKENS = [[1 + (3 * place + number) % 19 for place in range(40)] for number in range(5)]
WHAT: dict[str, dict[str, Any]] = {
    "layers": {},
    "heads": {"ablate": "heads", "read": "heads"},
    "neurons": {"ablate": "neurons.1", "read": "layers"},
    "an earlier position": {"at": -7},
    "everywhere": {"at": "all"},
    "pairs": {"ablate": "attn.0+mlp.1,attn.0|mlp.1"},
    "mediation": {"ablate": Mediation("attn", "layers")},
    "metrics": {"metrics": ["kl"]},
    "reference": {"engine": "reference"},
    "whole answers": {"metrics": ["answer_log_prob"]},
    "whole answers, earlier": {"metrics": ["answer_log_prob"], "at": -7},
    "whole answers, reference": {"metrics": ["answer_log_prob"], "engine": "reference"},
}
#: Prompts with answers of one to four tokens.
ANSWERED = [hs.Prompt(tokens=tuple(ids), answer=(5, 6, 7, 8)[: 1 + number % 4]) for number, ids in enumerate(TOKENS)]


def counted(plan: Plan) -> float:
    """FLOP of the plan's runs as PyTorch sees them, clean runs of the prompts included."""
    # PyTorch doesn't count what its fast attention on a CPU does.
    written_out = patch.object(fused_attention, "_has_kernel", return_value=False)
    with written_out, sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        plan.engine.measure(plan.model, request(plan, range(len(plan.tokens)), plan.overrides))
    return counter.get_total_flops()


def _always(what: str, case: str) -> bool:
    """Whether a case isn't left to the slow tests."""
    return case == "gpt2" or (case == "gemma2" and "answers" not in what)


@pytest.mark.parametrize(
    ("what", "architecture"),
    [
        pytest.param(what, case, marks=() if _always(what, case) else pytest.mark.slow)
        for what in WHAT
        for case in ("gpt2", "llama", "gpt_neox", "gemma2", "mixtral")
    ],
)
def test_operations_are_those_that_are_done(architecture: str, what: str) -> None:
    """Readouts and routers of experts take some, too: little even in a model as small as these."""
    if architecture == "mixtral" and what == "neurons":
        pytest.skip("a mixture of experts has no neurons that can be told apart")
    config = SweepConfig(**WHAT[what])
    plan = make_plan(tiny(architecture, torch.float64), ANSWERED, hs.Resample(3), config)
    assert count_operations(plan, range(len(TOKENS)), plan.overrides) == pytest.approx(counted(plan), rel=0.03)


@pytest.mark.parametrize("architecture", ["gpt2", "gemma2"])
def test_equal_first_tokens_count_once(architecture: str) -> None:
    prompts = [TOKENS[0][:36] + ids[-4:] for ids in TOKENS]
    plan = make_plan(tiny(architecture, torch.float64), prompts, hs.Resample(3), SweepConfig("attn"))
    each = count_operations(plan, range(len(prompts)), plan.overrides)
    saved = count_shared(plan, range(len(prompts)))
    assert saved > each / 4
    assert each - saved == pytest.approx(counted(plan), rel=0.03)


def test_passes_over_rows_share_a_clean_pass() -> None:
    plan = make_plan(tiny("gpt2", torch.float64), TOKENS, hs.Resample(3), SweepConfig("heads"))
    one, many = (cost_of(plan, Batch(len(TOKENS), ablations)).flop for ablations in (len(plan.overrides), 1))
    # Each pass has a clean row of its own.
    assert one < many < 1.5 * one


@pytest.mark.parametrize(("at", "kept"), [("last", 0), (-3, 2)])
def test_memory_has_room_for_the_answers(at: Any, kept: int) -> None:
    model = tiny("gpt2", torch.float32)
    plan = make_plan(model, ANSWERED, hs.Zero(), SweepConfig(metrics=["answer_log_prob"], at=at))
    answers = [len(prompt.answer) for prompt in ANSWERED]
    longest = max(len(ids) + count - 1 for ids, count in zip(TOKENS, answers, strict=True))
    assert (plan.memory.load.length, plan.memory.load.suffix) == (longest, max(answers) + kept)


def test_a_run_takes_no_more_on_disk_and_says_what_it_was_timed_on(tmp_path: Any) -> None:
    model = loaded("gpt2", torch.float32)
    plan = make_plan(model, TOKENS, hs.Resample(2), SweepConfig("layers,heads"))
    found = cost_of(plan, Batch(2, 7))
    out = run_to_disk(model, TOKENS, hs.Resample(2), ablate="layers,heads", out=tmp_path / "x.zarr")
    measured = sum(hs.open_results(out)[name].nbytes for name in plan.measured_variables)
    assert found.disk == measured
    assert found.weights == sum(each.nbytes for each in model.hf.parameters())
    assert found.timed == (2, 7)
    assert found.seconds > 0


def test_what_waits_of_clean_runs_takes_no_more_than_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[int] = []

    class Counting(PrefixStore):
        def put(self, prompts: Sequence[int], prefix: SharedPrefix, seconds: float) -> None:
            kept.append(prefix.nbytes)

    monkeypatch.setattr(batches, "choose_prefix_store", lambda *_: Counting())
    model = loaded("gpt2", torch.float32)
    plan = make_plan(model, TOKENS, hs.Resample(2), SweepConfig("layers,heads"))
    hs.sweep(model, TOKENS, hs.Resample(2), ablate="layers,heads", batch_size=len(TOKENS))
    # Prompts that are run together are padded to the longest, and one that is alone is as long.
    costs = {}
    for spare in (0, sum(kept) // 2, memory.CPU_SPARE_BYTES):
        monkeypatch.setattr(memory, "CPU_SPARE_BYTES", spare)
        costs[spare] = cost_of(plan, Batch(2, 7))
    without, half, whole = costs.values()
    assert 0 < sum(kept) <= without.meanwhile <= 1.1 * sum(kept)
    for found in (half, whole):
        more = found.memory - without.memory
        assert more == without.meanwhile - found.meanwhile > 0
    assert whole.meanwhile == 0
    assert cost_of(make_plan(model, TOKENS, hs.Zero(), SweepConfig(engine="reference")), Batch(2, 7)).meanwhile == 0


def test_it_is_said_in_a_line() -> None:
    line = hs.cost(loaded("gpt2", torch.float32), TOKENS, hs.Resample(2)).line
    number = r"[\d.,]+ [kKMGT]?"
    assert re.fullmatch(
        rf"about {number}FLOP, 1 s here \(timed on 5 prompts and 6 ablations\), {number}iB of memory beside the "
        rf"{number}iB of the weights, and up to {number}i?B on disk, {number}i?B more while it lasts",
        line,
    ), line


def test_a_run_that_ends_for_want_of_patches_is_refused() -> None:
    with pytest.raises(HydrascopeError, match=r"2 resample patches need 2 other prompts .* has 1 \(1 are too short"):
        hs.cost(loaded("gpt2"), [[1, 2, 3], [4, 5, 6], [7]], hs.Resample(2), at="all")
    with pytest.raises(HydrascopeError, match="no counterfactual"):
        hs.cost(loaded("gpt2"), TOKENS, hs.Counterfactual())


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(hs.HydrascopeError, match="unknown keep"):
        hs.cost(loaded("gpt2"), TOKENS, keep="everything")


def test_what_is_measured_is_said_in_a_line_after_the_first_prompt() -> None:
    first, line = make_plan(loaded("gpt2", torch.float32), TOKENS, hs.Noise(1234), SweepConfig("mlp.1")).describe
    assert (
        first == "first prompt: <s>|a|d|g|j|m|p|<unk>|c|f|i|l|o|</s>|b|e|h|k|n|<s>|a|d|…|c|f|i|l|o|</s>|b|e|h|k|n|<s>|a"
    )
    assert "1 ablation of 1,234 patches, 6 components read, 5 prompts" in line
