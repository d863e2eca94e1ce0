"""Hostile input: files changed at random and files built to do harm, for every format that is read.

Readers run as the commands run them, in this process, C libraries included. A crash of one would end the process: that
it does not happen is what this drill shows, and why decoders need no process of their own.
"""

from tests.drills.hostile import containers, images, stored, text, weights

FORMATS = (*weights.FORMATS, *images.FORMATS, *containers.FORMATS, *stored.FORMATS, *text.FORMATS)
BY_NAME = {format.name: format for format in FORMATS}
PARTS = tuple(format.part() for format in FORMATS)
