"""``lockgate push`` and ``lockgate pull``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lockgate.console import JsonFlag, console, emit

if TYPE_CHECKING:
    from lockgate.versions.registry.credentials import Credentials

Username = Annotated[
    str | None,
    typer.Option("--username", "-u", help="Log in so; the password is read from standard input, never an argument."),
]
Plain = Annotated[bool, typer.Option("--plain-http", help="Without TLS (this machine's registries are, anyway).")]


def push(
    ref: Annotated[str, typer.Argument(help="AGENT, AGENT@3, a digest, or an agent file.")],
    where: Annotated[str, typer.Argument(help="oci://HOST/REPOSITORY[:TAG]; default tag: v and its file's version.")],
    move: Annotated[bool, typer.Option("--move", help="Take the tag away from another version.")] = False,
    allow_secrets: Annotated[
        bool, typer.Option("--allow-secrets", help="Push even what looks like a secret, because it is none.")
    ] = False,
    username: Username = None,
    plain_http: Plain = False,
    json: JsonFlag = False,
) -> None:
    """Bring a version to an OCI registry, with its verdicts; also tagged by its digest and its git commit.

    Example: lockgate push refund-triage@3 oci://registry.example/agents/refund-triage:v3
    """
    from lockgate.bootstrap import open_app
    from lockgate.versions.registry.reference import parse
    from lockgate.versions.registry.service import push_version

    place = parse(where)
    versions = open_app().versions
    done = push_version(
        versions,
        ref,
        place,
        credentials=_login(username),
        plain_http=plain_http,
        move=move,
        allow_secrets=allow_secrets,
    )

    def draw() -> None:
        place_of = f"{place.host}/{place.repository}"
        console().print(f"{place_of}@{done.digest}", markup=False)
        console().print(
            f"tags {', '.join(done.tags)}; {done.uploaded} new parts, {done.referrers} beside it", markup=False
        )

    emit(done, json, draw)


def pull(
    where: Annotated[str, typer.Argument(help="oci://HOST/REPOSITORY:TAG[@sha256:…] or …@sha256:….")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Also write its files into this folder, which must be new.")
    ] = None,
    username: Username = None,
    plain_http: Plain = False,
    json: JsonFlag = False,
) -> None:
    """Bring a version and its verdicts from an OCI registry; deploy it by its digest.

    With --output it also becomes a project of its own: agent file, prompt, schema, tools, code, to look at and lock.

    Example: lockgate pull oci://registry.example/agents/refund-triage:v3
    """
    import msgspec

    from lockgate.bootstrap import open_app
    from lockgate.errors import Conflict
    from lockgate.versions.model import AgentSettings
    from lockgate.versions.registry.reference import parse
    from lockgate.versions.registry.service import pull_version

    place = parse(where)
    if output is not None and (output.exists() or output.is_symlink()):
        raise Conflict(f"{str(output)!r} is there already", remedy="name a folder that is not")
    versions = open_app().versions
    got = pull_version(versions, place, credentials=_login(username), plain_http=plain_http)
    missing: list[str] = []
    if output is not None:
        from lockgate.versions import checkout
        from lockgate.versions.written import written

        settings = msgspec.json.decode(got.settings_data, type=AgentSettings)
        out = written(got.version, settings, versions.blobs.get, versions.project, number=got.file_version)
        checkout.write(out.files, output)
        missing = out.missing

    def draw() -> None:
        for one in missing:
            console(stderr=True).print(f"not in {output}: {one}", markup=False, soft_wrap=True)
        short = got.digest.removeprefix("sha256:")[:12]
        console().print(f"{got.version.agent}@{got.digest}", markup=False)
        console().print(f"{len(got.envelopes)} verdicts; next: lockgate attest verify {short} --env prod", markup=False)

    data = {"agent": got.version.agent, "digest": got.digest, "commit": got.commit, "verdicts": len(got.envelopes)}
    emit(data if output is None else {**data, "missing": missing}, json, draw)


def _login(username: str | None) -> Credentials | None:
    from lockgate.errors import InputError
    from lockgate.versions.registry.credentials import Credentials

    if username is None:
        return None
    if sys.stdin.isatty():
        import getpass

        password = getpass.getpass()
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    if not password:
        raise InputError("no password came on standard input", remedy="lockgate push … --username me < password-file")
    return Credentials(username=username, password=password)
