"""Warp kernels behind `warp_backend`: z-buffer, closest triangle, first ray hit.

Warp compiles these functions from their source, so their annotations are warp's own types and no type checker
may wrap them.
"""

from typing import no_type_check

import warp as wp

__all__ = [
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
