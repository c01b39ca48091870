"""Readings of whole framed maps: the ring of every pixel, floods, and the main region at every cut.

``flood`` is the morphological reconstruction by dilation of a marker under a limit (Vincent, "Morphological grayscale
reconstruction in image analysis", IEEE TIP 1993): the largest image that grows from the marker without rising above
the limit. At every cut c, ``{level > c}`` is then the part of ``{limit > c}`` that is connected to the marker.

Maps are uint8 and framed, see `wsolpipe.metrics.pixel_loops.framed`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from llvmlite import ir
from numba import types, uint8, uint16, uint64, uintp
from numba.extending import intrinsic

from wsolpipe.maps.compilation import compiled

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Bytes = NDArray[np.uint8]
    Floats = NDArray[np.float64]
    Indices = NDArray[np.int32]
    Ints = NDArray[np.int64]

#: Rows, and columns, of the frame around a map: one before it and the others behind it; see `pixel_loops`.
MARGIN = 8


def main_level(values: Bytes) -> Bytes:
    """Return up to which cut each pixel of a framed map is joined to the (first) highest pixel."""
    level = np.zeros_like(values)
    seed = int(values.argmax())
    level.flat[seed] = values.flat[seed]
    flood(values, level, True)
    return level


def filled(values: Bytes) -> Bytes:
    """Return a framed map with its holes filled: background joins the outside through the four sides of a pixel."""
    limit = ~values
    level = np.zeros_like(values)
    level[0], level[1 - MARGIN :], level[:, 0], level[:, 1 - MARGIN :] = 255, 255, 255, 255
    flood(limit, level, False)
    return np.asarray(~level)


def _chosen(first: str) -> Any:
    """Return a choice between two uint8 that compiled code makes without a branch, so that its loops become vectors."""

    @intrinsic  # type: ignore[untyped-decorator]
    def choose(_context: Any, _a: Any, _b: Any) -> Any:
        def generate(_target: Any, builder: Any, _signature: Any, values: Any) -> Any:
            return builder.select(builder.icmp_unsigned(first, *values), *values)

        return types.uint8(types.uint8, types.uint8), generate

    return choose


_larger, _smaller = _chosen(">"), _chosen("<")


@compiled
def ring_codes(values: Bytes) -> NDArray[np.uint16]:
    """Return what the ring of each pixel inside the frame shows, uint16 [P, Q].

    The low byte is the mask of the neighbours that enter before the pixel. The bit above it says whether the pixel may
    push a side of its region's box once its *whole level* has entered: where an equal neighbour is farther out, that
    one will push, and of equal neighbours in one line the first does. Few pixels are left that push at all.
    """
    codes = np.empty(values.shape, np.uint16)
    one = uintp(1)
    end = uintp(values.shape[1] - MARGIN + 1)
    masks, pushes = np.zeros(values.shape[1], np.uint8), np.zeros(values.shape[1], np.uint8)
    for row in range(1, values.shape[0] - MARGIN + 1):
        y = uintp(row)
        n, s = y - one, y + one
        for x in range(one, end):
            w, e = x - one, x + one
            here = values[y, x]
            masks[x] = (
                uint8(values[n, w] >= here)
                | uint8(uint8(values[n, x] >= here) << uint8(1))
                | uint8(uint8(values[n, e] >= here) << uint8(2))
                | uint8(uint8(values[y, e] > here) << uint8(3))
                | uint8(uint8(values[s, e] > here) << uint8(4))
                | uint8(uint8(values[s, x] > here) << uint8(5))
                | uint8(uint8(values[s, w] > here) << uint8(6))
                | uint8(uint8(values[y, w] >= here) << uint8(7))
            )
        for x in range(one, end):
            w, e = x - one, x + one
            here = values[y, x]
            west = _larger(_larger(values[n, w], values[y, w]), _larger(values[s, w], values[n, x]))
            east = _larger(_larger(values[n, e], values[y, e]), _larger(values[s, e], values[n, x]))
            north = _larger(_larger(values[n, w], values[n, x]), _larger(values[n, e], values[y, w]))
            south = _larger(_larger(values[s, w], values[s, x]), _larger(values[s, e], values[y, w]))
            across = uint8(_smaller(west, east) < here) & uint8(values[s, x] <= here)
            pushes[x] = across | uint8(_smaller(north, south) < here) & uint8(values[y, e] <= here)
        for x in range(one, end):
            codes[y, x] = uint16(masks[x]) | uint16(uint16(pushes[x]) << uint16(8))
    return codes


# Vector sweeps settle smooth maps in two to six rounds; what is left after these goes through the queue,
# whose cost is bounded whatever the map.
ROUNDS = 8


def _strip(lanes: int) -> Any:
    """Return a loop over rows that raises a strip of columns, each row from the one before, which stays in registers.

    ``raise_strip(limit, level, start, stride, rows, eight)``: ``start`` is the place of the strip's first pixel in the
    first row that rises, ``stride`` the way to that of the next row, negative for upward. With eight neighbours, the
    pixels at both ends of a strip's row do not see the neighbour across that is in another strip: what that leaves out,
    the other direction or the next turn finds.
    """

    @intrinsic  # type: ignore[untyped-decorator]
    def raise_strip(_context: Any, limit: Any, level: Any, start: Any, stride: Any, rows: Any, eight: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            vector, index = ir.VectorType(ir.IntType(8), lanes), ir.VectorType(ir.IntType(32), lanes)
            tops, levels = (context.make_array(signature.args[k])(context, builder, values[k]).data for k in (0, 1))
            first, step, count = values[2:5]

            def place(data: Any, at: Any) -> Any:
                return builder.bitcast(builder.gep(data, [at]), vector.as_pointer())

            def one_of(how: str, a: Any, b: Any) -> Any:
                return builder.select(builder.icmp_unsigned(how, a, b), a, b)

            def moved(row: Any, by: int) -> Any:
                lane = [min(max(k + by, 0), lanes - 1) for k in range(lanes)]
                return builder.shuffle_vector(row, row, ir.Constant(index, lane))

            def loop(*, across: bool) -> None:
                before, body = builder.basic_block, builder.append_basic_block()
                behind = builder.append_basic_block()
                source = builder.load(place(levels, builder.sub(first, step)), align=1)
                builder.branch(body)
                builder.position_at_end(body)
                number, at, row = builder.phi(first.type), builder.phi(first.type), builder.phi(vector)
                reach = one_of(">", row, one_of(">", moved(row, -1), moved(row, 1))) if across else row
                reach = one_of(">", reach, builder.load(place(levels, at), align=1))
                risen = one_of("<", reach, builder.load(place(tops, at), align=1))
                builder.store(risen, place(levels, at), align=1)
                following = builder.add(number, first.type(1))
                begin = (first.type(0), first, source)
                for phi, initial, then in zip(
                    (number, at, row), begin, (following, builder.add(at, step), risen), strict=True
                ):
                    phi.add_incoming(initial, before)
                    phi.add_incoming(then, body)
                builder.cbranch(builder.icmp_signed("<", following, count), body, behind)
                builder.position_at_end(behind)

            with builder.if_else(values[5]) as (then, otherwise):
                with then:
                    loop(across=True)
                with otherwise:
                    loop(across=False)
            return context.get_dummy_value()

        return types.void(limit, level, types.intp, types.intp, types.intp, types.boolean), generate

    return raise_strip


WIDE, MIDDLE, NARROW = 128, 32, 8
_raise_wide, _raise_middle, _raise_narrow = _strip(WIDE), _strip(MIDDLE), _strip(NARROW)


@compiled
def _raise_down_and_up(limit: Bytes, level: Bytes, eight: bool) -> None:
    """Raise each row from the row above it, then each from the row below: a strip of columns at a time.

    The last strip reaches back into the one before it.
    """
    stride, rows, columns = level.shape[1], level.shape[0] - MARGIN, level.shape[1] - MARGIN
    lanes = WIDE if columns >= WIDE else MIDDLE if columns >= MIDDLE else NARROW
    for end in range(lanes, columns + lanes, lanes):
        x = 1 + min(end, columns) - lanes
        for start, step in ((stride + x, stride), (rows * stride + x, -stride)):
            if lanes == WIDE:
                _raise_wide(limit, level, start, step, rows, eight)
            elif lanes == MIDDLE:
                _raise_middle(limit, level, start, step, rows, eight)
            else:
                _raise_narrow(limit, level, start, step, rows, eight)


@compiled
def _is_settled(limit: Bytes, level: Bytes, eight: bool) -> bool:
    """Whether no pixel can rise any more."""
    one = uintp(1)
    rows, end = level.shape[0] - MARGIN, uintp(level.shape[1] - MARGIN + 1)
    rises = np.zeros(level.shape[1], np.uint8)
    words = rises.view(np.uint64)
    for step in range(rows):
        n = uintp(step)
        y, s = n + one, n + uintp(2)
        for x in range(one, end):
            w, e = x - one, x + one
            here = level[y, x]
            reach = _larger(_larger(level[n, x], level[s, x]), _larger(level[y, w], level[y, e]))
            if eight:
                above, below = _larger(level[n, w], level[n, e]), _larger(level[s, w], level[s, e])
                reach = _larger(reach, _larger(above, below))
            rises[x] |= _larger(here, _smaller(limit[y, x], reach)) ^ here
        if step % 16 == 15 and words.any():
            return False
    return not words.any()


@compiled
def _swap_bits(low: Any, high: Any, shift: Any, mask: Any) -> tuple[Any, Any]:
    moved = ((low >> shift) ^ high) & mask
    return low ^ (moved << shift), high ^ moved


@compiled
def _transpose(source: Bytes, target: Bytes) -> None:
    """Write the transpose of a uint8 map whose sides are multiples of 8, eight by eight bytes in registers.

    A band of eight rows at a time, first its blocks beside each other, which becomes vector code, then to their places.
    """
    s1, s2, s4 = uint64(8), uint64(16), uint64(32)
    m1, m2, m4 = uint64(0x00FF00FF00FF00FF), uint64(0x0000FFFF0000FFFF), uint64(0x00000000FFFFFFFF)
    a, b = source.view(np.uint64), target.view(np.uint64)
    turned = np.empty((8, a.shape[1]), np.uint64)
    for j in range(uintp(a.shape[0] // 8)):
        band = a[8 * j : 8 * j + 8]
        for i in range(uintp(a.shape[1])):
            r0, r1, r2, r3 = band[0, i], band[1, i], band[2, i], band[3, i]
            r4, r5, r6, r7 = band[4, i], band[5, i], band[6, i], band[7, i]
            r0, r1 = _swap_bits(r0, r1, s1, m1)
            r2, r3 = _swap_bits(r2, r3, s1, m1)
            r4, r5 = _swap_bits(r4, r5, s1, m1)
            r6, r7 = _swap_bits(r6, r7, s1, m1)
            r0, r2 = _swap_bits(r0, r2, s2, m2)
            r1, r3 = _swap_bits(r1, r3, s2, m2)
            r4, r6 = _swap_bits(r4, r6, s2, m2)
            r5, r7 = _swap_bits(r5, r7, s2, m2)
            r0, r4 = _swap_bits(r0, r4, s4, m4)
            r1, r5 = _swap_bits(r1, r5, s4, m4)
            r2, r6 = _swap_bits(r2, r6, s4, m4)
            r3, r7 = _swap_bits(r3, r7, s4, m4)
            turned[0, i], turned[1, i], turned[2, i], turned[3, i] = r0, r1, r2, r3
            turned[4, i], turned[5, i], turned[6, i], turned[7, i] = r4, r5, r6, r7
        for i in range(uintp(a.shape[1])):
            for k in range(uintp(8)):
                b[uintp(8) * i + k, j] = turned[k, i]


@compiled
def _settle(limit: Bytes, level: Bytes, eight: bool) -> None:
    """Finish a flood from any lower bound of it: highest sources first, so that each pixel rises at most once."""
    height, width = limit.shape
    size = height * width
    offsets = np.array([-width, -1, 1, width, -width - 1, -width + 1, width - 1, width + 1])
    if not eight:
        offsets = offsets[:4]
    top, flow = limit.ravel(), level.ravel()
    # Buckets by level as linked lists. A pixel enters at most twice: as a source found here (node p), and when it rises
    # (node p + size): sources leave in falling order, so the first rise of a pixel is its last.
    head = np.full(256, -1, np.int64)
    follow = np.empty(2 * size, np.int64)
    for y in range(1, height - MARGIN + 1):
        for p in range(y * width + 1, y * width + width - MARGIN + 1):
            for offset in offsets:
                q = p + offset
                if flow[q] < min(flow[p], top[q]):
                    follow[p], head[flow[p]] = head[flow[p]], p
                    break
    for value in range(255, 0, -1):
        while head[value] >= 0:
            node = head[value]
            head[value] = follow[node]
            p = node if node < size else node - size
            for offset in offsets:
                q = p + offset
                new = min(flow[p], top[q])
                if new > flow[q]:
                    flow[q] = new
                    if new > 0 and 0 < q // width <= height - MARGIN and 0 < q % width <= width - MARGIN:
                        follow[q + size], head[new] = head[new], q + size


@compiled
def flood(limit: Bytes, level: Bytes, eight: bool) -> None:
    """Raise ``level`` in place to its reconstruction under ``limit``.

    Parameters
    ----------
    limit, level : uint8 [P, Q], contiguous
        Framed: the pixels of the frame act as sources but never rise. ``level`` <= ``limit`` holds the
        marker.
    eight : bool
        Neighbours are all eight pixels around (True) or the four beside (False).
    """
    limit_t = np.empty((limit.shape[1], limit.shape[0]), np.uint8)
    level_t = np.empty_like(limit_t)
    _transpose(limit, limit_t)
    for turn in range(2 * ROUNDS):
        across = turn % 2 == 1
        if across:
            _transpose(level, level_t)
        elif turn:
            _transpose(level_t, level)
        here, top = (level_t, limit_t) if across else (level, limit)
        _raise_down_and_up(top, here, eight)
        # Both ways of rows and of columns settle most maps: to look is cheaper than to go all four ways in vain.
        if turn and _is_settled(top, here, eight):
            if across:
                _transpose(level_t, level)
            return
    _transpose(level_t, level)
    _settle(limit, level, eight)


@compiled
def main_boxes(level: Bytes, peak: int, clip: Ints) -> Indices:
    """Return the main region's box int32 [256, 4] at each cut below ``peak``, far edges clipped; 0 from there on."""
    one, boxes = uintp(1), np.zeros((256, 4), np.int32)
    across, down = np.zeros(level.shape[1], np.uint8), np.zeros(level.shape[0], np.uint8)
    for y in range(one, uintp(level.shape[0])):
        highest = uint8(0)
        for x in range(uintp(level.shape[1])):
            highest = max(highest, level[y, x])
        down[y] = highest
        for x in range(uintp(level.shape[1])):
            across[x] = max(across[x], level[y, x])
    left, top, right, low = 0, 0, level.shape[1] - 1, level.shape[0] - 1
    for cut in range(peak):
        while across[left] <= cut:
            left += 1
        while across[right] <= cut:
            right -= 1
        while down[top] <= cut:
            top += 1
        while down[low] <= cut:
            low -= 1
        # The frame is one pixel wide, so a far edge in frame coordinates is already one past the pixel.
        boxes[cut, 0], boxes[cut, 1] = left - 1, top - 1
        boxes[cut, 2], boxes[cut, 3] = min(right, clip[0]), min(low, clip[1])
    return boxes


@compiled
def main_areas(level: Bytes) -> Ints:
    """Return twice the main region's polygon area int64 [256] at each cut.

    A 2 x 2 block counts one half from its third pixel and one half from its fourth: from its second lowest value and
    its lowest one. A block that reaches into the frame has no third.
    """
    one = uintp(1)
    rows, end = uintp(level.shape[0] - MARGIN + 1), uintp(level.shape[1] - MARGIN + 1)
    values = np.zeros((2, level.shape[1]), np.uint8)
    words, byte, each = values.ravel().view(np.uint64), uint64(255), uint64(0x0101010101010101)
    # Neighbouring blocks often share a value: turns between four histograms keep additions from waiting for each other.
    counts = np.zeros((4, 256), np.int64)
    for y in range(one, rows):
        for x in range(one, end):
            left, right = level[y, x], level[y + one, x]
            low, high = _smaller(left, right), _larger(left, right)
            left, right = level[y, x + one], level[y + one, x + one]
            other_low, other_high = _smaller(left, right), _larger(left, right)
            values[1, x] = _smaller(low, other_low)
            values[0, x] = _smaller(_larger(low, other_low), _smaller(high, other_high))
        for word in range(words.shape[0]):
            eight = words[word]
            if eight == (eight & byte) * each:
                counts[0, eight & byte] += 8
                continue
            counts[0, eight & byte] += 1
            counts[1, eight >> uint64(8) & byte] += 1
            counts[2, eight >> uint64(16) & byte] += 1
            counts[3, eight >> uint64(24) & byte] += 1
            counts[0, eight >> uint64(32) & byte] += 1
            counts[1, eight >> uint64(40) & byte] += 1
            counts[2, eight >> uint64(48) & byte] += 1
            counts[3, eight >> uint64(56)] += 1
    total, areas = 0, np.zeros(256, np.int64)
    for cut in range(254, -1, -1):
        total += counts[0, cut + 1] + counts[1, cut + 1] + counts[2, cut + 1] + counts[3, cut + 1]
        areas[cut] = total
    return areas
