/* GPT-2's splitting rule: cuts a text into the words inside which byte pairs are merged.
 *
 *   's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
 *
 * written by hand over the pinned table of unicode.h. The words of a text joined give the text.
 */
#ifndef MM_TEXT_SPLIT_H
#define MM_TEXT_SPLIT_H

#include <stddef.h>

/* Bytes of the first word of `text`, 1..length. Needs length > 0 and well-formed UTF-8. The end of
 * the text counts as the end for the rule's look-ahead. */
size_t mm_split_next(const char *text, size_t length);

#endif
