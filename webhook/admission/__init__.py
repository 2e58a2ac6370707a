"""One file an admission path: what is decided about the objects that arrive there."""
