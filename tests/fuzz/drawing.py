"""Draw random choices from a text: the same text gives the same ones on every machine."""

from random import Random

#: Mostly what models have, now and then anything that transformers knows.
_USUAL = ("silu", "gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "relu2")
_ANY = (
    *("gelu_10", "gelu_fast", "gelu_python", "gelu_python_tanh", "gelu_accurate", "hardswish", "laplace", "leaky_relu"),
    *("linear", "mish", "quick_gelu", "relu6", "sigmoid", "sqrtsoftplus", "swish", "tanh", "prelu"),
)


class Draw(Random):
    """A source of random choices, seeded with a text."""

    def chance(self, share: float) -> bool:
        """Return true with a probability."""
        return self.random() < share

    def activation(self) -> str:
        """Draw the name of an activation function."""
        return self.choice(_USUAL if self.chance(0.7) else _ANY)

    def near(self, value: float) -> float:
        """Draw a number between half and twice `value`."""
        return value * self.uniform(0.5, 2.0)

    def epsilon(self) -> float:
        """Draw a norm's epsilon: mostly a usual one, or one so large that leaving it out shows."""
        return self.choice((1e-6, 1e-5, 1e-5, 1e-3, 0.1))

    def dropout(self) -> float:
        """Draw the rate of a dropout, which plays no part in evaluation mode."""
        return self.choice((0.0, 0.0, 0.1))
