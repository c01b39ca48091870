"""The threshold sweep as one incremental algorithm: contour boxes of a map at all of its at most 255 distinct cuts.

An 8-bit map has at most 255 different superlevel sets ``{value > cut}``; a thousand thresholds only repeat them. Their
contours need no tracing either:

1. Outer contours are the 8-connected regions, hole contours the 4-connected pieces of the complement that do not reach
   the outside; a hole's box is its own grown by one pixel.
2. A flood from the highest pixel (``flood``) gives up to which cut each pixel belongs to the *main* region. The main
   region's box at every cut is read off the row and column maxima of that flood.
3. What is above its flood level is an *island* there. Only island pixels are sorted and joined one by one (union-find),
   and only where the neighbours already present (``ring_codes``) show that something changes.
4. Likewise a flood of the complement from the outside gives the hole-filled map; only what is below it is ever a hole.
5. The largest contour is decided by polygon area, which on the hole-filled map grows by a table entry a pixel.

The result equals tracing every cut with OpenCV (``findContours``, ``contourArea``), ties included.

The file is long because it is one algorithm and one unit of compilation: numba compiles the functions of a loop into
the loop, and its cache is renewed when the file of the loop changes, so all of them stand here (see
`wsolpipe.maps.compilation`). Its parts, from the bottom up: the ring of a pixel, the flood, growing regions, the sweep.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import int32, int64, types, uint8, uint16, uint64, uintp
from numba.extending import intrinsic

from wsolpipe.maps.compilation import compiled

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Bytes = NDArray[np.uint8]
    Codes = NDArray[np.uint16]
    Floats = NDArray[np.float64]
    Indices = NDArray[np.int32]
    Ints = NDArray[np.int64]

# -- the ring: what the eight pixels around a pixel show about it ----------------------------------------------------
#
# Pixels enter a superlevel set in falling order of value, in raster order within a value. When a pixel enters, the
# neighbours already present show whether it starts a region, joins one, joins several, whether it may push a side of a
# box, and by how much it grows the area within the polygon through pixel centres (``cv2.contourArea``).

NEIGHBOURS = ((-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1))
"""(dy, dx) of bit 0 to bit 7: clockwise from north-west."""

BEFORE = 0b10000111
"""The neighbours that come before a pixel in raster order."""

MARGIN = 8
"""Rows, and columns, of the frame around a map: one before it and the others behind it, see `framed`."""

# Which member of a group gives the group's label: best one that entered with a higher value (east to
# south-west), last the one that entered just before (west), so that a row of labels is not a chain of waits.
_ASKED = (3, 4, 5, 6, 1, 2, 0, 7)


class Tables(NamedTuple):
    """What to do with an entering pixel, by the mask of the neighbours present before it.

    Parameters
    ----------
    groups : uint8 [256]
        Number of groups of neighbours of its kind that are present.
    member : uint8 [256, 4]
        One neighbour (bit) of each group.
    pushes : bool [256]
        Whether the pixel may push a side of its region's box: no present neighbour of its kind is as far out.
    """

    groups: NDArray[np.uint8]
    member: NDArray[np.uint8]
    pushes: NDArray[np.bool_]


def _groups(present: set[int], *, diagonal: bool) -> list[set[int]]:
    """Return the connected groups of neighbours, the pixel itself taken out."""

    def touch(a: int, b: int) -> bool:
        dy, dx = (abs(one - two) for one, two in zip(NEIGHBOURS[a], NEIGHBOURS[b], strict=True))
        return max(dy, dx) == 1 if diagonal else dy + dx == 1

    left, groups = set(present), []
    while left:
        group = {left.pop()}
        while more := {bit for bit in left if any(touch(bit, member) for member in group)}:
            group |= more
            left -= more
        groups.append(group)
    # Without diagonals, a group that touches the pixel only at its corner is not joined to it.
    return groups if diagonal else [group for group in groups if any(bit % 2 for bit in group)]


def _pushes(present: set[int]) -> bool:
    offsets = [NEIGHBOURS[bit] for bit in present]
    across, down = [x for _, x in offsets], [y for y, _ in offsets]
    return min(across, default=1) > 0 or max(across, default=-1) < 0 or min(down) > 0 or max(down) < 0


def _tables(*, background: bool) -> Tables:
    count, pushes = np.zeros(256, np.uint8), np.zeros(256, np.bool_)
    member = np.zeros((256, 4), np.uint8)
    for mask in range(256):
        present = {bit for bit in range(8) if (mask >> bit & 1) != background}
        groups = _groups(present, diagonal=not background)
        count[mask] = len(groups)
        for number, group in enumerate(groups):
            legal = [bit for bit in _ASKED if bit in group and (bit % 2 or not background)]
            member[mask, number] = legal[0]
        pushes[mask] = _pushes(set().union(*groups))
    return Tables(count, member, pushes)


def _gain(mask: int) -> int:
    corners = ((7, 0, 1), (1, 2, 3), (3, 4, 5), (5, 6, 7))
    return sum(sum(mask >> bit & 1 for bit in corner) >= 2 for corner in corners)


REGION = _tables(background=False)
"""Regions of a superlevel set, 8-connected: pixels enter in falling order."""
HOLE = _tables(background=True)
"""Regions of its complement, 4-connected: pixels enter in the reverse order, so present is what the mask lacks."""
GAIN = np.array([_gain(mask) for mask in range(256)], dtype=np.uint8)
"""Twice the polygon area gained: each 2 x 2 block counts one half from its third pixel and one half from its fourth."""


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
def ring_codes(values: NDArray[np.uint8], codes: NDArray[np.uint16]) -> None:
    """Write what the ring of each pixel inside the frame shows (``values`` uint8 [P, Q], ``codes`` uint16 [P, Q]).

    The low byte is the mask of the neighbours that enter before the pixel. The bit above it says whether the pixel may
    push a side of its region's box once its *whole level* has entered: where an equal neighbour is farther out, that
    one will push, and of equal neighbours in one line the first does. Few pixels are left that push at all.
    """
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


# -- the flood: up to which cut each pixel is joined to a source -----------------------------------------------------
#
# ``flood`` is the morphological reconstruction by dilation of a marker under a limit (Vincent, "Morphological grayscale
# reconstruction in image analysis", IEEE TIP 1993): the largest image that grows from the marker without rising above
# the limit. At every cut c, ``{level > c}`` is then the part of ``{limit > c}`` that is connected to the marker.

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
        Framed, see `framed`: the pixels of the frame act as sources but never rise. ``level`` <= ``limit`` holds the
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


# -- regions that grow pixel by pixel: lists of pixels in order, union-find with boxes -------------------------------


@compiled
def _differing(values: Bytes, other: Bytes) -> tuple[Indices, int]:
    """List the pixels where two maps differ, in raster order; return the list's room and its length."""
    width = values.shape[1]
    mine, theirs = values.view(np.uint64), other.view(np.uint64)
    found = np.empty(values.size, np.int32)
    n = 0
    for y in range(mine.shape[0]):
        for word in range(mine.shape[1]):
            if mine[y, word] != theirs[y, word]:
                for x in range(8 * word, 8 * word + 8):
                    found[n] = y * width + x
                    n += values[y, x] != other[y, x]
    return found, n


@compiled
def _count_values(values: Bytes, found: Indices, n: int) -> tuple[Ints, Ints]:
    """Return where the values of the first n pixels of a list begin in falling order, and that of four stretches.

    ``start[v]`` [256] is the place of the first pixel of value v, and so the number of those above v; ``start[v - 1]``
    is one past the last. ``places`` [4, 256] is the same for each fourth of the list, for `_by_falling_value`.
    """
    flat = values.ravel()
    start = np.empty(256, np.int64)
    # Four stretches of the list at a time: neighbours share values, and a single counter would be a chain of waits.
    places = np.zeros((4, 256), np.int64)
    stretch = uintp(n // 4)
    for k in range(stretch):
        for part in range(uintp(4)):
            places[part, flat[uintp(found[k + part * stretch])]] += 1
    for k in range(4 * stretch, uintp(n)):
        places[3, flat[uintp(found[k])]] += 1
    total = 0
    for value in range(255, -1, -1):
        start[value] = total
        for part in range(4):
            here = places[part, value]
            places[part, value] = total
            total += here
    return start, places


@compiled
def _by_falling_value(values: Bytes, codes: Codes, found: Indices, n: int, places: Ints) -> Ints:
    """Sort the first n pixels of a list by falling value, raster order within; each as ``pixel << 16 | code``.

    The loops over them then read codes in order, not from all over the map.
    """
    flat, ring = values.ravel(), codes.ravel()
    order = np.empty(n, np.int64)
    stretch = uintp(n // 4)
    for k in range(stretch):
        for part in range(uintp(4)):
            p = uintp(found[k + part * stretch])
            place = places[part, flat[p]]
            order[uintp(place)] = int64(p) << int64(16) | int64(ring[p])
            places[part, flat[p]] = place + 1
    for k in range(4 * stretch, uintp(n)):
        p = uintp(found[k])
        place = places[3, flat[p]]
        order[uintp(place)] = int64(p) << int64(16) | int64(ring[p])
        places[3, flat[p]] = place + 1
    return order


@compiled
def _root(parent: Indices, member: int) -> int:
    """Return the root of a region; its path is halved on the way."""
    label = int(member)
    while parent[label] != label:
        parent[label] = parent[parent[label]]
        label = int(parent[label])
    return label


@compiled
def _push(box: Indices, label: int, x: int, y: int) -> bool:
    """Let a pixel push the sides of a box; return whether one moved. Without branches, which could not be foreseen."""
    x0, y0, x1, y1 = box[label, 0], box[label, 1], box[label, 2], box[label, 3]
    box[label, 0], box[label, 1] = min(x0, x), min(y0, y)
    box[label, 2], box[label, 3] = max(x1, x), max(y1, y)
    return bool((x < x0) | (y < y0) | (x > x1) | (y > y1))


@compiled
def _start(parent: Indices, box: Indices, x: int, y: int) -> int:
    """Make a region of one pixel; ``parent[0]`` counts the regions made."""
    parent[0] += 1
    label = int(parent[0])
    parent[label] = label
    box[label, 0] = box[label, 2] = x
    box[label, 1] = box[label, 3] = y
    return label


@compiled
def _join(parent: Indices, box: Indices, a: int, b: int) -> int:
    """Join two roots under the older one; return it."""
    if b < a:
        a, b = b, a
    parent[b] = a
    box[a, 0] = min(box[a, 0], box[b, 0])
    box[a, 1] = min(box[a, 1], box[b, 1])
    box[a, 2] = max(box[a, 2], box[b, 2])
    box[a, 3] = max(box[a, 3], box[b, 3])
    return a


@compiled
def _enter(p: int, mask: int, tables: Tables, offsets: Ints, label: Indices, parent: Indices, box: Indices) -> int:
    """Add pixel p, which starts, joins or pushes a region; return the root it is in, negative if no box changed."""
    stride = offsets[5]
    row = np.uint32(p) // np.uint32(stride)
    y, x = int(row) - 1, int(p - row * stride) - 1
    count = tables.groups[mask]
    if count == 0:
        here = _start(parent, box, x, y)
        label[p] = here
        return here
    changed = False
    here = _root(parent, label[p + offsets[tables.member[mask, 0]]])
    for number in range(1, count):
        other = _root(parent, label[p + offsets[tables.member[mask, number]]])
        if other != here:
            here = _join(parent, box, here, other)
            changed = True
    label[p] = here
    changed |= _push(box, here, x, y)
    return here if changed else -here


@compiled
def _steps(tables: Tables, stride: int, rising: bool) -> tuple[Ints, Ints]:
    """Return the offsets [8] of the neighbours, and by code [512] that of the one to copy a label from, 0 for none.

    Only where the neighbours are one group and the pixel pushes no side: then, as for most, nothing else changes.
    """
    offsets, copies = np.empty(8, np.int64), np.zeros(512, np.int64)
    for bit in range(8):
        offsets[bit] = NEIGHBOURS[bit][0] * stride + NEIGHBOURS[bit][1]
    for code in range(512):
        mask = code & 255
        pushes = tables.pushes[mask] if rising else code > 255
        if tables.groups[mask] == 1 and not pushes:
            copies[code] = offsets[tables.member[mask, 0]]
    return offsets, copies


# -- the sweep --------------------------------------------------------------------------------------------------------


@compiled
def best_iou_of(x0: float, y0: float, x1: float, y1: float, truth: Floats, start: int, stop: int, unit: float) -> float:
    """Return the best IoU of a box over ``truth`` float64 [M, 4] from row `start` to `stop`.

    ``unit`` 1.0 counts both edges as pixels, 0.0 not.
    """
    area = (x1 - x0 + unit) * (y1 - y0 + unit)
    best = 0.0
    for k in range(start, stop):
        wide = min(x1, truth[k, 2]) - max(x0, truth[k, 0]) + unit
        high = min(y1, truth[k, 3]) - max(y0, truth[k, 1]) + unit
        if wide > 0 and high > 0:
            overlap = wide * high
            union = area + (truth[k, 2] - truth[k, 0] + unit) * (truth[k, 3] - truth[k, 1] + unit) - overlap
            best = max(best, overlap / union)
    return best


@compiled
def _raise_by(
    values: Bytes,
    bound: Bytes,
    codes: Codes,
    tables: Tables,
    rising: bool,
    best: Floats,
    clip: Ints,
    truth: Floats,
    starts: Ints,
    unit: float,
) -> None:
    """Raise ``best`` [A, 256] at each cut to the best IoU of the regions of pixels where ``values``, ``bound`` differ.

    Regions of the superlevel set enter by falling value and live at the cuts from their bound to their highest value;
    regions of its complement enter by rising value and live at the cuts below their bound, their boxes one pixel wider.
    """
    found, n = _differing(values, bound)
    if n == 0:
        return
    start, places = _count_values(values, found, n)
    order = _by_falling_value(values, codes, found, n, places)
    offsets, copies = _steps(tables, values.shape[1], rising)
    limit = bound.ravel()
    label = np.empty(values.size, np.int32)
    parent, box = np.zeros(n + 1, np.int32), np.empty((n + 1, 4), np.int32)
    sets = best.shape[0]
    ends, iou, stale = np.empty(n + 1, np.uint8), np.empty((sets, n + 1)), np.zeros(n + 1, np.bool_)
    alive, living = np.empty(n + 1, np.int32), 0
    for turn in range(255):
        value = turn if rising else 255 - turn
        first, stop = start[value], start[value - 1] if value else n
        for k in range(first, stop):
            entry = order[first + stop - 1 - k if rising else k]
            p, mask = int32(entry >> 16), entry & 255
            copy = copies[entry & 511]
            if copy != 0:
                label[uintp(p)] = label[uintp(p + copy)]
                continue
            region = _enter(p, mask, tables, offsets, label, parent, box)
            if region > 0:
                stale[region] = True
                if tables.groups[mask] == 0:
                    ends[region] = limit[p]
                    alive[living] = region
                    living += 1
        # Boxes are read only when a level is complete: in between they belong to no superlevel set.
        cut, kept = value if rising else value - 1, 0
        for k in range(living):
            region = alive[k]
            if parent[region] == region and (ends[region] > cut) == rising:
                alive[kept] = region
                kept += 1
                if stale[region]:
                    x0, y0 = box[region, 0] - rising, box[region, 1] - rising
                    x1, y1 = min(box[region, 2] + 1 + rising, clip[0]), min(box[region, 3] + 1 + rising, clip[1])
                    for own in range(sets):
                        iou[own, region] = best_iou_of(x0, y0, x1, y1, truth, starts[own], starts[own + 1], unit)
                    stale[region] = False
        living = kept
        for own in range(sets):
            highest = best[own, cut]
            for k in range(living):
                highest = max(highest, iou[own, alive[k]])
            best[own, cut] = highest


def raise_by_islands(
    values: Bytes, level: Bytes, codes: Codes, best: Floats, clip: Ints, truth: Floats, starts: Ints, unit: float
) -> None:
    """Raise ``best`` [A, 256] at each cut to the best IoU of the regions that are apart from the main one there.

    Parameters
    ----------
    values, level : uint8 [P, Q], framed
        The map and its ``main_level``.
    codes : uint16 [P, Q]
        The map's ``ring_codes``.
    clip : int64 [2]
        Largest far edges (x, y).
    truth : float64 [M, 4]
        The boxes of A sets one after another.
    starts : int64 [A + 1]
        Where each set begins in ``truth``, and its end.
    unit : 1.0 or 0.0
        1.0 counts both edges of a box as pixels.
    """
    _raise_by(values, level, codes, REGION, False, best, clip, truth, starts, unit)


def raise_by_holes(
    values: Bytes, roof: Bytes, codes: Codes, best: Floats, clip: Ints, truth: Floats, starts: Ints, unit: float
) -> None:
    """Raise ``best`` [A, 256] at each cut to the best IoU of the hole contours; ``roof`` is the map ``filled``."""
    _raise_by(values, roof, codes, HOLE, True, best, clip, truth, starts, unit)


@compiled
def main_boxes(level: Bytes, peak: int, clip: Ints, boxes: Indices) -> None:
    """Write the main region's box at each cut below ``peak`` into ``boxes`` int32 [256, 4], far edges clipped."""
    one = uintp(1)
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


@compiled
def main_areas(level: Bytes, areas: Ints) -> None:
    """Write twice the main region's polygon area at each cut into ``areas`` int64 [256].

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
    total = 0
    for cut in range(254, -1, -1):
        total += counts[0, cut + 1] + counts[1, cut + 1] + counts[2, cut + 1] + counts[3, cut + 1]
        areas[cut] = total


@compiled
def _first_above(level: Bytes, cut: int, row: int) -> int:
    """Return the first pixel above a cut, which is in the named row of the frame."""
    flat = level.ravel()
    p = row * level.shape[1]
    while flat[p] <= cut:
        p += 1
    return int(p)


@compiled
def _take_larger(values: Bytes, level: Bytes, tables: Tables, areas: Ints, clip: Ints, boxes: Indices) -> None:
    """Do the work of ``take_larger_islands``."""
    found, n = _differing(values, level)
    if n == 0:
        return
    start, places = _count_values(values, found, n)
    # A region of k pixels has less than 2 k of twice the area, so at most cuts no island can be larger.
    lowest = 0
    while lowest < 255 and 2 * start[lowest] <= areas[lowest]:
        lowest += 1
    if lowest == 255:
        return
    codes = np.empty(values.shape, np.uint16)
    ring_codes(values, codes)
    order = _by_falling_value(values, codes, found, n, places)
    sunk = level.ravel()
    offsets, copies = _steps(tables, values.shape[1], False)
    for code in range(512):
        if code & BEFORE == 0:  # it may be its region's first in raster order
            copies[code] = 0
    label = np.empty(values.size, np.int32)
    parent, box = np.zeros(n + 1, np.int32), np.empty((n + 1, 4), np.int32)
    floor, area, first = np.empty(n + 1, np.uint8), np.zeros(n + 1, np.int64), np.empty(n + 1, np.int32)
    alive, living = np.empty(n + 1, np.int32), 0
    for value in range(255, lowest, -1):
        for k in range(start[value], start[value - 1]):
            entry = order[k]
            p, mask = int32(entry >> 16), entry & 255
            copy = copies[entry & 511]
            if copy != 0:
                region = _root(parent, label[uintp(p + copy)])
                label[uintp(p)] = region
            else:
                region = abs(_enter(p, mask, tables, offsets, label, parent, box))
                if mask == 0:
                    floor[region], first[region] = sunk[p], p
                    alive[living] = region
                    living += 1
                first[region] = min(first[region], p)
            area[region] += GAIN[mask]
        cut, kept, chosen = value - 1, 0, 0
        for k in range(living):
            region = alive[k]
            top = _root(parent, region)
            if top != region:
                # What a joined region brought along is handed to its root once, at the end of the level.
                area[top] += area[region]
                first[top] = min(first[top], first[region])
            elif floor[region] <= cut:
                alive[kept] = region
                kept += 1
        living = kept
        for k in range(living):
            region = alive[k]
            if (
                chosen == 0
                or area[region] > area[chosen]
                or area[region] == area[chosen]
                and first[region] > first[chosen]
            ):
                chosen = region
        # On equal areas OpenCV's first wins, and it lists the region whose first raster pixel comes last before others.
        if chosen and (
            area[chosen] > areas[cut]
            or (area[chosen] == areas[cut] and first[chosen] > _first_above(level, cut, boxes[cut, 1] + 1))
        ):
            boxes[cut, 0], boxes[cut, 1] = box[chosen, 0], box[chosen, 1]
            boxes[cut, 2], boxes[cut, 3] = min(box[chosen, 2] + 1, clip[0]), min(box[chosen, 3] + 1, clip[1])


def take_larger_islands(
    values: Bytes,
    level: Bytes,
    areas: Ints,
    clip: Ints,
    boxes: Indices,
) -> None:
    """Replace the main region's box by an island's at each cut where the island is the largest contour.

    Parameters
    ----------
    values, level : uint8 [P, Q], framed
        The hole-filled map and its ``main_level``.
    areas : int64 [256]
        Twice the main region's polygon area at each cut.
    clip : int64 [2]
        Largest far edges (x, y).
    boxes : int32 [256, 4]
        The main region's boxes, changed in place.
    """
    _take_larger(values, level, REGION, areas, clip, boxes)


@compiled
def iou_by_cut(boxes: Indices, peak: int, truth: Floats, starts: Ints, unit: float) -> Floats:
    """Return the best IoU float64 [A, 256] with each set of the box at each cut below ``peak``; 0 from there on."""
    best = np.zeros((starts.size - 1, 256))
    for own in range(starts.size - 1):
        start, stop = starts[own], starts[own + 1]
        for cut in range(peak):
            x0, y0, x1, y1 = boxes[cut, 0], boxes[cut, 1], boxes[cut, 2], boxes[cut, 3]
            best[own, cut] = best_iou_of(x0, y0, x1, y1, truth, start, stop, unit)
    return best


@compiled
def framed_side(side: int) -> int:
    """Return the side of a framed map."""
    return (side + 7) // 8 * 8 + MARGIN


@compiled
def quantised(score: Floats) -> tuple[Bytes, bool]:
    """Return ``trunc(255 * score)`` of a map float64 [H, W], framed, and whether all of it was in [0, 1]."""
    height, width = uintp(score.shape[0]), uintp(score.shape[1])
    one = uintp(1)
    values = np.zeros((framed_side(score.shape[0]), framed_side(score.shape[1])), np.uint8)
    wrong = 0
    for y in range(height):
        for x in range(width):
            wrong |= not (0.0 <= score[y, x] <= 1.0)
            values[y + one, x + one] = np.uint8(np.int32(score[y, x] * 255.0))
    return values, wrong == 0


def framed(values: Bytes) -> Bytes:
    """Return a map [H, W] with a frame of zeros: a row above, a column on the left, `MARGIN` - 1 below and right.

    And as many more as make both sides multiples of 8: rows are whole words then, and so are the loops over them.
    """
    height, width = values.shape
    frame = np.zeros((framed_side(height), framed_side(width)), np.uint8)
    frame[1 : height + 1, 1 : width + 1] = values
    return frame


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
