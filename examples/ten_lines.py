"""From a model to the paper's Figure 7, in ten lines."""

import hydrascope as hs
from hydrascope import measures
from hydrascope.reports import figures

model = hs.load_model("built-in")  # or "openai-community/gpt2", or a folder
prompts = hs.load_prompts("demo").limit(200)  # or "counterfact", a file, or a list of strings
results = hs.sweep(model, prompts, hs.Resample(patches=15))  # an xarray.Dataset, in logits
effects = measures.per_prompt(results)
repair = measures.compensation_regression(effects)  # slope and R² per ablated layer, with 95% intervals
print(repair["slope"].to_pandas().T.round(2))
figures.figure7(effects).savefig("figure7.png")
