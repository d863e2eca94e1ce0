"""Metadata of the images that a model needs beside their values, and options of the import, given by the user.

The metadata becomes part of the encoder: images of other places and times need an encoder of their own.
"""

import dataclasses
import datetime
from collections.abc import Mapping

from scaling.core.errors import UserError
from scaling.core.flags import Define, Flags


@dataclasses.dataclass(frozen=True)
class Acquisition:
    """Metadata of the images. Nothing is guessed: values that are not given are empty, and required ones are an error.

    Attributes:
      bands: names of the channels, in order.
      wavelengths, bandwidths: centre and width of each channel in nanometres; a value below zero is not a wavelength
        but a family's number of a radar channel.
      resolution: metres per pixel.
      time: time of acquisition in ISO 8601 (2021-07-15, or 2021-07-15T10:30).
      location: latitude and longitude in degrees.
      image_size, patch_size: sizes in pixels, if they should differ from those of the file.
    """

    bands: tuple[str, ...] = ()
    wavelengths: tuple[float, ...] = ()
    bandwidths: tuple[float, ...] = ()
    resolution: float = 0.0
    time: str = ""
    location: tuple[float, ...] = ()
    image_size: int = 0
    patch_size: int = 0

    def check(self, family: str, takes: Mapping[str, bool]) -> None:
        """Raises a UserError for values that the family does not use, and for missing ones that it needs.

        Args:
          family: name of the family.
          takes: name of each value it uses -> whether it is required.
        """
        for field in dataclasses.fields(self):
            given = bool(getattr(self, field.name))
            if given and field.name not in takes:
                raise UserError(f"--{field.name}: {family} does not use --{field.name}; leave it out")
            if not given and takes.get(field.name):
                raise UserError(f"--{field.name}: {family} needs --{field.name}; give it")
        channels = {len(x) for x in (self.bands, self.wavelengths, self.bandwidths) if x}
        if len(channels) > 1:
            raise UserError(
                "--bands, --wavelengths and --bandwidths: must list the same channels in order; "
                "give one value per channel in each"
            )
        if min(self.resolution, self.image_size, self.patch_size, *self.bandwidths) < 0:
            raise UserError(
                "--bandwidths, --resolution, --image_size and --patch_size: must not be negative; leave them out"
            )
        if self.time:
            self.moment()
        if self.location and not (len(self.location) == 2 and abs(self.location[0]) <= 90):
            raise UserError(
                "--location: must be a latitude, up to 90 degrees north or south, and a longitude; give as 47.5,8.5"
            )

    def grid(self, patch: int) -> int:
        """Patches along a side of the images; 0 if no size is given.

        Raises:
          UserError: the size is not a multiple of the patches.
        """
        if self.image_size % patch:
            raise UserError(
                f"--image_size={self.image_size}: must be divisible by the patch size {patch}; give a multiple of it"
            )
        return self.image_size // patch

    def moment(self) -> datetime.datetime:
        """The time of acquisition.

        Raises:
          UserError: not a time.
        """
        try:
            return datetime.datetime.fromisoformat(self.time)
        except ValueError as e:
            raise UserError(f"--time={self.time}: must be a time; give one like 2021-07-15 or 2021-07-15T10:30") from e


NOTHING_GIVEN = Acquisition()


def define_acquisition_flags(define: Define) -> None:
    """Defines the flags of `acquisition`."""
    define.list("bands", [], "Names of the channels, in order.")
    define.list("wavelengths", [], "Central wavelengths of the channels, in nanometres.")
    define.list("bandwidths", [], "Bandwidths of the channels, in nanometres.")
    define.float("resolution", 0.0, "Metres per pixel.")
    define.string("time", "", "Time of acquisition: 2021-07-15, or 2021-07-15T10:30.")
    define.list("location", [], "Latitude, longitude in degrees.")
    define.integer("image_size", 0, "Image size in pixels, if other than that of the file; positions are resampled.")
    define.integer("patch_size", 0, "Patch size in pixels, for encoders that take several.")


def acquisition(flags: Flags) -> Acquisition:
    """The `Acquisition` given by the flags; raises a UserError for values that should be numbers."""
    return Acquisition(
        bands=tuple(flags.bands),
        wavelengths=_numbers("wavelengths", flags.wavelengths),
        bandwidths=_numbers("bandwidths", flags.bandwidths),
        resolution=flags.resolution,
        time=flags.time,
        location=_numbers("location", flags.location),
        image_size=flags.image_size,
        patch_size=flags.patch_size,
    )


def _numbers(flag: str, values: list[str]) -> tuple[float, ...]:
    try:
        return tuple(float(value) for value in values)
    except ValueError as e:
        raise UserError(f"--{flag}={','.join(values)}: must be numbers; separate them by commas") from e
