"""What the project file says of tenants: who they are to the guardrails and the cache, and where their calls may go."""

from __future__ import annotations

from lockgate.errors import InputError, Refused
from lockgate.gateway.model import Identity
from lockgate.project.guards import TenantSpec
from lockgate.project.model import Project
from lockgate.project.service import resolve_provider


class Tenants:
    """Follows the project's configuration as it is reloaded."""

    def __init__(self, project: Project) -> None:
        self._project = project

    def of(self, name: str) -> TenantSpec | None:
        """What holds for a tenant; the entry ``*`` for one without its own; None when there is neither."""
        tenants = self._project.config.tenants
        return (tenants.get(name) or tenants.get("*")) if tenants else None

    def check_region(self, identity: Identity, model: str) -> None:
        """:class:`Refused` for a provider outside of the tenant's regions. One without a region is outside of any."""
        tenant = self.of(identity.tenant)
        if tenant is None or tenant.regions is None:
            return
        name = model.partition("/")[0]
        try:
            provider = resolve_provider(
                self._project, name, identity.environment, identity.run.agent if identity.run is not None else None
            )
        except InputError:
            return  # it is refused for that
        if provider.region not in tenant.regions:
            raise Refused(
                f"the tenant {identity.tenant!r} is kept to {', '.join(tenant.regions) or 'no region'}, and provider "
                f"{name!r} serves in {provider.region or 'no region that the project names'}",
                remedy="call a model there, or give the provider its `region:` in lockgate.yaml",
            )
