"""Find a dictionary's site in the names of the hooks that it was trained on.

| hook of TransformerLens | module of transformers | site |
|---|---|---|
| `blocks.L.hook_attn_out` | | `attn.L` |
| `blocks.L.hook_mlp_out` | `model.layers.L.post_feedforward_layernorm.output` | `mlp.L` |
| `blocks.L.attn.hook_z` | `model.layers.L.self_attn.o_proj.input` | `heads.L` |
| `blocks.L.hook_resid_pre` | | `stream.L` |
| `blocks.L.hook_resid_post` | `model.layers.L.output` | `stream.(L+1)` |

A transcoder goes from the MLP's input, `mlp.hook_in`, `ln2.hook_normalized` (before the norm's gain) or
`pre_feedforward_layernorm.output`, to what the MLP adds. TransformerLens' `hook_attn_out` and `hook_mlp_out` come after
the norm that follows a sublayer in some models, so no hook stands for `raw.attn.L` or `raw.mlp.L`. Its `hook_mlp_in` is
the residual stream before the norm, and `mlp.hook_out` comes before a norm that may follow: neither is a site.
"""

import re

from hydrascope.utils.errors import HydrascopeError

#: The kind of the site at each hook, and what is added to the hook's block to have the site's.
_SITES = {
    "hook_attn_out": ("attn", 0),
    "hook_mlp_out": ("mlp", 0),
    "attn.hook_z": ("heads", 0),
    "hook_resid_pre": ("stream", 0),
    "hook_resid_post": ("stream", 1),
    "post_feedforward_layernorm.output": ("mlp", 0),
    "self_attn.o_proj.input": ("heads", 0),
    "output": ("stream", 1),
}
_BEFORE_GAIN = "ln2.hook_normalized"
_MLP_INPUTS = ("mlp.hook_in", _BEFORE_GAIN, "pre_feedforward_layernorm.output")
_HOOK = re.compile(r"(?:blocks|model\.layers)\.(\d{1,9})\.(.+)")


def site_of(source: str, hook: str, output: str | None = None) -> str:
    """Return the site of a dictionary that was trained on the hook `hook`.

    >>> site_of("the SAE", "blocks.3.hook_resid_post")
    'stream.4'
    >>> site_of("the transcoder", "blocks.3.mlp.hook_in", "blocks.3.hook_mlp_out")
    'transcoder.3'

    Args:
        source: the dictionary's file or class, named in errors.
        output: the hook that a transcoder writes to.

    Raises:
        HydrascopeError: no site is there.
    """
    read = _HOOK.fullmatch(hook)
    if output is None or output == hook:
        if read and read[2] in _SITES:
            kind, further = _SITES[read[2]]
            return f"{kind}.{int(read[1]) + further}"
    else:
        written = _HOOK.fullmatch(output)
        if read and written and read[1] == written[1] and read[2] in _MLP_INPUTS:
            kind, further = _SITES.get(written[2], ("", 0))
            if (kind, further) == ("mlp", 0):
                return f"transcoder.{int(read[1])}"
    place = hook if output is None or output == hook else f"{hook} to {output}"
    raise HydrascopeError(
        f"{source} was trained on {place}, which is no site that is supported: if it is one under another name, give "
        "it, as site='mlp.5'"
    )


def reads_before_gain(hook: str) -> bool:
    """Whether the hook is the MLP's input before the gain of its norm.

    >>> reads_before_gain("blocks.3.ln2.hook_normalized")
    True
    """
    read = _HOOK.fullmatch(hook)
    return read is not None and read[2] == _BEFORE_GAIN
