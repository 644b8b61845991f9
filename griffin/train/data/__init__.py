"""Documents, their tokens, and the rows that training reads."""
