"""One sitting on a GPU: rows in order of worth, each figure beside what the chip allows.

`limits` counts what a token costs, `sitting` keeps time and writes the report after each row,
`setting` is what is measured (the true shapes, or toy ones on the CPU for a dry run); the other
files hold the rows, and `rows` their order.
"""
