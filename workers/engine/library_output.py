"""Keep the libraries' own chatter off stdout, where a command prints its one JSON document.

llmcompressor adds a loguru sink on ``sys.stdout`` when it is imported, and both it and
compressed-tensors draw a tqdm bar for every grid search. Progress is told by events instead
(``app.jobs.events``); the libraries' errors stay, on stderr. The package calls ``hush`` before any
of its modules can import them.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable
from typing import TypeVar

T = TypeVar("T")

os.environ.setdefault("TQDM_DISABLE", "1")
os.environ.setdefault("LLM_COMPRESSOR_LOG_LEVEL", "ERROR")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")


def hush() -> None:
    """Send the errors of llmcompressor, compressed-tensors, transformers and torch's tracing to
    stderr, and drop what they say below that."""
    import llmcompressor  # noqa: F401  (it sets its own sink at import; ours replaces it)
    import transformers
    from compressed_tensors.offload import dispatch
    from compressed_tensors.quantization.lifecycle import apply
    from loguru import logger

    logger.remove()
    logger.add(sys.stderr, level="ERROR", format="{time:HH:mm:ss} {level} {message}")
    for name in ("compressed_tensors", "torch.fx"):
        logging.getLogger(name).setLevel(logging.ERROR)
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    # They draw their bars whatever TQDM_DISABLE says.
    for module in (apply, dispatch):
        vars(module)["tqdm"] = _no_bar


def _no_bar(iterable: Iterable[T], **_: object) -> Iterable[T]:
    return iterable
