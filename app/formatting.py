"""Numbers, sizes and times as a person reads them. A value that was not measured says so."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import UTC, datetime

NOT_MEASURED = "not measured"

SIZE_UNITS = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "PB": 10**15}
_MINUTE, _HOUR, _DAY = 60, 3600, 86_400


def integer(value: float | None) -> str:
    """A whole number with thousands separators: ``12,345``."""
    return NOT_MEASURED if value is None else f"{round(value):,}"


def signed(value: float | None, decimals: int = 0) -> str:
    """A difference to so many decimals with its sign: ``+1,234``, ``−56``, ``0``, ``+0.13``."""
    if value is None or not math.isfinite(value):
        return NOT_MEASURED
    if not round(value, decimals):
        return fixed(0.0, decimals)
    return f"{value:+,.{decimals}f}".replace("-", "−")


def number(value: float | None, digits: int = 4) -> str:
    """A figure to so many significant digits, in powers of ten where it is very small:
    ``0.003112``, ``3.11e-7``."""
    if value is None or not math.isfinite(value):
        return NOT_MEASURED
    if value != 0 and abs(value) < 1e-4:
        mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
        return f"{mantissa}e{int(exponent)}".replace("-", "−")
    if abs(value) >= 10 ** (digits - 1):
        return f"{value:,.0f}".replace("-", "−")
    decimals = digits - 1 - (math.floor(math.log10(abs(value))) if value else 0)
    return f"{value:,.{decimals}f}".replace("-", "−")


def aligned(value: float | None, column: Iterable[float | None], digits: int = 4) -> str:
    """A figure of a column so that all of them line up: each with the decimals that the smallest
    needs for so many significant digits, or each in powers of ten when one is very small."""
    sizes = [abs(each) for each in column if each and math.isfinite(each)]
    if value is None or not math.isfinite(value) or not sizes:
        return number(value, digits)
    if min(sizes) < 1e-4:
        mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
        return f"{mantissa}e{int(exponent)}".replace("-", "−")
    return fixed(value, max(0, digits - 1 - math.floor(math.log10(min(sizes)))))


def scaled(value: float | None, column: Iterable[float | None], least: int = 5) -> str:
    """A figure of a column with the decimals that its largest needs for three digits, at least so
    many: ``0.00304``, and ``0.0000138`` where all of them are that small."""
    largest = max((abs(each) for each in column if each and math.isfinite(each)), default=1.0)
    return fixed(value, max(least, 2 - math.floor(math.log10(largest))))


def fixed(value: float | None, decimals: int = 2) -> str:
    """A figure to so many decimals, so that a column lines up at the point: ``21.40``."""
    if value is None or not math.isfinite(value):
        return NOT_MEASURED
    # What rounds to nothing has no sign.
    return f"{value:z,.{decimals}f}".replace("-", "−")


def percent(share: float | None, decimals: int = 1) -> str:
    """A share of one as per cent: ``98.4 %``."""
    if share is None or not math.isfinite(share):
        return NOT_MEASURED
    return f"{100 * share:.{decimals}f} %"


def size(value: float | None) -> str:
    """A size in bytes with a decimal unit, three digits: ``12.3 MB``."""
    if value is None:
        return NOT_MEASURED
    unit = size_unit(value)
    amount = value / SIZE_UNITS[unit]
    if unit == "B":
        return f"{amount:.0f} B"
    decimals = 2 if abs(amount) < 9.995 else 1 if abs(amount) < 99.95 else 0
    return f"{amount:.{decimals}f} {unit}"


def size_unit(value: float) -> str:
    """The decimal unit that a size in bytes is told in, a key of :data:`SIZE_UNITS`."""
    return next((unit for unit, one in SIZE_UNITS.items() if abs(value) / one < 999.5), "PB")


def amount(value: float | None) -> str:
    """A large count in words: ``228.7 billion``, ``6.1 million``, ``12,345``."""
    if value is None:
        return NOT_MEASURED
    for scale, word in ((1e12, "trillion"), (1e9, "billion"), (1e6, "million")):
        if value >= scale:
            return f"{value / scale:,.1f} {word}"
    return f"{value:,.0f}"


def duration(seconds: float | None) -> str:
    """A time span: ``0.8 s``, ``42 s``, ``3 min 05 s``, ``10 h 12 min``."""
    if seconds is None:
        return NOT_MEASURED
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE:02d} s"
    return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE:02d} min"


def ago(moment: datetime, now: datetime | None = None) -> str:
    """How long ago a moment was: ``just now``, ``12 s ago``, ``3 h ago``, ``2 d ago``."""
    seconds = ((now or datetime.now(UTC)) - moment).total_seconds()
    for span, unit in ((_DAY, "d"), (_HOUR, "h"), (_MINUTE, "min")):
        if seconds >= span:
            return f"{int(seconds // span)} {unit} ago"
    return f"{int(seconds)} s ago" if seconds >= 2 else "just now"


def exact(moment: datetime) -> str:
    """A moment to the second, in UTC: ``2026-11-23 09:26:16 UTC``."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def counted(count: int, singular: str, plural: str | None = None) -> str:
    """A number with its noun: ``1 row``, ``12 rows``."""
    return f"{count:,} {singular if count == 1 else plural or singular + 's'}"
