"""The index of all findings: a sentence, its numbers and a picture of each study."""

import importlib
from collections.abc import Iterator

from studies.claims import DECLARED, LEVEL, holm
from studies.study import PAGES, Study
from studies.words import p_value

#: The studies with a page, in their order, and the title of each.
TITLES = {
    "replication": "Replication",
    "natural": "The paper's slope on natural text",
    "damping": "Damping or Hydra?",
    "brakes": "Who makes up for an ablated head?",
    "erasure": "What erasure is for",
    "context": "Does damping depend on the context?",
    "attribution": "How much of attribution's error is repair?",
    "features": "Is there a Hydra effect for features?",
    "repairers": "Do the same heads repair in every context?",
    "training": "Does training against failures make a model robust?",
}

_HEAD = """# Findings

<!-- Written by `make study` from the stored results of the studies. -->

Each page is measured by one command and rendered from its stored numbers. It names the prediction that was declared
before measuring, and the outcome that would have refuted it. `make findings` measures all of them, or resumes; with
`PROMPTS=facts.json` it takes the facts from a file.
"""

_SURPRISES = """## Surprises

- The two models differ in kind: SmolLM2 answers a missing prediction and hardly the missing content, Gemma 3 270M both.
  And where a likely token is pushed, SmolLM2's late MLPs turn the whole push round, Gemma's take back the token and
  hardly anything else that the push raised.
- In Gemma 3 270M, on natural text, more comes back where the best attention sublayer wrote more, and yet nothing is
  seen to come back on average.
- A head that gives back most is one that held the answer down. It lets go, too, for heads whose ablation removes
  nothing.
- A published score for backups (CoAx), at the last token and not as published, isn't seen to order what later
  components do about the ablation.
- What attribution patching misses is mostly reaction of later sublayers. Nearly as much of it takes away more as gives
  back more in SmolLM2, clearly more in Gemma 3 270M. One step of integrated gradients, halfway, isn't seen to do
  better.
- One failure in ten places of training already gives most of the robustness that one in five gives. Models that are
  robust to zeros aren't surely robust to means.
- Which heads react to an ablation is told reliably within most relations of facts and tasks, and is only partly the
  same in another. Whether it depends more on the context or on the ablated sublayer hangs on how signs are counted.
- Random directions come back nearly as much as those that neurons read, in Gemma 3 270M more: little or none of what
  comes back is special to what neurons read.

## What isn't established

- That any of it holds in larger models, or outside facts, running text and three tasks with templates.
- That a brake which lets go does so *for* the answer: a loss of drive predicts the same.
- What content is: everything that isn't along one direction counts as content.
- That training against failures teaches repair: where writes were left out in training, less is removed, too, and one
  early MLP holds most of the effect under zero. Three seeds settle the study's own claim, but not after correction for
  all claims.
- That damping is the same whatever stands before a sentence: in Gemma 3 270M it may fall by 0.1.
- That the features of a dictionary behave as the directions of neurons do.
"""


def render_index() -> str:
    """Return the index as Markdown, from the stored results of all studies."""
    return "\n".join([_HEAD, *_sections(), *_predictions(), _SURPRISES])


def _sections() -> Iterator[str]:
    for name, title in TITLES.items():
        study, module = Study(name), importlib.import_module(f"studies.{name}")
        told = module.claim(study.settings, study.read_results())
        yield f"## [{title}]({name}.md)\n\n{told}\n\n![{title}](images/{name}.png)\n"


def _predictions() -> Iterator[str]:
    """Yield a table of the primary claims, corrected over all of them."""
    primary = {}
    for name in TITLES:
        study, module = Study(name), importlib.import_module(f"studies.{name}")
        primary[name] = module.primary(study.settings, study.read_results())
    corrected = holm({name: claim.p for name, claim in primary.items()})
    yield "## Predictions"
    yield ""
    yield (
        "A study declares one primary claim. Its outcome follows from the study's own 95% intervals. The last column "
        f"is the p of the prediction after Holm's correction for {DECLARED} claims, those of studies to come among "
        f"them: below {LEVEL}, the prediction holds among all of them."
    )
    yield ""
    yield "| study | predicted | outcome | p | p, corrected |"
    yield "|---|---|---|---|---|"
    for name, claim in primary.items():
        study = Study(name)
        told = study.settings["prediction"].replace("|", "\\|")
        p = f"{p_value(claim.p)} | {p_value(corrected[name])}"
        yield f"| [{TITLES[name]}]({name}.md) | {told} | {claim.outcome} | {p} |"
    yield ""


def publish_index() -> None:
    """Write the index."""
    (PAGES / "index.md").write_text(render_index(), "utf-8")
