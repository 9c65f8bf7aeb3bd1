"""Train a small TopK dictionary on a model's own activations, for tests and examples.

    python -m training.dictionary smollm2 mlp.29 passages,common-facts dictionary.safetensors

It is no rival of dictionaries that were trained on billions of tokens: the share of variance that it explains is
printed, and goes into its name.
"""

import sys

import torch
from torch import Tensor

import hydrascope as hs
from hydrascope.models.language_model import LanguageModel


def train_dictionary(
    model: LanguageModel, prompts: hs.prompts.PromptSet, site: str, *, features: int, k: int, steps: int, seed: int = 0
) -> tuple[hs.Dictionary, float]:
    """Return a TopK dictionary of a sublayer's output at all positions of some prompts.

    Args:
        model: the model.
        prompts: the prompts; a tenth of their positions is left for evaluation.
        site: `attn.L` or `mlp.L`.
        features: the number of features.
        k: the number of features that may be active.
        steps: the number of optimisation steps.
        seed: the seed of the initial weights and batches.

    Returns:
        the dictionary, and the share of the variance of the positions left out that it explains.
    """
    found = hs.activations(model, prompts, site, at="all", keep=["write"])["write"].values[:, :, 0]
    rows = torch.from_numpy(found).flatten(0, 1).float()
    rows = rows[rows.isfinite().all(-1)]
    generator = torch.Generator().manual_seed(seed)
    rows = rows[torch.randperm(len(rows), generator=generator)]
    held, rows = rows[: len(rows) // 10], rows[len(rows) // 10 :]
    mean, scale = rows.mean(0), float((rows - rows.mean(0)).square().mean().sqrt())
    trained = _descend((rows - mean) / scale, features, k, steps, generator)
    encoder, decoder, bias = trained
    dictionary = hs.Dictionary(
        site, encoder, decoder, bias * scale, decoder_bias=mean, pre_bias=mean, activation="topk", k=k
    )
    written = dictionary.encode(held) @ dictionary.decoder + dictionary.rest(held)
    explained = 1 - float((held - written).square().sum() / (held - held.mean(0)).square().sum())
    return dictionary, explained


def _descend(
    rows: Tensor, features: int, k: int, steps: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Return encoder, decoder and encoder bias of a TopK dictionary of rows of unit size."""
    start = torch.nn.functional.normalize(torch.randn(features, rows.shape[1], generator=generator), dim=-1)
    encoder, decoder = start.clone().requires_grad_(), start.clone().requires_grad_()
    bias = torch.zeros(features, requires_grad=True)
    optimizer = torch.optim.Adam([encoder, decoder, bias], lr=1e-3)
    for _ in range(steps):
        batch = rows[torch.randint(len(rows), (512,), generator=generator)]
        kept = torch.topk(torch.nn.functional.linear(batch, encoder, bias), k, dim=-1)
        code = torch.zeros(len(batch), features).scatter(-1, kept.indices, kept.values.relu())
        loss = (code @ decoder - batch).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            decoder /= decoder.norm(dim=-1, keepdim=True)
    return encoder.detach(), decoder.detach(), bias.detach()


def main(name: str, site: str, sets: str, path: str) -> None:
    """Train a dictionary of 2,048 features and write it to a file."""
    model = hs.load_model(name)
    prompts = [prompt for each in sets.split(",") for prompt in hs.load_prompts(each)]
    dictionary, explained = train_dictionary(
        model, hs.prompts.PromptSet.of(prompts), site, features=2048, k=32, steps=4000
    )
    named = hs.Dictionary.of(dictionary, name=f"TopK of {name}, {explained:.0%} of the variance")
    named.save(path)
    print(f"{named.label}: {path}")


if __name__ == "__main__":
    main(*sys.argv[1:])
