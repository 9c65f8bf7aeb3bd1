"""Post questions to the explorer's application at a known address, and read the answers."""

import json

PORT, TOKEN = 8765, "secret-token"
HOST, ORIGIN = f"127.0.0.1:{PORT}", f"http://127.0.0.1:{PORT}"
ASKED = {"question": {"text": "cats and", "run": "attn.0", "patches": 2}}


def told(response):
    """Return the lines of an answer, each read as JSON."""
    return [json.loads(line) for line in response.text.splitlines()]


def post(client, kind, asked, **options):
    """Post a question of this kind, and return the response."""
    return client.post(f"/{TOKEN}/{kind}", json=asked, **options)
