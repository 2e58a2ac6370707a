"""The findings of a live cluster, in each form that people and programs read."""
