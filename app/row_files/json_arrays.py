"""A JSON document of many rows, read an element at a time."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from typing import Any

from app.errors import Refused
from app.row_files.unpacking import LONGEST_LINE, NotText, Stream

CHUNK = 1 << 16
_SPACE = " \t\n\r"
_DECODER = json.JSONDecoder()
_TOO_LONG = f"a value has no end within {LONGEST_LINE:,} characters: give JSON lines"


def array_elements(stream: Stream, encoding: str, name: str) -> Iterator[Any]:
    """The elements of the array that a document is, or that the first array inside its object is
    (``{"data": […]}``). Raises Refused with line and column, NotText with the byte."""
    text = _Text(stream, encoding, name)
    if text.next_character() == "{":
        yield from _of_object(text)
        return
    if text.next_character() != "[":
        raise text.refused("a list of rows was expected")
    yield from _of_array(text)
    if text.next_character():
        raise text.refused("something stands after the list")


def _of_object(text: _Text) -> Iterator[Any]:
    """The rows of an object's first list. JSON lines under a .json name are read as such."""
    value = text.element()
    if text.next_character() == "{":
        yield value
        while text.next_character():
            yield text.element()
        return
    found = next((one for one in value.values() if isinstance(one, list)), None)
    if found is None:
        raise Refused(f"{text.name} is one object without a list of rows in it.")
    yield from [value] if _is_conversation(found) else found


def _is_conversation(found: list[Any]) -> bool:
    """Whether a list is the turns of one row, and not the rows."""
    first = found[0] if found else None
    return isinstance(first, dict) and not {"role", "from"}.isdisjoint(first)


def _of_array(text: _Text) -> Iterator[Any]:
    text.take()
    if text.next_character() == "]":
        text.take()
        return
    while True:
        yield text.element()
        match text.next_character():
            case ",":
                text.take()
            case "]":
                text.take()
                return
            case _:
                raise text.refused("a comma or ] was expected")


class _Text:
    """The document's text from where it was read to, a chunk more at a time."""

    def __init__(self, stream: Stream, encoding: str, name: str) -> None:
        self.name = name
        bom = stream.peek(3)[:3] == codecs.BOM_UTF8
        self._decoder = codecs.getincrementaldecoder("utf-8-sig" if bom else encoding)()
        self._encoding = encoding
        self._stream, self._held, self._at, self._ended = stream, "", 0, False
        self._bytes, self._line, self._column = 0, 1, 1

    def next_character(self) -> str:
        """The next character that is no space, empty at the end; it is not taken."""
        while True:
            while self._at < len(self._held) and self._held[self._at] in _SPACE:
                self._at += 1
            if self._at < len(self._held):
                return self._held[self._at]
            if not self._more(CHUNK):
                return ""

    def take(self) -> None:
        """Go past the next character."""
        self._at += 1

    def element(self) -> Any:
        """The next value. Raises Refused."""
        size = CHUNK
        self.next_character()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._held, self._at)
            except RecursionError as error:
                raise self.refused("it is nested too deeply") from error
            except ValueError as error:
                within = getattr(error, "pos", self._at) - self._at
                said = getattr(error, "msg", str(error))
                if len(self._held) - self._at > LONGEST_LINE:
                    raise self.refused(_TOO_LONG) from error
                if not self._more(size):
                    raise self.refused(said, self._at + within) from error
                size *= 2  # so that a long value is not parsed once for every chunk
                continue
            # a number at the end of the chunk may go on in the next
            if end == len(self._held) and self._more(CHUNK):
                continue
            self._at = end
            return value

    def refused(self, what: str, at: int | None = None) -> Refused:
        """A refusal that names the place."""
        self._drop(self._at if at is None else min(at, len(self._held)))
        return Refused(f"{self.name}, line {self._line:,}, column {self._column:,}: {what}.")

    def _more(self, size: int) -> bool:
        if self._ended:
            return False
        self._drop(self._at)
        raw = self._stream.read(size)
        try:
            self._held += self._decoder.decode(raw, final=not raw)
        except UnicodeDecodeError as error:
            place = self._bytes + error.start + 1
            raise NotText(
                f"{self.name}, about byte {place:,} (0x{error.object[error.start]:02X}): not "
                f"{self._encoding.upper()}: save it as UTF-8, or say its encoding."
            ) from error
        except UnicodeError as error:
            raise NotText(f"{self.name} is not {self._encoding.upper()}: {error}.") from error
        self._bytes += len(raw)
        self._ended = not raw
        return bool(raw)

    def _drop(self, until: int) -> None:
        gone = self._held[:until]
        breaks = gone.count("\n")
        self._line += breaks
        self._column = len(gone) - gone.rfind("\n") if breaks else self._column + len(gone)
        self._held, self._at = self._held[until:], max(0, self._at - until)
