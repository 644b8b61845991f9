"""`griffin chat`: the verb, how it finds its conversation, the loop, and the lines with a slash."""
