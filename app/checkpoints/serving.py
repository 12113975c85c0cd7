"""How a checkpoint is served: commands for vLLM and SGLang, with what its architecture needs.

Both engines read the quantization from ``config.json`` and need no flag for it. What an
architecture needs besides are the parsers of its tool calls and of its reasoning. They are given
only where the architecture's name decides them; models of one architecture that differ in their
chat template (Qwen3-MoE, GLM-4.5 to 4.7, DeepSeek V3 to V3.1) are left without, and the engines'
own pages named.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

VLLM_TOOLS = "https://docs.vllm.ai/en/stable/features/tool_calling/"
VLLM_REASONING = "https://docs.vllm.ai/en/stable/features/reasoning_outputs/"
SGLANG_TOOLS = "https://docs.sglang.io/docs/advanced_features/tool_parser.md"
SGLANG_REASONING = "https://docs.sglang.io/docs/advanced_features/separate_reasoning.md"
SGLANG_MINIMAX = "https://docs.sglang.io/cookbook/autoregressive/MiniMax/MiniMax-M2.md"


@dataclass(frozen=True)
class Parsers:
    """The flags an architecture needs in each engine, and the pages they were read from."""

    vllm: str
    sglang: str
    read_from: tuple[str, ...]


PARSERS: dict[str, Parsers] = {
    "MiniMaxM2ForCausalLM": Parsers(
        vllm="--enable-auto-tool-choice --tool-call-parser minimax_m2 "
        "--reasoning-parser minimax_m2_append_think",
        sglang="--tool-call-parser minimax-m2 --reasoning-parser minimax-append-think",
        read_from=(VLLM_REASONING, SGLANG_MINIMAX),
    ),
    "GptOssForCausalLM": Parsers(
        vllm="--enable-auto-tool-choice --tool-call-parser openai",
        sglang="--tool-call-parser gpt-oss --reasoning-parser gpt-oss",
        read_from=(VLLM_TOOLS, SGLANG_TOOLS, SGLANG_REASONING),
    ),
    "Glm4MoeLiteForCausalLM": Parsers(
        vllm="--enable-auto-tool-choice --tool-call-parser glm47",
        sglang="--tool-call-parser glm47",
        read_from=(VLLM_TOOLS, SGLANG_TOOLS),
    ),
}
GENERAL_PAGES = (VLLM_TOOLS, VLLM_REASONING, SGLANG_TOOLS, SGLANG_REASONING)


@dataclass(frozen=True)
class ServeCommands:
    """What to type, whether parsers are among it, and the pages that say which."""

    vllm: str
    sglang: str
    has_parsers: bool
    read_from: tuple[str, ...]


def served_name(name: str) -> str:
    """A checkpoint's name in the characters that a repository of the hub and a URL may have."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-") or "model"


def serve_commands(architecture: str | None, path: str, name: str) -> ServeCommands:
    """The commands that serve the checkpoint at ``path`` under ``name``."""
    parsers = PARSERS.get(architecture or "")
    served = served_name(name)
    place = shlex.quote(path)
    vllm = f"vllm serve {place} --served-model-name {served}"
    sglang = f"python -m sglang.launch_server --model-path {place} --served-model-name {served}"
    if parsers is None:
        return ServeCommands(vllm, sglang, has_parsers=False, read_from=GENERAL_PAGES)
    return ServeCommands(
        vllm=f"{vllm} {parsers.vllm}",
        sglang=f"{sglang} {parsers.sglang}",
        has_parsers=True,
        read_from=parsers.read_from,
    )
