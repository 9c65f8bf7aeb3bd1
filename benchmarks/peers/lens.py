"""TransformerLens: `run_with_hooks` on its bridge to a transformers model, for every ablated component."""

from typing import Any

import torch
from torch import Tensor
from transformer_lens.model_bridge.sources import build_bridge_from_module
from transformers import PreTrainedModel

from benchmarks.peers import Peer, Run, Session
from benchmarks.shapes import Shape


def transformer_lens_hooks(model: PreTrainedModel, shape: Shape) -> Peer:
    """`model` is wrapped in place, its weights as they are."""
    bridge = build_bridge_from_module(model, type(model).__name__, hf_config=model.config)
    names = [f"blocks.{layer}.hook_{kind}_out" for layer in range(shape.layers) for kind in ("attn", "mlp")]

    def peer(tokens: Tensor, **forward: Any) -> Session:
        def run(ablated: int | None, patches: Tensor | None) -> Run:
            written: list[Tensor] = []
            residual: list[Tensor] = []

            def overwrite(activation: Tensor, hook: Any) -> Tensor:
                assert patches is not None
                activation[:, -1] = patches
                return activation

            def read(activation: Tensor, hook: Any) -> None:
                written.append(activation[:, -1])

            def read_residual(activation: Tensor, hook: Any) -> None:
                residual.append(activation[:, -1])

            hooks: list[tuple[str, Any]] = [] if ablated is None else [(names[ablated], overwrite)]
            hooks += [(name, read) for name in names]
            hooks.append(("ln_final.hook_in", read_residual))
            copies = tokens.expand(1 if patches is None else len(patches), -1)
            logits = bridge.run_with_hooks(copies, return_type="logits", fwd_hooks=hooks, **forward)
            return Run(torch.stack(written, 1), residual[0], logits[:, -1])

        return run

    return peer
