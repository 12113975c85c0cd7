"""What a person should know of a quantizers YAML: the traps of its method, each at its line.

Numbered as in the facts of the field that Calibrant was built on: (1) languages picked by a salted
hash, (2) named in the prompt and not fed, (3) the first rows, and rows instead of tokens, (4)
categories in comments, a cache that forgets the template, escaped text, tool turns given to the
user, one bad row that stops everything, no revision.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from app.facets import label_of
from app.formatting import counted
from app.set_files.imported_set import ImportWarning
from app.set_files.prefixes import is_template
from app.set_files.quantizers_format import ROOT, SET_KEYS
from app.set_files.quantizers_reading import Part, Reading
from app.set_files.section_comments import Heading
from app.sources.entry import HubOrigin

# Columns that hold what was asked. As raw text they are fed as if the model had said them.
QUESTIONS = frozenset({"prompt", "instruction", "question", "problem", "user", "input", "query"})
# Columns whose list of turns is known to end before the answer.
HALVES = frozenset({"input", "prompt", "question"})
USED = 0.8  # of a source's rows, the others are held out or do not fit
STREAMED_ALL = 256  # what the quantizers tool takes of a streamed data set for "all"


def warnings_of(reading: Reading) -> Iterator[ImportWarning]:
    """Every warning of a file, in no order."""
    for rule in (_prompts, _method, _sections, _put_aside, _repeated, _columns, _turns, _unknown):
        yield from rule(reading)


Said = Iterator[ImportWarning]


def _at(line: int, message: str) -> ImportWarning:
    return ImportWarning(line=line, message=message)


def _prompts(reading: Reading) -> Said:
    by_template: dict[str, list[Part]] = {}
    for part in reading.parts:
        prefix = part.entry.params.get("prefix")
        if part.slice.prompt and prefix and is_template(prefix):
            by_template.setdefault(prefix, []).append(part)
    for template, parts in by_template.items():
        line = reading.template_line(template)
        yield from (_at(line, message) for message in _template_says(parts))
        for part in parts:
            if part.choice:
                yield _at(part.entry.lines["formatter_params"], _named_not_fed(part))
    if by_template:
        yield _at(
            reading.template_line(next(iter(by_template))),
            "The quantizers tool leaves templates out of its cache's key: after a change it goes "
            "on with the old rows. Here the prompt is part of what names a built set.",
        )


def _template_says(parts: Sequence[Part]) -> Iterator[str]:
    choice = parts[0].choice
    if choice is None:
        yield (
            "This template is kept as it is. Its hash() is the same in every process here, but "
            "what it picks is not dealt evenly: a list picked by hash(row) % n would be."
        )
    else:
        count = len(choice.values) + len(choice.never)
        rows = sum(part.entry.rows for part in parts if isinstance(part.entry.rows, int))
        missed = count * (1 - 1 / count) ** rows
        facet = choice.facet.label.lower()
        never = f", and about {missed:.1f} of them are never drawn" if missed >= 0.05 else ""
        yield (
            f"Picks one of {count} {facet}s by Python's salted hash(): another mix in every run of "
            f"the {rows:,} rows{never}. Here they are dealt in a seeded rotation, each to "
            f"{_dealt(rows, len(choice.values))}."
        )
        if choice.unmapped:
            yield (
                f"{', '.join(choice.unmapped)}: not in the vocabulary of {facet}s, kept by the "
                "name the file gives."
            )
        if choice.never:
            yield (
                f"The list has {count} names and the hash picks among the first "
                f"{len(choice.values)}: {', '.join(choice.never)} are never picked and left out."
            )
    yield (
        "The quantizers tool renders this with autoescape: what is inserted loses <, >, & and "
        "quotes to &lt; and the like. Here nothing is escaped."
    )


def _dealt(rows: int, values: int) -> str:
    least, more = divmod(rows, values)
    return f"{least} or {counted(least + 1, 'row')}" if more else counted(least, "row")


def _named_not_fed(part: Part) -> str:
    choice = part.choice
    assert choice is not None
    label = label_of(choice.facet, choice.values[0])
    return (
        f"{part.entry.dataset} is told a {choice.facet.label.lower()} in the prompt only ({label}, "
        f"…): the tokens fed are those of its column {', '.join(part.entry.columns)}, whatever is "
        "asked for. They are counted as named, not as fed; add a source whose text is in these "
        "languages to feed them."
    )


def _method(reading: Reading) -> Said:
    line = reading.fields.line("datasets")
    entries = [part.entry for part in reading.parts]
    counted = sum(isinstance(entry.rows, int) for entry in entries)
    if counted:
        yield _at(
            line,
            f"The quantizers tool takes the first rows of {counted} data sets as they lie there. "
            "Here as many are drawn at random by the seed.",
        )
        yield _at(
            line,
            "Sizes are in rows: one long row outweighs many short ones. Look at the tokens of each "
            "slice before a job, and give tokens where a share matters.",
        )
    unpinned = sum(entry.revision is None for entry in entries)
    if unpinned:
        yield _at(
            line,
            f"No revision is pinned for {unpinned} of {len(entries)} data sets: whoever builds "
            "this later gets other rows. Here the commit is looked up at the fetch and kept.",
        )
    yield _at(
        line,
        "In the quantizers tool one row that does not fit its formatter stops the whole build. "
        "Here it is set aside with its number and reason.",
    )
    yield from filter(None, map(_more_than_kept, reading.parts))
    for key, default in (("max_seq_length", "4,096"), ("seed", "42")):
        if reading.fields.given.get(key) is None:
            yield _at(line, f"{key} is missing: {default}, as the quantizers tool has it.")
    if reading.fields.given.get("shuffle") is False:
        yield _at(
            reading.fields.line("shuffle"),
            "shuffle: false is kept and not followed: rows are fed in a seeded random order.",
        )


def _more_than_kept(part: Part) -> ImportWarning | None:
    """An entry that asks for more rows than its source keeps."""
    origin, entry = part.source.origin, part.entry
    limit = origin.rows_limit if isinstance(origin, HubOrigin) else None
    if limit is None or (isinstance(entry.rows, int) and entry.rows <= USED * limit):
        return None
    line = entry.lines["num_samples"]
    if entry.rows == "all" and entry.streaming:
        return _at(
            line,
            f"All rows of a streamed data set: the quantizers tool takes the first {STREAMED_ALL}. "
            f"Here all that are fetched are taken: a sample of at most {limit:,}, the limit of "
            f"{part.source.name}.",
        )
    asked = "all rows" if entry.rows == "all" else f"{entry.rows:,} rows"
    return _at(
        line,
        f"{entry.dataset} asks for {asked}, and {part.source.name} keeps a sample of {limit:,} of "
        "which some are held out: fewer than asked for. Add it under another name with more rows "
        "to draw.",
    )


def _sections(reading: Reading) -> Said:
    used: dict[Heading, list[Part]] = {}
    for part in reading.parts:
        if part.heading and not part.entry.category:
            used.setdefault(part.heading, []).append(part)
    if used:
        yield _at(
            min(heading.line for heading in used),
            f"The {len(used)} categories stand in comments, which no tool reads. Here each is kept "
            "with its slices, and as the domain of their rows.",
        )
    counts = {heading: _rows(parts) for heading, parts in used.items()}
    by_title = {heading.title: count for heading, count in counts.items()}
    for heading in reading.comments.headings:
        holds = counts.get(heading, by_title.get(heading.title))
        if heading.rows is not None and holds is not None and holds != heading.rows:
            yield _at(
                heading.line,
                f"The comment says {heading.rows:,} rows for {heading.title!r}; its entries add up "
                f"to {holds:,}.",
            )
    total, rows = reading.comments.total, _rows(reading.parts)
    if total and total.rows != rows:
        yield _at(
            total.line, f"The comment says {total.rows:,} rows; the entries add up to {rows:,}."
        )
    for heading, parts in used.items():
        if parts[0].domain is None:
            yield _at(
                heading.line,
                f"{heading.title!r} is none of the domains Calibrant knows: its rows get no "
                "domain. Tag the source to give them one.",
            )


def _rows(parts: Sequence[Part]) -> int:
    return sum(part.entry.rows for part in parts if isinstance(part.entry.rows, int))


def _put_aside(reading: Reading) -> Said:
    for one in reading.comments.put_aside:
        reason = f" The comment above it: {one.reason[:300]}" if one.reason else ""
        yield _at(one.line, f"{one.name} stands in a comment and is not imported.{reason}")


def _repeated(reading: Reading) -> Said:
    by_dataset: dict[str, list[Part]] = {}
    for part in reading.parts:
        by_dataset.setdefault(part.entry.dataset, []).append(part)
    for dataset, parts in by_dataset.items():
        if len(parts) < 2:
            continue
        which = ", ".join(f"{part.entry.split} on line {part.entry.line}" for part in parts)
        same = len({part.source.name for part in parts}) < len(parts)
        advice = (
            "entries with the same rows share them, no row is used twice"
            if same
            else "look for rows that stand in more than one of them in the audit"
        )
        yield _at(
            parts[1].entry.line, f"{dataset} stands here {len(parts)} times ({which}): {advice}."
        )


def _columns(reading: Reading) -> Said:
    for part in reading.parts:
        entry = part.entry
        line = entry.lines.get("columns", entry.line)
        column = entry.columns[0].casefold() if entry.columns else ""
        if entry.formatter == "raw_text" and column in QUESTIONS:
            yield _at(
                line,
                f"{entry.dataset}: the column {entry.columns[0]!r} holds what was asked. As raw "
                "text it stands in the assistant's turn, and experts are calibrated on questions "
                "as if they were answers.",
            )
        if entry.formatter == "chat_completion" and column in HALVES:
            yield _at(
                line,
                f"{entry.dataset}: the column {entry.columns[0]!r} holds the turns before the "
                "answer, which stands in another column. Such rows have no answer to calibrate on.",
            )
        if entry.formatter == "deepmind_code_contests":
            yield _at(
                line,
                f"{entry.dataset}: this formatter reads description and solutions, whatever column "
                f"is named ({', '.join(entry.columns)}); the first solution is taken, in whichever "
                "language it is.",
            )


def _turns(reading: Reading) -> Said:
    parts = [part for part in reading.parts if part.entry.formatter == "sharegpt"]
    tools = [p for p in parts if p.domain == "tool-use" or "tool" in p.entry.dataset.casefold()]
    for part in tools:
        yield _at(
            part.entry.lines["formatter"],
            f"{part.entry.dataset}: the quantizers tool's sharegpt gives every turn that is not of "
            "system, human or gpt to the user, so results of tools are fed as the user's words. "
            "Here they are tool turns after the call that asked for them.",
        )
    chats = [part for part in reading.parts if part.entry.formatter == "chat_completion"]
    if chats:
        yield _at(
            chats[0].entry.lines["formatter"],
            "The quantizers tool writes reasoning_content into the assistant's words between "
            "<think> and </think>. Here it stays apart and is rendered as the model's template "
            "wants it; set reasoning to inline to have it as there.",
        )
    others = [part for part in parts if part not in tools]
    if others:
        lines = ", ".join(str(part.entry.lines["formatter"]) for part in others)
        yield _at(
            others[0].entry.lines["formatter"],
            f"sharegpt on lines {lines}: turns of tools, where there are any, become tool turns "
            "here; the quantizers tool gives them to the user.",
        )


def _unknown(reading: Reading) -> Said:
    fields = reading.fields
    for key in reading.document:
        if key != ROOT:
            yield _at(1, f"{key} beside {ROOT} is not of this format: kept with the set, not used.")
    for key in fields.unknown(SET_KEYS):
        yield _at(
            fields.line(key), f"{key} is not a key of this format: kept with the set, not used."
        )
    for name in reading.unused_templates():
        yield _at(
            fields.line("_templates", name), f"No entry uses the template {name}: kept, not used."
        )
    for part in reading.parts:
        for key in part.entry.unknown:
            line = part.entry.lines[key]
            said = "is not a key of this format: kept with the slice, not used"
            if key == "trust_remote_code":
                said = "is kept and not followed: no code of others is run"
            yield _at(line, f"{key} {said}.")
        for key in part.slice.extra.get("formatter_params", {}):
            line = part.entry.lines["formatter_params"]
            yield _at(
                line,
                f"The formatter {part.entry.formatter} has no parameter {key}: kept with the "
                "slice, not used.",
            )
