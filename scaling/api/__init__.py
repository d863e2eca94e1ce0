"""The functions of `import scaling`: arrays in, arrays out, errors as exceptions.

Each is a thin wrapper around one of the other packages. Wrong input raises a `UserError` with a one-line message; a run
that cannot continue raises a `TrainingError`. The examples are run by tests/test_api.py, with

    import numpy as np
    import scaling

    images = np.random.default_rng(0).integers(0, 256, (64, 16, 16, 3), np.uint8)

and with `runs/tiny`, a pretrained encoder of images of 16 x 16 pixels and three bands.
"""

from scaling.parallel import hosts

hosts.choose_platform()
