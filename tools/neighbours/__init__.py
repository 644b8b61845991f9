"""Two keys of one server, one of which takes all it can get."""
