"""Pictures inside of a page."""

import base64


def data_url(png: bytes) -> str:
    """What an image's ``src`` may be, so that the page loads nothing."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
