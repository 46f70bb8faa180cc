"""The standard streams: what becomes of the output ends no measurement, and hides no exit code.

A stream that the caller has closed is the null device. One that fails later, since its reader has gone or its disk is
full, drops what is left.
"""

from __future__ import annotations

import codecs
import io
import os
import select
import sys
from typing import TYPE_CHECKING, Final

from loadbench.core.errors import ExitCode
from loadbench.core.text import printable

if TYPE_CHECKING:
    from typing_extensions import Buffer

# Where `click.Context.meta` has whether only errors are to be printed on stderr, for commands that read.
QUIET = "loadbench.quiet"
# Whether --json was given, which is a --format.
JSON = "loadbench.json"
# What stands for our signs where an encoding lacks them, as on a Windows pipe: one letter each, so that columns stay.
_ASCII: Final = dict(zip("◄→±µ×÷–−·…≥▁▂▃▄▅▆▇█", "<>+ux/---.>12345678", strict=True))


class _Output(io.FileIO):
    """A stream for which no write fails: `failed` is why nothing is written any more."""

    failed: OSError | None = None

    def write(self, data: Buffer) -> int:
        """Write, or drop, this."""
        while self.failed is None:
            try:
                written = super().write(data)
            except OSError as error:
                self.failed = error
                break
            if written is not None:
                return written
            select.select([], [self], [])  # somebody has set the pipe to non-blocking, and it is full
        return memoryview(data).nbytes


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_ASCII.get(letter, "?") for letter in error.object[error.start : error.end]), error.end


def guard_streams() -> None:
    """Put such streams in place of this process's own; others, as those of a test, stay."""
    codecs.register_error("loadbench", _in_ascii)
    # A file that is opened next would have the number of a closed stream, and get what is printed.
    while (null := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(null, True)  # noqa: FBT003 - its only way
    os.close(null)
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - a descriptor, for as long as the process lasts
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        # Windows' console has a writer of its own.
        if stream is not getattr(sys, f"__{name}__") or (sys.platform == "win32" and stream and stream.isatty()):
            continue
        raw = io.BufferedWriter(_Output(number, "w", closefd=False))
        encoding, is_line = ("utf-8", True) if stream is None else (stream.encoding, stream.line_buffering)
        wrapped = io.TextIOWrapper(raw, encoding=encoding, errors="loadbench", line_buffering=is_line)
        setattr(sys, name, wrapped)


def message_lines(text: str) -> str:
    """A message for stderr without control characters, in lines that fit the terminal; in a pipe it is one line, for
    programs that look for its words."""
    text = printable(text)
    if sys.stderr is None or not sys.stderr.isatty():
        return text
    from loadbench.report.render_text import wrapped  # noqa: PLC0415 - the help needs nothing of it

    try:
        columns = os.get_terminal_size(sys.stderr.fileno()).columns
    except OSError:
        columns = 0
    given = os.environ.get("COLUMNS", "")
    columns = int(given) if given.isdecimal() and int(given) else columns
    return "\n".join(wrapped(text, columns or None, "  "))


def exit_code_after_output(code: int) -> int:
    """Flush the streams. The exit code is this one, unless it was 0 and the output could not be written.

    A reader that went away has read what it wanted.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    failed = raw.failed if isinstance(raw, _Output) else None
    if failed is None or isinstance(failed, BrokenPipeError):
        return code
    sys.stderr.write(f"error: the output could not be written: {failed.strerror or failed}\n")
    sys.stderr.flush()
    return code or ExitCode.BAD_INPUT
