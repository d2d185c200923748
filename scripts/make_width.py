#!/usr/bin/env python3
"""Writes core/base/width_table.c: code points that take two columns or none on a terminal.

Two columns: East_Asian_Width W or F. None: general categories Mn, Me, Cf and the Hangul medial and
final letters, which join the letter before them. Unassigned code points between two ranges of the
same kind are taken in, which keeps the table short.
"""
import sys
import unicodedata

WIDE_PLANES = ((0x20000, 0x2FFFD), (0x30000, 0x3FFFD))


def kind(code):
    if any(first <= code <= last for first, last in WIDE_PLANES):
        return "wide"
    char = chr(code)
    category = unicodedata.category(char)
    if category == "Cn":
        return None
    if category in ("Mn", "Me", "Cf") and code != 0xAD or 0x1160 <= code <= 0x11FF:
        return "none"
    return "wide" if unicodedata.east_asian_width(char) in "WF" else "one"


def ranges(wanted):
    found = []
    for code in range(0x80, 0x110000):
        this = kind(code)
        if this == wanted:
            if found and found[-1][2]:
                found[-1][1] = code
            else:
                found.append([code, code, True])
        elif this is not None and found:
            found[-1][2] = False
    return [(first, last) for first, last, _ in found]


def table(name, items):
    cells = [f"{{0x{first:X}, 0x{last:X}}}," for first, last in items]
    lines, line = [], "   "
    for cell in cells:
        if len(line) + 1 + len(cell) > 100:
            lines.append(line)
            line = "   "
        line += " " + cell
    lines.append(line)
    body = "\n".join(lines)
    return (f"const mm_code_range {name}[] = {{\n{body}\n}};\n"
            f"const size_t {name}_count = sizeof {name} / sizeof {name}[0];\n")


def main():
    purpose = f"Terminal widths of Unicode {unicodedata.unidata_version}"
    sys.stdout.write(f"""/* {purpose}; written by scripts/make_width.py. */
#include "core/base/width.h"

// clang-format off
{table("mm_width_wide", ranges("wide"))}
{table("mm_width_none", ranges("none"))}""")


if __name__ == "__main__":
    main()
