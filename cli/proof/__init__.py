"""`morphisms render --check`: a guest policy is tried with honest requests and with attacks, in an engine."""
