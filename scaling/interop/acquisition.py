"""What a model must know of the images beside their values, and what is asked of the import: arguments of the user."""

import dataclasses
from collections.abc import Mapping

from scaling.errors import UserError


@dataclasses.dataclass(frozen=True)
class Acquisition:
    """Nothing is guessed: what is not given is empty, and an error where a family cannot do without.

    Attributes:
      bands: names of the channels, in order.
      wavelengths, bandwidths: centre and width of each channel in nanometres; what is below zero is no wavelength but
        a family's number of a radar channel.
      resolution: metres per pixel.
      month: 1 to 12.
      image_size, patch_size: in pixels, where the encoder is to have others than the file.
    """

    bands: tuple[str, ...] = ()
    wavelengths: tuple[float, ...] = ()
    bandwidths: tuple[float, ...] = ()
    resolution: float = 0.0
    month: int = 0
    image_size: int = 0
    patch_size: int = 0

    def check(self, family: str, takes: Mapping[str, bool]) -> None:
        """Raises a UserError for what the family has no use for, and for what it needs and is not given.

        Args:
          family: its name.
          takes: what it takes -> whether it needs it.
        """
        for field in dataclasses.fields(self):
            given = bool(getattr(self, field.name))
            if given and field.name not in takes:
                raise UserError(f"--{field.name} means nothing to {family}")
            if not given and takes.get(field.name):
                raise UserError(f"{family} needs --{field.name}")
        channels = {len(x) for x in (self.bands, self.wavelengths, self.bandwidths) if x}
        if len(channels) > 1:
            raise UserError("--bands, --wavelengths and --bandwidths are of the same channels, in the same order")
        if min(self.resolution, self.image_size, self.patch_size, *self.bandwidths) < 0:
            raise UserError("bandwidths, resolution and sizes are positive")
        if not 0 <= self.month <= 12:
            raise UserError(f"--month={self.month} is not 1 to 12")


NOTHING_GIVEN = Acquisition()
