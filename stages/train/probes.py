"""The sensors that still work.  One that fails is left out from then on, and named once."""

from __future__ import annotations

import math

from stages.train.sensors import Openers, Sensor


class Probes:
    """Opens, reads and closes sensors; never raises on their account."""

    def __init__(self, openers: Openers) -> None:
        self._openers = openers
        self._working: dict[str, Sensor] = {}
        self._opened: dict[str, Sensor] = {}
        self.problems: list[str] = []

    def open(self) -> None:
        for name, opener in self._openers.items():
            try:
                self._opened[name] = opener()
            except Exception as error:
                self._note(name, error)
        self._working = dict(self._opened)

    def read(self, name: str) -> float | None:
        """None where there is no such sensor, or no more: its first failure is its last."""
        sensor = self._working.get(name)
        if sensor is None:
            return None
        try:
            value = float(sensor.read())
            if not math.isfinite(value):
                raise ValueError(f"read {value}")
        except Exception as error:
            # Of two threads that read it, only one pops it: named once.
            if self._working.pop(name, None) is not None:
                self._note(name, error)
            return None
        return value

    def abandon(self, why: str) -> None:
        """Touch no sensor again: one hangs, and closing it could hang as well."""
        self._working.clear()
        self._opened.clear()
        self.problems.append(why)

    def close(self) -> None:
        for name, sensor in self._opened.items():
            try:
                sensor.close()
            except Exception as error:
                self._note(f"{name}, closing", error)
        self._working.clear()
        self._opened.clear()

    def _note(self, name: str, error: Exception) -> None:
        self.problems.append(f"{name}: {type(error).__name__}: {error}".removesuffix(": "))
