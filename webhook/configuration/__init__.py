"""The typed configuration (`model.Configuration`), and what injection adds under it (`container_template`)."""
