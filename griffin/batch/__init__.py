"""Many requests from a file, answered on this machine at full load, into a file.

lines: what a line asks for. results: the file of answers, which goes on where it ended. local: the
server's own application, asked without a socket. run: all of it together.
"""

from griffin.batch.lines import BatchLine, parse_line, result_line
from griffin.batch.local import make_service, opened, post
from griffin.batch.run import BatchRun, Count, check_files

__all__ = [
    "BatchLine",
    "BatchRun",
    "Count",
    "check_files",
    "make_service",
    "opened",
    "parse_line",
    "post",
    "result_line",
]
