"""All drills, in the order of the table."""

from tests.drills import buckets, disks, elastic, hostile, kills, numbers, preempted, rot, soak, together

PARTS = (
    *hostile.PARTS,
    *rot.PARTS,
    *numbers.PARTS,
    *kills.PARTS,
    *together.PARTS,
    *preempted.PARTS,
    *elastic.PARTS,
    *disks.PARTS,
    *buckets.PARTS,
    *soak.PARTS,
)
