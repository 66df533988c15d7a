"""What the project file says of tenants: who they are to the guardrails and the cache, and where their calls may go."""

from __future__ import annotations

from lockgate.errors import InputError, Refused
from lockgate.gateway.model import Identity
from lockgate.gateway.providers import Providers
from lockgate.project.guards import TenantSpec
from lockgate.project.model import Project


class Tenants:
    """Follows the project's configuration as it is reloaded."""

    def __init__(self, project: Project, providers: Providers) -> None:
        self._project = project
        self._providers = providers

    def of(self, name: str) -> TenantSpec | None:
        """What holds for a tenant; the entry ``*`` for one without its own; None when there is neither."""
        tenants = self._project.config.tenants
        return (tenants.get(name) or tenants.get("*")) if tenants else None

    def keeps_nothing(self, identity: Identity) -> bool:
        """Whether nothing of the caller's is to be stored."""
        tenant = self.of(identity.tenant)
        return tenant is not None and tenant.no_store

    def check_region(self, identity: Identity, model: str) -> None:
        """:class:`Refused` for a provider outside of the tenant's regions. One without a region is outside of any."""
        tenant = self.of(identity.tenant)
        if tenant is None or tenant.regions is None:
            return
        name, run = model.partition("/")[0], identity.run
        try:
            provider = self._providers.of(
                identity.environment,
                name,
                None if run is None else run.agent,
                None if run is None else run.effective_digest,
            )
        except InputError:
            return  # it is refused for that
        if provider.region not in tenant.regions:
            raise Refused(
                f"the tenant {identity.tenant!r} is kept to {', '.join(tenant.regions) or 'no region'}, and provider "
                f"{name!r} serves in {provider.region or 'no region that the project names'}",
                remedy="call a model there, or give the provider its `region:` in lockgate.yaml",
            )
