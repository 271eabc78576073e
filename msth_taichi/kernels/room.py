"""The built-in scene, ray traced exactly: a textured room, two things that stand, two that move.

Lengths are scene units, time is in [0, 1) and every motion has period 1. The only shadows are painted under
what stands still, so that a static surface keeps exactly its colour.

Letters: C cameras, H image height, W image width; o, d origin and unit direction of a ray, p point, n normal.
"""

import functools
import math
from types import SimpleNamespace

import taichi as ti
import taichi.math as tm

SAMPLES = 3
"""Colour samples per pixel and axis, on a regular grid; odd, so that one is the pixel centre."""

WALL = 1.6  # x and y of the walls
FLOOR, CEILING = -0.5, 1.4

ROOM, PEDESTAL, MARBLE, COLUMN, BALL, CRATE = range(6)

PEDESTAL_CENTER, PEDESTAL_HALF = (0.0, 0.05, -0.39), (0.14, 0.14, 0.11)
MARBLE_CENTER, MARBLE_RADIUS = (0.0, 0.05, -0.14), 0.14
COLUMN_CENTER, COLUMN_HALF, COLUMN_YAW = (-0.62, 0.62, -0.2), (0.15, 0.15, 0.3), 0.5
BALL_ORBIT, BALL_RADIUS, BALL_HOP = 0.43, 0.12, 0.22
CRATE_CENTER, CRATE_HALF, CRATE_SLIDE = (0.5, 0.6, -0.34), (0.17, 0.17, 0.16), 0.25

LIGHT = (0.5, -0.6, 1.2)
AMBIENT = 0.5

_FAR = 1e9


@functools.cache
def room() -> SimpleNamespace:
    """Compiled kernels of the scene: `render`."""

    @ti.func
    def turned(v, yaw):
        """v rotated by -yaw about z: into the axes of a thing turned by yaw."""
        c, s = ti.cos(yaw), ti.sin(yaw)
        return tm.vec3(c * v.x + s * v.y, c * v.y - s * v.x, v.z)

    @ti.func
    def hit_sphere(o, d, center, radius):
        q = o - center
        b = tm.dot(q, d)
        # the distance of the line from the centre, not |q|^2 - b^2, which cancels in float32
        miss = q - b * d
        h = radius * radius - tm.dot(miss, miss)
        t = -b - ti.sqrt(ti.max(h, 0.0))
        return ti.select(h > 0 and t > 0, t, _FAR)

    @ti.func
    def hit_box(o, d, center, half, yaw):
        q, e = turned(o - center, yaw), turned(d, yaw)
        t0, t1 = -_FAR, _FAR
        for a in ti.static(range(3)):
            inverse = 1.0 / ti.select(ti.abs(e[a]) < 1e-9, 1e-9, e[a])
            near, far = (-half[a] - q[a]) * inverse, (half[a] - q[a]) * inverse
            t0, t1 = ti.max(t0, ti.min(near, far)), ti.min(t1, ti.max(near, far))
        return ti.select(t0 < t1 and t0 > 0, t0, _FAR)

    @ti.func
    def leave_room(o, d):
        t = _FAR
        low, high = tm.vec3(-WALL, -WALL, FLOOR), tm.vec3(WALL, WALL, CEILING)
        for a in ti.static(range(3)):
            if ti.abs(d[a]) > 1e-9:
                t = ti.min(t, (ti.select(d[a] > 0, high[a], low[a]) - o[a]) / d[a])
        return t

    @ti.func
    def ball_center(time):
        turn = 2 * math.pi * time
        height = FLOOR + BALL_RADIUS + BALL_HOP * ti.sin(turn) ** 2
        return tm.vec3(BALL_ORBIT * ti.cos(turn), 0.05 + BALL_ORBIT * ti.sin(turn), height)

    @ti.func
    def crate_center(time):
        return tm.vec3(CRATE_CENTER) + tm.vec3(CRATE_SLIDE * ti.sin(2 * math.pi * time), 0, 0)

    @ti.func
    def crate_yaw(time):
        return 0.5 * math.pi * time  # a quarter turn: its four sides are alike

    @ti.func
    def trace(o, d, time):
        """Distance along the ray to what it sees first, and which thing that is."""
        t, thing = leave_room(o, d), ROOM
        distances = [
            (PEDESTAL, hit_box(o, d, tm.vec3(PEDESTAL_CENTER), tm.vec3(PEDESTAL_HALF), 0.0)),
            (MARBLE, hit_sphere(o, d, tm.vec3(MARBLE_CENTER), MARBLE_RADIUS)),
            (COLUMN, hit_box(o, d, tm.vec3(COLUMN_CENTER), tm.vec3(COLUMN_HALF), COLUMN_YAW)),
            (BALL, hit_sphere(o, d, ball_center(time), BALL_RADIUS)),
            (CRATE, hit_box(o, d, crate_center(time), tm.vec3(CRATE_HALF), crate_yaw(time))),
        ]
        for pair in ti.static(distances):
            if pair[1] < t:
                t, thing = pair[1], pair[0]
        return t, thing

    @ti.func
    def wave(x):
        """Soft stripes: 0 to 1 with period 1."""
        return 0.5 + 0.5 * tm.tanh(2.5 * ti.sin(2 * math.pi * x))

    @ti.func
    def noise(p):
        """Smooth, aperiodic within the room, in [0, 1]."""
        a = ti.sin(3.1 * p.x + 1.7 * p.y + 0.4) * ti.sin(2.3 * p.y - 2.9 * p.z + 1.1)
        b = ti.sin(5.3 * p.z + 4.1 * p.x - 0.7) * ti.sin(4.7 * p.x - 5.9 * p.y + 2.3)
        return 0.5 + 0.3 * a + 0.2 * b

    @ti.func
    def shadow(p, center, size):
        """Painted darkening of the floor under a thing that stands still."""
        dx, dy = p.x - center[0], p.y - center[1]
        return 1 - 0.5 * ti.exp(-(dx * dx + dy * dy) / (size * size))

    @ti.func
    def room_surface(p):
        """Colour and normal of floor, ceiling or wall at p."""
        color, n = tm.vec3(0.0), tm.vec3(0.0)
        grain = noise(p)
        if p.z < FLOOR + 1e-4:
            n = tm.vec3(0, 0, 1)
            checks = 0.5 + 0.5 * tm.tanh(3 * ti.sin(math.pi * p.x / 0.4) * ti.sin(math.pi * p.y / 0.4))
            color = tm.mix(tm.vec3(0.93, 0.84, 0.70), tm.vec3(0.62, 0.45, 0.34), checks) * (0.85 + 0.2 * grain)
            color *= shadow(p, PEDESTAL_CENTER, 0.26) * shadow(p, COLUMN_CENTER, 0.28)
        elif p.z > CEILING - 1e-4:
            n = tm.vec3(0, 0, -1)
            color = tm.mix(tm.vec3(0.95, 0.93, 0.88), tm.vec3(0.86, 0.89, 0.93), grain)
        elif ti.abs(p.y) > WALL - 1e-4:
            n = tm.vec3(0, -tm.sign(p.y), 0)
            stripes = wave(p.x / 0.64 + 0.25)
            color = tm.mix(tm.vec3(0.36, 0.62, 0.66), tm.vec3(0.85, 0.88, 0.78), stripes) * (0.8 + 0.3 * grain)
        else:
            n = tm.vec3(-tm.sign(p.x), 0, 0)
            warm, cool = tm.vec3(0.93, 0.68, 0.48), tm.vec3(0.62, 0.56, 0.78)
            color = tm.mix(ti.select(p.x > 0, cool, warm), tm.vec3(0.96, 0.9, 0.8), 0.8 * noise(1.4 * p))
        # a skirting, so that floor and walls part
        if ti.abs(n.z) < 0.5:
            color = tm.mix(tm.vec3(0.45, 0.34, 0.28), color, tm.smoothstep(0.10, 0.14, p.z - FLOOR))
        return color, n

    @ti.func
    def box_normal(q, half):
        """Normal of the face of a centred box that q lies on."""
        r = ti.abs(q) / half
        n = tm.vec3(0, 0, tm.sign(q.z))
        if r.x >= ti.max(r.y, r.z):
            n = tm.vec3(tm.sign(q.x), 0, 0)
        elif r.y >= r.z:
            n = tm.vec3(0, tm.sign(q.y), 0)
        return n

    @ti.func
    def shade(p, thing, time):
        color, n = tm.vec3(0.0), tm.vec3(0, 0, 1)
        if thing == ROOM:
            color, n = room_surface(p)
        elif thing == PEDESTAL:
            q = p - tm.vec3(PEDESTAL_CENTER)
            n = box_normal(q, tm.vec3(PEDESTAL_HALF))
            color = tm.mix(tm.vec3(0.92, 0.90, 0.86), tm.vec3(0.70, 0.72, 0.76), wave(q.z / 0.11))
        elif thing == MARBLE:
            n = (p - tm.vec3(MARBLE_CENTER)) / MARBLE_RADIUS
            veins = ti.sin(8 * n.z + 7 * noise(1.3 * n))
            color = tm.mix(tm.vec3(0.25, 0.55, 0.42), tm.vec3(0.80, 0.92, 0.78), 0.5 + 0.5 * veins)
        elif thing == COLUMN:
            q = turned(p - tm.vec3(COLUMN_CENTER), COLUMN_YAW)
            n = turned(box_normal(q, tm.vec3(COLUMN_HALF)), -COLUMN_YAW)
            color = tm.mix(tm.vec3(0.55, 0.30, 0.48), tm.vec3(0.92, 0.76, 0.82), wave((q.x + q.y + q.z) / 0.2))
        elif thing == BALL:
            n = (p - ball_center(time)) / BALL_RADIUS
            m = turned(n, 2 * math.pi * time)  # it rolls along with its orbit
            color = tm.mix(tm.vec3(0.88, 0.22, 0.16), tm.vec3(0.98, 0.86, 0.52), wave(0.9 * m.z + 0.4 * m.x))
        else:
            yaw = crate_yaw(time)
            q = turned(p - crate_center(time), yaw)
            n = turned(box_normal(q, tm.vec3(CRATE_HALF)), -yaw)
            frame = ti.max(ti.min(ti.abs(q.x), ti.abs(q.y)) / CRATE_HALF[0], ti.abs(q.z) / CRATE_HALF[2])
            if ti.abs(n.z) > 0.5:
                frame = ti.max(ti.abs(q.x), ti.abs(q.y)) / CRATE_HALF[0]
            color = tm.mix(tm.vec3(0.18, 0.36, 0.78), tm.vec3(0.98, 0.80, 0.25), tm.smoothstep(0.62, 0.78, frame))
        lambert = ti.max(tm.dot(n, tm.normalize(tm.vec3(LIGHT) - p)), 0.0)
        return color * (AMBIENT + (1 - AMBIENT) * lambert)

    @ti.func
    def direction(pose: ti.template(), lens: ti.template(), camera, x, y):
        """Unit direction through image coordinates (x, y) of a pinhole with OpenGL axes."""
        e = tm.vec3((x - lens[camera, 2]) / lens[camera, 0], (lens[camera, 3] - y) / lens[camera, 1], -1.0)
        d = tm.vec3(0.0)
        for i in ti.static(range(3)):
            d[i] = pose[camera, i, 0] * e.x + pose[camera, i, 1] * e.y + pose[camera, i, 2] * e.z
        return tm.normalize(d)

    @ti.kernel
    def render(
        pose: ti.types.ndarray(dtype=ti.f32, ndim=3),  # (C, 3, 4)
        lens: ti.types.ndarray(dtype=ti.f32, ndim=2),  # (C, 4) fx, fy, cx, cy
        camera: ti.i32,
        time: ti.f32,
        color: ti.types.ndarray(dtype=ti.u8, ndim=3),  # (H, W, 3)
        depth: ti.types.ndarray(dtype=ti.f32, ndim=2),  # (H, W)
        moving: ti.types.ndarray(dtype=ti.u8, ndim=2),  # (H, W)
    ):
        for row, column in depth:
            o = tm.vec3(pose[camera, 0, 3], pose[camera, 1, 3], pose[camera, 2, 3])
            t, thing = trace(o, direction(pose, lens, camera, column + 0.5, row + 0.5), time)
            depth[row, column] = t
            moving[row, column] = ti.cast(thing >= BALL, ti.u8)
            total = tm.vec3(0.0)
            for i, j in ti.ndrange(SAMPLES, SAMPLES):
                d = direction(pose, lens, camera, column + (j + 0.5) / SAMPLES, row + (i + 0.5) / SAMPLES)
                t, thing = trace(o, d, time)
                total += shade(o + t * d, thing, time)
            mean = tm.clamp(total / SAMPLES**2, 0.0, 1.0)
            for k in ti.static(range(3)):
                color[row, column, k] = ti.cast(255 * mean[k] + 0.5, ti.u8)

    return SimpleNamespace(render=render)
