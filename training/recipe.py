"""What is trained: every number of the recipe, and the variants that were tried."""

from dataclasses import dataclass, field, replace
from pathlib import Path

#: Everything the recipe makes on its way; git ignores it.
WORK = Path(__file__).parent / "work"


@dataclass(frozen=True, eq=False)
class Recipe:
    """A model and its corpus.

    Attributes:
        name: of the folder in `WORK/runs`.
        layers, width, heads, mlp: the shape of the Llama.
        vocabulary: tokens of the tokenizer.
        tied: whether the unembedding is the embedding, transposed.
        exposures: how often each fact is stated in the corpus.
        shares: the part of each prose source that is used; all of it where none is named.
        related: the part of the facts outside prose that stands among facts about the same thing, where the answer
            can be copied; the others stand among strangers, where it must be recalled.
        start: the recipe whose last checkpoint and tokenizer this one goes on with, or a shipped model's name.
        length: tokens in a block.
        batch: blocks in a step.
        steps: of the optimizer; `decay` of them at the end bring the learning rate to zero.
        rate: the highest learning rate of AdamW.
        matrix_rate: that of Muon for the matrices inside the layers; None: AdamW for them too.
        dropout: on embeddings, attention weights and what each sublayer adds.
        left_out, swapped: at how many places of how many sequences what a sublayer adds is left out whole, and is
            another sequence's of the batch at the same place: stochastic depth (Huang et al. 2016), place by place.
        seed: of everything.
    """

    name: str
    layers: int = 12
    width: int = 128
    heads: int = 4
    mlp: int = 344
    vocabulary: int = 4096
    tied: bool = False
    exposures: int = 30
    shares: dict[str, float] = field(default_factory=lambda: {"wordnet": 0.3})
    related: float = 1.0
    start: str | None = None
    length: int = 128
    batch: int = 16
    steps: int = 600
    warmup: int = 100
    decay: int = 120
    rate: float = 3e-3
    matrix_rate: float | None = None
    dropout: float = 0.0
    left_out: float = 0.0
    swapped: float = 0.0
    seed: int = 0
    checkpoints: int = 3

    @property
    def folder(self) -> Path:
        return WORK / "runs" / self.name

    @property
    def finished(self) -> bool:
        """Whether it has been trained to its end."""
        return (self.folder / "model.safetensors").exists()

    @property
    def corpus(self) -> Path:
        """Where the corpus and tokenizer lie: shared by recipes that differ in the model alone."""
        shares = "-".join(f"{name}{share:g}" for name, share in sorted(self.shares.items()))
        kept = f"v{self.vocabulary}-e{self.exposures}-{shares}-r{self.related:g}-l{self.length}-s{self.seed}"
        return WORK / "corpora" / kept


BASE = Recipe("base")

#: Short trainings: depth against width, share of prose, vocabulary; tied embeddings in the deep and narrow shape.
SHORT = (
    BASE,
    replace(BASE, name="deep-narrow", layers=20, width=96, heads=3, mlp=256),
    replace(BASE, name="more-prose", exposures=10, shares={"wordnet": 0.6}),
    replace(BASE, name="small-vocabulary", vocabulary=2048),
    replace(BASE, name="tied", layers=20, width=96, heads=3, mlp=256, tied=True),
)

#: Trained for recall alone: Muon for the matrices, half facts in the first part, nearly all in the second.
DENSE_FIRST = replace(
    BASE, name="dense-first", exposures=50, shares={"wordnet": 0.15}, matrix_rate=8e-3, steps=900, decay=1
)
DENSE = replace(
    DENSE_FIRST,
    name="dense",
    start="dense-first",
    exposures=55,
    shares={"austen": 0.4, "bible": 0.4, "jargon": 0.4, "wordnet": 0.02},
    related=0.2,
    steps=2000,
    warmup=30,
    decay=400,
    checkpoints=8,
)

#: What the model is compared with.
VARIANTS = (*SHORT, DENSE)

#: The first part of the model's training: two thirds prose, one third facts, few of which can be copied.
FIRST = replace(
    BASE,
    name="first",
    layers=20,
    width=96,
    heads=3,
    mlp=256,
    tied=True,
    exposures=40,
    shares={"wordnet": 0.6},
    related=0.2,
    steps=4500,
    decay=0,
    checkpoints=3,
)

#: The second part, for recall: more facts than prose.
SECOND = replace(
    FIRST,
    name="second",
    start="first",
    exposures=90,
    shares={"wordnet": 0.5},
    steps=3000,
    warmup=30,
)

#: The model that is shipped: the last part is as the first, woven anew, and brings the learning rate down.
MODEL = replace(FIRST, name="model", start="second", steps=2000, warmup=30, decay=1900, seed=1, checkpoints=2)

#: Its twin: the same data and seeds, with dropout in all parts.
TWIN_FIRST = replace(FIRST, name="twin-first", dropout=0.1)
TWIN_SECOND = replace(SECOND, name="twin-second", start="twin-first", dropout=0.1)
TWIN = replace(MODEL, name="twin", start="twin-second", dropout=0.1)

#: The model trained on while sublayers fail, as they do when they are ablated: what it learns there is repair.
DEPTH = replace(
    MODEL,
    name="depth",
    start="built-in",
    steps=1500,
    warmup=50,
    decay=900,
    rate=1.5e-3,
    left_out=0.1,
    swapped=0.1,
    seed=2,
)

ALL = {
    recipe.name: recipe
    for recipe in (*VARIANTS, DENSE_FIRST, FIRST, SECOND, MODEL, TWIN_FIRST, TWIN_SECOND, TWIN, DEPTH)
}
