"""All drills, in the order of the table."""

from tests.drills import buckets, disks, hostile, kills, rot

PARTS = (*hostile.PARTS, *rot.PARTS, *kills.PARTS, *disks.PARTS, *buckets.PARTS)
