"""The files of a job's directory, by the names that the worker writes and everybody else reads."""

from __future__ import annotations

SPEC = "spec.json"
EVENTS = "events.jsonl"
LOG = "log.txt"
RESULT = "result.json"
COVERAGE = "coverage.npz"
HELD_OUT_COVERAGE = "coverage-held-out.npz"
LAYERS = "layers.json"
MODULES = "modules.json"
EVALUATION = "evaluation.json"
EVALUATED_ROWS = "evaluation.npz"
