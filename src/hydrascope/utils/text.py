"""How many there are of something, in words."""


def counted(count: int | str, one: str, more: str) -> str:
    """A count with its noun; a count that is written already stays as it is.

    >>> counted(1, "patch", "patches")
    '1 patch'
    >>> counted(1234, "prompt", "prompts")
    '1,234 prompts'
    >>> counted("averaged", "patch", "patches")
    'averaged patches'
    """
    said = count if isinstance(count, str) else f"{count:,}"
    return f"{said} {one if said == '1' else more}"
