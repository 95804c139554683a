"""How kernels run, from Python: sessions, and the record of what ran in them.

A :func:`session` says how kernels run while it is active (target, with or without data, timed or not)
and keeps what happened, for the command line and for scripts that want the timeline as well as the result.
"""

from nki.launch.record import CoreRun, Launch, Overfull, Refused
from nki.launch.session import Session, session, session_of_process
from nki.launch.settings import Options

__all__ = [
    "CoreRun",
    "Launch",
    "Options",
    "Overfull",
    "Refused",
    "Session",
    "session",
    "session_of_process",
]
