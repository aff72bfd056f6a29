"""A decoder of `context` written from docs/codecs.md alone, weight by weight and with nothing from the package."""

import zlib
from math import isqrt, prod

TYPES = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")


class Bytes:
    def __init__(self, data: bytes) -> None:
        self.data = data

    def take(self, size: int) -> bytes:
        taken, self.data = self.data[:size], self.data[size:]
        assert len(taken) == size
        return taken

    def byte(self) -> int:
        return self.take(1)[0]

    def number(self) -> int:
        byte = self.byte()
        return byte if byte < 128 else byte - 128 + 128 * self.number()

    def signed(self) -> int:
        value = self.number()
        return value // 2 if value % 2 == 0 else -(value + 1) // 2


def decode(data: bytes) -> tuple[str, tuple[int, ...], list[int]]:
    """Type, shape and values in C order."""
    assert zlib.crc32(data[4:]) == int.from_bytes(data[:4], "little")
    stream = Bytes(data[4:])
    head = stream.byte()
    shape = tuple(stream.number() for _ in range(head % 16))
    if head >= 128:
        stream.take(stream.number())
    kind = TYPES[head // 16 % 8]
    lowest, low, symbols = stream.signed(), stream.byte(), stream.byte() + 1
    assert low == 0, "low bits are left to another test"
    whole = [0] * prod(shape) if symbols == 1 else body(stream, symbols, shape)
    return kind, shape, [lowest + symbol for symbol in whole]


def body(stream: Bytes, symbols: int, shape: tuple[int, ...]) -> list[int]:
    first = stream.byte()
    lanes = first % 64
    states = stream.byte() if first >= 128 else lanes
    there = None
    if first // 64 % 2:
        bits = zlib.decompress(stream.take(stream.number()), -15)
        flags = [byte >> 7 - at & 1 for byte in bits for at in range(8)]
        there = [
            (row, channel) for row in range(shape[0]) if flags[row] for channel in range(shape[1])
            if flags[shape[0] + channel]
        ]  # fmt: skip
        rows = len({row for row, _ in there})
        shape_left = (rows, len(there) // rows, *shape[2:])
    zero = stream.byte()
    coded = values(stream, symbols, shape_left if there else shape, lanes, states, zero)
    if there is None:
        return coded
    size = prod(shape[2:])
    whole = [zero] * prod(shape)
    for at, (row, channel) in enumerate(there):
        start = (row * shape[1] + channel) * size
        whole[start : start + size] = coded[at * size : (at + 1) * size]
    return whole


def values(stream: Bytes, symbols: int, shape: tuple[int, ...], lanes: int, states: int, zero: int) -> list[int]:
    centre = 2 * zero + stream.signed()
    head = stream.byte()
    with_signs, bounds = head >= 128, []
    for _ in range(head % 128):
        bounds.append(stream.number() + (bounds[-1] if bounds else 0))
    prior = stream.number() << 8 if bounds else 0
    weights = list(stream.take(7)) if bounds else [0] * 7
    sizes = [0 if s == zero else min(255, max(1, abs(2 * s - centre) + 1 >> 1)) for s in range(symbols)]
    signs = [0 if s == zero else (2 * s > centre) - (2 * s < centre) for s in range(symbols)]
    tables = read_tables(stream, sizes, signs, len(bounds) + 1, with_signs)
    ends = 8 * states
    if states == 1:
        ends = len(stream.data) if len(stream.data) <= 8 else 5 + (len(stream.data) - 5) % 4
    split = len(stream.data) - ends
    words = [int.from_bytes(stream.data[at : at + 4], "little") for at in range(0, split, 4)]
    tails = [stream.data[at : at + 8] for at in range(split, len(stream.data), 8)] or [b""]
    state = [int.from_bytes(tail, "little") for tail in tails]

    count = prod(shape)
    if len(shape) > 1 and shape[0] >= min(8, count // shape[0]):
        width, period, line = count // shape[0], prod(shape[2:]), shape[-1] if len(shape) > 2 else 1
    else:
        width, period, line = max(1, isqrt(count)), 1, 1
    height = -(-count // width)
    found: dict[tuple[int, int], int] = {}
    columns = [prior] * width
    row_mean, near = [prior] * height, [prior] * height

    def size_at(row: int, column: int) -> int:
        return sizes[found[row, column]] << 16 if row >= 0 and column >= 0 else prior

    def sign_at(row: int, column: int) -> int:
        return signs[found[row, column]] if row >= 0 and column >= 0 else 0

    for step in range(-(-height // lanes) * width + lanes):
        for lane in range(lanes):
            group, column = divmod(step - lane, width)
            row = group * lanes + lane
            if step < lane or row * width + column >= count:
                continue
            seen = [row_mean[row], near[row], size_at(row, column - 1), columns[column], size_at(row - 1, column)]
            seen += [size_at(row, column - period), row_mean[row] * columns[column] >> prior.bit_length()]
            total = min(sum(weight * value for weight, value in zip(weights, seen, strict=True)) + 1, 2**47)
            top = total.bit_length() - 1
            bucket = 16 * top + (total * 16 // 2**top - 16)
            table = sum(bucket >= bound for bound in bounds)
            if with_signs:
                near_signs = sign_at(row, column - 1) + sign_at(row, column - line)
                likely = 2 * near_signs + sign_at(row, column - period) + sign_at(row - 1, column)
                table = 5 * table + 2 + (likely > 0) + (likely > 2) - (likely < 0) - (likely < -2)
            at = lane % states
            slot, start, symbol = state[at] % 65536, 0, 0
            while slot >= start + tables[table][symbol]:
                start += tables[table][symbol]
                symbol += 1
            state[at] = tables[table][symbol] * (state[at] >> 16) + slot - start
            if state[at] < 2**32 and words:
                state[at] = state[at] << 32 | words.pop(0)
            found[row, column] = symbol
            size = sizes[symbol] << 16
            row_mean[row] += (size - row_mean[row]) * rate(column) >> 15
            near[row] += size - near[row] >> 2
            columns[column] += (size - columns[column]) * rate(row) >> 15
    assert not words
    assert state == [0 if states == 1 else 2**32] * states
    return [found[divmod(at, width)] for at in range(count)]


def rate(number: int) -> int:
    return 2**15 // (min(number, 255) + 2)


def read_tables(stream: Bytes, sizes: list[int], signs: list[int], contexts: int, with_signs: bool) -> list[list[int]]:
    largest = max(sizes)

    def logarithm(size: int) -> int:
        return ((1 + size) ** 16).bit_length() - 1

    features = [
        [
            256 if size else 0,
            256 * logarithm(size) // logarithm(largest),
            256 * size // largest,
            256 * size**2 // largest**2,
        ]
        for size in sizes
    ]
    count = min(4, largest)
    even = [[0] * count]
    for _ in range(contexts):
        even.append([cost + stream.signed() for cost in even[-1]])
    odd = [stream.signed(), stream.signed()]
    tilts = [[stream.signed(), stream.signed()] for _ in range(2)] if with_signs else []
    packed = stream.take(stream.number())
    corrections = list(zlib.decompress(packed, -15)) if packed else [0] * len(sizes)
    tables = []
    for costs in even[1:]:
        for level in range(-2, 3) if with_signs else [0]:
            tilt = [0, 0] if level == 0 else tilts[abs(level) - 1]
            added = [cost + (tilt[i] if level > 0 else -tilt[i]) for i, cost in enumerate(odd)]
            table = []
            for feature, sign, correction in zip(features, signs, corrections, strict=True):
                total = sum(cost * value for cost, value in zip(costs, feature, strict=False))
                total += added[0] * 256 * sign + added[1] * feature[2] * sign
                table.append((total >> 6) + 8 * (correction - 256 if correction > 127 else correction))
            tables.append(frequencies([cost - min(table) for cost in table]))
    return tables


def frequencies(costs: list[int]) -> list[int]:
    weights = [root(2 ** (2560 - cost % 64)) >> min(63, cost // 64) for cost in costs]
    found = [max(1, weight * 65536 // sum(weights)) for weight in weights]
    found[found.index(max(found))] += 65536 - sum(found)
    return found


def root(value: int) -> int:
    for _ in range(6):
        value = isqrt(value)
    return value
