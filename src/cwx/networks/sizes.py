"""Image sizes after pooling."""


def halve(image_size: tuple[int, int], times: int, *, network: str, remedy: str) -> tuple[int, int]:
    """`image_size` (height, width) after `times` halvings, rounded down.

    Args:
        network: its name in the error message, with the article.
        remedy: the end of the error message.

    Raises:
        ValueError: the result is less than one pixel.
    """
    height, width = (side >> times for side in image_size)
    if min(height, width) < 1:
        raise ValueError(
            f"{network} halves {image_size[0]}x{image_size[1]} images to less than a pixel: "
            f"{remedy}"
        )
    return height, width
