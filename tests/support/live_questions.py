"""Answer a live question by a sweep, and name prompts with subjects to ask about."""

from exploring import POOL, TYPED

import hydrascope as hs

#: Everything is float64; the sweep multiplies the same numbers in other batches.
CLOSE = {"rtol": 1e-7, "atol": 1e-9}


def swept(session, question, ablate, *, prompts=(*POOL, TYPED), index=-1):
    """Sweep over all prompts, and return the result of the one at `index`."""
    target = "argmax" if question.target is None else question.target
    results = hs.sweep(
        session.model,
        prompts,
        question.make_ablation(),
        ablate=ablate,
        at=question.at,
        target=target,
        metrics=["prob", "top"],
        keep="patches",
    )
    return results.isel(prompt=[index])


#: Prompts with subjects of several lengths, at several positions; and two without, which are left out.
SUBJECTS = (
    *(("the cat is", "e cat"), ("dogs, no", "dogs,"), ("a cow", "a cow"), ("QRS tuv", "RS tu"), ("x is it", "x")),
    *(("abc", None), ("no", "yes")),
)
NAMED = [hs.Prompt(text, subject=subject) for text, subject in SUBJECTS]
