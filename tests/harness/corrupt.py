"""Ways in which stored bytes go bad, as pure functions.

Each raises ValueError when the result would equal the input: such a test would prove nothing.
"""


def flip_bit(data: bytes, bit: int) -> bytes:
    """Bit 0 is the lowest of the first byte; negative numbers count from the end."""
    number = bit % (len(data) * 8) if data else 0
    if not -len(data) * 8 <= bit < len(data) * 8:
        raise ValueError(f"bit {bit} is not in {len(data)} bytes")
    changed = bytearray(data)
    changed[number // 8] ^= 1 << number % 8
    return bytes(changed)


def cut(data: bytes, length: int) -> bytes:
    """Keep the first `length` bytes."""
    return _changed(data, data[:length])


def swap(data: bytes, first: int, second: int, length: int) -> bytes:
    """Exchange the pieces of `length` bytes that start at `first` and at `second`."""
    low, high = sorted((first, second))
    if low + length > high or high + length > len(data):
        raise ValueError(f"no two pieces of {length} bytes at {low} and {high} of {len(data)}")
    between = data[low + length : high]
    pieces = (data[:low], data[high : high + length], between, data[low : low + length])
    return _changed(data, b"".join(pieces) + data[high + length :])


def drop(data: bytes, start: int, length: int) -> bytes:
    """Leave out `length` bytes from `start`; what follows moves up."""
    return _changed(data, data[:start] + data[start + length :])


def duplicate(data: bytes, start: int, length: int) -> bytes:
    """Repeat the `length` bytes from `start` right behind themselves."""
    end = start + length
    return _changed(data, data[:end] + data[start:])


def append(data: bytes, extra: bytes) -> bytes:
    """Add bytes at the end."""
    return _changed(data, data + extra)


def _changed(before: bytes, after: bytes) -> bytes:
    if after == before:
        raise ValueError(f"this leaves the {len(before)} bytes as they are")
    return after
