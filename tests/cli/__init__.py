"""The commands, by what they print, what they say, and their exit codes."""
