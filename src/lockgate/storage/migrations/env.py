"""Alembic's entry: the connection and the metadata come from ``run.py``."""

from alembic import context

from lockgate.storage import schema

connection = context.config.attributes["connection"]
kind = context.config.attributes["kind"]
metadata = schema.control if kind == "control" else schema.traces

context.configure(
    connection=connection,
    target_metadata=metadata,
    version_table=schema.VERSION_TABLE[kind],
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
