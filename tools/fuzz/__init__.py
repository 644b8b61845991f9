"""Cases nobody thought of, in a process of their own: `python -m tools.fuzz KIND --cases N`.

A kind is a file of this folder, `tools/fuzz/KIND.py`, with

    make(chance: random.Random) -> Case    a case, the same for the same chance
    attempt(case: Case) -> None            try it, and undo what it left behind
    ALLOWED                                a tuple of the errors that `attempt` may raise

It may take an `attempt` that raises AssertionError where an answer is wrong; that is a finding,
like every error that is not allowed. A fast test draws a few cases and calls `attempt` itself.
"""
