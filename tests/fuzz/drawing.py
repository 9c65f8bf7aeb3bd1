"""Random choices that a text decides: the same text gives the same configuration, on every machine."""

from random import Random

#: Mostly what models have, now and then anything that transformers knows.
_USUAL = ("silu", "gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "relu2")
_ANY = (
    *("gelu_10", "gelu_fast", "gelu_python", "gelu_python_tanh", "gelu_accurate", "hardswish", "laplace", "leaky_relu"),
    *("linear", "mish", "quick_gelu", "relu6", "sigmoid", "sqrtsoftplus", "swish", "tanh", "prelu"),
)


class Draw(Random):
    """A source of random choices."""

    def chance(self, share: float) -> bool:
        return self.random() < share

    def activation(self) -> str:
        return self.choice(_USUAL if self.chance(0.7) else _ANY)

    def near(self, value: float) -> float:
        """A number of the size of `value`."""
        return value * self.uniform(0.5, 2.0)

    def epsilon(self) -> float:
        """Mostly a norm's usual one; a large one shows where it is left out."""
        return self.choice((1e-6, 1e-5, 1e-5, 1e-3, 0.1))

    def dropout(self) -> float:
        """It plays no part in what is measured."""
        return self.choice((0.0, 0.0, 0.1))
