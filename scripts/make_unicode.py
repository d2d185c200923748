#!/usr/bin/env python3
"""Writes core/text/unicode_table.c: the character classes that GPT-2's splitting rule asks for.

The table is pinned to one Unicode version, the one of Hugging Face tokenizers 0.22 (Oniguruma
6.9.10), because a newer letter changes how a text is split and with it the ids. Needs a Python
whose unicodedata has that version, or the package unicodedata2 of that version.

    make_unicode.py           writes the table
    make_unicode.py --check   exits 1 if the committed table differs, 77 (skipped) where it
                              cannot tell
"""
import argparse
import pathlib
import sys
import unicodedata

VERSION = "16.0.0"
BLOCK = 128  # code points per block; unicode.h knows it as MM_UNICODE_BLOCK
OUTPUT = pathlib.Path(__file__).resolve().parent.parent / "core" / "text" / "unicode_table.c"

OTHER, LETTER, NUMBER, SPACE = range(4)

# White_Space of PropList.txt, unchanged since Unicode 6.3. str.isspace() is no substitute: it adds
# U+001C..U+001F.
WHITE_SPACE = {*range(0x09, 0x0E), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029,
               0x202F, 0x205F, 0x3000}


def database():
    if unicodedata.unidata_version == VERSION:
        return unicodedata
    try:
        import unicodedata2
    except ImportError:
        unicodedata2 = None
    if unicodedata2 is None or unicodedata2.unidata_version != VERSION:
        return None
    return unicodedata2


def class_of(data, code):
    if code in WHITE_SPACE:
        return SPACE
    return {"L": LETTER, "N": NUMBER}.get(data.category(chr(code))[0], OTHER)


def numbers(values, form, per_line):
    lines = []
    for start in range(0, len(values), per_line):
        cells = ", ".join(form % value for value in values[start:start + per_line])
        lines.append(f"    {cells},")
    return "\n".join(lines)


def table(data):
    classes = [class_of(data, code) for code in range(0x110000)]
    last = max(code for code in range(0x110000) if classes[code] != OTHER)
    n_blocks = last // BLOCK + 1
    index = []
    blocks = {}
    for block in range(n_blocks):
        content = tuple(classes[block * BLOCK:(block + 1) * BLOCK])
        index.append(blocks.setdefault(content, len(blocks)))
    assert len(blocks) <= 256, "an index entry is one byte"
    words = []
    for content in blocks:
        for start in range(0, BLOCK, 16):
            words.append(sum(content[start + i] << 2 * i for i in range(16)))
    return f"""\
/* Character classes of Unicode {VERSION}. Written by scripts/make_unicode.py: do not edit.
 *
 * Two stages: the block of {BLOCK} code points a code point lies in gives a row, the row holds two
 * bits for each of them, {BLOCK // 16} words in all. Everything above the last block is
 * MM_CHAR_OTHER.
 */
// clang-format off
#include "core/text/unicode.h"

const uint32_t mm_unicode_blocks = {n_blocks};

const uint8_t mm_unicode_index[] = {{
{numbers(index, "%d", 24)}
}};

const uint32_t mm_unicode_rows[] = {{
{numbers(words, "0x%08x", 8)}
}};
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    options = parser.parse_args()
    data = database()
    if data is None:
        print(f"make_unicode: needs Unicode {VERSION}, this Python has "
              f"{unicodedata.unidata_version}; pip install unicodedata2=={VERSION}",
              file=sys.stderr)
        sys.exit(77 if options.check else 1)
    text = table(data)
    if options.check:
        if OUTPUT.read_text() != text:
            sys.exit(f"make_unicode: {OUTPUT} is stale")
    else:
        OUTPUT.write_text(text)


if __name__ == "__main__":
    main()
