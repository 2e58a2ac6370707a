"""What a measured pod carries: the initdata document, whose digest is HOST_DATA (`initdata`)."""
