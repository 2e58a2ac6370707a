"""The typed configuration (`model.Configuration`), and the container templates that injection writes into pods."""
