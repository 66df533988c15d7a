"""The first traces schema.

While nothing is released, this creates the tables as ``schema.py`` has them; from the first release on it is
frozen, and each change is a migration of its own.
"""

from alembic import op

from lockgate.storage import schema

revision = "traces_0001"
down_revision = None
branch_labels = ("traces",)
depends_on = None


def upgrade() -> None:
    schema.traces.create_all(op.get_bind())


def downgrade() -> None:
    schema.traces.drop_all(op.get_bind())
