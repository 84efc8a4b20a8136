# SPDX-License-Identifier: Apache-2.0
"""The changes that mutate.py tries on a C++ source: one token or one statement each. It reads tokens only, so it relies
on clang-format's spaces (a binary operator has one on both sides, a bracket of a template none); what does not compile
is sorted out by the compiler."""
import re
from typing import NamedTuple

TOKEN = re.compile(r"""
    (?P<comment>//[^\n]*|/\*.*?\*/)
  | (?P<directive>^[ \t]*\#(?:[^\n\\]|\\\n|\\.)*)
  | (?P<string>(?:u8|[uUL])?R"(?P<mark>[^()\\\s]*)\(.*?\)(?P=mark)"|(?:u8|[uUL])?"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)+')
  | (?P<number>0[xX][\da-fA-F']+[uUlLzZ]*|(?:\d[\d']*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?[uUlLfFzZ]*)
  | (?P<word>[A-Za-z_]\w*)
  | (?P<sign><<=|>>=|<=>|->\*|\.\.\.|::|->|\+\+|--|&&|\|\||[<>=!+\-*/%&|^]=|<<|>>|[^\s\w])
""", re.X | re.S | re.M)

BINARY = {
    "<": ["<="], "<=": ["<"], ">": [">="], ">=": [">"], "==": ["!="], "!=": ["=="],
    "+": ["-"], "-": ["+"], "*": ["/"], "/": ["*"], "%": ["/"], "<<": [">>"], ">>": ["<<"],
    "&": ["|"], "|": ["&"], "^": ["|"], "&&": ["||"], "||": ["&&"],
    "+=": ["-=", "="], "-=": ["+=", "="], "*=": ["/=", "="], "/=": ["*=", "="], "|=": ["&="], "&=": ["|="], "^=": ["|="],
    "?": ["|| true ?", "&& false ?"],
}
WORDS = {"true": "false", "false": "true", "min": "max", "max": "min", "overwrite": "accumulate", "accumulate": "overwrite"}
NO_STATEMENT = {"return", "if", "for", "while", "do", "switch", "case", "default", "else", "using", "typedef", "template",
                "namespace", "struct", "class", "enum", "static", "const", "constexpr", "auto", "static_assert", "goto",
                "try", "catch", "public", "private", "protected", "friend", "explicit", "virtual", "extern", "inline",
                "operator", "union", "unsigned", "signed", "typename"}


class Token(NamedTuple):
    kind: str
    text: str
    begin: int
    end: int


class Mutant(NamedTuple):
    operator: str
    line: int
    begin: int
    end: int
    replacement: str

    def apply(self, text):
        return text[: self.begin] + self.replacement + text[self.end:]

    def describe(self, text):
        """`what stood there -> what stands there` within its line."""
        first = text.rfind("\n", 0, self.begin) + 1
        last = text.find("\n", self.end)
        before, middle, after = text[first:self.begin], text[self.begin:self.end], text[self.end:last]
        return f"{before.lstrip()}[{' '.join(middle.split())} -> {self.replacement}]{after}"


def tokens_of(text):
    """Tokens of the code for CPUs: no comments, strings or directives, nothing that is compiled for CUDA alone."""
    tokens, skipping = [], []
    for match in TOKEN.finditer(text):
        kind = match.lastgroup if match.lastgroup != "mark" else "string"
        if kind == "directive":
            words = match.group().split("#", 1)[1].split()
            if words[0].startswith("if"):
                skipping.append("DEKODER_BACKEND_CUDA" in match.group() and "!" not in match.group() and words[0] != "ifndef")
            elif words[0] in ("else", "elif"):
                skipping[-1] = not skipping[-1] if words[0] == "else" and skipping[-1] else False
            elif words[0] == "endif":
                skipping.pop()
        elif kind != "comment" and not any(skipping):
            tokens.append(Token(kind, match.group(), match.start(), match.end()))
    return tokens


def mutants_of(text):
    tokens = tokens_of(text)
    line_at = lambda place: text.count("\n", 0, place) + 1
    found = []

    def add(operator, begin, end, replacement):
        if text[begin:end] != replacement:
            found.append(Mutant(operator, line_at(begin), begin, end, replacement))

    for i, token in enumerate(tokens):
        spaced = text[token.begin - 1:token.begin].isspace() and text[token.end:token.end + 1].isspace()
        if token.kind == "sign" and spaced and token.text in BINARY:
            for other in BINARY[token.text]:
                add(operator_name(token.text), token.begin, token.end, other)
        elif token.text in ("++", "--"):
            add("increment", token.begin, token.end, "--" if token.text == "++" else "++")
        elif token.text == "!":
            add("condition", token.begin, token.end, "")
        elif token.kind == "word" and token.text in WORDS:
            add("word", token.begin, token.end, WORDS[token.text])
        elif token.kind == "number":
            for other in other_numbers(token.text):
                add("constant", token.begin, token.end, other)
        elif token.text in ("if", "while") and tokens[i + 1].text == "(":
            close = closing(tokens, i + 1)
            if not any(t.text in (";", "=") for t in tokens[i + 2:close]):  # no declaration inside
                inner = text[tokens[i + 1].end:tokens[close].begin]
                add("condition", tokens[i + 1].end, tokens[close].begin, f"!({inner})")
        if token.text == "(" and i > 0 and tokens[i - 1].kind == "word" and tokens[i - 1].text not in NO_STATEMENT:
            for begin, middle_begin, middle_end, end in swappable(text, tokens, i):
                add("arguments", begin, end, text[middle_end:end] + text[middle_begin:middle_end] + text[begin:middle_begin])
    all_statements = list(statements(tokens))
    thrown = [(tokens[begin].begin, tokens[end].end) for begin, end in all_statements if tokens[begin].text == "throw"]
    found = [m for m in found if not any(begin <= m.begin < end for begin, end in thrown)]  # what a message says
    for begin, end in all_statements:
        add("statement", tokens[begin].begin, tokens[end].begin, "")
    return sorted(found, key=lambda mutant: (mutant.begin, mutant.end, mutant.replacement))


def operator_name(sign):
    if sign in ("<", "<=", ">", ">=", "==", "!="):
        return "relation"
    if sign in ("&&", "||", "?"):
        return "condition"
    return "assignment" if sign.endswith("=") else "arithmetic"


def other_numbers(text):
    """The neighbours of a constant, with its suffix: 8 -> 9 and 7, 0.5f -> 1.5f, 1e-6 -> 1.000001."""
    digits, suffix = re.fullmatch(r"(0[xX][\da-fA-F']+|[\d.'eE+-]+?)([uUlLfFzZ]*)", text).groups()
    digits = digits.replace("'", "")
    if re.fullmatch(r"0[xX].*|\d+", digits):
        value = int(digits, 0) if digits[:2] in ("0x", "0X") else int(digits)
        return [f"{other}{suffix}" for other in (value + 1, value - 1) if other >= 0]
    return [f"{float(digits) + 1!r}{suffix}"]


def closing(tokens, opening):
    depth = 0
    for i in range(opening, len(tokens)):
        depth += {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}.get(tokens[i].text, 0)
        if depth == 0:
            return i
    raise ValueError("a bracket is not closed")


def swappable(text, tokens, opening):
    """(begin of a, end of a, begin of b, end of b) for neighbouring arguments a, b that are names, members or numbers."""
    pieces, start, close = [], opening + 1, closing(tokens, opening)
    i = start
    while i <= close:
        if tokens[i].text == "," or i == close:
            pieces.append(tokens[start:i])
            start = i + 1
        elif tokens[i].text in ("(", "[", "{"):
            i = closing(tokens, i)
        i += 1
    simple = lambda piece: piece and all(t.kind in ("word", "number") or t.text in (".", "->", "::") for t in piece) \
        and not any(a.kind == b.kind == "word" for a, b in zip(piece, piece[1:]))  # `int a` is a parameter
    for a, b in zip(pieces, pieces[1:]):
        if simple(a) and simple(b):
            yield a[0].begin, a[-1].end, b[0].begin, b[-1].end


def statements(tokens):
    """(first, semicolon) of each statement that is an assignment, a call, a throw, a break or a continue."""
    for i, token in enumerate(tokens):
        starts = i > 0 and (tokens[i - 1].text in (";", "{", "}", "else") or
                            (tokens[i - 1].text == ")" and after_head(tokens, i - 1)))
        if not starts or token.text in NO_STATEMENT or token.kind not in ("word", "sign"):
            continue
        if token.kind == "sign" and token.text not in ("++", "--"):
            continue
        end = i
        while end < len(tokens) and tokens[end].text != ";":
            end = closing(tokens, end) if tokens[end].text in ("(", "[", "{") else end
            end += 1
            if end < len(tokens) and tokens[end].text in (")", "]", "}"):
                end = len(tokens)
        if end >= len(tokens):
            continue
        if token.text in ("throw", "break", "continue", "++", "--") or is_expression(tokens, i, end):
            yield i, end


def after_head(tokens, close):
    """Whether the bracket that ends at `close` is that of an if, for or while."""
    depth = 0
    for i in range(close, -1, -1):
        depth += {")": 1, "(": -1}.get(tokens[i].text, 0)
        if depth == 0:
            return tokens[i - 1].text in ("if", "for", "while", "constexpr")
    return False


def is_expression(tokens, begin, end):
    """name.member->other[...] followed by a call or an assignment; `Type name` is a declaration."""
    i = begin
    while i < end:
        if tokens[i].kind == "word":
            if i > begin and tokens[i - 1].kind == "word":
                return False
            i += 1
        elif tokens[i].text in (".", "->", "::"):
            i += 1
        elif tokens[i].text == "[":
            i = closing(tokens, i) + 1
        elif tokens[i].text == "(":
            return tokens[closing(tokens, i) + 1].text not in ("{", ":", "const", "noexcept")  # the head of a function
        else:
            return tokens[i].text in ("=", "+=", "-=", "*=", "/=", "|=", "&=", "^=", "++", "--")
    return False
