"""``nki-sim sbuf FILE``: will it fit, and who holds SBUF and PSUM when."""

from __future__ import annotations

from nki.runtime import Options
from nki_cli.options import (
    ColorOption,
    FileArgument,
    FormatOption,
    NoSpillOption,
    TargetOption,
    TracebackOption,
    read_target,
)
from nki_cli.reports import HtmlOption, write_report
from nki_cli.screen import Format, Screen
from nki_cli.session import as_json, finish, launches_of
from nki_sim.report.html import write_html
from nki_tools.sbuf import MemoryUse


def sbuf(
    file: FileArgument,
    html: HtmlOption = None,
    no_spill: NoSpillOption = False,
    target: TargetOption = None,
    format: FormatOption = Format.text,
    no_color: ColorOption = False,
    traceback: TracebackOption = False,
) -> None:
    """Show SBUF and PSUM over program order: the peak, who holds it, what to shrink first.

    No arithmetic is done. A kernel that does not fit is shown as well, with unlimited memory.
    """
    screen = Screen.open(format, no_color)
    chosen = read_target(target, screen)
    options = Options(target=chosen, data=False, check="none", spill=not no_spill)
    outcome = launches_of(screen, file, options, whole_traceback=traceback)
    fitting = [MemoryUse(launch) for launch in outcome.launches]
    overfull = [MemoryUse(refused.placed()) for refused in outcome.overfull]
    shown = [*fitting, *overfull]
    if html is not None and shown:
        cores = [one.launch.cores for one in shown]
        write_report(screen, html, lambda path: write_html(path, cores), "open it in a browser")
    if screen.format is Format.json:
        made = as_json("sbuf", file, chosen, outcome, [one.as_dict() for one in fitting])
        screen.json({**made, "overfull": [one.as_dict() for one in overfull]})
    elif screen.is_text:
        for one in shown:
            screen.show(*one.tables())
    finish(screen, outcome)
