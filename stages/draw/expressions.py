"""The eight expressions as facial action units (AU), the muscles' alphabet.

Prototypes after Ekman & Friesen's Facial Action Coding System and EMFACS:
each expression is a set of action units, each between 0 (at rest) and 1 (as
strong as a face can).  Intensity scales the whole set; a person's own way of
doing it is a small deviation of every unit.  Fear and surprise share raised
brows, wide eyes and an open mouth; anger and disgust share lowered brows and
narrowed eyes: weak ones are hard to tell apart, for people as for networks.
"""

from __future__ import annotations

from random import Random

EXPRESSIONS = (
    "anger",
    "happiness",
    "sadness",
    "surprise",
    "disgust",
    "fear",
    "contempt",
    "neutral",
)

UNITS = (
    "inner_brow_raiser",  # AU1
    "outer_brow_raiser",  # AU2
    "brow_lowerer",  # AU4, also draws the brows together
    "upper_lid_raiser",  # AU5
    "cheek_raiser",  # AU6, narrows the eye from below
    "lid_tightener",  # AU7
    "nose_wrinkler",  # AU9
    "upper_lip_raiser",  # AU10
    "lip_corner_puller",  # AU12, both sides
    "one_corner_puller",  # AU12/14 on one side only
    "lip_corner_depressor",  # AU15
    "lip_stretcher",  # AU20
    "lip_tightener",  # AU23/24
    "jaw_drop",  # AU25/26
)

PROTOTYPES: dict[str, dict[str, float]] = {
    "anger": {
        "brow_lowerer": 1.0,
        "upper_lid_raiser": 0.3,
        "lid_tightener": 0.7,
        "lip_tightener": 0.8,
        "nose_wrinkler": 0.1,
    },
    "happiness": {"cheek_raiser": 0.8, "lip_corner_puller": 1.0, "jaw_drop": 0.2},
    "sadness": {"inner_brow_raiser": 1.0, "brow_lowerer": 0.3, "lip_corner_depressor": 1.0},
    "surprise": {
        "inner_brow_raiser": 1.0,
        "outer_brow_raiser": 1.0,
        "upper_lid_raiser": 0.9,
        "jaw_drop": 0.8,
    },
    "disgust": {
        "brow_lowerer": 0.8,
        "lid_tightener": 0.6,
        "nose_wrinkler": 0.5,
        "upper_lip_raiser": 0.2,
        "lip_corner_depressor": 0.3,
        "lip_tightener": 0.4,
    },
    "fear": {
        "inner_brow_raiser": 1.0,
        "outer_brow_raiser": 0.8,
        "brow_lowerer": 0.4,
        "upper_lid_raiser": 1.0,
        "lip_stretcher": 0.5,
        "jaw_drop": 0.6,
    },
    "contempt": {"one_corner_puller": 1.0, "lip_tightener": 0.4},
    "neutral": {},
}


def pose_muscles(expression: str, intensity: float, rng: Random) -> dict[str, float]:
    """How strongly each action unit acts, in [0, 1].

    `intensity` in [0, 1] scales the prototype; every unit then deviates a
    little, at rest too, because no two people (or takes) are alike.
    """
    prototype = PROTOTYPES[expression]
    return {
        unit: min(1.0, max(0.0, prototype.get(unit, 0.0) * intensity + 0.2 * (rng.random() - 0.5)))
        for unit in UNITS
    }
