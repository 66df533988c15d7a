"""The scorecard as one comment on a pull or merge request: made once, then kept up to date (GitHub and GitLab)."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import Any, NamedTuple

from lockgate.errors import InputError, Refused, Unavailable

TIMEOUT = 20.0
PAGES = 30
"""Pages of a hundred comments looked through for ours."""
LONGEST = {"github": 65_000, "gitlab": 990_000}
"""Letters a comment may have."""


class Place(NamedTuple):
    """Where the comment goes. ``token`` is never shown."""

    forge: str  # github | gitlab
    api: str
    project: str  # owner/name, or a GitLab project's id or path
    number: int
    token: str


class Posted(NamedTuple):
    """``created`` or ``updated``, and where it can be read."""

    action: str
    url: str


def place_of(environment: Mapping[str, str], *, event: Mapping[str, Any] | None = None) -> Place:
    """From what GitHub Actions or GitLab CI set. ``event`` is the content of ``GITHUB_EVENT_PATH``.

    Raises :class:`InputError` when it is no pull request's job, or a token is missing.
    """
    if environment.get("GITLAB_CI"):
        number = environment.get("CI_MERGE_REQUEST_IID", "")
        token = environment.get("LOCKGATE_GITLAB_TOKEN") or environment.get("GITLAB_TOKEN", "")
        place = Place(
            "gitlab",
            environment.get("CI_API_V4_URL", "https://gitlab.com/api/v4"),
            environment.get("CI_PROJECT_ID", ""),
            _number(number, "CI_MERGE_REQUEST_IID", "run the job in merge request pipelines"),
            token,
        )
        name = "GITLAB_TOKEN (a project access token with scope `api`)"
    elif environment.get("GITHUB_REPOSITORY"):
        found = (event or {}).get("pull_request") or (event or {}).get("issue") or {}
        number = environment.get("LOCKGATE_PR_NUMBER") or str(found.get("number", ""))
        place = Place(
            "github",
            environment.get("GITHUB_API_URL", "https://api.github.com"),
            environment["GITHUB_REPOSITORY"],
            _number(number, "the pull request's number", "run on `pull_request`, or set LOCKGATE_PR_NUMBER"),
            environment.get("GITHUB_TOKEN", ""),
        )
        name = "GITHUB_TOKEN (with `pull-requests: write`)"
    else:
        raise InputError(
            "neither GITHUB_REPOSITORY nor GITLAB_CI is set", remedy="run it in GitHub Actions or GitLab CI"
        )
    if not place.token:
        raise InputError(f"no token to comment with on {place.forge}", remedy=f"set {name}")
    return place


def post(place: Place, marker: str, body: str) -> Posted:
    """Update the comment that begins with ``marker``, or make it.

    Raises :class:`Refused` when the token may not, :class:`Unavailable` when the forge does not answer.
    """
    longest = LONGEST[place.forge]
    if len(body) > longest:
        body = body[: longest - 60] + "\n\n_… cut: too long for a comment_\n"
    listing, single = _addresses(place)
    known = _find(place, listing, marker)
    if known is None:
        made = _call(place, "POST", listing, {"body": body})
        return Posted("created", _link(made))
    method = "PATCH" if place.forge == "github" else "PUT"
    made = _call(place, method, single.format(known), {"body": body})
    return Posted("updated", _link(made))


def _addresses(place: Place) -> tuple[str, str]:
    base = place.api.rstrip("/")
    if place.forge == "github":
        repository = f"{base}/repos/{place.project}/issues"
        return f"{repository}/{place.number}/comments", repository + "/comments/{}"
    project = urllib.parse.quote(place.project, safe="")
    notes = f"{base}/projects/{project}/merge_requests/{place.number}/notes"
    return notes, notes + "/{}"


def _find(place: Place, listing: str, marker: str) -> int | None:
    for page in range(1, PAGES + 1):
        found = _call(place, "GET", f"{listing}?per_page=100&page={page}")
        for one in found if isinstance(found, list) else ():
            if str(one.get("body", "")).startswith(marker):
                return int(one["id"])
        if not isinstance(found, list) or len(found) < 100:
            return None
    return None


def _call(place: Place, method: str, url: str, body: Any = None) -> Any:
    headers = {"Accept": "application/json", "User-Agent": "lockgate"}
    if place.forge == "github":
        headers |= {"Authorization": f"Bearer {place.token}", "X-GitHub-Api-Version": "2022-11-28"}
    else:
        headers["PRIVATE-TOKEN"] = place.token
    data = None if body is None else json.dumps(body).encode()
    if data is not None:
        headers["Content-Type"] = "application/json"
    if not url.startswith(("https://", "http://")):
        raise InputError(f"{url!r} is not an address", remedy="correct GITHUB_API_URL or CI_API_V4_URL")
    request = urllib.request.Request(url, data, headers, method=method)  # noqa: S310 - checked above
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:  # noqa: S310
            return json.loads(answer.read())
    except urllib.error.HTTPError as failure:
        said = failure.read(300).decode("utf-8", "replace")
        what = f"{place.forge} answered {failure.code} to {method} {urllib.parse.urlsplit(url).path}: {said}"
        if failure.code in (401, 403, 404):
            raise Refused(what, remedy="may the token write comments on this pull request?") from None
        raise Unavailable(what, remedy="try again later") from None
    except (OSError, ValueError) as failure:
        raise Unavailable(f"{place.forge} does not answer: {failure}", remedy="try again later") from None


def _link(made: Any) -> str:
    return str(made.get("html_url") or made.get("url") or made.get("id") or "") if isinstance(made, dict) else ""


def _number(text: str, name: str, remedy: str) -> int:
    if not text.isdigit():
        raise InputError(f"{name} is {text!r}: no pull request", remedy=remedy)
    return int(text)
