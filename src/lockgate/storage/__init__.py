"""Where state lives: engines for SQLite and PostgreSQL, the schema, migrations, blobs, the audit chain."""
