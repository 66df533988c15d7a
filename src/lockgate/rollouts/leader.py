"""One leader at a time: a lease row with a fence that only counts up.

A leader that was away too long finds its fence outdated and its writes refused, so that two processes that both
believe they lead cannot both write.
"""

from __future__ import annotations

from sqlalchemy import Connection, select, update

from lockgate.clock import Clock
from lockgate.errors import Conflict
from lockgate.storage.engine import Database
from lockgate.storage.schema import leases
from lockgate.storage.upsert import insert_into


class Leadership:
    """The lease ``name``, as one process (``holder``) sees it."""

    def __init__(self, control: Database, clock: Clock, *, name: str, holder: str, seconds: float = 5.0) -> None:
        self._control = control
        self._clock = clock
        self.name = name
        self.holder = holder
        self.seconds = seconds
        self.fence: int | None = None
        self._until = 0.0

    def leads(self) -> bool:
        """Whether it led when it last asked, and that lease has not run out."""
        return self.fence is not None and self._clock() < self._until

    def acquire(self) -> bool:
        """Take the lease, or renew it when half of it is gone. True while this process leads."""
        now = self._clock()
        if self.leads() and self._until - now > self.seconds / 2:
            return True
        with self._control.write() as connection:
            connection.execute(
                insert_into(connection, leases)
                .values(name=self.name, holder="", fence=0, expires_at=0.0)
                .on_conflict_do_nothing()
            )
            mine = (leases.c.holder == self.holder) & (leases.c.fence == (self.fence or -1))
            renewed = connection.execute(
                update(leases).where(leases.c.name == self.name, mine).values(expires_at=now + self.seconds)
            )
            if renewed.rowcount == 1:
                self._until = now + self.seconds
                return True
            taken = connection.execute(
                update(leases)
                .where(leases.c.name == self.name, leases.c.expires_at <= now)
                .values(holder=self.holder, fence=leases.c.fence + 1, expires_at=now + self.seconds)
            )
            if taken.rowcount != 1:
                self.fence = None
                return False
            self.fence = connection.execute(select(leases.c.fence).where(leases.c.name == self.name)).scalar_one()
        self._until = now + self.seconds
        return True

    def check(self, connection: Connection) -> None:
        """Inside a writing transaction: raises :class:`Conflict` when somebody else has led since."""
        row = connection.execute(
            select(leases.c.fence, leases.c.holder).where(leases.c.name == self.name).with_for_update()
        ).first()
        if self.fence is None or row is None or row.fence != self.fence or row.holder != self.holder:
            current = "nobody" if row is None else repr(row.holder)
            raise Conflict(f"{self.holder!r} no longer leads {self.name!r}: {current} does")

    def release(self) -> None:
        """Let the next leader start at once."""
        if self.fence is None:
            return
        with self._control.write() as connection:
            connection.execute(
                update(leases)
                .where(leases.c.name == self.name, leases.c.holder == self.holder, leases.c.fence == self.fence)
                .values(expires_at=0.0)
            )
        self.fence = None
