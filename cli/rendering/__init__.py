"""`morphisms render -o`: a Service, its guest policy and the verifier's record, from files alone."""
