"""Damage to files: bytes of any format, and where a format packs its content, the content before it is packed."""

import random
import struct
import zlib

NUMBERS = [
    0,
    1,
    2,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0xFFFF,
    1 << 20,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
    (1 << 63) - 1,
    1 << 63,
]
TEXTS = [
    b"[" * 5000, b"{\"a\":" * 2000, b"-1", b"1e999", b"9" * 400, b"NaN", b"null", b"true", b"\"\"", b"[]", b"{}",
    b"\x00", b"\xff\xfe", b"&a [*a]", b"*a", b"!!python/object:os.system", b"/etc/passwd", b"../", b"\"\\ud800\"",
]  # fmt: skip


def mutated(content: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """The content with one to six damages; `others` are files of the same format to take pieces of."""
    for _ in range(rng.choice([1, 1, 1, 2, 3, 6])):
        content = rng.choice(DAMAGES)(content, others, rng)
    return content


def png_sums(content: bytes) -> bytes:
    """A damaged PNG with the checksums of its parts mended, so that readers look at what is in them."""
    mended, at = bytearray(content), 8
    while at + 12 <= len(mended):
        length = int.from_bytes(mended[at : at + 4], "big")
        if at + 12 + length > len(mended):
            break
        mended[at + 8 + length : at + 12 + length] = struct.pack(">I", zlib.crc32(mended[at + 4 : at + 8 + length]))
        at += 12 + length
    return bytes(mended)


def _place(content: bytes, rng: random.Random) -> int:
    """Any place; the first bytes, where headers lie, and the last as often as all others."""
    end = len(content)
    return rng.choice([rng.randint(0, end), min(end, rng.randint(0, 256)), max(0, end - rng.randint(0, 256))])


def _flip(content, others, rng):
    changed = bytearray(content)
    for _ in range(rng.choice([1, 2, 8, 64])):
        if changed:
            changed[min(_place(content, rng), len(changed) - 1)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _fill(content, others, rng):
    at, length = _place(content, rng), rng.choice([1, 4, 16, 64, 512])
    return content[:at] + bytes([rng.choice([0, 0, 0xFF, rng.randrange(256)])]) * length + content[at + length :]


def _noise(content, others, rng):
    at, length = _place(content, rng), rng.choice([1, 4, 16, 64])
    return content[:at] + rng.randbytes(length) + content[at + length :]


def _cut(content, others, rng):
    return content[: _place(content, rng)]


def _remove(content, others, rng):
    at = _place(content, rng)
    return content[:at] + content[at + rng.choice([1, 2, 4, 8, 100, 1000]) :]


def _repeat(content, others, rng):
    at, length = _place(content, rng), rng.choice([1, 4, 16, 256, 4096])
    return content[:at] + content[at : at + length] * rng.choice([2, 3, 50]) + content[at + length :]


def _number(content, others, rng):
    at, form = _place(content, rng), rng.choice(["<I", ">I", "<Q", ">Q", "<H", ">H", "B"])
    number = struct.pack(form, rng.choice(NUMBERS) % (1 << 8 * struct.calcsize(form)))
    return content[:at] + number + content[at + len(number) :]


def _text(content, others, rng):
    at = _place(content, rng)
    return content[:at] + rng.choice(TEXTS) + content[at + rng.choice([0, 1, 4]) :]


def _digits(content, others, rng):
    """Another number in the place of one that is written out."""
    places = [at for at in range(len(content)) if content[at : at + 1].isdigit()]
    if not places:
        return content
    at = rng.choice(places)
    return content[:at] + str(rng.choice([*NUMBERS, -1, 10**30])).encode() + content[at + 1 :]


def _splice(content, others, rng):
    other = rng.choice(others)
    return content[: _place(content, rng)] + other[_place(other, rng) :]


def _within(content, others, rng):
    """Damage within a part that zlib has packed, which is packed again: the lengths around it stay."""
    at = content.find(b"\x78", rng.randrange(max(1, len(content))))
    if at < 0:
        return _flip(content, others, rng)
    unpacking = zlib.decompressobj()
    try:
        inside = unpacking.decompress(content[at:], 1 << 20)
    except zlib.error:
        return _flip(content, others, rng)
    end = len(content) - len(unpacking.unused_data)
    packed = zlib.compress(rng.choice([_flip, _fill, _number, _cut])(inside, others, rng))
    return content[:at] + packed.ljust(end - at, b"\0") + content[end:]


DAMAGES = [
    _flip,
    _flip,
    _fill,
    _fill,
    _noise,
    _cut,
    _remove,
    _repeat,
    _number,
    _number,
    _text,
    _digits,
    _splice,
    _within,
]
