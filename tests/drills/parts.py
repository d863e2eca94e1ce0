"""All drills, in the order of the table."""

from tests.drills import buckets, disks, elastic, hostile, kills, numbers, rot

PARTS = (
    *hostile.PARTS, *rot.PARTS, *kills.PARTS, *disks.PARTS, *buckets.PARTS, *elastic.PARTS, *numbers.PARTS,
)  # fmt: skip
