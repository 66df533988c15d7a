"""Which model answers: a cheaper one for the easy cases; and hints to providers that keep the start of a prompt."""
