"""A second bencode decoder, written from BEP 3 alone, to judge the one in Rust.

Reads records (4 bytes big-endian length, then the text) from standard input. Answers each
with a line: "-" if the text is refused, else "start.end" of every value, keys included, in
the order in which they begin. Arguments: deepest nesting, most values.

It recurses and slices where the other iterates, so that no mistake is likely to be shared.
"""

import re
import struct
import sys

DEPTH_MAX, VALUES_MAX = int(sys.argv[1]), int(sys.argv[2])
INTEGER = re.compile(rb"i(0|-?[1-9][0-9]*)e")
LENGTH = re.compile(rb"(0|[1-9][0-9]*):")


class Refused(Exception):
    pass


def value(text, start, depth, spans):
    place = len(spans)
    spans.append(None)
    if len(spans) > VALUES_MAX:
        raise Refused
    first = text[start : start + 1]
    if first == b"i":
        match = INTEGER.match(text, start)
        if not match or not -(2**63) <= int(match[1]) < 2**63:
            raise Refused
        end = match.end()
    elif first in (b"l", b"d"):
        if depth == DEPTH_MAX:
            raise Refused
        end = container(text, start + 1, depth + 1, spans, first == b"d")
    else:
        match = LENGTH.match(text, start)
        if not match:
            raise Refused
        end = match.end() + int(match[1])
        if end > len(text):
            raise Refused
    spans[place] = (start, end)
    return end


def container(text, at, depth, spans, is_dictionary):
    keys = set()
    while text[at : at + 1] != b"e":
        if is_dictionary:
            if not text[at : at + 1].isdigit():
                raise Refused
            start, at = at, value(text, at, depth, spans)
            key = text[start:at]
            if key in keys:
                raise Refused
            keys.add(key)
        at = value(text, at, depth, spans)
    return at + 1


def main():
    records = sys.stdin.buffer
    while header := records.read(4):
        text = records.read(struct.unpack(">I", header)[0])
        spans = []
        try:
            if value(text, 0, 0, spans) != len(text):
                raise Refused
            print(" ".join(f"{start}.{end}" for start, end in spans))
        except Refused:
            print("-")


main()
