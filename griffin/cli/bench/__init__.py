"""`griffin bench`: its suites, training, and its reports."""
