"""What help and messages say may be given is taken."""

from pathlib import Path

import numpy as np

from hydrascope.cli.options import METRICS, READOUTS
from hydrascope.cli.parsing import readouts
from hydrascope.engines.metrics import BUILT_IN


def test_every_word_of_readout_is_read(tmp_path: Path) -> None:
    np.save(file := tmp_path / "probe.npy", np.ones(4))
    np.save(several := tmp_path / "sae.npy", np.ones((2, 4)))
    words = READOUTS.replace("ID", "7").replace(".N", ".2").replace("directions:FILE.npy", f"directions:{several}")
    words = words.replace("FILE.npy", str(file)).replace("@B", "@1")
    labels = [label for readout in readouts(words) for label in readout.labels]
    singles = ["logit", "logit.answer", "logit.foil", "logit.7", "difference"]
    assert labels == [*singles, "placebo.0", "placebo.1", "probe", "probe@1", "sae.0", "sae.1", "sae@1.0", "sae@1.1"]


def test_every_built_in_metric_is_in_the_help() -> None:
    assert METRICS.split(", ") == list(BUILT_IN)
