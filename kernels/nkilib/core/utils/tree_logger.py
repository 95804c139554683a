"""Messages kept until they are printed as a tree."""

import nki.language as nl

from .logging import Logger, LogLevel


class LogEntry(nl.NKIObject):
    """One message of a :class:`TreeLogger`.

    Attributes:
        msg: the text.
        depth: how deep in the tree, from 0.
        is_scope_boundary: True for the first and last line of a subtree.
    """

    def __init__(self, msg: str, depth: int, is_scope_boundary: bool = False):
        self.msg = msg
        self.depth = depth
        self.is_scope_boundary = is_scope_boundary


class TreeLogger(nl.NKIObject):
    """Collects messages, and prints them as a tree when it is flushed, if its logger prints debug messages.

    Args:
        name: the title of the tree.
        logger: what prints it.
    """

    def __init__(self, name: str, logger: Logger):
        self.name = name
        self.logger = logger
        self.logs: list = []

    def log(self, msg: str, depth: int, is_scope_boundary: bool = False) -> None:
        """Keep a message.

        Args:
            msg: the text.
            depth: how deep in the tree, from 0.
            is_scope_boundary: True for the first and last line of a subtree, which have no branch.
        """
        if self.logger.is_enabled_for(LogLevel.DEBUG):
            self.logs.append(LogEntry(msg, depth, is_scope_boundary))

    def flush(self) -> None:
        """Print the messages kept so far, and forget them."""
        if len(self.logs) > 0:
            self.logger.debug(f"{self.name}:")
            for i in range(len(self.logs)):
                entry = self.logs[i]
                print(f"    {self._prefix(i)}{entry.msg}")
        self.logs = []

    def _prefix(self, index: int) -> str:
        """The lines of the tree left of a message."""
        entry = self.logs[index]
        prefix = ""
        for depth in range(1, entry.depth):
            prefix = prefix + ("│   " if self._goes_on(index, depth) else "    ")
        if entry.depth == 0:
            return prefix
        if entry.is_scope_boundary:
            return prefix + ("│   " if self._goes_on(index, entry.depth) else "    ")
        return prefix + ("├── " if self._goes_on(index, entry.depth) else "└── ")

    def _goes_on(self, index: int, depth: int) -> bool:
        """Whether a later message hangs on the branch at `depth`."""
        for i in range(index + 1, len(self.logs)):
            later = self.logs[i]
            if later.depth < depth:
                return False
            if later.depth == depth and not later.is_scope_boundary:
                return True
        return False
