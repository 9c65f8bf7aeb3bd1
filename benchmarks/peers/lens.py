"""TransformerLens: `run_with_hooks` on its bridge to a transformers model, for every ablated component."""

from typing import Any

from torch import Tensor
from transformer_lens.model_bridge.sources import build_bridge_from_module
from transformers import PreTrainedModel

from benchmarks.peers import Override, Peer, Run, Session
from benchmarks.shapes import Shape
from benchmarks.task import Work

#: Its name for what stands at a site of block `layer`; `hook_z` is `[batch, position, head, head width]`.
_NAMES = {"attn": "hook_attn_out", "mlp": "hook_mlp_out", "head": "attn.hook_z"}


def transformer_lens_hooks(model: PreTrainedModel, shape: Shape, work: Work) -> Peer:
    """`model` is wrapped in place, its weights as they are."""
    bridge = build_bridge_from_module(model, type(model).__name__, hf_config=model.config)
    names = {site: f"blocks.{site.block}.{_NAMES[site.kind]}" for site in work.sites(shape)}

    def peer(tokens: Tensor, **forward: Any) -> Session:
        def run(override: Override | None) -> Run:
            values: list[Tensor] = []
            residual: list[Tensor] = []

            def overwrite(activation: Tensor, hook: Any) -> Tensor:
                assert override is not None
                override(activation.flatten(2))
                return activation

            def read(activation: Tensor, hook: Any) -> None:
                values.append(activation[:, -1].flatten(1))

            def read_residual(activation: Tensor, hook: Any) -> None:
                residual.append(activation[:, -1])

            hooks: list[tuple[str, Any]] = [] if override is None else [(names[override.site], overwrite)]
            hooks += [(name, read) for name in names.values()]
            hooks.append(("ln_final.hook_in", read_residual))
            copies = tokens.expand(1 if override is None else len(override.patches), -1)
            logits = bridge.run_with_hooks(copies, return_type="logits", fwd_hooks=hooks, **forward)
            return Run(values, residual[0], logits[:, -1])

        return run

    return peer
