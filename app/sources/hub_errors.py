"""What went wrong with the hub, in a sentence, and whether trying again may help.

``datasets`` and ``huggingface_hub`` wrap one error in another; the one that says the cause may be
anywhere in the chain.
"""

from __future__ import annotations

from collections.abc import Iterator

import httpx

TOKEN = "the token in CALIBRANT_HF_TOKEN"  # noqa: S105, the name of a variable
PASSING_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})


def is_passing(error: BaseException) -> bool:
    """Whether an error is of the network or of a server that is busy, and not of the request."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    for cause in _chain(error):
        match cause:
            case OfflineModeIsEnabled():
                return False
            case HfHubHTTPError() | httpx.HTTPStatusError():
                return cause.response.status_code in PASSING_STATUS
            case httpx.TransportError() | ConnectionError() | TimeoutError():
                return True
    return False


def sentence_of(error: BaseException) -> str | None:
    """What happened and what to do, or None for an error that is not known."""
    for cause in _chain(error):
        if sentence := _sentence(cause):
            return sentence
    return None


def _sentence(error: BaseException) -> str | None:
    from datasets.exceptions import DatasetGenerationError, DatasetNotFoundError
    from huggingface_hub import constants, errors

    first = str(error).strip().partition("\n")[0][:300]
    match error:
        case errors.OfflineModeIsEnabled():
            return "The hub is not asked because HF_HUB_OFFLINE is set: take it away to fetch."
        case errors.GatedRepoError():
            return (
                f"The data set is gated: accept its terms on the hub, and set {TOKEN} to one of "
                "the account that did."
            )
        case errors.RevisionNotFoundError():
            return "The data set has no such revision: give a branch, a tag or a commit of it."
        case errors.RepositoryNotFoundError():
            return f"The hub has no such data set, or it is private and {TOKEN} does not open it."
        case errors.HfHubHTTPError() | httpx.HTTPStatusError():
            return _of_status(error.response.status_code)
        case httpx.TransportError() | ConnectionError() | TimeoutError():
            return (
                f"The hub at {constants.ENDPOINT} does not answer ({type(error).__name__}): this "
                "machine may be offline. What was fetched before can be used; try again later."
            )
        case RuntimeError() if "scripts are no longer supported" in first:
            return (
                "The data set is a program, which is never run here: set its revision to "
                "refs/convert/parquet, where the hub keeps many such sets as plain files."
            )
        case DatasetNotFoundError() | DatasetGenerationError() | ValueError() if first:
            return f"The data set cannot be read: {first.removesuffix('.')}."
    return None


def _of_status(status: int) -> str:
    if status in (401, 403):
        return f"The hub refuses the data set (HTTP {status}): set {TOKEN} to one that may read it."
    return f"The hub answers with HTTP {status}; what was fetched before can be used."


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        yield following
        following = following.__cause__ or following.__context__
