"""OpenAI's files and batches: passed through, kept apart by tenant, held and billed."""
