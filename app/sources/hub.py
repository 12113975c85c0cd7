"""Data sets of the hub: which commit is meant, and a sample of its rows.

``datasets`` and ``huggingface_hub`` read the files (``HF_ENDPOINT`` names another hub than the
usual one). A download that breaks is taken up where it broke: both ask for the rest by a ``Range``
header. No code of a data set is ever run: ``datasets`` 4 and later have no way to.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import structlog
from pydantic import SecretStr

from app.errors import CalibrantError, Refused
from app.facets import Facet
from app.nearest import nearest
from app.row_files.raw_rows import RawRow
from app.settings import Settings
from app.sources.conversion import NumberedRow, NumberedRows, columns_read, require_columns
from app.sources.entry import HubOrigin, SourceEntry
from app.sources.hub_errors import is_passing, sentence_of

FIRST_WAIT_SECONDS = 1.0
LONGEST_WAIT_SECONDS = 60.0

log = structlog.get_logger()
R = TypeVar("R")


class HubUnreachable(CalibrantError):
    """The hub does not answer, or fails; nothing is lost, and trying later may do."""

    status = 503
    exit_code = 2


@dataclass(frozen=True)
class Found:
    """A data set of the hub at a commit. ``id`` is its name today, after renames."""

    id: str
    commit: str


@dataclass(frozen=True)
class Hub:
    """The hub as an installation reaches it. ``wait`` sleeps between tries."""

    token: SecretStr | None
    timeout_seconds: float = 30.0
    retries: int = 5
    wait: Callable[[float], None] = time.sleep

    @classmethod
    def of(cls, settings: Settings) -> Hub:
        """The hub by an installation's settings."""
        return cls(settings.hf_token)

    def patiently(self, work: Callable[[Hub], R]) -> R:
        """Do something with the hub, again after a while when it fails as a network fails.

        Raises HubUnreachable when the last try fails, Refused for what no try would mend.
        """
        for attempt in range(self.retries + 1):
            try:
                return work(self)
            except CalibrantError:
                raise
            except Exception as error:
                sentence = sentence_of(error)
                if not is_passing(error):
                    if sentence is None:
                        raise
                    raise Refused(sentence) from error
                if attempt == self.retries:
                    raise HubUnreachable(sentence or f"The hub failed: {error}") from error
                seconds = min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2**attempt)
                log.warning("hub failed, trying again", seconds=seconds, cause=type(error).__name__)
                self.wait(seconds)
        raise AssertionError

    def find(self, origin: HubOrigin) -> Found:
        """The commit that an origin's revision names today."""
        from huggingface_hub import HfApi

        info = HfApi(token=self._token).dataset_info(
            origin.id, revision=origin.revision, timeout=self.timeout_seconds
        )
        if info.disabled:
            raise Refused(f"The hub has disabled {origin.id}.")
        assert info.sha is not None
        return Found(info.id, info.sha)

    def rows(self, entry: SourceEntry, found: Found) -> NumberedRows:
        """A seeded random sample of a data set's rows, with the columns the entry reads.

        A data set that is downloaded gives ``rows_limit`` of all its rows, each as likely, in
        their order. A streamed one gives the first of its shuffled shards through a shuffled
        window (``sampling``); its rows are numbered as they are drawn. Raises Refused.
        """
        origin = entry.origin
        assert isinstance(origin, HubOrigin)
        dataset = self._opened(origin, found)
        if dataset.column_names is not None:
            require_columns(entry, dataset.column_names)
            dataset = dataset.select_columns(_wanted(entry, dataset.column_names))
        yield from _streamed(dataset, origin) if origin.streaming else _drawn(dataset, origin)

    def first_rows(self, origin: HubOrigin, found: Found) -> Iterator[dict[str, Any]]:
        """The rows of a streamed data set from its first on, with every column."""
        yield from self._opened(origin, found)

    @staticmethod
    def sampling(origin: HubOrigin) -> str:
        """How rows are drawn, in words for the manifest."""
        if origin.rows_limit is None:
            return "every row"
        if origin.streaming:
            return (
                f"{origin.rows_limit:,} rows from shuffled shards through a shuffled window of "
                f"{origin.buffer_rows:,} rows, seed {origin.seed}: near to random, not quite"
            )
        return f"{origin.rows_limit:,} of all rows at random, seed {origin.seed}"

    def _opened(self, origin: HubOrigin, found: Found) -> Any:
        import datasets
        from huggingface_hub.utils.tqdm import disable_progress_bars

        if Path(found.id).exists():  # datasets would take it for the data set
            raise Refused(f"A folder {found.id} is in the working directory: start elsewhere.")
        if "torch" not in sys.modules:  # datasets would import it to be its kind of data set
            datasets.config.TORCH_AVAILABLE = False
        disable_progress_bars()
        datasets.disable_progress_bars()
        # our own waiting is around it; twenty tries of five seconds each hide that it is offline
        datasets.config.STREAMING_READ_MAX_RETRIES = max(1, self.retries)
        datasets.config.STREAMING_READ_RETRY_INTERVAL = FIRST_WAIT_SECONDS
        datasets.config.STREAMING_OPEN_MAX_RETRIES = max(1, self.retries)
        datasets.config.STREAMING_OPEN_RETRY_INTERVAL = FIRST_WAIT_SECONDS
        self._require_split(datasets, origin, found)
        return datasets.load_dataset(
            found.id,
            origin.subset,
            split=origin.split,
            revision=found.commit,
            streaming=origin.streaming,
            token=self._token,
        )

    def _require_split(self, datasets: Any, origin: HubOrigin, found: Found) -> None:
        """Raise Refused for a subset or split the data set has not, with the nearest name."""
        given = {"revision": found.commit, "token": self._token}
        subsets = datasets.get_dataset_config_names(found.id, **given)
        if origin.subset is not None and origin.subset not in subsets:
            raise Refused(
                f"{origin.id} has no subset {origin.subset!r}{nearest(origin.subset, subsets)}; "
                f"it has: {', '.join(subsets[:30])}."
            )
        is_open = origin.subset is None and len(subsets) > 1
        if is_open and datasets.get_dataset_default_config_name(found.id, **given) is None:
            known = ", ".join(subsets[:30])
            raise Refused(f"{origin.id} has several subsets, say which: {known}.")
        splits = datasets.get_dataset_split_names(found.id, origin.subset, **given)
        if origin.split not in splits:
            raise Refused(
                f"{origin.id} has no split {origin.split!r}{nearest(origin.split, splits)}; "
                f"it has: {', '.join(splits[:30])}."
            )

    @property
    def _token(self) -> str | None:
        return self.token.get_secret_value() if self.token else None


def _wanted(entry: SourceEntry, known: list[str]) -> list[str]:
    """The columns to read: pictures and sounds beside them are neither read nor decoded."""
    read = {*columns_read(entry), "license", *(facet.value for facet in Facet)}
    return [column for column in known if column in read]


def _drawn(dataset: Any, origin: HubOrigin) -> Iterator[NumberedRow]:
    positions: Sequence[int] = range(len(dataset))
    if origin.rows_limit is not None and origin.rows_limit < len(positions):
        chosen = sorted(random.Random(origin.seed).sample(positions, origin.rows_limit))  # noqa: S311
        positions, dataset = chosen, dataset.select(chosen)
    for position, cells in zip(positions, dataset, strict=True):
        yield NumberedRow(position + 1, RawRow(position + 1, cells))


def _streamed(dataset: Any, origin: HubOrigin) -> Iterator[NumberedRow]:
    if origin.rows_limit is not None:
        shuffled = dataset.shuffle(seed=origin.seed, buffer_size=origin.buffer_rows)
        dataset = shuffled.take(origin.rows_limit)
    for number, cells in enumerate(dataset, start=1):
        yield NumberedRow(number, RawRow(number, cells))
