"""How far an image may be halved."""


def halved(
    image_size: tuple[int, int], times: int, *, network: str, remedy: str
) -> tuple[int, int]:
    """The sides that are left of `image_size` after so many halvings, rounded down.

    Args:
        network: names it in the error, with its article.
        remedy: what to use instead.

    Raises:
        ValueError: less than one pixel is left.
    """
    height, width = (side >> times for side in image_size)
    if min(height, width) < 1:
        raise ValueError(
            f"{network} halves {image_size[0]}x{image_size[1]} images to nothing: {remedy}"
        )
    return height, width
