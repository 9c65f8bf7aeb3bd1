"""Counts with their nouns."""


def counted(count: int | str, one: str, more: str) -> str:
    """Return a count with its noun; a count given as text is kept.

    >>> counted(1, "patch", "patches")
    '1 patch'
    >>> counted(1234, "prompt", "prompts")
    '1,234 prompts'
    >>> counted("averaged", "patch", "patches")
    'averaged patches'
    """
    text = count if isinstance(count, str) else f"{count:,}"
    return f"{text} {one if text == '1' else more}"
