"""All drills, in the order of the table."""

from tests.drills import hostile, kills, rot

PARTS = (*hostile.PARTS, *rot.PARTS, *kills.PARTS)
