"""What a run may be asked: targets, what is kept, and their defaults."""

from typing import Literal

from hydrascope.engines.readouts import Logit

#: The token that metrics, `Logit()` and placebos are about: the clean run's most likely one, the first of the prompt's
#: answer, or one token for all prompts.
Target = Literal["argmax", "answer"] | int


#: What is kept of what parts write in ablated runs: nothing (effects only), means over patches, or each patch besides.
Keep = Literal["auto", "effects", "means", "patches"]


KEEP_BYTES = 4 * 2**30


#: What is read where nothing else is asked for.
TARGET_LOGIT = (Logit(),)
