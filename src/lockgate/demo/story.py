"""The playbook's three classes of change, through one pipeline; then an approval, a budget, and the loop closed.

Everything printed comes from what ran: the commands print their own output, and the figures between them are read
from the same stores and services.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from lockgate.demo.screen import Screen
from lockgate.demo.stage import AGENT, Stage
from lockgate.demo.traffic import Customers, read_messages

DECISION_SECONDS = 240
"""How long one rollout may take before the demo goes on without a decision: a busy machine needs longer for it."""
TRIAL_ANSWERS = 12
"""The trial budget of chapter 5, in answers of the chapters before it."""
TRIAL_MESSAGES = 8
"""The trial's customer is brief, to be quick: what is to be seen is a budget, not a model reading."""


class Story:
    """Tells the chapters in order; ``outcomes`` collects how each ended, and whether that is what is usual."""

    def __init__(self, stage: Stage, screen: Screen) -> None:
        self.stage = stage
        self.screen = screen
        self.outcomes: list[tuple[str, str, bool]] = []
        self.customers: Customers | None = None

    def tell(self) -> None:
        """All of it."""
        for chapter in (self.first, self.worse, self.dearer, self.better, self.capped, self.learned):
            chapter()

    # --- 1 ----------------------------------------------------------------------------------------------------

    def first(self) -> None:
        self.screen.chapter(
            "One file, one digest, one gate",
            "refund-triage reads a customer's message, looks the order up, and lets a policy decide. Its version 1 is "
            "locked,\nrun on its golden set, and deployed to prod.",
        )
        with self.screen.waiting("starting gateway, control plane and model"):
            self.stage.up()
        self.screen.fact(f"everything is behind {self.stage.url}")
        self.stage.run("lock")
        passed = self._gate("v1") == 0
        self.stage.run("deploy", f"{AGENT}@1", "--env", "prod")
        key = self.stage.ask("keys", "create", "--tenant", "demo", "--env", "prod", "--name", "customers")["key"]
        messages = read_messages(self.stage.folder / "traffic" / "messages.jsonl")
        self.customers = Customers(self.stage.url, key, AGENT, messages)
        with self.screen.waiting("a first customer writes"):
            status, answer = _first_answer(self.customers, messages[0].message)
        self.screen.fact(f"asked: {messages[0].message}")
        self.screen.fact(f"answered (HTTP {status}): {_short(answer)}")
        self._note("v1 passes its gate and serves prod", passed and status in (200, 202))

    # --- 2 ----------------------------------------------------------------------------------------------------

    def worse(self) -> None:
        self.screen.chapter(
            "A prompt edit that quietly loses quality",
            "Version 2 tidies the prompt up. Nothing crashes, every answer is valid JSON. Does the gate notice?",
        )
        self._commit("v2", "refund-triage@1", "refund-triage@2")
        stopped = self._gate("v2") == 1
        refused = self.stage.run("deploy", f"{AGENT}@2", "--env", "prod", expect=(0, 1)) == 1
        self._note("v2 is stopped by the eval gate, and prod refuses it", stopped and refused)

    # --- 3 ----------------------------------------------------------------------------------------------------

    def dearer(self) -> None:
        self.screen.chapter(
            "As good on the golden set, dearer on live messages",
            "Version 3 passes the gate: the golden messages are short. Live ones are not. Shadow first, then a canary.",
        )
        self._commit("v3", "refund-triage@1", "refund-triage@3")
        passed = self._gate("v3") == 0
        rolled_back = self._roll_out("3") == 1
        self._note("v3 passes the gate and is rolled back by live evidence", passed and rolled_back)

    # --- 4 ----------------------------------------------------------------------------------------------------

    def better(self) -> None:
        self.screen.chapter("A change that is better", "Version 4 takes the same way, all of it.")
        self._commit("v4", "refund-triage@1", "refund-triage@4")
        passed = self._gate("v4") == 0
        promoted = self._roll_out("4") == 0
        if promoted:
            self.screen.fact(f"version 1 stays warm: lockgate rollout undo {AGENT} --env prod --reason '…'")
        self._note("v4 goes shadow → canary → stable", passed and promoted)

    # --- 5 ----------------------------------------------------------------------------------------------------

    def capped(self) -> None:
        self.screen.chapter(
            "A risky call waits for a person; a budget holds",
            "A refund is a tool behind approval: runs that want one have stopped, and wait.",
        )
        self._note("an approved refund is carried out exactly once", self._approve())
        self._note("a budget alerts at 70 %, stops at 100 %, and is not passed", self._spend())

    def _approve(self) -> bool:
        waiting = self.stage.ask("approvals", "list")
        if not waiting:
            self.screen.fact("no run waits for an approval: this model approved no refund")
            return False
        self.screen.fact(f"{len(waiting)} refunds wait for a person")
        one = waiting[0]
        self.stage.run("approvals", "show", one["id"])
        self.stage.run("approvals", "approve", one["id"], "--reason", "photo of the damage seen")
        with self.screen.waiting("the run continues where it stopped"):
            done = _until(lambda: self._run(one["run_id"])["status"] != "suspended", 30)
        refunds = self._refunds(one["arguments"])
        self.screen.fact(
            f"run {one['run_id']} is {self._run(one['run_id'])['status']}; refunds recorded for it: {refunds}"
        )
        self.screen.say("\nThe same approval a second time:")
        again = self.stage.run("approvals", "approve", one["id"], expect=(0, 1, 2))
        return done and refunds == 1 and again != 0 and self._refunds(one["arguments"]) == 1

    def _spend(self) -> bool:
        assert self.customers is not None
        cost = self.customers.mean_cost_usd
        if cost <= 0:
            self.screen.fact("this model costs nothing, so there is no budget to reach (add it to prices.yaml)")
            return False
        cap = cost * TRIAL_ANSWERS
        self.screen.say(
            f"\nVersion 4 also goes to staging, with a daily budget of ${cap:.6f}: what {TRIAL_ANSWERS} answers "
            "cost so far. A budget is a setting,\nnot behaviour: the digest stays."
        )
        self.stage.set_daily_budget("v4", cap)
        self.stage.run("lock")
        self.stage.run("deploy", f"{AGENT}@4", "--env", "staging")
        key = self.stage.ask("keys", "create", "--tenant", "trial", "--env", "staging", "--name", "trial")["key"]
        brief = sorted(self.customers.messages, key=lambda message: len(message.message))[:TRIAL_MESSAGES]
        trial = Customers(self.stage.url, key, AGENT, brief, at_once=1)
        _first_answer(trial, trial.messages[0].message)
        seen: dict[str, str] = {}

        def refused() -> bool:
            seen.update({alert["severity"]: alert["message"] for alert in self._alerts("staging")})
            return trial.answers["failed"] + trial.answers["unserved"] > 0

        with self.screen.waiting("customers write until the budget is spent"), trial.writing():
            stopped = _until(refused, 90)
        _until(lambda: refused() and "critical" in seen, 10)
        for severity in ("warning", "critical"):
            self.screen.fact(f"alert, {severity}: {seen.get(severity, 'none')}")
        self.screen.fact(f"answered: {trial.served}; then: {(trial.refusals or ['nothing was refused'])[0]}")
        self.stage.run("budgets", "--agent", AGENT)
        spent = next(
            row
            for row in self.stage.ask("budgets")
            if row["account"] == f"agent:staging:{AGENT}" and row["unit"] == "usd"
        )
        self.screen.fact(f"spent ${spent['settled_usd']:.6f} of ${spent['cap_usd']:.6f}")
        return stopped and spent["settled_usd"] <= spent["cap_usd"] and set(seen) >= {"warning", "critical"}

    # --- 6 ----------------------------------------------------------------------------------------------------

    def learned(self) -> None:
        self.screen.chapter(
            "Failures become test cases",
            "What went wrong on the way waits in triage. Two are given the right answer and join the golden set.",
        )
        if not self.stage.ask("triage", "list", "--limit", "1"):
            self._flag_the_dearest()
        self.stage.run("triage", "list", "--limit", "8")
        promoted = 0
        for candidate in self.stage.ask("triage", "list", "--limit", "200"):
            expected = self._expected(candidate["id"])
            if expected is not None:
                promoted += self.stage.run("triage", "promote", candidate["id"], "--expect", expected) == 0
            if promoted == 2:
                break
        self.screen.say(
            "\nThe golden set has grown; the gate runs the new cases, and reuses what it knows of the others:"
        )
        ended = self._gate("v4")
        self._note("two failures are cases now, and the next gate has them", promoted == 2 and ended in (0, 1, 3))

    def _flag_the_dearest(self) -> None:
        """Nothing was found (no rollout was rolled back, no answer scored low): a person points at two answers."""
        assert self.customers is not None
        known = {message.message for message in self.customers.messages if message.expected is not None}
        runs = self.stage.ask("runs", "list", "--env", "prod", "--limit", "1000")
        dear = sorted((run for run in runs if run["input"] in known), key=lambda run: -run["cost_nano"])
        self.screen.fact("nothing was found by itself; a person flags two dear answers")
        for message in list(dict.fromkeys(run["input"] for run in dear))[:2]:
            run = next(run for run in dear if run["input"] == message)
            self.stage.run("triage", "flag", run["id"], "--note", "dear for what was asked")

    def _expected(self, candidate: str) -> str | None:
        """What a person reads in the candidate's message: the example's messages come with the facts written down."""
        assert self.customers is not None
        asked = self.stage.ask("triage", "show", candidate)["input"]
        for message in self.customers.messages:
            if message.message == asked and message.expected is not None:
                return msgspec.json.encode(message.expected).decode()
        return None

    # --- shared -----------------------------------------------------------------------------------------------

    def _commit(self, version: str, before: str, after: str) -> None:
        path = self.stage.bring(version)
        committed = self.stage.commit(f"refund-triage, version {version.removeprefix('v')}")
        self.screen.fact(f"{path} is {'committed' if committed else 'there'}")
        self.stage.run("lock")
        self.stage.run("diff", before, after)

    def _gate(self, version: str) -> int:
        return self.stage.run("eval", "--agent", f"agents/{AGENT}.{version}.yaml", "--env", "prod", expect=(0, 1, 3))

    def _roll_out(self, version: str) -> int:
        """Deploy under live traffic and watch. 0 promoted, 1 rolled back, 3 undecided."""
        assert self.customers is not None
        if self.stage.run("deploy", f"{AGENT}@{version}", "--env", "prod", expect=(0, 1)) != 0:
            return 3
        served, unserved = self.customers.served, len(self.customers.unserved)
        with self.customers.writing():
            ended = self.stage.run(
                "rollout",
                "status",
                AGENT,
                "--env",
                "prod",
                "--watch",
                "--timeout",
                str(DECISION_SECONDS),
                expect=(0, 1, 3),
            )
        unserved = len(self.customers.unserved) - unserved
        self.screen.fact(f"customers answered meanwhile: {self.customers.served - served}; not answered: {unserved}")
        if unserved:
            self.screen.fact(f"the gateway said: {self.customers.unserved[-1]}")
        if ended == 3:
            self.screen.fact(f"no decision within {DECISION_SECONDS} s: the rollout is aborted")
            abort = ("rollout", "abort", AGENT, "--env", "prod", "--reason", "the demo goes on")
            if self.stage.run(*abort, expect=(0, 1)) == 1:  # it was decided in this very moment
                ended = self.stage.run(
                    "rollout", "status", AGENT, "--env", "prod", "--watch", "--timeout", "5", expect=(0, 1, 3)
                )
        return ended

    def _run(self, run_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.stage.ask("runs", "show", run_id)
        run: dict[str, Any] = found.get("run", found)
        return run

    def _refunds(self, arguments: dict[str, Any]) -> int:
        """How often exactly this refund stands in the tool's own file."""
        path = self.stage.folder / "data" / "refunds.jsonl"
        return sum(msgspec.json.decode(line) == arguments for line in _lines(path))

    def _alerts(self, environment: str) -> list[dict[str, Any]]:
        return [alert for alert in self.stage.ask("alerts", "list") if environment in alert["subject"] + alert["key"]]

    def _note(self, outcome: str, happened: bool) -> None:
        self.outcomes.append((outcome, f"{self.screen.seconds():.0f} s", happened))


def _first_answer(customers: Customers, message: str) -> tuple[int, dict[str, Any]]:
    """The answer to a first message. Gateways learn of a deployment within half a second."""
    for _ in range(10):
        status, answer = customers.send(message, session="customer-first")
        if status != 404:
            break
        time.sleep(0.3)
    return status, answer


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def _until(happened: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if happened():
            return True
        time.sleep(0.3)
    return happened()


def _short(answer: dict[str, Any]) -> str:
    output = answer.get("output")
    text = output if isinstance(output, str) else msgspec.json.encode(output if output is not None else answer).decode()
    return text if len(text) <= 300 else text[:299] + "…"
