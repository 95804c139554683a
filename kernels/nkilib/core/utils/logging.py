"""Messages of kernels while they are compiled, printed from a level on.

The environment variable ``NKILIB_LOG_LEVEL`` sets the level of all loggers: DEBUG, INFO, WARN, ERROR or OFF;
``NKILIB_LOG_LEVEL_SBM`` sets that of the logger "SBM". They are read when this module is imported.
"""

import os
from enum import Enum

import nki.language as nl

from .kernel_assert import kernel_assert


class LogLevel(Enum):
    """How much a message matters; a logger prints those of its own level and above."""

    DEBUG = 0
    INFO = 1
    WARN = 2
    ERROR = 3
    OFF = 999

    @staticmethod
    def from_string(level: str) -> "LogLevel":
        """The level of this name, in capitals or not."""
        known = LogLevel.__members__
        kernel_assert(level.upper() in known, f"the log levels are {', '.join(known)}, got {level!r}")
        return known[level.upper()]


_VARIABLE = "NKILIB_LOG_LEVEL"


def _levels_of_environment():
    """The levels that the environment sets, by the name of the logger; "" stands for all others."""
    levels = {}
    for variable, text in os.environ.items():
        if variable == _VARIABLE or variable.startswith(f"{_VARIABLE}_"):
            levels[variable[len(_VARIABLE) + 1 :]] = LogLevel.from_string(text)
    return levels


_of_environment = _levels_of_environment()


class Logger(nl.NKIObject):
    """Prints messages as ``[name] message``.

    Args:
        name: who speaks.
        level: the least level it prints.
    """

    def __init__(self, name: str, level: LogLevel = LogLevel.INFO):
        self.name = name
        self.level = level

    def is_enabled_for(self, level: LogLevel) -> bool:
        """True if messages of this level are printed."""
        return level.value >= self.level.value

    def debug(self, msg: str) -> None:
        """Print `msg` if the level is DEBUG."""
        if self.is_enabled_for(LogLevel.DEBUG):
            print(f"[{self.name}] {msg}")

    def info(self, msg: str) -> None:
        """Print `msg` if the level is INFO or below."""
        if self.is_enabled_for(LogLevel.INFO):
            print(f"[{self.name}] {msg}")

    def warn(self, msg: str) -> None:
        """Print `msg` as a warning unless only errors are wanted."""
        if self.is_enabled_for(LogLevel.WARN):
            print(f"[{self.name}] WARNING: {msg}")

    def error(self, msg: str) -> None:
        """Print `msg` as an error unless the logger is off."""
        if self.is_enabled_for(LogLevel.ERROR):
            print(f"[{self.name}] ERROR: {msg}")


def get_logger(name: str, level: LogLevel = LogLevel.INFO) -> Logger:
    """A logger with the level that the environment sets for its name, else for all, else `level`."""
    return Logger(name, _of_environment.get(name, _of_environment.get("", level)))
