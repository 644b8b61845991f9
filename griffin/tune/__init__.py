"""Make a model one's own by preferences and rewards, on the training room's loop."""
