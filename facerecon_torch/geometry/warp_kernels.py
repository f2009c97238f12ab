"""Warp kernels behind `warp_backend`: z-buffer, shaded picture, closest triangle, first ray hit.

Warp compiles these functions from their source, so their annotations are warp's own types and no type checker
may wrap them.
"""

from typing import no_type_check

import warp as wp

__all__ = [
    "average_shades",
    "draw_shades",
    "draw_triangles",
    "find_closest",
    "find_hits",
    "resolve_pixels_double",
    "resolve_pixels_single",
]

wp.set_module_options({"enable_backward": False})

# A z-buffer entry is depth level * 2^32 + (2^32 - 1 - triangle): one atomic maximum keeps the nearest
# triangle and, among equals, the lowest index, whatever the order of the threads.
_SHIFT = wp.constant(wp.int64(4294967296))
_LOWEST_INDEX = wp.constant(wp.int64(4294967295))
_LEVELS = wp.constant(wp.float64(2147483647.0))
_FAR = wp.constant(1.0e15)
# Of a shaded picture, as fine as float32: 24 bits of depth, then 22 of shade.
_SHADES = wp.constant(wp.int64(4194304))
_SHADE_LEVELS = wp.constant(4194303.0)
_DEPTH_LEVELS = wp.constant(16777215.0)


@wp.func
@no_type_check
def _half(a: wp.vec3d, b: wp.vec3d, x: wp.float64, y: wp.float64) -> wp.float64:
    """Twice the signed area of (a, b, pixel)."""
    return (b[0] - a[0]) * (y - a[1]) - (b[1] - a[1]) * (x - a[0])


@wp.func
@no_type_check
def _edge(a: wp.vec3d, b: wp.vec3d, i: wp.int32, j: wp.int32, x: wp.float64, y: wp.float64) -> wp.float64:
    """`_half`, evaluated in one order for both triangles of an edge: their values differ in sign only, so a
    pixel centre can never fall between two neighbours by rounding."""
    if i < j:
        return _half(a, b, x, y)
    return -_half(b, a, x, y)


@wp.func
@no_type_check
def _weights(a: wp.vec3d, b: wp.vec3d, c: wp.vec3d, t: wp.vec3i, x: wp.float64, y: wp.float64) -> wp.vec3d:
    return wp.vec3d(_edge(b, c, t[1], t[2], x, y), _edge(c, a, t[2], t[0], x, y), _edge(a, b, t[0], t[1], x, y))


@wp.kernel
@no_type_check
def draw_triangles(
    points: wp.array(dtype=wp.vec3d, ndim=2),
    triangles: wp.array(dtype=wp.vec3i),
    nearest_and_range: wp.array(dtype=wp.vec2d),
    height: int,
    width: int,
    buffer: wp.array(dtype=wp.int64, ndim=3),
):
    image, index = wp.tid()
    t = triangles[index]
    a = points[image, t[0]]
    b = points[image, t[1]]
    c = points[image, t[2]]
    area = _half(a, b, c[0], c[1])
    if not wp.isfinite(area) or area == wp.float64(0.0) or not wp.isfinite(a[2] + b[2] + c[2]):
        return
    one = wp.float64(1.0)
    zero = wp.float64(0.0)
    # Clamped while still floating point: a cast of a far coordinate to int is undefined.
    left = int(wp.ceil(wp.clamp(wp.min(a[0], wp.min(b[0], c[0])), zero, wp.float64(width))))
    right = int(wp.floor(wp.clamp(wp.max(a[0], wp.max(b[0], c[0])), -one, wp.float64(width - 1))))
    top = int(wp.ceil(wp.clamp(wp.min(a[1], wp.min(b[1], c[1])), zero, wp.float64(height))))
    bottom = int(wp.floor(wp.clamp(wp.max(a[1], wp.max(b[1], c[1])), -one, wp.float64(height - 1))))
    side = wp.sign(area)
    lowest = nearest_and_range[image][0]
    step = nearest_and_range[image][1]
    for row in range(top, bottom + 1):
        for column in range(left, right + 1):
            w = side * _weights(a, b, c, t, wp.float64(column), wp.float64(row))
            total = w[0] + w[1] + w[2]
            if w[0] >= zero and w[1] >= zero and w[2] >= zero and total > zero:
                depth = (w[0] * a[2] + w[1] * b[2] + w[2] * c[2]) / total
                level = wp.clamp((depth - lowest) * step, zero, one) * _LEVELS
                key = wp.int64(level) * _SHIFT + (_LOWEST_INDEX - wp.int64(index))
                wp.atomic_max(buffer, image, row, column, key)


@wp.func
@no_type_check
def _resolved(
    points: wp.array(dtype=wp.vec3d, ndim=2),
    triangles: wp.array(dtype=wp.vec3i),
    buffer: wp.array(dtype=wp.int64, ndim=3),
    image: wp.int32,
    row: wp.int32,
    column: wp.int32,
) -> wp.vec4d:
    """Replaces one z-buffer entry by its triangle index; answers the three weights and the depth."""
    key = buffer[image, row, column]
    answer = wp.vec4d()
    if key >= wp.int64(0):
        index = int(_LOWEST_INDEX - key % _SHIFT)
        t = triangles[index]
        a = points[image, t[0]]
        b = points[image, t[1]]
        c = points[image, t[2]]
        w = _weights(a, b, c, t, wp.float64(column), wp.float64(row))
        w = w / (w[0] + w[1] + w[2])
        buffer[image, row, column] = wp.int64(index)
        answer = wp.vec4d(w[0], w[1], w[2], w[0] * a[2] + w[1] * b[2] + w[2] * c[2])
    return answer


@wp.kernel
@no_type_check
def resolve_pixels_double(
    points: wp.array(dtype=wp.vec3d, ndim=2),
    triangles: wp.array(dtype=wp.vec3i),
    buffer: wp.array(dtype=wp.int64, ndim=3),
    barycentric: wp.array(dtype=wp.vec3d, ndim=3),
    depth: wp.array(dtype=wp.float64, ndim=3),
):
    image, row, column = wp.tid()
    w = _resolved(points, triangles, buffer, image, row, column)
    barycentric[image, row, column] = wp.vec3d(w[0], w[1], w[2])
    depth[image, row, column] = w[3]


@wp.kernel
@no_type_check
def resolve_pixels_single(
    points: wp.array(dtype=wp.vec3d, ndim=2),
    triangles: wp.array(dtype=wp.vec3i),
    buffer: wp.array(dtype=wp.int64, ndim=3),
    barycentric: wp.array(dtype=wp.vec3f, ndim=3),
    depth: wp.array(dtype=wp.float32, ndim=3),
):
    image, row, column = wp.tid()
    w = _resolved(points, triangles, buffer, image, row, column)
    barycentric[image, row, column] = wp.vec3f(wp.float32(w[0]), wp.float32(w[1]), wp.float32(w[2]))
    depth[image, row, column] = wp.float32(w[3])


@wp.kernel
@no_type_check
def find_closest(
    meshes: wp.array(dtype=wp.uint64),
    points: wp.array(dtype=wp.vec3f, ndim=2),
    triangle: wp.array(dtype=wp.int32, ndim=2),
):
    image, index = wp.tid()
    query = wp.mesh_query_point_no_sign(meshes[image], points[image, index], _FAR)
    if query.result:
        triangle[image, index] = query.face


@wp.kernel
@no_type_check
def find_hits(
    meshes: wp.array(dtype=wp.uint64),
    origins: wp.array(dtype=wp.vec3f, ndim=2),
    directions: wp.array(dtype=wp.vec3f, ndim=2),
    distance: wp.array(dtype=wp.float32, ndim=2),
    triangle: wp.array(dtype=wp.int32, ndim=2),
):
    image, index = wp.tid()
    query = wp.mesh_query_ray(meshes[image], origins[image, index], directions[image, index], _FAR)
    if query.result:
        distance[image, index] = query.t
        triangle[image, index] = query.face


@wp.func
@no_type_check
def _line(a: wp.vec3d, b: wp.vec3d, i: wp.int32, j: wp.int32) -> wp.vec3d:
    """x and y of a point of the edge between vertices i and j, and its change of x per row; 0 for an edge along a row.

    Both triangles of the edge compute the same numbers: no pixel centre falls between them by rounding.
    """
    start = a
    end = b
    if i > j:
        start = b
        end = a
    slope = wp.float64(0.0)
    if start[1] != end[1]:
        slope = (end[0] - start[0]) / (end[1] - start[1])
    return wp.vec3d(start[0], start[1], slope)


@wp.func
@no_type_check
def _widened(span: wp.vec2d, line: wp.vec3d, first: wp.float64, second: wp.float64, row: wp.float64) -> wp.vec2d:
    """The span of a row, widened to its crossing with an edge whose ends have the y `first` and `second`."""
    if first == second or row < wp.min(first, second) or row > wp.max(first, second):
        return span
    x = line[0] + (row - line[1]) * line[2]
    return wp.vec2d(wp.min(span[0], x), wp.max(span[1], x))


@wp.func
@no_type_check
def _slopes(
    a: wp.vec3d, b: wp.vec3d, c: wp.vec3d, area: wp.float64, va: wp.float64, vb: wp.float64, vc: wp.float64
) -> wp.vec2d:
    """The change per px in x and in y of a value that is linear on the triangle."""
    p = vb - va
    q = vc - va
    across = (p * (c[1] - a[1]) - q * (b[1] - a[1])) / area
    down = (q * (b[0] - a[0]) - p * (c[0] - a[0])) / area
    return wp.vec2d(across, down)


@wp.kernel
@no_type_check
def draw_shades(
    points: wp.array(dtype=wp.vec3d),
    triangles: wp.array(dtype=wp.vec3i),
    shades: wp.array(dtype=wp.float32),
    lowest_and_step: wp.array(dtype=wp.vec2d),
    height: int,
    width: int,
    finer: int,
    buffer: wp.array(dtype=wp.int64),
):
    """A z-buffer of depth level * _SHADES + shade level of the nearest triangle, filled row by row between its edges.

    Every row of pixels is `finer` rows of samples, one sample per pixel, at another place in every row: the pixel's
    samples differ in x as in y. In y the points count rows of samples.
    """
    t = triangles[wp.tid()]
    a = points[t[0]]
    b = points[t[1]]
    c = points[t[2]]
    area = _half(a, b, c[0], c[1])
    if not wp.isfinite(area) or area == wp.float64(0.0) or not wp.isfinite(a[2] + b[2] + c[2]):
        return
    zero = wp.float64(0.0)
    one = wp.float64(1.0)
    # Of 1 each; rounding at the corners of slivers must not leave the range of the corners.
    lowest = lowest_and_step[0][0]
    step = lowest_and_step[0][1]
    za = (a[2] - lowest) * step
    zb = (b[2] - lowest) * step
    zc = (c[2] - lowest) * step
    sa = wp.float64(shades[t[0]])
    sb = wp.float64(shades[t[1]])
    sc = wp.float64(shades[t[2]])
    depth = _slopes(a, b, c, area, za, zb, zc)
    shade = _slopes(a, b, c, area, sa, sb, sc)
    nearest = wp.float32(wp.min(wp.max(za, wp.max(zb, zc)), one)) * _DEPTH_LEVELS
    farthest = wp.float32(wp.max(wp.min(za, wp.min(zb, zc)), zero)) * _DEPTH_LEVELS
    brightest = wp.float32(wp.min(wp.max(sa, wp.max(sb, sc)), one)) * _SHADE_LEVELS
    darkest = wp.float32(wp.max(wp.min(sa, wp.min(sb, sc)), zero)) * _SHADE_LEVELS
    deeper = wp.float32(depth[0]) * _DEPTH_LEVELS
    brighter = wp.float32(shade[0]) * _SHADE_LEVELS
    ab = _line(a, b, t[0], t[1])
    bc = _line(b, c, t[1], t[2])
    ca = _line(c, a, t[2], t[0])
    top = int(wp.ceil(wp.clamp(wp.min(a[1], wp.min(b[1], c[1])), zero, wp.float64(height))))
    bottom = int(wp.floor(wp.clamp(wp.max(a[1], wp.max(b[1], c[1])), -one, wp.float64(height - 1))))
    for row in range(top, bottom + 1):
        y = wp.float64(row)
        span = wp.vec2d(wp.float64(width), -one)
        span = _widened(span, ab, a[1], b[1], y)
        span = _widened(span, bc, b[1], c[1], y)
        span = _widened(span, ca, c[1], a[1], y)
        shift = (wp.float64(row % finer) + wp.float64(0.5)) / wp.float64(finer) - wp.float64(0.5)
        left = int(wp.ceil(wp.max(span[0] - shift, zero)))
        right = int(wp.floor(wp.min(span[1] - shift, wp.float64(width - 1))))
        beyond = wp.float64(left) + shift - a[0]
        z = wp.float32(za + (y - a[1]) * depth[1] + beyond * depth[0]) * _DEPTH_LEVELS
        s = wp.float32(sa + (y - a[1]) * shade[1] + beyond * shade[0]) * _SHADE_LEVELS
        start = row * width + left
        for column in range(right + 1 - left):
            x = wp.float32(column)
            level = wp.int64(wp.clamp(z + x * deeper, farthest, nearest))
            light = wp.int64(wp.clamp(s + x * brighter, darkest, brightest))
            wp.atomic_max(buffer, start + column, level * _SHADES + light)


@wp.kernel
@no_type_check
def average_shades(
    buffer: wp.array(dtype=wp.int64), width: int, finer: int, layers: wp.array(dtype=wp.float32, ndim=3)
):
    """The covered share of every pixel, and its mean shade times this share, of its `finer` samples."""
    row, column = wp.tid()
    count = int(0)  # noqa: RUF046, UP018 - a variable of warp, not a constant
    total = wp.int64(0)
    for i in range(finer):
        key = buffer[(row * finer + i) * width + column]
        if key >= wp.int64(0):
            count += 1
            total += key % _SHADES
    layers[0, row, column] = float(count) / float(finer)
    layers[1, row, column] = float(total) / float(finer) / _SHADE_LEVELS
