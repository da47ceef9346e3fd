"""The grammar of the memory engine's shell: a useful part of POSIX sh, as a tree.

Lists with `;`, `&`, `&&`, `||`, `!` and pipelines; `if`, `while`, `until`, `for`, `{ }` and `( )`; quotes,
variables and `$( )`; redirections of files and descriptors. No functions, `case`, arithmetic, globs,
aliases or here-documents: a script with one of those is refused, never run differently.
"""

from __future__ import annotations

import re
from dataclasses import field

from sandboxfile.declared import dataclass

_OPERATORS = ("&&", "||", ";;", "<<", ">>", ">&", "<&", ";", "&", "|", "(", ")", "<", ">", "\n")
_RESERVED = frozenset(
    [
        "if",
        "then",
        "elif",
        "else",
        "fi",
        "while",
        "until",
        "for",
        "in",
        "do",
        "done",
        "{",
        "}",
        "!",
        "case",
        "esac",
    ]
)
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=", re.ASCII)


class ShellSyntaxError(Exception):
    """A script that is wrong, or that asks for more than this shell does."""


@dataclass(frozen=True)
class Redirect:
    """`descriptor` goes to (`>`, `>>`), comes from (`<`) or becomes (`>&`) `target`, a raw word."""

    descriptor: int
    operator: str
    target: str


@dataclass(frozen=True)
class Simple:
    """Assignments, words and redirections; words are raw, quotes and all."""

    assignments: tuple[str, ...]
    words: tuple[str, ...]
    redirects: tuple[Redirect, ...]


@dataclass(frozen=True)
class Group:
    """A list in braces, or in parentheses (`subshell`)."""

    body: Script
    subshell: bool
    redirects: tuple[Redirect, ...]


@dataclass(frozen=True)
class If:
    """Conditions and what they lead to, and what `else` does."""

    branches: tuple[tuple[Script, Script], ...]
    otherwise: Script | None
    redirects: tuple[Redirect, ...] = ()


@dataclass(frozen=True)
class While:
    """A loop; `until` when negated."""

    condition: Script
    body: Script
    negated: bool
    redirects: tuple[Redirect, ...] = ()


@dataclass(frozen=True)
class For:
    """A loop over words."""

    name: str
    words: tuple[str, ...]
    body: Script
    redirects: tuple[Redirect, ...] = ()


Node = Simple | Group | If | While | For


@dataclass(frozen=True)
class Pipeline:
    """Commands joined by pipes."""

    commands: tuple[Node, ...]
    negated: bool


@dataclass(frozen=True)
class AndOr:
    """Pipelines, each with the operator before it (`&&`, `||`, or nothing for the first)."""

    parts: tuple[tuple[str, Pipeline], ...]
    background: bool


@dataclass(frozen=True)
class Script:
    """A list of commands."""

    items: tuple[AndOr, ...] = ()


@dataclass(frozen=True)
class _Token:
    text: str
    operator: bool
    descriptor: int | None = None


def parse(text: str) -> Script:
    """The tree of a script. ShellSyntaxError."""
    parser = _Parser(_tokens(text))
    script = parser.script(frozenset())
    if parser.peek() is not None:
        raise ShellSyntaxError(f"unexpected `{parser.peek_text()}`")
    return script


def word_end(text: str, start: int) -> int:
    """Where the word that begins at `start` ends."""
    at = start
    while at < len(text) and text[at] not in " \t\n;&|()<>":
        if text[at] == "\\":
            at += 2
        elif text[at] == "'":
            at = _closing(text, at + 1, "'")
        elif text[at] == '"':
            at = _closing_double(text, at + 1)
        elif text.startswith("$(", at):
            at = closing_parenthesis(text, at + 2)
        elif text.startswith("${", at):
            at = _closing(text, at + 2, "}")
        elif text[at] == "`":
            raise ShellSyntaxError("backquotes are not supported, write $( )")
        else:
            at += 1
    return min(at, len(text))


def closing_parenthesis(text: str, start: int) -> int:
    """One past the `)` that closes what began before `start`."""
    if text.startswith("(", start):
        raise ShellSyntaxError("arithmetic is not supported")
    at = start
    while at < len(text) and text[at] != ")":
        if text[at] == "(":
            at = closing_parenthesis(text, at + 1)
        elif text[at] in " \t\n;&|<>":
            at += 1
        else:
            at = max(word_end(text, at), at + 1)
    if at >= len(text):
        raise ShellSyntaxError("`(` is not closed")
    return at + 1


def _closing(text: str, start: int, mark: str) -> int:
    end = text.find(mark, start)
    if end < 0:
        raise ShellSyntaxError(f"`{mark}` is missing")
    return end + 1


def _closing_double(text: str, start: int) -> int:
    at = start
    while at < len(text) and text[at] != '"':
        if text[at] == "\\":
            at += 2
        elif text.startswith("$(", at):
            at = closing_parenthesis(text, at + 2)
        else:
            at += 1
    return _closing(text, at, '"')


def _tokens(text: str) -> list[_Token]:
    tokens: list[_Token] = []
    at = 0
    while at < len(text):
        if text[at] in " \t":
            at += 1
        elif text.startswith("\\\n", at):
            at += 2
        elif text[at] == "#":
            while at < len(text) and text[at] != "\n":
                at += 1
        elif (found := re.compile(r"(\d)(>>|>&|<&|>|<)").match(text, at)) is not None:
            tokens.append(_Token(found[2], True, int(found[1])))
            at = found.end()
        elif operator := next((op for op in _OPERATORS if text.startswith(op, at)), None):
            tokens.append(_Token(operator, True))
            at += len(operator)
        else:
            end = word_end(text, at)
            tokens.append(_Token(text[at:end], False))
            at = end
    return tokens


@dataclass
class _Parser:
    tokens: list[_Token]
    at: int = field(default=0)

    def peek(self) -> _Token | None:
        return self.tokens[self.at] if self.at < len(self.tokens) else None

    def peek_text(self) -> str:
        token = self.peek()
        return "end of script" if token is None else token.text

    def script(self, ends: frozenset[str]) -> Script:
        items = []
        while True:
            self._newlines()
            token = self.peek()
            if token is None or token.text in ends or token.text == ")":
                break
            items.append(self._and_or())
        return Script(tuple(items))

    def _and_or(self) -> AndOr:
        parts = [("", self._pipeline())]
        while (token := self.peek()) and token.operator and token.text in ("&&", "||"):
            self.at += 1
            self._newlines()
            parts.append((token.text, self._pipeline()))
        token = self.peek()
        background = token is not None and token.operator and token.text == "&"
        if token is not None and token.operator and token.text in (";", "&", "\n"):
            self.at += 1
        return AndOr(tuple(parts), background)

    def _pipeline(self) -> Pipeline:
        negated = self._take("!")
        commands = [self._command()]
        while (token := self.peek()) and token.operator and token.text == "|":
            self.at += 1
            self._newlines()
            commands.append(self._command())
        return Pipeline(tuple(commands), negated)

    def _command(self) -> Node:
        token = self.peek()
        if token is None:
            raise ShellSyntaxError("a command is missing")
        if token.text == "(" and token.operator:
            self.at += 1
            body = self.script(frozenset())
            self._expect(")")
            return Group(body, True, self._redirects())
        if token.text == "{":
            self.at += 1
            body = self.script(frozenset({"}"}))
            self._expect("}")
            return Group(body, False, self._redirects())
        if token.text == "if":
            return self._if()
        if token.text in ("while", "until"):
            self.at += 1
            condition = self.script(frozenset({"do"}))
            return While(condition, self._loop_body(), token.text == "until", self._redirects())
        if token.text == "for":
            return self._for()
        return self._simple()

    def _if(self) -> If:
        branches = []
        otherwise = None
        while self._take("if") or self._take("elif"):
            condition = self.script(frozenset({"then"}))
            self._expect("then")
            branches.append((condition, self.script(frozenset({"elif", "else", "fi"}))))
        if self._take("else"):
            otherwise = self.script(frozenset({"fi"}))
        self._expect("fi")
        return If(tuple(branches), otherwise, self._redirects())

    def _for(self) -> For:
        self.at += 1
        name = self.peek_text()
        self.at += 1
        words = []
        if self._take("in"):
            while (token := self.peek()) and not token.operator:
                words.append(token.text)
                self.at += 1
        if (token := self.peek()) and token.text == ";":
            self.at += 1
        self._newlines()
        return For(name, tuple(words), self._loop_body(), self._redirects())

    def _loop_body(self) -> Script:
        self._expect("do")
        body = self.script(frozenset({"done"}))
        self._expect("done")
        return body

    def _simple(self) -> Simple:
        assignments: list[str] = []
        words: list[str] = []
        redirects: list[Redirect] = []
        while (token := self.peek()) is not None:
            if token.operator:
                if token.text not in (">", ">>", "<", ">&", "<&", "<<"):
                    break
                redirects.append(self._redirect())
                continue
            if not words and not assignments and token.text in _RESERVED:
                raise ShellSyntaxError(f"`{token.text}` is not supported here")
            if not words and _ASSIGNMENT.match(token.text):
                assignments.append(token.text)
            else:
                words.append(token.text)
            self.at += 1
        following = self.peek()
        if following is not None and following.text == "(":
            raise ShellSyntaxError("functions are not supported")
        if not (assignments or words or redirects):
            raise ShellSyntaxError(f"unexpected `{self.peek_text()}`")
        return Simple(tuple(assignments), tuple(words), tuple(redirects))

    def _redirects(self) -> tuple[Redirect, ...]:
        found = []
        while (token := self.peek()) and token.operator and token.text in (">", ">>", "<", ">&"):
            found.append(self._redirect())
        return tuple(found)

    def _redirect(self) -> Redirect:
        token = self.tokens[self.at]
        target = self.tokens[self.at + 1] if self.at + 1 < len(self.tokens) else None
        if token.text in ("<<", "<&"):
            raise ShellSyntaxError(f"`{token.text}` is not supported")
        if target is None or target.operator:
            raise ShellSyntaxError(f"`{token.text}` needs a target")
        self.at += 2
        descriptor = token.descriptor if token.descriptor is not None else (0 if token.text == "<" else 1)
        return Redirect(descriptor, token.text, target.text)

    def _newlines(self) -> None:
        while (token := self.peek()) and token.operator and token.text == "\n":
            self.at += 1

    def _take(self, word: str) -> bool:
        token = self.peek()
        if token is not None and token.text == word:
            self.at += 1
            return True
        return False

    def _expect(self, word: str) -> None:
        if not self._take(word):
            raise ShellSyntaxError(f"`{word}` is missing before `{self.peek_text()}`")
