"""People's grades of answers: what is drawn for them, what they said, and how far they agree."""
