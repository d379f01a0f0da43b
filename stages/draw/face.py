"""Paint one face: 240 x 240 RGB, the same pixels on every machine.

Coordinates come from +, -, * and / alone, which IEEE 754 fixes to the last
bit; sines, library noise generators and float blurs may differ between
machines and are avoided.  A circle is its rational parametrisation, noise is
bytes of Python's own generator (stable by its documentation), blur and
light are integer arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from random import Random

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

SIZE = 240
_SCALE = 2  # drawn twice as large, then averaged: smooth edges without a library's own

Colour = tuple[int, int, int]
Point = tuple[float, float]


@dataclass(frozen=True)
class Subject:
    """What stays with a person: lengths in pixels, colours 0-255."""

    skin: Colour
    hair: Colour
    iris: Colour
    lips: Colour
    half_width: float
    half_height: float
    eye_distance: float
    eye_height: float
    eye_width: float
    brow_thickness: float
    brow_height: float
    nose_length: float
    mouth_height: float
    mouth_width: float
    hair_line: float
    long_hair: bool


@dataclass(frozen=True)
class Take:
    """What changes from picture to picture of a person."""

    muscles: dict[str, float]
    mirrored: bool  # which corner a one-sided smile pulls
    roll: float  # tangent of half the angle the head leans by
    yaw: float  # pixels by which the features move across the face
    centre: Point
    background: Colour
    light: tuple[int, int, int]  # gradient across, gradient down (1/65536 a pixel), gain (1/256)
    noise_seed: int


def draw_subject(rng: Random) -> Subject:
    """A person at random."""

    def between(low: float, high: float) -> float:
        return low + (high - low) * rng.random()

    skin = rng.choice(
        ((243, 209, 184), (229, 186, 153), (208, 160, 124), (181, 132, 98), (150, 106, 78))
    )
    hair = rng.choice(((32, 26, 24), (62, 42, 30), (104, 72, 42), (150, 116, 66), (112, 110, 108)))
    jitter = rng.randrange(-8, 9)
    return Subject(
        skin=(skin[0] + jitter, skin[1] + jitter, skin[2] + jitter),
        hair=hair,
        iris=rng.choice(((52, 36, 26), (66, 52, 36), (60, 82, 96), (66, 84, 60))),
        lips=(skin[0] * 4 // 5, skin[1] * 11 // 20, skin[2] * 11 // 20),
        half_width=between(55, 63),
        half_height=between(74, 83),
        eye_distance=between(25, 29),
        eye_height=between(-16, -11),
        eye_width=between(13.5, 16.5),
        brow_thickness=between(4.0, 6.5),
        brow_height=between(-19, -15),
        nose_length=between(24, 30),
        mouth_height=between(38, 43),
        mouth_width=between(21, 26),
        hair_line=between(-58, -46),
        long_hair=rng.random() < 0.4,
    )


def draw_take(muscles: dict[str, float], rng: Random) -> Take:
    """The circumstances of one picture at random."""

    def around(spread: float) -> float:
        return spread * (2 * rng.random() - 1)

    grey = rng.randrange(90, 215)
    return Take(
        muscles=muscles,
        mirrored=rng.random() < 0.1,
        roll=around(0.025),
        yaw=around(2.5),
        centre=(SIZE / 2 + around(7), SIZE / 2 + 6 + around(7)),
        background=(grey + rng.randrange(-20, 21), grey, grey + rng.randrange(-20, 21)),
        light=(rng.randrange(-60, 61), rng.randrange(-40, 41), rng.randrange(240, 272)),
        noise_seed=rng.getrandbits(32),
    )


def paint(subject: Subject, take: Take) -> NDArray[np.uint8]:
    """The picture, uint8 (240, 240, 3) RGB."""
    canvas = _Canvas(take)
    _paint_head(canvas, subject)
    _paint_eyes(canvas, subject, take)
    _paint_nose(canvas, subject, take)
    _paint_mouth(canvas, subject, take)
    return _photograph(canvas.image, take)


# --- shapes -----------------------------------------------------------------


def _circle() -> list[Point]:
    """48 points of the unit circle: ((1 - t^2) / (1 + t^2), 2 t / (1 + t^2))."""
    quarter = [
        ((1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)) for t in (k / 12 for k in range(12))
    ]
    points = quarter
    for _ in range(3):
        quarter = [(-y, x) for x, y in quarter]
        points = points + quarter
    return points


_CIRCLE = _circle()
_MARKS = 32
_PEN = _CIRCLE[::4]  # a mark of a few pixels needs no more than 12 points


class _Canvas:
    """A large picture on which shapes are given in the head's own coordinates:
    origin between eyes and nose, x to the viewer's right, y down, pixels."""

    def __init__(self, take: Take) -> None:
        self.image = Image.new("RGB", (SIZE * _SCALE, SIZE * _SCALE), take.background)
        self._draw = ImageDraw.Draw(self.image)
        t = take.roll
        self._cos, self._sin = (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)
        self._centre = take.centre

    def polygon(self, points: list[Point], colour: Colour) -> None:
        placed = []
        for x, y in points:
            turned = (x * self._cos - y * self._sin, x * self._sin + y * self._cos)
            placed.append(
                (
                    round((self._centre[0] + turned[0]) * _SCALE),
                    round((self._centre[1] + turned[1]) * _SCALE),
                )
            )
        self._draw.polygon(placed, fill=colour)

    def ellipse(self, x: float, y: float, width: float, height: float, colour: Colour) -> None:
        """Filled; `width` and `height` are half axes."""
        self.polygon([(x + width * u, y + height * v) for u, v in _CIRCLE], colour)

    def stroke(self, points: list[Point], thickness: float, colour: Colour) -> None:
        """A line of round pen marks through the points of a parabola."""
        (x0, y0), (x1, y1), (x2, y2) = points
        radius = thickness / 2
        for k in range(_MARKS + 1):
            t = k / _MARKS
            a, b, c = (1 - t) * (1 - t), 2 * t * (1 - t), t * t
            x, y = a * x0 + b * x1 + c * x2, a * y0 + b * y1 + c * y2
            self.polygon([(x + radius * u, y + radius * v) for u, v in _PEN], colour)


def _shade(colour: Colour, per_cent: int) -> Colour:
    """Darker (below 100) or lighter (above), clipped."""
    red, green, blue = (min(255, max(0, channel * per_cent // 100)) for channel in colour)
    return red, green, blue


# --- parts of the head ------------------------------------------------------


def _paint_head(canvas: _Canvas, s: Subject) -> None:
    if s.long_hair:
        canvas.ellipse(0, 8, s.half_width * 1.32, s.half_height * 1.22, s.hair)
    canvas.ellipse(0, -22, s.half_width * 1.16, s.half_height * 0.98, s.hair)
    neck = s.half_width * 0.52
    canvas.polygon(
        [(-neck, 40), (neck, 40), (neck * 1.2, 140), (-neck * 1.2, 140)], _shade(s.skin, 74)
    )
    canvas.ellipse(-s.half_width, 2, 8, 15, _shade(s.skin, 82))
    canvas.ellipse(s.half_width, 2, 8, 15, _shade(s.skin, 82))
    for k in range(9):  # from the dark rim of the face to its light middle
        shrink = 1 - 0.055 * k
        canvas.ellipse(
            0, 4 - k, s.half_width * shrink, s.half_height * shrink, _shade(s.skin, 80 + 3 * k)
        )
    fringe = [
        (s.half_width * 1.1 * u, -22 + s.half_height * 0.95 * v) for u, v in _CIRCLE if v < -0.25
    ]
    fringe.sort()
    canvas.polygon(
        [*fringe, (s.half_width * 0.8, s.hair_line), (-s.half_width * 0.8, s.hair_line)], s.hair
    )


def _paint_eyes(canvas: _Canvas, s: Subject, take: Take) -> None:
    m = take.muscles
    opening = 5.6 + 3.4 * m["upper_lid_raiser"] - 2.6 * m["lid_tightener"] - 2.2 * m["cheek_raiser"]
    opening = max(
        2.0,
        opening
        - 1.0 * m["nose_wrinkler"]
        - 1.0 * m["inner_brow_raiser"] * (1 - m["upper_lid_raiser"]),
    )
    for side in (-1, 1):
        x, y = side * s.eye_distance + take.yaw, s.eye_height
        canvas.ellipse(x, y - 1, s.eye_width + 5, 12, _shade(s.skin, 84))
        canvas.ellipse(x, y + 1, s.eye_width + 1, opening + 2.5, _shade(s.skin, 66))
        canvas.ellipse(x, y, s.eye_width, opening, (238, 236, 232))
        pupil = min(opening, 6.2)
        canvas.ellipse(x + take.yaw * 0.3, y, 6.0, pupil, s.iris)
        canvas.ellipse(x + take.yaw * 0.3, y, 3.2, min(pupil, 3.4), (16, 14, 14))
        lid = y - opening
        canvas.stroke(
            [(x - s.eye_width, y), (x, lid - opening), (x + s.eye_width, y)],
            2.6,
            _shade(s.skin, 40),
        )
        if m["cheek_raiser"] > 0.2:
            fold = y + opening + 5
            canvas.stroke(
                [(x - s.eye_width, fold - 1), (x, fold + 3), (x + s.eye_width, fold - 1)],
                1.8,
                _shade(s.skin, 76),
            )
        _paint_brow(canvas, s, m, side, x)


def _paint_brow(canvas: _Canvas, s: Subject, m: dict[str, float], side: int, x: float) -> None:
    base = s.eye_height + s.brow_height
    inner = base - 9 * m["inner_brow_raiser"] + 9 * m["brow_lowerer"] + 2 * m["nose_wrinkler"]
    outer = (
        base + 2 - 9 * m["outer_brow_raiser"] + 2 * m["brow_lowerer"] + 2 * m["inner_brow_raiser"]
    )
    inner_x = x - side * (14.5 + 4 * m["brow_lowerer"])
    outer_x = x + side * 18
    arch = (inner + outer) / 2 - 6
    canvas.stroke(
        [(inner_x, inner), (x + side * 4, arch), (outer_x, outer)],
        s.brow_thickness,
        _shade(s.hair, 85),
    )


def _paint_nose(canvas: _Canvas, s: Subject, take: Take) -> None:
    wrinkle = take.muscles["nose_wrinkler"]
    x, top = take.yaw * 1.3, s.eye_height + 4
    tip = top + s.nose_length - 3 * wrinkle
    dark = _shade(s.skin, 76)
    canvas.polygon([(x - 3, top), (x + 3, top), (x + 10, tip), (x - 10, tip)], _shade(s.skin, 95))
    canvas.polygon([(x + 3, top), (x + 5, top), (x + 12, tip), (x + 8, tip)], dark)
    canvas.ellipse(x, tip, 11 + 2 * wrinkle, 4.5, dark)
    for side in (-1, 1):
        canvas.ellipse(x + side * 5.5, tip + 1, 3, 2, _shade(s.skin, 42))
        if wrinkle > 0.2:
            for k in range(2):
                y = top + 3 + 5 * k
                canvas.stroke(
                    [(x + side * 2, y), (x + side * 6, y - 3), (x + side * 9, y)],
                    1.6,
                    _shade(s.skin, 94 - round(28 * wrinkle)),
                )
    if wrinkle > 0.2:  # the fold from nose to mouth deepens with the wrinkled nose
        for side in (-1, 1):
            canvas.stroke(
                [(x + side * 13, tip - 2), (x + side * 20, tip + 4), (x + side * 24, tip + 14)],
                2.0,
                _shade(s.skin, 94 - round(26 * wrinkle)),
            )


def _paint_mouth(canvas: _Canvas, s: Subject, take: Take) -> None:
    m = take.muscles
    x, y = take.yaw, s.mouth_height
    width = (
        s.mouth_width
        + 5 * m["lip_corner_puller"]
        + 6 * m["lip_stretcher"]
        - 3 * m["lip_tightener"]
        - 4 * m["jaw_drop"] * (1 - m["lip_stretcher"])
    )
    both = -8 * m["lip_corner_puller"] + 7 * m["lip_corner_depressor"] + 2 * m["lip_stretcher"]
    one = -18 * m["one_corner_puller"]
    left, right = (both + one, both) if take.mirrored else (both, both + one)
    gap = (
        13 * m["jaw_drop"] * (1 - 0.45 * m["lip_stretcher"])
        + 2 * m["lip_stretcher"]
        + 2.5 * m["lip_corner_puller"]
    )
    lip = 4.6 - 3.0 * m["lip_tightener"]
    upper = y - gap / 2 - 5 * m["upper_lip_raiser"]
    lower = y + gap / 2 + 4 * m["jaw_drop"]

    def arc(height: float, steps: int = 16) -> list[Point]:
        """A parabola from corner to corner through `height` at its middle."""
        points = []
        for k in range(steps + 1):
            t = k / steps
            corner = (1 - t) * left + t * right
            bow = 4 * t * (1 - t)
            points.append((x - width + 2 * width * t, (y + corner) * (1 - bow) + height * bow))
        return points

    canvas.polygon(arc(upper - lip) + arc(lower + lip)[::-1], s.lips)
    if gap + 5 * m["upper_lip_raiser"] > 3.0:
        canvas.polygon(arc(upper) + arc(lower)[::-1], (62, 24, 26))
        if m["lip_corner_puller"] + m["upper_lip_raiser"] + m["lip_stretcher"] > 0.5:
            canvas.polygon(arc(upper) + arc(min(lower, upper + 4.5))[::-1], (232, 228, 220))
    else:
        middle = arc(y)
        for (x0, y0), (x1, y1) in pairwise(middle):
            canvas.ellipse((x0 + x1) / 2, (y0 + y1) / 2, (x1 - x0), 0.9, (92, 44, 44))
    canvas.ellipse(x, y + 17 + 5 * m["jaw_drop"], 10, 2.2, _shade(s.skin, 82))


# --- from drawing to photograph ---------------------------------------------


def _photograph(image: Image.Image, take: Take) -> NDArray[np.uint8]:
    """Average down, blur by (1 2 1)/4 twice, light from one side, grain."""
    pixels = np.asarray(image.reduce(_SCALE), dtype=np.int32)
    for _ in range(2):
        down = np.pad(pixels, ((1, 1), (0, 0), (0, 0)), "edge")
        pixels = (down[:-2] + 2 * down[1:-1] + down[2:] + 2) >> 2
        across = np.pad(pixels, ((0, 0), (1, 1), (0, 0)), "edge")
        pixels = (across[:, :-2] + 2 * across[:, 1:-1] + across[:, 2:] + 2) >> 2
    slope_x, slope_y, gain = take.light
    ramp = np.arange(SIZE, dtype=np.int32) - SIZE // 2
    light = gain * 256 + 2 * (slope_x * ramp[None, :] + slope_y * ramp[:, None])
    pixels = pixels * light[:, :, None] >> 16
    grain = np.frombuffer(Random(take.noise_seed).randbytes(SIZE * SIZE), dtype=np.uint8)
    pixels += ((grain.astype(np.int32) - 128) * 7 // 128).reshape(SIZE, SIZE, 1)
    return np.clip(pixels, 0, 255).astype(np.uint8)
