from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from app import formatting


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "not measured"),
        (float("nan"), "not measured"),
        (0, "0.000"),
        (0.003041, "0.003041"),
        (-0.00304, "−0.003040"),
        (3.112e-7, "3.112e−7"),
        (41.27, "41.27"),
        (12345.6, "12,346"),
    ],
)
def test_number(value: float | None, text: str) -> None:
    assert formatting.number(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "not measured"),
        (0, "0 B"),
        (999, "999 B"),
        (1200, "1.20 kB"),
        (12_345_678, "12.3 MB"),
        (999_600, "1.00 MB"),
        (457_000_000_000, "457 GB"),
    ],
)
def test_size(value: float | None, text: str) -> None:
    assert formatting.size(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "not measured"),
        (0.84, "0.8 s"),
        (42, "42 s"),
        (185, "3 min 05 s"),
        (36_720, "10 h 12 min"),
    ],
)
def test_duration(seconds: float | None, text: str) -> None:
    assert formatting.duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "just now"), (12, "12 s ago"), (61, "1 min ago"), (7300, "2 h ago"), (200_000, "2 d ago")],
)
def test_ago(seconds: float, text: str) -> None:
    now = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)
    assert formatting.ago(now - timedelta(seconds=seconds), now) == text


@pytest.mark.parametrize(
    ("value", "text"), [(None, "not measured"), (0.984, "98.4 %"), (0, "0.0 %")]
)
def test_percent(value: float | None, text: str) -> None:
    assert formatting.percent(value) == text


def test_a_column_of_small_figures_keeps_three_digits() -> None:
    column = [0.0000138, 0.0000021, None]
    assert [formatting.scaled(each, column) for each in column] == [
        "0.0000138", "0.0000021", "not measured",
    ]  # fmt: skip
    assert formatting.scaled(0.003041, [0.003041, 0.1]) == "0.00304"
    assert formatting.scaled(0.0, [0.0]) == "0.00000"


def test_counted_and_amount() -> None:
    assert formatting.counted(1, "row") == "1 row"
    assert formatting.counted(1234, "row") == "1,234 rows"
    assert formatting.amount(228_700_000_000) == "228.7 billion"
    assert formatting.amount(12_345) == "12,345"


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "not measured"), (0, "0"), (1234, "+1,234"), (-56, "−56"), (0.2, "0")],
)
def test_signed(value: float | None, text: str) -> None:
    assert formatting.signed(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0.00"), (0.004, "0.00"), (-0.004, "0.00"), (-0.13, "−0.13"),
                        (1234.5, "+1,234.50"), (float("nan"), "not measured")],
)  # fmt: skip
def test_signed_to_decimals(value: float, text: str) -> None:
    assert formatting.signed(value, 2) == text


@pytest.mark.parametrize(
    ("column", "texts"),
    [
        ([0.01006, 0.009764, None], ["0.010060", "0.009764", "not measured"]),
        ([3.031e-7, 0.0007692], ["3.031e−7", "7.692e−4"]),
        ([0.0, 12.5], ["0.00", "12.50"]),
        ([123456.0, 2345.0], ["123,456", "2,345"]),
        ([None], ["not measured"]),
    ],
)
def test_figures_of_a_column_line_up(column: list[float | None], texts: list[str]) -> None:
    assert [formatting.aligned(value, column) for value in column] == texts


def test_what_rounds_to_nothing_has_no_sign() -> None:
    assert formatting.fixed(-0.000001, 5) == "0.00000"
    assert formatting.fixed(-0.00001, 5) == "−0.00001"
