"""The first control schema.

While nothing is released, this creates the tables as ``schema.py`` has them; from the first release on it is
frozen, and each change is a migration of its own.
"""

from alembic import op

from lockgate.storage import schema

revision = "control_0001"
down_revision = None
branch_labels = ("control",)
depends_on = None


def upgrade() -> None:
    schema.control.create_all(op.get_bind())


def downgrade() -> None:
    schema.control.drop_all(op.get_bind())
