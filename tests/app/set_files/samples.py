"""Set files for the tests: a shortened seed, and one as large as the real one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from app.facets import PROGRAMMING_LANGUAGES, SPOKEN_LANGUAGES

# The real file, on machines that have it beside the repository.
REAL = Path(__file__).resolve().parents[4] / "shared/seed/calibrate_software_engineer.yaml"

SHORT = """\
calibration_set:
  _templates:
    programming_languages: &programming_languages "Solve it using {{ ['Zephyr', 'Cobol', 'Rust', \
'COBOL2'][hash(row|string) % 4] }}\\n***\\n"
    spoken_languages: &spoken_languages "Answer in {{ ['Arabic', 'Chinese', 'German'\
][hash(row|string) % 3] }}\\n***\\n"
    forgotten: &forgotten "Nobody uses {{ row.x }}"
  max_seq_length: 8192
  shuffle: true
  seed: 42
  packing_hint: tight
  datasets:

    # Category Summary (Total: 60 samples)
    # =====================================================
    # General chat (8 samples - 13%)
    # Tool use (10 samples - 17%)
    # Code / Programming (31 samples - 50%)
    # =====================================================

    # General chat (8 samples)
    # ---------------------------------------------------------------------------
    - dataset: HuggingFaceH4/ultrachat_200k
      columns: [messages]
      split: train_sft
      formatter: chat_completion
      num_samples: 8
      streaming: true

    # Multilingual (6 samples)
    # ---------------------------------------------------------------------------
    - dataset: HuggingFaceH4/Multilingual-Thinking
      split: train
      columns: [user]
      formatter: raw_text
      num_samples: 6
      formatter_params:
        prefix: *spoken_languages

    # Tool use (include commented out ToolAce) (10 samples)
    # ---------------------------------------------------------------------------

    # Fail with minimax!
    # - dataset: Team-ACE/ToolACE
    #   num_samples: 100

    - dataset: interstellarninja/hermes_reasoning_tool_use
      split: train
      columns: [conversations]
      formatter: sharegpt
      num_samples: 10
      trust_remote_code: true

    # Code / Programming (32 samples)
    # ---------------------------------------------------------------------------
    - dataset: diversoailab/humaneval-rust
      split: train
      columns: [prompt]
      formatter: raw_text
      num_samples: 20
      formatter_params:
        prefix: *programming_languages

    - dataset: nvidia/Llama-Nemotron-Post-Training-Dataset
      subset: SFT
      split: code
      columns: [input]
      formatter: chat_completion
      num_samples: 6

    - dataset: nvidia/Llama-Nemotron-Post-Training-Dataset
      subset: SFT
      split: math
      columns: [input]
      formatter: chat_completion
      num_samples: 5

    # Behavioral skills (5 samples)
    # ---------------------------------------------------------------------------
    - dataset: ammarnasr/the-stack-rust-clean
      split: train
      columns: [content]
      formatter: raw_text
      num_samples: 5
      formatter_params:
        prefix: "Explain this code.\\n***\\n"
"""

SECTIONS = (
    "General chat", "Instruction and Reasoning tuning", "Multilingual", "Tool use",
    "Code / Programming / Software Engineering / Devops", "Math", "Sciences", "Medical", "Finance",
    "Business", "Humanities and Philosophy", "Creative Writing, Adventure, Roleplay",
    "General Knowledge and Pop Culture", "Behavioral skills", "Misc",
)  # fmt: skip


def fifty_entries() -> str:
    """A file of the real one's size: 50 entries of 48 data sets in 15 sections, 590 rows, 60
    programming and 12 spoken languages."""
    spoken = [name for code, name in SPOKEN_LANGUAGES.items() if code != "en"]
    lines = ["calibration_set:", "  _templates:"]
    for name, values in (("programming", PROGRAMMING_LANGUAGES), ("spoken", spoken)):
        listed = ", ".join(f"'{value}'" for value in values)
        pick = f"{{{{ [{listed}][hash(row|string) % {len(values)}] }}}}"
        lines.append(f'    {name}: &{name} "Write {pick}\\n***\\n"')
    lines += ["  max_seq_length: 8192", "  shuffle: true", "  seed: 42", "  datasets:"]
    for number in range(50):
        if number % 4 == 0 or number in (45, 47):
            place = {45: 12, 47: 13}.get(number, number // 4 + (number > 45) * 2)
            lines.append(f"    # {SECTIONS[place]} (0 samples)")
        repository = {48: 0, 49: 1}.get(number, number)
        raw = number in (7, 9)
        lines += [
            f"    - dataset: owner/data_{repository}",
            f"      split: {'train' if number < 48 else 'test'}",
            f"      columns: [{'text' if raw else 'messages'}]",
            f"      formatter: {'raw_text' if raw else 'chat_completion'}",
            f"      num_samples: {11 if number else 51}",
        ]
        if raw:
            lines += [
                "      formatter_params:",
                f"        prefix: *{'spoken' if number == 9 else 'programming'}",
            ]
    return "\n".join(lines) + "\n"


ENTRY: dict[str, Any] = {
    "dataset": "owner/data",
    "split": "train",
    "columns": ["messages"],
    "formatter": "chat_completion",
    "num_samples": 8,
}


def file_of(*entries: Any, **keys: Any) -> str:
    """A quantizers YAML of some entries."""
    given = {"max_seq_length": 64, "seed": 1, "datasets": list(entries) or [ENTRY], **keys}
    return yaml.safe_dump({"calibration_set": given}, sort_keys=False)
