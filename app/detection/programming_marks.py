"""Marks by which a programming language gives itself away: what its code has and others' has not.

They stand in where no model was trained: magika knows 36 of our sixty languages and calls Ada VHDL,
Crystal Ruby and CUDA C. A mark is a word or a form of the language itself, not a habit of some
project. What they find on the starter corpus is measured by ``bench/detection.py``.
"""

from __future__ import annotations

import re
from collections.abc import Collection

# Points a language needs before its marks are believed; a mark that stands often gives more, but
# no more than these.
ENOUGH = 2
MOST_OF_ONE = 4

MARKS: dict[str, tuple[str, ...]] = {
    "Ada": (
        r"\b(?:with|use) Ada\.",
        r"^\s*(?:procedure|function|package body|package|task body) [\w.\"+]+[^;\n]*\bis\s*$",
        r"^\s*pragma \w+ \(",
        r"\bout (?:Integer|Natural|Boolean|String)\b",
        r"'(?:Range|First|Last|Length)\b(?!')",
    ),
    "Apex": (
        r"@isTest\b",
        r"@(?:Invocable(?:Method|Variable)|RestResource|HttpGet|HttpPost|future)\b",
        r"\b(?:UserInfo|ApexPages|Messaging|Site|Limits)\.\w+",
        r"\bString\.(?:isBlank|isNotBlank|valueOf)\(",
        r"@AuraEnabled",
        r"@TestVisible",
        r"\bSystem\.(?:debug|assert\w*|runAs)\(",
        r"\bTest\.(?:start|stop)Test\(",
        r"\bAssert\.are(?:Not)?Equal\(",
        r"\b(?:with|without|inherited) sharing class\b",
        r"\[\s*SELECT\s",
        r"^trigger \w+ on \w+",
        r"\bDatabase\.\w+\(",
        r"\bSObject\b",
        r"__c\b",
    ),
    "ARM-64 ASM": (
        r"^\s*(?:\w+:\s*)?(?:ldp|stp|ldr|str|adrp?|cbn?z|fmla|ld1|st1|movz|movk|madd|csel|"
        r"ubfx|eor|orr|b\.\w\w|ldrb|strb|ldur|stur)\s+\{?[xwvqds]\w*\d",
        r"\bv\d+\.(?:16b|8h|4s|2d|8b)\b",
        r"\b[xw]\d{1,2}\b(?=[,\]])",
    ),
    "C#": (
        r"\{ get;",
        r"^\s*using (?:System|Microsoft)\b",
        r"\b(?:public|private|protected|internal) (?:async|override|sealed|readonly|virtual) ",
        r"\bstring\.IsNullOrEmpty\(",
        r"^\s*namespace [\w.]+;?$",
    ),
    "C++": (
        r"\bstd::\w+",
        r"^\s*template ?<",
        r"\bnamespace \w+",
        r"\bnullptr\b",
        r"^\s*(?:public|private|protected):",
        r"\b\w+::\w+",
        r"\bconst \w+ ?&",
        r"#include <[a-z_]+>",
        r"\bstatic_cast<",
        r"\bclass \w+",
        r"\bvirtual\b",
        r"\boverride\b",
    ),
    "COBOL": (
        r"\b(?:IDENTIFICATION|ENVIRONMENT|DATA|PROCEDURE) DIVISION\b",
        r"\bWORKING-STORAGE SECTION\b",
        r"\bEND-(?:IF|PERFORM|EVALUATE|READ|CALL|STRING|COMPUTE|EXEC)\b",
        r"\bPIC(?:TURE)? (?:X|9|S9|A|Z)\b",
        r"\bPERFORM (?:UNTIL|VARYING|\d+-)",
    ),
    "Coq": (
        r"\b(?:Qed|Defined|Admitted)\.",
        r"^\s*Proof\b.*\.",
        r"^\s*Require (?:Import|Export)\b",
        r"^\s*(?:Lemma|Theorem|Fixpoint|Corollary|Inductive|CoInductive|Ltac|Notation|"
        r"Instance|Proposition|Program Definition) [\w']+",
    ),
    "Crystal": (
        r"\bdef \w+[?!]?\([^)\n]*\w+ : [A-Z]",
        r"\b(?:StaticArray|Slice|Pointer|Channel|Array|Hash)\([A-Z]\w*(?:, \w+)*\)",
        r"\d_(?:[iuf](?:8|16|32|64))\b",
        r"\.to_(?:i64|u8|u32|u64|f64|f32)\b",
        r"^\s*spawn (?:do|\{)",
        r"^\s*(?:abstract )?def [\w?!=]+(?:\([^)\n]*\))? : [A-Z]\w*",
        r"^\s*(?:property|getter|setter)[!?]? @?\w+ : ",
        r"\b(?:U?Int(?:8|16|32|64)|Float(?:32|64))\b(?![^\n]*;)",
        r"^\s*(?:abstract struct|private def|macro \w+)",
        r"^\s*lib \w+$",
        r"\.as\([A-Z]\w+",
        r"\{%\s*(?:if|for|end)",
        r": (?:String|Bool|Nil|Char)(?:\?| \|)",
        r"^\s*require \"(?:\./|spec|json|http|socket)",
    ),
    "CUDA": (
        r"\b__(?:global|device|shared|host|constant|launch_bounds|syncthreads|syncwarp|"
        r"shfl\w*|forceinline)__\b",
        r"__syncthreads\(",
        r"\b(?:thread|block)Idx\.",
        r"\bcuda(?:[A-Z]\w+)\b",
        r"\b__(?:dp4a|shfl_xor_sync|half22float2|hfma2)\b",
        r"\bcublas\w+",
    ),
    "D": (
        r"^\s*(?:public |private |static )?import (?:std|core|etc)\.",
        r"^module [\w.]+;",
        r"^\s*(?:@safe |pure |nothrow |@nogc )*unittest\b",
        r"@(?:safe|nogc|trusted|system|property)\b",
        r"\b__traits\(",
        r"\bstatic if\s*\(",
        r"\bforeach(?:_reverse)? ?\(\w+ ?[;,]",
        r"\bversion ?\(\w+\)",
        r"\bmixin(?: template)?\b",
        r"\bsize_t\b.*\bimmutable\b",
        r"\bis\(typeof\(",
        r"\bscope ?\((?:exit|failure|success)\)",
        r"\bto!\w+",
        r"\b(?:const|immutable|inout)\(\w+",
    ),
    "Dart": (
        r"^import 'package:",
        r"\b(?:late|final) [A-Z]\w*\?? \w+;",
        r"\bFuture<\w+> \w+\(",
    ),
    "Delphi": (
        r"^unit [\w.]+;",
        r"^\s*(?:procedure|function|constructor|destructor) T\w+\.\w+",
        r"^\s*T\w+ = (?:class|record|interface|packed)",
        r"^uses\s*$",
        r"^(?:interface|implementation|initialization)\s*$",
        r"\{\$(?:IFDEF|R|I|ENDIF|mode)\b",
        r"\bbegin\b[^\0]*\bend;",
    ),
    "F#": (
        r"^\s*let (?:inline|mutable|private|internal) ",
        r"^open (?:System|Microsoft|FSharp)",
        r"\[<\w+[^\n]*>\]",
        r"^\s*(?:static |abstract |override |default )?member (?:\w+|_)\.",
        r"\|> (?:List|Seq|Array|Option|Map|Set|Async)\.",
        r"\b(?:printfn|failwithf|sprintf) \"",
        r"^\s*(?:async|seq|task) \{",
        r"\bfun \w+ -> ",
    ),
    "Fortran": (
        r"(?i:^\s*(?:end )?(?:subroutine|module procedure|program)\b(?! [=:]))",
        r"(?i:^\s*implicit none)",
        r"(?i:^\s*(?:integer|real|logical|complex|character|double precision|type)\b[^\n]*::)",
        r"(?i:^\s*call \w+\s*\()",
        r"(?i:\bintent ?\((?:in|out|inout)\))",
        r"(?i:\.(?:eq|ne|lt|gt|le|ge|and|or|not|true|false)\.)",
        r"(?i:^\s*end ?(?:do|function|module|interface)\b)",
    ),
    "GDScript": (
        r"^(?:extends|class_name) \w+",
        r"^\s*(?:@export\w*|@onready|@tool|onready) ",
        r"^\s*(?:static )?func \w+\([^)\n]*\)(?: -> \w+)?:",
        r"^signal \w+",
        r"^\s*var \w+(?:: ?\w+)? ?:?= [^;\n]*$",
        r"\bget_node\(",
        r"\bqueue_free\(\)",
    ),
    "GLSL": (
        r"^#version \d+",
        r"\blayout ?\([^)\n]*(?:location|binding|local_size|std430|constant_id|push_constant)",
        r"\bgl_[A-Z]\w+",
        r"^#extension GL_",
        r"\b[iu]?vec[234]\b",
        r"\bsampler2D\b",
        r"\b(?:subgroup(?:Add|Max|Elect|ClusteredMax|Shuffle)|packHalf2x16|unpackHalf2x16|"
        r"bitfieldExtract|coopMat\w+|barrier)\(",
    ),
    "Go": (
        r"^func (?:\(\w+ \*?\w+\) )?\w+\(",
        r"^package \w+$",
        r"\bif err != nil\b",
        r"\bfmt\.\w+\(",
    ),
    "Haskell": (
        r"^\w+ :: ",
        r"^import (?:qualified )?[A-Z]\w*(?:\.[A-Z]\w*)+",
        r"^\{-# LANGUAGE",
        r"\bderiving \(",
        r"<\$>|<\*>|>>=",
    ),
    "Haxe": (
        r"\bfunction new ?\(",
        r"^\s*(?:override |inline |static |public |private )+function \w+",
        r"^import haxe\b",
        r"^package[ \w.]*;\s*$[^\0]*\bfunction \w+",
        r"@:\w+",
        r"\):(?:Void|Bool|Int|Float|String|Dynamic)\b",
        r": ?(?:Null|Array|Map)<\w+",
        r"^#if \(?(?:js|cpp|neko|flash|php|sys)\b",
        r"^\s*(?:public |private |static |inline )*var \w+ ?: ?\w+",
    ),
    "Lean": (
        r":= by\b",
        r"^\s*(?:@\[[\w, ]+\]\s*)?(?:theorem|lemma|instance|abbrev|noncomputable def|"
        r"protected theorem|private theorem) ",
        r"^import (?:Mathlib|Lean|Init|Std|Batteries)\b",
        r"^\s*(?:simp|rfl|exact|intro|rw|omega|cases|apply)\b(?: \[| \w|$)",
        r"^#(?:eval|check|print)\b",
        r"^\s*(?:structure|inductive|class) [\w.]+[^\n]*\bwhere\s*$",
        r"\bderiving (?:Repr|BEq|DecidableEq|Inhabited)",
        r"^\s*open [\w.]+ in\b",
        r"^set_option ",
        r"\bfun \w+ => ",
        r"^\s*(?:/--|/-!)",
    ),
    "LLVM IR": (
        r"^\s*%[\w.\-\"]+ = (?:\w+ )*(?:alloca|load|add|sub|mul|icmp|fcmp|call|phi|"
        r"getelementptr|select|bitcast|zext|sext|trunc|or|and|xor|shl|lshr|fadd|fmul|"
        r"extractelement|insertelement|shufflevector|extractvalue|freeze|sdiv|udiv|ptrtoint|"
        r"inttoptr)\b",
        r"^(?:define|declare) [^\n]*@[\w.$\"]+\(",
        r"^attributes #\d+ =",
        r"^target (?:triple|datalayout)",
        r"^; ?(?:CHECK|RUN)\b",
        r"^!\d+ = ",
        r"^@[\w.]+ = (?:\w+ )*(?:global|constant)\b",
    ),
    "Metal": (
        r"metal_stdlib",
        r"\[\[(?:thread|buffer|kernel|stage_in|position|host_name|simdgroup|texture|vertex_id|"
        r"function_constant)\w*",
        r"^\s*(?:\[\[\w[^\n]*\]\] )?kernel void",
        r"\bthreadgroup\b",
        r"\b(?:device|constant|thread) (?:const )?\w+ ?[*&(]",
        r"\bsimd(?:group)?_(?:sum|max|shuffle\w*|half8x8|float8x8|barrier|load|store|matrix)\b",
    ),
    "Nim": (
        r"^\s*(?:proc|template|iterator|converter|func) `?[\w=\[\]]+`?\*?(?:\[[^\]\n]*\])?\(",
        r"\{\.\s*\w+",
        r"^import (?:std/|strutils|os\b|tables|sequtils|macros)",
        r"^\s*when (?:defined|isMainModule)",
        r"\b(?:ref )?object of \w+",
        r"\bvar \w+\*? ?: ?(?:seq|ref|ptr|string|int)\b",
        r"\bnewSeq\[",
        r": (?:seq|openArray|varargs|array)\[",
        r"^\s*discard\b",
        r"\bnil\b.*\bresult\b",
        r"\bresult ?(?:=|\.add)",
        r"^\s*(?:let|var|const)\s*$",
    ),
    "PHP": (
        r"<\?php",
        r"\$this->",
        r"^namespace [\w\\]+;",
        r"^use \w+\\",
        r"\bfunction \w*\((?:\??\w+ )?&?\$\w+",
        r"\$\w+ ?= ",
    ),
    "Pony": (
        r"^\s*new (?:create|iso|val|ref|tag)\b",
        r"\benv\.out\.print",
        r"^\s*(?:fun|be) (?:ref|box|val|iso|tag) ",
        r"^\s*be \w+\(",
        r"^actor \w+",
        r"\b(?:iso|val|tag|trn)\^",
        r"\brecover (?:iso|val)?",
        r"\bPonyTest\b",
        r"\bconsume \w+",
    ),
    "Racket": (
        r"^#lang \w+",
        r"\(define-(?:syntax-rule|values|runtime-path|signature|contract)",
        r"\(check-(?:equal|true|false|exn|not-false)\??",
        r"\((?:require|provide) [\(\w]",
        r"\(define \(",
        r"\bfor/(?:list|fold|vector|hash|and|or)\b",
        r"\(let(?:\*|rec)?-values",
        r"\bracket/\w+",
        r"\[else\b",
        r"\(match(?:-define|-lambda)?\b",
        r"\(struct \w+",
    ),
    "VBA": (
        r"^Attribute VB_",
        r"^Option (?:Explicit|Base|Private|Compare)\b",
        r"\bApplication\.\w+",
        r"\bPtrSafe\b",
        r"\b(?:Work(?:sheet|book)s?|ActiveSheet|ThisWorkbook|ActiveWorkbook)\b",
        r"#If (?:VBA7|Win64|Mac)\b",
        r"\bOn Error (?:GoTo|Resume)\b",
        r"^\s*Set \w+ = ",
        r"\bCreateObject\(",
        r"\bDebug\.Print\b",
        r"\bAs (?:Variant|Range|LongPtr)\b",
    ),
    "Visual Basic": (
        r"^\s*Imports [\w.]+\s*$",
        r"^\s*End (?:Class|Namespace|Module|Property|Structure)\b",
        r"^\s*(?:Public |Private |Friend |Partial |NotInheritable |MustInherit )*(?:Class|"
        r"Module|Namespace|Structure) \w+",
        r"\bConsole\.Write(?:Line)?\b",
        r"^\s*Inherits \w",
        r"\bHandles \w+\.",
        r"\bDirectCast\(",
        r"\bAndAlso\b",
        r"\bOrElse\b",
        r"\bOf [A-Z]\w+\)",
    ),
    "Vulkan": (
        r"\bvk[A-Z]\w+\(",
        r"\bVK_[A-Z]\w+",
        r"\bVk[A-Z]\w+",
        r"\bvk::",
        r"\bvulkan\b",
    ),
    "x86-64 ASM": (
        r"^\s*v?p(?:add|sub|mul|madd|shuf|unpck|ack|max|min|and|or|xor|cmp|sll|srl)\w* ",
        r"^\s*(?:lea|push|pop|jmp|jn?[zeglb]|mov[aupdqsz]\w*|cglobal) ",
        r"%?\b(?:r[abcd]x|e[abcd]x|r[sd]i|e[sd]i|[re]sp|[re]bp|r(?:8|9|1[0-5])[dwb]?|[xyz]mm\d+)\b",
    ),
}

_PATTERNS = {
    language: [re.compile(mark, re.MULTILINE) for mark in marks]
    for language, marks in MARKS.items()
}


def marked(code: str, among: Collection[str], enough: int = ENOUGH) -> str | None:
    """The one language of ``among`` whose marks the code has most of; None where too few marks
    stand in it, or two languages have as many."""
    points = sorted(
        ((_points(code, patterns), language) for language, patterns in _PATTERNS.items()
         if language in among),
        reverse=True,
    )  # fmt: skip
    if not points or points[0][0] < enough:
        return None
    if len(points) > 1 and points[0][0] == points[1][0]:
        return None
    return points[0][1]


def _points(code: str, patterns: list[re.Pattern[str]]) -> int:
    return sum(min(MOST_OF_ONE, sum(1 for _ in pattern.finditer(code))) for pattern in patterns)
