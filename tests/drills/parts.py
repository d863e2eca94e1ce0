"""All drills, in the order of the table."""

from tests.drills import buckets, disks, hostile, kills, rot, soak, together

PARTS = (
    *hostile.PARTS,
    *rot.PARTS,
    *kills.PARTS,
    *together.PARTS,
    *disks.PARTS,
    *buckets.PARTS,
    *soak.PARTS,
)
