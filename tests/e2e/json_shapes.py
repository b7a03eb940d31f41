"""json_shapes.py — the notation of docs/CLI.md: reading it, and comparing a value with it."""

import re

TOKEN = re.compile(r"\s*([{}\[\]|:,?]|\*|[A-Za-z_][A-Za-z0-9_]*)")
WORDS = {"text": str, "bool": bool, "number": (int, float), "null": type(None)}


class Reader:
    """A shape is a list of alternatives: ("word", name), ("list", shape), ("object", members)."""

    def __init__(self, text):
        self.tokens = []
        at = 0
        while at < len(text):
            found = TOKEN.match(text, at)
            if not found:
                raise ValueError(f"no shape: {text[at:at + 40]!r}")
            self.tokens.append(found.group(1))
            at = found.end()

    def take(self, wanted=None):
        token = self.tokens.pop(0) if self.tokens else None
        if wanted is not None and token != wanted:
            raise ValueError(f"expected {wanted!r}, not {token!r}")
        return token

    def next_is(self, token):
        return bool(self.tokens) and self.tokens[0] == token

    def shape(self):
        alternatives = [self.single()]
        while self.next_is("|"):
            self.take("|")
            alternatives.append(self.single())
        return alternatives

    def single(self):
        token = self.take()
        if token == "[":
            inner = self.shape()
            self.take("]")
            return "list", inner
        if token == "{":
            return "object", self.members()
        if token not in WORDS and token != "any":
            raise ValueError(f"no type: {token!r}")
        return "word", token

    def members(self):
        members = {}
        while not self.next_is("}"):
            name = self.take()
            optional = self.next_is("?")
            if optional:
                self.take("?")
            self.take(":")
            members[name] = (optional, self.shape())
            if not self.next_is("}"):
                self.take(",")
        self.take("}")
        return members


def parse(text):
    reader = Reader(text)
    shape = reader.shape()
    if reader.tokens:
        raise ValueError(f"more behind the shape: {reader.tokens[:5]}")
    return shape


def misfit(value, shape, where="it"):
    """Why the value is none of the alternatives; None if it is one."""
    reasons = [misfit_of(value, kind, inner, where) for kind, inner in shape]
    if None in reasons:
        return None
    return max(reasons, key=lambda reason: (reason.split(" ")[0].count("."), len(reason)))


def misfit_of(value, kind, inner, where):
    if kind == "word":
        if inner == "any":
            return None
        good = isinstance(value, WORDS[inner]) and (inner == "bool" or not isinstance(value, bool))
        return None if good else f"{where} is no {inner}: {value!r}"
    if kind == "list":
        if not isinstance(value, list):
            return f"{where} is no list"
        reasons = (misfit(item, inner, f"{where}.{index}") for index, item in enumerate(value))
        return next((reason for reason in reasons if reason), None)
    if not isinstance(value, dict):
        return f"{where} is no object"
    if "*" in inner:
        reasons = (misfit(item, inner["*"][1], f"{where}.{key}") for key, item in value.items())
        return next((reason for reason in reasons if reason), None)
    for key, (optional, member) in inner.items():
        if key not in value:
            if not optional:
                return f"{where}.{key} is missing"
            continue
        reason = misfit(value[key], member, f"{where}.{key}")
        if reason:
            return reason
    extra = sorted(set(value) - set(inner))
    return f"{where}.{extra[0]} is not documented" if extra else None
