"""Zip archives written byte by byte, with what no archiver writes."""

import struct
import zlib
from collections.abc import Sequence

_STEP = 1 << 20


def zeros(megabytes: int) -> bytes:
    """A deflate stream of so many mebibytes of zeros, about a thousandth as long; made without compressing them all."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(bytes(_STEP)) + packer.flush(zlib.Z_FULL_FLUSH)
    return block * megabytes + zlib.compressobj(9, zlib.DEFLATED, -15).flush()


def archive(entries: Sequence[tuple[str, bytes, int | None]]) -> bytes:
    """A zip archive.

    Args:
      entries: name, content as stored, and size after unpacking by deflate; None for content that is not compressed.
    """
    body, directory = b"", b""
    for name, content, size in entries:
        method, unpacked = (0, len(content)) if size is None else (8, size)
        about = struct.pack("<HHHIII", method, 0, 0, zlib.crc32(content), len(content), unpacked)
        here, encoded = len(body), name.encode()
        body += b"PK\3\4\x14\0\0\0" + about + struct.pack("<HH", len(encoded), 0) + encoded + content
        directory += (
            b"PK\1\2\x14\0\x14\0\0\0" + about + struct.pack("<HHHHHII", len(encoded), 0, 0, 0, 0, 0, here) + encoded
        )
    end = struct.pack("<HHHHIIH", 0, 0, len(entries), len(entries), len(directory), len(body), 0)
    return body + directory + b"PK\5\6" + end
