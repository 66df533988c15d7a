"""``lockgate attest``: signed verdicts, and whose signatures count."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lockgate.console import JsonFlag, console, emit, group, table

if TYPE_CHECKING:
    from lockgate.bootstrap import App

attest = group(
    "Verify signed verdicts of the eval gate, and say whose count.\n\n"
    "Example: lockgate attest verify refund-triage@3 --env prod"
)

Ref = Annotated[str, typer.Argument(help="AGENT, AGENT@3, a digest, or an agent file.")]


@attest.command("verify")
def verify_command(
    ref: Ref,
    env: Annotated[str, typer.Option("--env", "-e", help="Whose policy and trusted keys.")] = "prod",
    json: JsonFlag = False,
) -> None:
    """Say whether a signed verdict opens an environment for a version: exit 0 yes, 1 no.

    Example: lockgate attest verify refund-triage@3 --env prod
    """
    from lockgate.bootstrap import open_app

    versions = open_app().versions
    version = versions.ref(ref, env)
    answer = versions.gate(version, env)

    def draw() -> None:
        name = f"{version.agent}@{version.behaviour_digest.removeprefix('sha256:')[:12]}"
        if answer.attestation is not None and answer.open:
            verdict = answer.attestation
            console().print(
                f"{name} may go to {env}: {verdict.verdict}, {verdict.id}, signed by {answer.signer} "
                f"({verdict.signer}) on {_day(verdict.created_at)}",
                markup=False,
            )
            return
        console().print(f"{name} may not go to {env}:", markup=False)
        for refusal in answer.refusals:
            console().print(f"  {refusal.why}\n    → {refusal.remedy}", markup=False, soft_wrap=True)

    emit({"version": version, "open": answer.open, **_fields(answer)}, json, draw)
    if not answer.open:
        raise typer.Exit(1)


def _fields(answer: object) -> dict[str, object]:
    return {name: getattr(answer, name) for name in ("environment", "attestation", "signer", "refusals")}


@attest.command("show")
def show_command(ref: Ref, json: JsonFlag = False) -> None:
    """List the verdicts on a version: who signed them, and where they count. With --json: the envelopes too.

    Example: lockgate attest show refund-triage@3
    """
    from lockgate.bootstrap import open_app

    versions = open_app().versions
    kept = versions.attestations.of(versions.find(ref))

    def draw() -> None:
        if not kept:
            console().print("no verdicts; make one with: lockgate eval, or bring it with: lockgate pull")
            return
        rows = [
            (
                one.attestation.id,
                one.attestation.verdict,
                one.attestation.effective_digest.removeprefix("sha256:")[:12],
                _day(one.attestation.created_at),
                one.signer,
                ", ".join(one.trusted) or "nowhere",
            )
            for one in kept
        ]
        table(("id", "verdict", "effective", "made (UTC)", "signed by", "counts in"), rows)

    emit(kept, json, draw)


@attest.command("add")
def add_command(
    files: Annotated[list[Path], typer.Argument(help="DSSE envelopes as JSON files.")], json: JsonFlag = False
) -> None:
    """Take in verdicts that came as files, such as a CI runner's. Whose count is asked when they are used.

    Example: lockgate attest add attestation.json
    """
    import msgspec

    from lockgate.bootstrap import open_app
    from lockgate.errors import InputError
    from lockgate.project.yamlfile import read_text

    envelopes = []
    for path in files:
        try:
            envelopes.append(msgspec.json.decode(read_text(path), type=dict))
        except msgspec.MsgspecError as wrong:
            raise InputError(f"not a JSON object: {wrong}", path=path, remedy="give a DSSE envelope") from None
    added = open_app().versions.attestations.add(envelopes)
    emit(added, json, lambda: console().print(f"{len(added)} of {len(envelopes)} were new"))


@attest.command("keys")
def keys_command(
    rotate: Annotated[bool, typer.Option("--rotate", help="Make a new key; what the old one signed still counts.")] = (
        False
    ),
    revoke: Annotated[bool, typer.Option("--revoke", help="With --rotate: what old keys signed counts no more.")] = (
        False
    ),
    json: JsonFlag = False,
) -> None:
    """Print this machine's public key, as trusted_keys in lockgate.yaml takes it.

    Example: lockgate attest keys --rotate
    """
    from lockgate.bootstrap import open_app
    from lockgate.errors import InputError
    from lockgate.versions.attestation import key_id, key_text
    from lockgate.versions.signing import retired_keys, signing_key

    if revoke and not rotate:
        raise InputError("--revoke needs --rotate", remedy="lockgate attest keys --rotate --revoke")
    app = open_app()
    if rotate:
        _rotate(app, revoke)
    key = signing_key(app.home).public_key()
    retired = retired_keys(app.home)
    project = app.project.config.project
    data = {"id": key_id(key), "public": key_text(key), "retired": retired}

    def draw() -> None:
        console().print(
            f"# {key_id(key)}; in lockgate.yaml:\ntrusted_keys:\n  {project}: {key_text(key)}", markup=False
        )
        for one in retired:
            console().print(f"# retired {_day(one.retired_at)}: {one.public}", markup=False)

    emit(data, json, draw)


def _rotate(app: App, revoke: bool) -> None:
    import getpass

    from lockgate.storage import audit
    from lockgate.versions import lockfile, signing

    with lockfile.one_at_a_time(app.home):
        old, new = signing.rotate(app.home, now=app.clock(), revoke=revoke)
    details = {"old": old, "revoked": revoke}
    with app.control.write() as connection:
        audit.record(
            connection, at=app.clock(), actor=getpass.getuser(), action="key.rotate", subject=new, details=details
        )


def _day(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M")
