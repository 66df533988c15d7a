"""What calls cost, and what they can cost at worst."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockgate.errors import InputError, Unavailable
from lockgate.limits.prices import INPUT_OVERHEAD, Price, Prices, Rates
from lockgate.results import Usage

MINI = "gpt-4o-mini-2024-07-18"
USAGE = Usage(input_tokens=1000, output_tokens=200, cached_tokens=400)


def own(folder: Path, text: str) -> Prices:
    path = folder / "prices.yaml"
    path.write_text(text)
    return Prices(path)


def test_bundled_prices_are_those_of_genai_prices() -> None:
    from genai_prices import Usage as Theirs
    from genai_prices import calc_price

    for provider, model in (
        ("openai", MINI),
        ("anthropic", "claude-sonnet-4-5"),
        ("google", "gemini-2.5-pro"),
        ("groq", "llama-3.3-70b-versatile"),
    ):
        for tokens in (1000, 150_000, 300_000):  # below and above the tiers
            usage = Usage(input_tokens=tokens, output_tokens=200, cached_tokens=400)
            theirs = calc_price(
                Theirs(input_tokens=tokens, cache_read_tokens=400, output_tokens=200), model, provider_id=provider
            )
            ours = Prices().cost("openai", provider, model, usage)
            assert ours == pytest.approx(float(theirs.total_price) * 1e9, abs=1), (model, tokens)


def test_a_cost_is_input_cached_input_and_output() -> None:
    # 600 × $0.15/M + 400 × $0.075/M + 200 × $0.60/M = $0.00009 + $0.00003 + $0.00012
    assert Prices().cost("openai", "openai", MINI, USAGE) == 240_000


def test_a_provider_of_any_name_is_looked_up_by_its_kind() -> None:
    assert Prices().cost("openai", "our-azure", MINI, USAGE) == 240_000


def test_an_unknown_model_is_an_error_that_says_where_to_put_its_price(tmp_path: Path) -> None:
    with pytest.raises(InputError) as unknown:
        Prices().price("openai", "vllm", "llama3.1:70b")
    assert "'llama3.1:70b' of the provider 'vllm'" in unknown.value.message
    assert "prices: prices.yaml" in (unknown.value.remedy or "")
    row = (unknown.value.remedy or "").split("): ")[1]
    assert own(tmp_path, row).cost("openai", "vllm", "llama3.1:70b", USAGE) == 0  # the remedy works as it stands


def test_a_model_that_is_not_billed_by_the_token_is_an_error() -> None:
    with pytest.raises(InputError, match="no price is known"):
        Prices().price("openai", "openai", "whisper-1")


def test_a_model_on_ones_own_machine_is_free_unless_given_a_price(tmp_path: Path) -> None:
    assert Prices().cost("local", "local", "qwen", USAGE) == 0
    assert Prices().cost("openai", "ollama", "llama3.1:70b", USAGE) == 0
    prices = own(tmp_path, "local:\n  qwen: {input: 1, output: 2}\n")
    assert prices.cost("local", "local", "qwen", USAGE) == 1_000_000 + 400_000


def test_a_projects_own_price_comes_first(tmp_path: Path) -> None:
    prices = own(tmp_path, f"openai:\n  {MINI}: {{input: 1, output: 2, cached: 0.5, request: 0.001}}\n")
    # 600 × $1/M + 400 × $0.5/M + 200 × $2/M + $0.001
    assert prices.cost("openai", "openai", MINI, USAGE) == 600_000 + 200_000 + 400_000 + 1_000_000
    assert prices.cost("openai", "openai", "gpt-4o-2024-08-06", USAGE) > 0  # others stay


def test_a_star_stands_for_the_providers_other_models(tmp_path: Path) -> None:
    prices = own(tmp_path, 'vllm:\n  dear: {input: 5, output: 5}\n  "*": {input: 0, output: 0}\n')
    assert prices.cost("openai", "vllm", "anything", USAGE) == 0
    assert prices.cost("openai", "vllm", "dear", USAGE) == 6_000_000


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("openai:\n  m: {input: -1, output: 2}\n", 2, "-1"),
        ("openai:\n  m: {input: 1, outptu: 2}\n", 2, "outptu"),
        ("openai:\n  m: {input: cheap, output: 2}\n", 2, "cheap"),
        ("openai:\n  m: {input: .nan, output: 2}\n", 2, "nan"),
        ("openai: 3\n", 1, "3"),
        ("- 1\n", None, "prices.yaml"),
    ],
)
def test_a_wrong_price_file_is_one_error_with_its_place(tmp_path: Path, text: str, line: int | None, says: str) -> None:
    with pytest.raises(InputError) as wrong:
        own(tmp_path, text).price("openai", "openai", "m")
    assert says in str(wrong.value)
    if line is not None:
        assert wrong.value.line == line


def test_a_missing_price_file_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"prices\.yaml"):
        Prices(tmp_path / "prices.yaml").price("openai", "openai", "m")


def test_tiers_reprice_the_whole_call_and_raise_the_bound_only_within_reach() -> None:
    price = Price(Rates(0, 3, 1, 10, 4, 10), (Rates(200_000, 6, 2, 20, 8, 20),))
    million = 10**6
    assert price.cost(Usage(input_tokens=200_000)) == 1  # 0.6 nano-USD, rounded up
    assert price.cost(Usage(input_tokens=2 * million)) == 12
    assert price.bound(1000, million) == -(-((1000 + INPUT_OVERHEAD) * 4 + million * 10) // million)
    assert price.bound(million, million) == -(-((million + INPUT_OVERHEAD) * 8 + million * 20) // million)


rates = st.integers(0, 10**11)


@given(
    base=st.tuples(rates, rates, rates),
    tier=st.tuples(rates, rates, rates),
    text=st.text(max_size=2000),
    cached_share=st.floats(0, 1),
    outputs=st.lists(st.integers(0, 500), min_size=1, max_size=4),
    request=st.integers(0, 10**9),
)
def test_no_call_costs_more_than_its_bound(
    base: tuple[int, int, int],
    tier: tuple[int, int, int],
    text: str,
    cached_share: float,
    outputs: list[int],
    request: int,
) -> None:
    price = Price(
        Rates(0, *base, max(base[:2]), base[2]), (Rates(700, *tier, max(tier[:2]), tier[2]),), request=request
    )
    size = len(text.encode())
    for tokens in {0, len(text), size}:  # one token a character, or one a byte
        usage = Usage(input_tokens=tokens, cached_tokens=int(tokens * cached_share), output_tokens=sum(outputs))
        assert price.cost(usage) <= price.bound(size, 500, n=len(outputs))


def test_prices_by_the_hour_are_taken_at_their_dearest() -> None:
    cheap_hour = Prices(clock=lambda: datetime(2026, 11, 18, 20, tzinfo=UTC).timestamp())
    dear_hour = Prices(clock=lambda: datetime(2026, 11, 18, 2, tzinfo=UTC).timestamp())
    costs = [prices.cost("openai", "deepseek", "deepseek-v4-flash", USAGE) for prices in (cheap_hour, dear_hour)]
    assert costs[0] == costs[1] > 0


def test_the_price_table_is_imported_only_when_it_is_needed() -> None:
    script = (
        "import sys; from lockgate.limits.prices import Prices; from lockgate.results import Usage;"
        "Prices().cost('local', 'local', 'm', Usage()); print('genai_prices' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_a_wrong_file_is_told_once_and_is_no_callers_fault(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    prices = own(tmp_path, "vllm: 3\n")
    with pytest.raises(InputError, match="not a mapping"):
        prices.read()
    for _ in range(3):
        assert not prices.refresh(tmp_path / "prices.yaml")
    assert len(caplog.records) == 1
    with pytest.raises(Unavailable):
        prices.price("openai", "vllm", "llama3.1:70b")
