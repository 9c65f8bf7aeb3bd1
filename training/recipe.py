"""What is trained: every number of the recipe, and the variants that were tried."""

from dataclasses import dataclass, field, replace
from pathlib import Path

#: Everything the recipe makes on its way; git ignores it.
WORK = Path(__file__).parent / "work"


@dataclass(frozen=True)
class Recipe:
    """A model and its corpus.

    Attributes:
        name: of the folder in `WORK/runs`.
        layers, width, heads, mlp: the shape of the Llama.
        vocabulary: tokens of the tokenizer.
        exposures: how often each fact is stated in the corpus.
        shares: the part of each prose source that is used; all of it where none is named.
        length: tokens in a block.
        batch: blocks in a step.
        steps: of the optimizer; `decay` of them at the end bring the learning rate to zero.
        rate: the highest learning rate.
        dropout: on embeddings, attention weights and what each sublayer adds.
        seed: of everything.
    """

    name: str
    layers: int = 12
    width: int = 128
    heads: int = 4
    mlp: int = 344
    vocabulary: int = 4096
    exposures: int = 30
    shares: dict[str, float] = field(default_factory=lambda: {"wordnet": 0.3})
    length: int = 128
    batch: int = 16
    steps: int = 700
    warmup: int = 100
    decay: int = 140
    rate: float = 3e-3
    dropout: float = 0.0
    seed: int = 0
    checkpoints: int = 8

    @property
    def folder(self) -> Path:
        return WORK / "runs" / self.name

    @property
    def corpus(self) -> Path:
        """Where the corpus and tokenizer lie: shared by recipes that differ in the model alone."""
        shares = "-".join(f"{name}{share:g}" for name, share in sorted(self.shares.items()))
        return WORK / "corpora" / f"v{self.vocabulary}-e{self.exposures}-{shares}-l{self.length}-s{self.seed}"


BASE = Recipe("base")

VARIANTS = (
    BASE,
    replace(BASE, name="deep-narrow", layers=20, width=96, heads=3, mlp=256),
    replace(BASE, name="more-prose", exposures=10, shares={"wordnet": 0.6}),
    replace(BASE, name="small-vocabulary", vocabulary=2048),
)

ALL = {recipe.name: recipe for recipe in VARIANTS}
