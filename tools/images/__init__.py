"""The images' files, assembled by the same code in the Dockerfile's build stage and, for measuring, with no engine."""
