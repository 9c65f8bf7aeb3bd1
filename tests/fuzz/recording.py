"""Record the activations of one forward pass with plain hooks, and write into it."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

#: The positions and columns of an activation, and the values to write there.
Change = tuple[list[int] | slice, slice, Tensor]
#: The name of an activation: a label, or the module whose output it is.
Key = str | nn.Module


class Recording:
    """The activations of one pass, after some changes.

    The first arguments of a hook must be bound (`partial`) before it is registered.

    Attributes:
        values: by key, the activation `[position, columns]`.
        streams: by number of the block, `[width]` the residual stream that enters it at the last position.
    """

    def __init__(self, changes: Mapping[Key, Sequence[Change]]) -> None:
        self.values: dict[Key, Tensor] = {}
        self.streams: dict[int, Tensor] = {}
        self._changes = changes

    def output_hook(self, key: Key, module: nn.Module, inputs: Any, output: Any) -> Any:
        """Change and keep the output of a module, or the first of several."""
        if isinstance(output, tuple):
            return (self._changed(key, output[0]), *output[1:])
        return self._changed(key, output)

    def input_hook(self, key: Key, module: nn.Module, inputs: Any) -> Any:
        """Change and keep the first input of a module."""
        return (self._changed(key, inputs[0]), *inputs[1:])

    def stream_hook(self, block: int, module: nn.Module, args: Any, kwargs: Any) -> None:
        """Keep the residual stream that enters a block."""
        self.streams[block] = (args[0] if args else kwargs["hidden_states"])[0, -1].clone()

    def _changed(self, key: Key, tensor: Tensor) -> Tensor:
        tensor = tensor.clone()
        rows = tensor.view(-1, tensor.shape[-1])
        for positions, columns, value in self._changes.get(key, ()):
            rows[positions, columns] = value
        self.values[key] = rows.clone()
        return tensor
