"""Download the 1,209 known facts of ROME (Meng et al. 2022), the paper's contexts.

The file is cached (`hydrascope.utils.cache`).
"""

import contextlib
import hashlib
import http.client
import urllib.request

from hydrascope.utils.cache import cache_folder, whole_file
from hydrascope.utils.errors import HydrascopeError

#: The file has 1,209 entries, despite its name. One prompt occurs twice: 1,208 are measured.
URL = "https://rome.baulab.info/data/dsets/known_1000.json"
SHA256 = "61daca55318bb5260c1e62e133debef9102c7b278bbc7b19dd2ac655543f333a"

_TIMEOUT_SECONDS = 30
_OTHERWISE = "get the file known_1000.json elsewhere and pass it as --prompts known_1000.json"


def known_facts() -> bytes:
    """Return the verified file known_1000.json from the cache, or download and cache it.

    Raises:
        HydrascopeError: the file is not in the cache and can't be downloaded.
    """
    cached = cache_folder() / "known_1000.json"
    with contextlib.suppress(OSError):
        data = cached.read_bytes()
        if _verified(data):
            return data
    data = _download()
    if not _verified(data):
        raise HydrascopeError(f"{URL} has changed (its SHA-256 is another): {_OTHERWISE}")
    # The prompts can be used even if they can't be cached.
    with contextlib.suppress(OSError), whole_file(cached) as file:
        file.write(data)
    return data


def _verified(data: bytes) -> bool:
    return hashlib.sha256(data).hexdigest() == SHA256


def _download() -> bytes:
    try:
        with urllib.request.urlopen(URL, timeout=_TIMEOUT_SECONDS) as response:
            return bytes(response.read())
    except (OSError, http.client.HTTPException) as error:
        raise HydrascopeError(f"cannot download {URL} ({error}): {_OTHERWISE}") from error
