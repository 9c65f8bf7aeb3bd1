"""The index of all findings: a sentence, its numbers and a picture of each study."""

import importlib
from collections.abc import Iterator

from studies.study import PAGES, Study

#: The studies with a page, in their order, and the title of each.
TITLES = {
    "replication": "Replication",
    "natural": "The paper's slope on natural text",
    "damping": "Damping or Hydra?",
    "brakes": "Who makes up for an ablated head?",
    "erasure": "What erasure is for",
    "training": "Does training against failures make a model robust?",
}

_HEAD = """# Findings

<!-- Written by `make study` from the stored results of the studies. -->

Each page is measured by one command and rendered from its stored numbers. It names the prediction that was declared
before measuring, and the outcome that would have refuted it.
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

## What isn't established

- That any of it holds in larger models, or outside facts, running text and one task of names.
- That a brake which lets go does so *for* the answer: a loss of drive predicts the same.
- What content is: everything that isn't along one direction counts as content.
"""


def render_index() -> str:
    """Return the index as Markdown, from the stored results of all studies."""
    return "\n".join([_HEAD, *_sections(), _SURPRISES])


def _sections() -> Iterator[str]:
    for name, title in TITLES.items():
        study, module = Study(name), importlib.import_module(f"studies.{name}")
        told = module.claim(study.settings, study.read_results())
        yield f"## [{title}]({name}.md)\n\n{told}\n\n![{title}](images/{name}.png)\n"


def publish_index() -> None:
    """Write the index."""
    (PAGES / "index.md").write_text(render_index(), "utf-8")
