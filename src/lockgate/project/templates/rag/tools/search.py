"""Search in a folder of Markdown files: BM25 over paragraphs. Put an index behind it when the folder grows."""

import math
import re
from collections import Counter
from pathlib import Path

K1, B = 1.5, 0.75  # the usual parameters of BM25
_COMMON = frozenset(
    "a about am an and any are as at be by can could did do does for from get give had has have how i if in is it its "
    "like many may me much my no not of on or our please shall should so than that the them then there they this to "
    "until up was we what when where which who why will with would you your".split()
)


def search_policies(query: str, knowledge_base: str, limit: int = 2) -> list[dict]:
    """The paragraphs that share words with the query, the best first; none when no word is shared."""
    passages = read(Path(knowledge_base))
    scores = rank(words(query), [words(f"{passage['source']} {passage['text']}") for passage in passages])
    best = sorted(range(len(passages)), key=lambda number: -scores[number])[:limit]
    return [passages[number] | {"score": round(scores[number], 4)} for number in best if scores[number] > 0]


def read(folder: Path) -> list[dict]:
    """Every paragraph of every file, headings aside."""
    files = sorted(folder.glob("*.md"))
    if not files:
        raise FileNotFoundError(f"no Markdown files in {folder}")
    return [
        {"source": file.name, "text": " ".join(paragraph.split())}
        for file in files
        for paragraph in re.split(r"\n\s*\n", file.read_text("utf-8"))
        if paragraph.strip() and not paragraph.lstrip().startswith("#")
    ]


def words(text: str) -> list[str]:
    """Words that mean something, without the usual endings."""
    found = re.findall(r"[a-z0-9]+", text.casefold())
    return [
        re.sub(r"(ies|ing|ed|es|s|y)$", "", word) if len(word) > 4 else word for word in found if word not in _COMMON
    ]


def rank(query: list[str], passages: list[list[str]]) -> list[float]:
    """Okapi BM25 of each passage for the query; 0: no word in common.

    S. Robertson, H. Zaragoza: The Probabilistic Relevance Framework: BM25 and Beyond, 2009.
    """
    average = sum(map(len, passages)) / len(passages) or 1.0
    holding = Counter(word for passage in passages for word in set(passage))
    scores = []
    for passage in passages:
        counts, score = Counter(passage), 0.0
        for word in set(query):
            if word in counts:
                rarity = math.log(1 + (len(passages) - holding[word] + 0.5) / (holding[word] + 0.5))
                length = 1 - B + B * len(passage) / average
                score += rarity * counts[word] * (K1 + 1) / (counts[word] + K1 * length)
        scores.append(score)
    return scores
