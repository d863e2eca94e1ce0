"""All drills, in the order of the table."""

from tests.drills import hostile, rot

PARTS = (*hostile.PARTS, *rot.PARTS)
