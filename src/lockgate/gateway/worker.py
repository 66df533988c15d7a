"""A gateway worker: the process that serves. Started by the supervisor, not by people.

python -m lockgate.gateway.worker --fd 5 --index 0 --parent 4711
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lockgate.process import die_with_parent
from lockgate.telemetry import logs

if TYPE_CHECKING:
    from lockgate.bootstrap import App
    from lockgate.gateway.app import Gateway, Handler, Identify
    from lockgate.gateway.batches.asking import Asking
    from lockgate.gateway.batches.desk import Desk
    from lockgate.gateway.batches.service import Batches
    from lockgate.gateway.calls.call import Call
    from lockgate.gateway.model import Identity, RunClaims
    from lockgate.gateway.protocols.model import Request
    from lockgate.telemetry.metrics import GenAI
    from lockgate.versions.model import AgentVersion


class Worker:
    """Everything one worker holds open: databases, hold table, span writer, upstream connections."""

    def __init__(self, app: App, index: int) -> None:
        from lockgate.gateway import switches
        from lockgate.gateway.access import Access
        from lockgate.gateway.agents import Agents
        from lockgate.gateway.batches.asking import Asking
        from lockgate.gateway.batches.desk import Desk
        from lockgate.gateway.cache.service import AnswerCache, CacheMetrics
        from lockgate.gateway.cache.store import Answers
        from lockgate.gateway.calls.meter import Budgets
        from lockgate.gateway.calls.service import Proxy
        from lockgate.gateway.control_proxy import ControlProxy
        from lockgate.gateway.directory import Directory
        from lockgate.gateway.guardrails.metrics import GuardMetrics
        from lockgate.gateway.guardrails.service import Guardrails
        from lockgate.gateway.issued import Tokens
        from lockgate.gateway.memory import Memory
        from lockgate.gateway.notices import Notices
        from lockgate.gateway.providers import Providers
        from lockgate.gateway.routing.service import RouteMetrics, Router
        from lockgate.gateway.shared_metrics import SharedMetrics
        from lockgate.gateway.siblings import Siblings
        from lockgate.gateway.tenants import Tenants
        from lockgate.gateway.upstream import Upstream
        from lockgate.project.service import mirrors_of
        from lockgate.telemetry.metrics import GenAI, Registry

        registry = Registry()
        metrics = GenAI(registry)
        self._app = app
        self._upstream = Upstream()
        self._siblings = Siblings(app.home / "run" / "breakers", index, self._heard)
        self._directory = Directory(
            app.control,
            app.keys,
            app.clock,
            files=(*app.follow_files, self._siblings.look),
            told=app.take_settings,
        )
        memory = Memory()

        def refresh() -> None:  # once a second, in a thread of its own
            metrics.spans_dropped.set(app.spans.dropped)
            memory.tidy()

        self._shared = SharedMetrics(
            registry,
            app.home / "run" / "metrics",
            index,
            refresh=refresh,
        )
        self._unpacked: dict[str, AgentVersion] = {}
        self._fallbacks_of: dict[str, dict[str, list[str]]] = {}
        self._notices = Notices(app.alerts.raise_alert, app.alerts.resolve, self._siblings.tell)
        self._providers = providers = Providers(
            app.project, app.clock, self._notices.upstream, app.versions.providers_as_deployed
        )
        tenants = Tenants(app.project, providers)
        guards = Guardrails(
            version_of=self._version, tenant_of=tenants.of, secret=app.secret, metrics=GuardMetrics(registry)
        )
        self._answers = Answers(app.home / "cache.db")
        cache = AnswerCache(
            self._answers,
            version_of=self._version,
            tenant_of=tenants.of,
            metrics=CacheMetrics(registry),
            clock=app.clock,
        )
        router = Router(
            version_of=self._version,
            provider_of=lambda call: providers.of(
                call.identity.environment,
                call.provider,
                call.agent,
                None if call.run is None else call.run.effective_digest,
            ),
            tenant_of=tenants.of,
            prices=app.prices,
            metrics=RouteMetrics(registry),
        )

        def permit(identity: Identity, model: str) -> None:
            switches.check(self._directory.settings, identity, model=model)
            tenants.check_region(identity, model)

        self._meter = Budgets(
            directory=self._directory, holds=app.holds, clock=app.clock, book=app.books, leases=app.leases
        )
        self._proxy = Proxy(
            providers=providers,
            prices=app.prices,
            spans=app.spans,
            upstream=self._upstream,
            metrics=metrics,
            meter=self._meter,
            permit=permit,
            guards=guards,
            cache=cache,
            router=router,
            fallbacks_of=self._fallbacks,
            machine=app.ledger.machine,
        )
        guards.ask = cache.ask = router.ask = self._ask
        desk = Desk(
            control=app.control,
            clock=app.clock,
            permit=permit,
            guards=guards,
            emit=app.spans.emit,
            keeps_nothing=tenants.keeps_nothing,
            providers=providers,
        )
        self._batches = self._make_batches(desk, Asking(self._upstream, providers), metrics)
        self._agents = Agents(
            home=app.home,
            directory=self._directory,
            assign=app.rollouts.assign,
            limits_of=lambda digest: app.versions.load(digest).limits,
            secret=app.secret,
            spans=app.spans,
            metrics=metrics,
            clock=app.clock,
            mirrors_of=lambda environment: mirrors_of(app.project, environment),
            can_be_shadowed=lambda digest: app.versions.load(digest).framework.kind == "native",
            tell=self._notices.agent,
        )
        self._access = Access(app.keys, app.secret, app.clock, Tokens(lambda: app.project.config.issuers, app.clock))
        self._control = ControlProxy(app.home)
        self._gateway: Gateway | None = None

    def _version(self, digest: str) -> AgentVersion:
        """The version with this behaviour digest; from its bundle alone while the store is away."""
        from sqlalchemy.exc import SQLAlchemyError

        from lockgate.errors import Unavailable
        from lockgate.versions.bundle import unpack

        try:
            return self._app.versions.load(digest)
        except (SQLAlchemyError, Unavailable):
            if digest not in self._unpacked:
                self._unpacked[digest] = unpack(digest, self._app.blobs.get)
            return self._unpacked[digest]

    def _fallbacks(self, run: RunClaims) -> dict[str, list[str]]:
        """What takes the place of the models of a run's version."""
        found = self._fallbacks_of.get(run.behaviour_digest)
        if found is None:
            version = self._version(run.behaviour_digest)
            names = [f"{model.provider}/{model.name}" for model in version.fallbacks]
            found = {f"{version.model.provider}/{version.model.name}": names}
            self._fallbacks_of[run.behaviour_digest] = found
        return found

    async def _ask(self, call: Call, model: str, request: Request) -> dict[str, Any]:
        return await self._proxy.ask(call, model, request)

    def _heard(self, what: tuple[str, ...], is_open: bool, at: float) -> None:
        """Another worker's breaker opened, or closed."""
        match what:
            case "upstream", environment, provider, upstream:
                self._providers.heard(environment, provider, upstream, is_open, at)
            case "agent", environment, agent:
                self._agents.breakers.heard(environment, agent, is_open, at)

    def start(self) -> Gateway:
        """Read the store once, begin to follow it, and give the application to serve."""
        from lockgate.gateway.app import Gateway

        self._directory.start()
        self._shared.start()
        self._gateway = Gateway(
            access=self._access,
            directory=self._directory,
            proxy=self._proxy,
            agents=self._agents,
            control=self._control,
            metrics=self._shared,
            emit=self._app.spans.emit,
            external=self._external,
            batches=self._batches,
        )
        return self._gateway

    def _make_batches(self, desk: Desk, asking: Asking, metrics: GenAI) -> Batches:
        """OpenAI's files and batches."""
        from lockgate.gateway.batches.service import Batches

        app = self._app
        return Batches(
            desk=desk,
            asking=asking,
            settling=app.settling(asking, metrics),
            meter=self._meter,
            holds=app.holds,
            charges=app.charges,
            machine=app.ledger.machine,
            prices=app.prices,
        )

    def _external(self, identify: Identify) -> Mapping[tuple[str, str], Handler]:
        """The paths by which tools and other paid APIs hold money."""
        from lockgate.gateway.external import External

        app = self._app
        return External(
            identify=identify,
            meter=self._meter,
            holds=app.holds,
            prices=app.prices,
            secret=app.secret,
            emit=app.spans.emit,
        ).routes()

    async def end_runs(self, seconds: float) -> None:
        """Before the last call: serve only what the runs under way ask for, until they have ended."""
        if self._gateway is not None:
            await self._gateway.end_runs(seconds)

    async def close(self) -> None:
        """After the last call: write out spans, close connections."""
        if self._gateway is not None:
            await self._gateway.close()
        await self._upstream.close()
        self._notices.close()
        self._directory.stop()
        self._shared.stop()
        self._app.spans.close()
        self._answers.close()
        self._app.holds.close()
        self._app.control.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="lockgate.gateway.worker")
    parser.add_argument("--fd", type=int, required=True, help="the listening socket")
    parser.add_argument("--index", type=int, required=True, help="this worker's place, from 0")
    parser.add_argument("--parent", type=int, required=True, help="the supervisor's process id")
    parser.add_argument("--drain", type=float, required=True, help="seconds to end calls after a SIGTERM")
    arguments = parser.parse_args()
    die_with_parent(parent=arguments.parent)
    logs.configure(f"gateway-{arguments.index}")

    from lockgate.bootstrap import open_app
    from lockgate.gateway.providers import workers
    from lockgate.gateway.serve import serve_forever, stopped_mark

    app = open_app()
    app.has_scribe = True
    worker = Worker(app, arguments.index)
    mark = stopped_mark(app.home, arguments.index)
    mark.unlink(missing_ok=True)  # a former self's
    serve_forever(
        worker.start,
        arguments.fd,
        end_runs=worker.end_runs,
        stopped=mark.touch,
        close=worker.close,
        drain_seconds=arguments.drain,
        siblings=workers() > 1,
    )


if __name__ == "__main__":
    main()
