"""The ready composition for a first job.

The weights follow the seed (``calibrate_software_engineer.yaml``, 590 rows) as far as the starter
corpus can. Its comments count, in percent of rows:

=============================================  =====  ================================
category of the seed                               %  slice here
=============================================  =====  ================================
code, software engineering, devops             55.59  code, 55
tool use                                       16.95  domains
multilingual                                    6.10  spoken languages, 20
general chat                                    4.07  not in the corpus
sciences, business                       2.71 + 2.71  domains
instruction and reasoning                       2.37  not in the corpus
creative writing                                2.20  domains (as literature)
math                                            2.03  domains
medical, finance, humanities            1.36 × 3      domains
behaviour, general knowledge, misc              1.19  not in the corpus
=============================================  =====  ================================

Two shares differ on purpose. The seed names twelve spoken languages in 32 rows, two or three for
each: too few tokens of a language's own text to feed its experts, so they get 20 %. The corpus
has 57 tool-use rows, questions of one benchmark: at 17 % of the tokens the set would be little
else, so tool use is one of the thirteen domains that share the remaining 25 % equally.
"""

from __future__ import annotations

from collections.abc import Sequence

from app.calibration.spec import SetSpec, Slice
from app.facets import PROGRAMMING_LANGUAGES, SPOKEN_LANGUAGES, Facet
from app.sources.starter_corpus import PACKS

NAME = "Software engineer (starter)"
TOKEN_BUDGET = 60_000
MAX_LENGTH = 512
SEED = 42  # the seed's own
USUAL_ROWS = 512  # what quantizers commonly take

OTHER_LANGUAGES = tuple(code for code in SPOKEN_LANGUAGES if code != "en")
DOMAINS_IN_ENGLISH = (
    "devops",
    "tool-use",
    "security",
    "software-docs",
    "math",
    "sciences",
    "medical",
    "finance",
    "business",
    "law",
    "humanities",
    "literature",
    "howto",
)

SLICES = (
    Slice(
        name="Code in 60 programming languages",
        weight=55,
        facets={Facet.PROGRAMMING_LANGUAGE: PROGRAMMING_LANGUAGES},
        balance=Facet.PROGRAMMING_LANGUAGE,
    ),
    Slice(
        name="Text in 12 spoken languages",
        weight=20,
        facets={Facet.SPOKEN_LANGUAGE: OTHER_LANGUAGES},
        balance=Facet.SPOKEN_LANGUAGE,
    ),
    Slice(
        name="13 domains in English",
        weight=25,
        facets={Facet.SPOKEN_LANGUAGE: ("en",), Facet.DOMAIN: DOMAINS_IN_ENGLISH},
        balance=Facet.DOMAIN,
    ),
)


def software_engineer(sources: Sequence[str] = PACKS) -> SetSpec:
    """The set "Software engineer (starter)": 60,000 tokens of the calibration part."""
    return SetSpec(
        name=NAME,
        slices=SLICES,
        token_budget=TOKEN_BUDGET,
        max_length=MAX_LENGTH,
        seed=SEED,
        sources=tuple(sources),
    )


def of_source(source: str, rows: int) -> SetSpec:
    """A composition to begin with of one source: ``rows`` of its rows, or as many as are usual."""
    part = Slice(name=f"Rows of {source}"[:80], rows=max(1, min(rows, USUAL_ROWS)))
    return SetSpec(name=source, slices=(part,), max_length=MAX_LENGTH, seed=SEED, sources=(source,))
