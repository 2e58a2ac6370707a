"""Guest entries that commands write: of a guest that has not started yet, and of one that was refused."""
