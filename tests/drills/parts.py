"""All drills, in the order of the table."""

from tests.drills import hostile

PARTS = (*hostile.PARTS,)
