"""The prefix of a quantizers YAML and the prompt of a slice: each as the other.

The quantizers tool takes a prefix for a template when it has both ``{{`` and ``}}``, and for plain
words else. A prompt is always a template.
"""

from __future__ import annotations

import json

from jinja2 import TemplateError, nodes

from app.calibration.spec import Prompt
from app.facets import label_of
from app.prompts.rotation import expressions
from app.prompts.template import ENVIRONMENT

SIGNS = ("{{", "{%", "{#")


def is_template(prefix: str) -> bool:
    """Whether the quantizers tool renders a prefix."""
    return "{{" in prefix and "}}" in prefix


def prefix_words(prefix: str) -> str:
    """A prefix of plain words as a template that gives them."""
    if not any(sign in prefix for sign in SIGNS):
        return prefix
    return "{{ " + json.dumps(prefix, ensure_ascii=False) + " }}"


def prefix_of(prompt: Prompt) -> str | None:
    """A prompt as the prefix it would be imported from, None where there is none."""
    if prompt.facet is not None:
        return _picking(prompt)
    template = prompt.template
    if is_template(template):
        words = _literal(template)
        is_wrapped = words is not None and prefix_words(words) == template
        return words if is_wrapped and words and not is_template(words) else template
    return template if prefix_words(template) == template else None


def _picking(prompt: Prompt) -> str | None:
    """A prompt that deals values as a template that picks them by a hash."""
    assert prompt.facet is not None
    try:
        parts = list(expressions(prompt.template))
    except TemplateError:
        return None
    labels = ", ".join(_quoted(label_of(prompt.facet, value)) for value in prompt.values)
    pick = f"{{{{ [{labels}][hash(row|string) % {len(prompt.values)}] }}}}"
    is_value = [is_expression and _is_value(text) for text, is_expression in parts]
    if sum(is_value) != 1:
        return None
    return "".join(pick if here else text for (text, _), here in zip(parts, is_value, strict=True))


def _literal(template: str) -> str | None:
    """The words of a template that is one text in ``{{ }}``, None for any other."""
    match ENVIRONMENT.parse(template).body:
        case [nodes.Output(nodes=[nodes.Const(value=str(words))])]:
            return words
    return None


def _quoted(text: str) -> str:
    """A text as a Jinja literal, in single quotes as the seed has them."""
    escaped = json.dumps(text, ensure_ascii=False)[1:-1]
    return "'" + escaped.replace('\\"', '"').replace("'", "\\'") + "'"


def _is_value(text: str) -> bool:
    match ENVIRONMENT.parse(text).body:
        case [nodes.Output(nodes=[nodes.Name(name="value")])]:
            return True
    return False
