"""Many requests from a file, answered on this machine at full load, into a file.

lines: what a line asks for. results: the file of answers, which goes on where it ended. local: a
request to the server's own application, without a socket. run: all of it together.
"""

from griffin.batch.lines import BatchLine, parse_line
from griffin.batch.run import BatchRun, Count

__all__ = ["BatchLine", "BatchRun", "Count", "parse_line"]
