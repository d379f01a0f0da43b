"""A command whose module is imported when it is called, not when commands are listed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand


class Later(TyperCommand):
    """Stands for a command among others: has its name and the first line of its help."""

    name: str

    def __init__(
        self, name: str, where: str, about: str, settings: dict[str, Any] | None = None
    ) -> None:
        """`where`: module:attribute, a function or a Typer app; `about`: what the list of commands
        says, the first line of its docstring or help; `settings` for the context of a function."""
        super().__init__(name, help=about)
        self._where, self._settings = where, settings

    @property
    def itself(self) -> Any:
        """The command, made anew: `--show-config` waives what one requires."""
        module, _, attribute = self._where.partition(":")
        found = getattr(import_module(module), attribute)
        if isinstance(found, typer.Typer):
            return typer.main.get_command(found)
        alone = typer.Typer(add_completion=False, rich_markup_mode=None)
        alone.command(self.name, context_settings=self._settings)(found)
        return typer.main.get_command(alone)

    def make_context(self, *given: Any, **more: Any) -> Any:
        """For what is parsed, and then invoked, in place of this."""
        return self.itself.make_context(*given, **more)
