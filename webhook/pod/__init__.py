"""A pod as decisions read it: its shape, containers, annotations, references, and the plan that it carries."""
