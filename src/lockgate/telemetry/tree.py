"""A trace as a tree: what each step took by itself, and what it cost with everything below it. Pure.

Frameworks repeat tokens on the agent's span that also stand on the model calls inside it. So usage is counted once
per path: a span's own figures count only where no span below it has any.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from lockgate.telemetry.model import ERROR, Span


class Node(msgspec.Struct, kw_only=True):
    """One span in its place. ``input_tokens`` … ``errors`` include everything below it; ``self_ns`` nothing."""

    span: Span
    children: list[Node] = msgspec.field(default_factory=list)
    self_ns: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_nano: int = 0
    errors: int = 0

    @property
    def duration_ns(self) -> int:
        return max(0, self.span.end_ns - self.span.start_ns)

    def walk(self, depth: int = 0) -> Iterator[tuple[int, Node]]:
        """This node and all below it, parents first, with their depth."""
        stack = [(depth, self)]
        while stack:
            level, node = stack.pop()
            yield level, node
            stack.extend((level + 1, child) for child in reversed(node.children))


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """A whole trace in figures. Times are nanoseconds, cost is nano-USD."""

    spans: int
    errors: int
    start_ns: int
    end_ns: int
    input_tokens: int
    output_tokens: int
    cost_nano: int


def build(spans: Iterable[Span]) -> list[Node]:
    """The roots, oldest first. A span whose parent is not here (a remote caller's, or lost) is a root;
    of a cycle, which only a broken client can send, one span becomes the root."""
    nodes = {span.span_id: Node(span=span) for span in spans}
    roots = []
    for node in sorted(nodes.values(), key=_by_start):
        parent = nodes.get(node.span.parent_id) if node.span.parent_id else None
        if parent is None:
            roots.append(node)
        else:
            parent.children.append(node)
    roots += _break_cycles(nodes, roots)
    for root in roots:
        for _, node in reversed(list(root.walk())):  # children before parents
            _roll_up(node)
    return roots


def totals(roots: Iterable[Node]) -> Totals:
    """The figures of a trace from its roots; an empty trace is all zeros."""
    trees = list(roots)
    nodes = [node for root in trees for _, node in root.walk()]
    return Totals(
        spans=len(nodes),
        errors=sum(root.errors for root in trees),
        start_ns=min((node.span.start_ns for node in nodes), default=0),
        end_ns=max((node.span.end_ns for node in nodes), default=0),
        input_tokens=sum(root.input_tokens for root in trees),
        output_tokens=sum(root.output_tokens for root in trees),
        cost_nano=sum(root.cost_nano for root in trees),
    )


def _by_start(node: Node) -> tuple[int, int, bytes]:
    return node.span.start_ns, -node.span.end_ns, node.span.span_id


def _break_cycles(nodes: dict[bytes, Node], roots: list[Node]) -> list[Node]:
    seen = {node.span.span_id for root in roots for _, node in root.walk()}
    broken = []
    for node in sorted(nodes.values(), key=_by_start):
        if node.span.span_id in seen:
            continue
        parent = nodes[node.span.parent_id or b""]
        parent.children = [child for child in parent.children if child is not node]
        broken.append(node)
        seen.update(below.span.span_id for _, below in node.walk())
    return broken


def _roll_up(node: Node) -> None:
    below = node.children
    node.self_ns = node.duration_ns - _covered(node)
    node.errors = (node.span.status == ERROR) + sum(child.errors for child in below)
    used = any(child.input_tokens or child.output_tokens or child.cost_nano for child in below)
    node.input_tokens = sum(child.input_tokens for child in below) if used else node.span.input_tokens
    node.output_tokens = sum(child.output_tokens for child in below) if used else node.span.output_tokens
    node.cost_nano = sum(child.cost_nano for child in below) if used else node.span.cost_nano


def _covered(node: Node) -> int:
    """Nanoseconds of the span in which at least one child ran; children may overlap and stick out."""
    covered, reached = 0, node.span.start_ns
    for child in node.children:  # sorted by start
        start, end = max(child.span.start_ns, reached), min(child.span.end_ns, node.span.end_ns)
        if end > start:
            covered += end - start
            reached = end
    return covered
