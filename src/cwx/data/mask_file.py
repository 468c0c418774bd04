"""The mask of a patch from a picture, from an image file."""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from cwx.data.corruption import PictureFile
from cwx.functional.backdoor import Shape


@dataclass(frozen=True, kw_only=True)
class MaskFile:
    """A mask from a file: white where the picture covers the image, black where it does not.

    Attributes:
        path: the image file, of the size of the picture's file; its luminance counts.
    """

    path: str

    def draw(self, shape: Shape) -> Tensor:
        """The mask ``[C, H, W]``, in 0-1, stretched to this size.

        Raises:
            ValueError: the file is missing, is not an image, or has transparent pixels.
        """
        return self._picture().draw(shape)

    def size(self) -> tuple[int, int]:
        """Height and width of the file's image.

        Raises:
            ValueError: as `draw`.
        """
        return self._picture().size()

    def _picture(self) -> PictureFile:
        file = Path(self.path)
        if not file.is_file():
            raise ValueError(
                f"there is no mask {file}: set corruption.trigger.mask_picture.path to an image "
                "file, or corruption.trigger.mask_picture=null for the picture's alpha channel, or "
                "the whole square if it has none"
            )
        return PictureFile(path=self.path)
