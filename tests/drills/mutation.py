"""Random changes of bytes and of text, in the manner of American Fuzzy Lop's havoc stage (Zalewski 2014)."""

import random
import re

# Numbers at which lengths, offsets and counts go wrong.
_INTERESTING = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_WIDE = (*_INTERESTING, 1 << 40, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)
_NUMBER = re.compile(rb"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")
_WORDS = (
    b"0", b"-1", b"1e999", b"-1e999", b"NaN", b"Infinity", b"1" * 400, b"1e-400", b"9" * 5000, b"null", b"true", b"[]",
    b"{}", b'""', b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\\u0000", b"\\ud800", b"../../x",
    b"/etc/passwd",
    b"[" * 3000, b'{"a":' * 3000, b"%s%n", b"\r\n", b"\t", b" ", b"\x1b[2J", "\u0661".encode(), b"0x10", b"1_000",
)  # fmt: skip


def mutated(data: bytes, rng: random.Random, others: tuple[bytes, ...] = (), text: bool = False) -> bytes:
    """Bytes after one to eight random changes.

    Args:
      data: valid content.
      rng: random numbers.
      others: content to splice in.
      text: whether numbers and words are replaced too.
    """
    body = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 2, 4, 8))):
        kinds = [_flip, _byte, _integer, _delete, _double, _overwrite, _truncate, _zero]
        if text:
            kinds += [_number, _number, _insert_word, _insert_word, _drop_line]
        if others:
            kinds.append(lambda b, r: _splice(b, r, others))
        if not body:
            break
        rng.choice(kinds)(body, rng)
    return bytes(body)


def _span(body: bytearray, rng: random.Random) -> tuple[int, int]:
    first = rng.randrange(len(body))
    return first, min(len(body), first + min(rng.choice((1, 2, 4, 8, 32, 256)), len(body)))


def _flip(body: bytearray, rng: random.Random) -> None:
    body[rng.randrange(len(body))] ^= 1 << rng.randrange(8)


def _byte(body: bytearray, rng: random.Random) -> None:
    body[rng.randrange(len(body))] = rng.randrange(256)


def _integer(body: bytearray, rng: random.Random) -> None:
    size, order = rng.choice((2, 4, 8)), rng.choice(("little", "big"))
    at = rng.randrange(len(body))
    value = rng.choice(_WIDE) % (1 << 8 * size)
    body[at : at + size] = value.to_bytes(size, order)  # type: ignore[arg-type]


def _delete(body: bytearray, rng: random.Random) -> None:
    first, last = _span(body, rng)
    del body[first:last]


def _double(body: bytearray, rng: random.Random) -> None:
    first, last = _span(body, rng)
    body[first:first] = body[first:last] * rng.choice((1, 1, 2, 50))


def _overwrite(body: bytearray, rng: random.Random) -> None:
    first, last = _span(body, rng)
    to = rng.randrange(len(body))
    body[to : to + last - first] = body[first:last]


def _truncate(body: bytearray, rng: random.Random) -> None:
    del body[rng.randrange(len(body)) :]


def _zero(body: bytearray, rng: random.Random) -> None:
    first, last = _span(body, rng)
    body[first:last] = bytes([rng.choice((0, 0xFF))]) * (last - first)


def _splice(body: bytearray, rng: random.Random, others: tuple[bytes, ...]) -> None:
    other = rng.choice(others) or b"\0"
    first = rng.randrange(len(other))
    body[rng.randrange(len(body)) :] = other[first:]


def _number(body: bytearray, rng: random.Random) -> None:
    found = list(_NUMBER.finditer(body))
    if found:
        where = rng.choice(found)
        numbers = [str(rng.choice((1, -1)) * value).encode() for value in _WIDE]
        body[where.start() : where.end()] = rng.choice([*numbers, *_WORDS])


def _insert_word(body: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(body))
    body[at:at] = rng.choice(_WORDS)


def _drop_line(body: bytearray, rng: random.Random) -> None:
    lines = bytes(body).split(b"\n")
    del lines[rng.randrange(len(lines))]
    body[:] = b"\n".join(lines)
