"""Rows as the seed's method makes them: a prompt names a language, and the row under it is the
English text or the Rust stub that it was before."""

from __future__ import annotations

from app.audit.row import AuditedRow, AuditedTurn
from app.facets import SPOKEN_LANGUAGES, Facet

RUST = """\
/// Returns the {number}th member of the sequence, counted from zero, without recursion.
pub fn member_{number}(limit: usize) -> Option<u64> {{
    let mut previous: u64 = {number};
    for step in 0..limit {{
        previous = previous.checked_add(step as u64)?;
    }}
    Some(previous)
}}

#[cfg(test)]
mod tests_{number} {{
    use super::*;
    #[test]
    fn counts() {{ assert_eq!(member_{number}(0), Some({number})); }}
}}
"""
ENGLISH = (
    "The caravan of the {number}th year left the harbour before dawn, and nobody in the town knew "
    "whether its letters would ever be answered, though {number} people had written one."
)
ASKED_SPOKEN = ("he", "ar", "hi", "ja")
ASKED_CODE = ("Haskell", "COBOL", "Zig", "Rust")


def seedlike_rows(each: int = 6) -> list[AuditedRow]:
    """``each`` rows of every named language: English under Hebrew, Rust under Haskell."""
    rows = []
    for number in range(each * len(ASKED_SPOKEN)):
        asked = ASKED_SPOKEN[number % len(ASKED_SPOKEN)]
        prompt = f"Answer in {SPOKEN_LANGUAGES[asked]}\n***\n"
        rows.append(_row(f"text-{number}", "multilingual", prompt, ENGLISH, number, "en", None))
    for number in range(each * len(ASKED_CODE)):
        asked = ASKED_CODE[number % len(ASKED_CODE)]
        prompt = f"Solve the following problem using {asked.title() if asked == 'COBOL' else asked}"
        rows.append(_row(f"code-{number}", "code", prompt + "\n***\n", RUST, number, None, "Rust"))
    return rows


def _row(
    name: str, part: str, prompt: str, text: str, number: int, spoken: str | None, code: str | None
) -> AuditedRow:
    answer = text.format(number=number * 7919 % 1000)
    turns = (
        AuditedTurn("user", prompt, len(prompt) // 4),
        AuditedTurn("assistant", answer, len(answer) // 4),
    )
    tokens = sum(turn.tokens for turn in turns) + 5
    labels = {Facet.SPOKEN_LANGUAGE: spoken, Facet.PROGRAMMING_LANGUAGE: code}
    return AuditedRow(name, f"source-{part}", part, tokens, tokens, turns, labels)
