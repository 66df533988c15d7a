"""What machines show each other of shared budgets, what a batch's answers are checked by, what a run's calls count for.

A database in which ``control_0001`` made the newest tables has the columns already.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "control_0002"
down_revision = "control_0001"
branch_labels = None
depends_on = None


def added() -> dict[str, list[sa.Column[Any]]]:
    """The columns, by table; new ones each time, since a column is of one table."""
    return {
        "runs": [sa.Column("tools", sa.JSON), sa.Column("origin", sa.JSON)],
        "provider_batches": [sa.Column("terms", sa.JSON)],
        "ledger": [
            sa.Column("cap", sa.BigInteger),
            sa.Column("held", sa.BigInteger, nullable=False, server_default=sa.text("0")),
            sa.Column("refused", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        ],
        "machines": [sa.Column("keeps_traces", sa.Boolean, nullable=False, server_default=sa.false())],
    }


def upgrade() -> None:
    found = sa.inspect(op.get_bind())
    for table, columns in added().items():
        if not found.has_table(table):
            continue  # older still: whoever calls says so
        there = {column["name"] for column in found.get_columns(table)}
        for column in columns:
            if column.name not in there:
                op.add_column(table, column)


def downgrade() -> None:
    for table, columns in added().items():
        with op.batch_alter_table(table) as batch:
            for column in columns:
                batch.drop_column(column.name)
