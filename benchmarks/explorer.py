"""How long a click in the explorer takes: `python -m benchmarks.explorer`.

A random model of GPT-2 small's shape with 64 prompts to draw from, after the first click; the least of several times.
"""

import time
from collections.abc import Callable

import hydrascope as hs
from benchmarks.shapes import gpt2
from hydrascope.explorer.job_monitor import JobMonitor
from hydrascope.explorer.question import Question
from hydrascope.explorer.session import Session
from hydrascope.reports.html.report_data import single_prompt_page_data

TIMES = 10
PROMPT = "The currency of the country in which the river ends is the"


def least(work: Callable[[], object]) -> float:
    """Seconds, at best."""
    taken = []
    for _ in range(TIMES):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return min(taken)


def main() -> None:
    """Print the seconds of each kind of question."""
    tokenizer = hs.load_model("built-in").tokenizer  # any: the numbers mean nothing
    session = Session(hs.load_model(gpt2("gpt2-small").build(), tokenizer), hs.load_prompts("demo").limit(64))
    start = time.perf_counter()
    session.warm(JobMonitor())
    print(f"{time.perf_counter() - start:6.2f} s  the prompts that patches come from, once")
    asked = {
        "the next tokens": lambda: session.read(Question(PROMPT), JobMonitor()),
        "one layer, 15 patches": lambda: session.ablate(Question(PROMPT, "attn.5"), JobMonitor()),
        "the same with a layer frozen": lambda: session.ablate(Question(PROMPT, "attn.5|mlp.7"), JobMonitor()),
        "a head": lambda: session.ablate(Question(PROMPT, "head.5.3"), JobMonitor()),
        "all 24 layers, 15 patches": lambda: session.sweep(Question(PROMPT), JobMonitor()),
        "the same as a page": lambda: single_prompt_page_data(session.sweep(Question(PROMPT), JobMonitor())),
    }
    for name, work in asked.items():
        print(f"{least(work):6.2f} s  {name}", flush=True)


if __name__ == "__main__":
    main()
