/* Numbers, times and paths as a reader of the report sees them. C-locale decimals, UTC. */
#ifndef MM_REPORT_FMT_H
#define MM_REPORT_FMT_H

#include "core/base/mem.h"

enum { MM_FMT_BYTES = 48 };

/* Four significant digits: "2.314", "0.0005", "1.2e-05", "NaN", "inf". NaN stands for "not known"
 * in most records, so callers test for it first where that matters. */
void mm_fmt_number(double value, char out[MM_FMT_BYTES]);
/* "63,912,192" */
void mm_fmt_count(int64_t value, char out[MM_FMT_BYTES]);
/* "2026-11-21 01:02 UTC"; "–" for 0. */
void mm_fmt_time(int64_t epoch_ms, char out[MM_FMT_BYTES]);
/* An axis label: as many decimals as ticks `spacing` apart need; large values shortened. */
void mm_fmt_tick(double value, double spacing, char out[MM_FMT_BYTES]);
/* A number for machines: shortest of up to `digits` significant digits, "null" when not finite. */
void mm_fmt_json(mm_str *out, double value, int digits);

/* Leaves out what tells about the machine: every absolute path keeps only its last component
 * ("/home/me/data.jsonl" → "…/data.jsonl"), every occurrence of `host` (may be NULL) becomes
 * "[host]". The result lives in the arena; NULL gives NULL. */
const char *mm_fmt_private(mm_arena *arena, const char *text, const char *host);

/* At most `columns` columns wide (East Asian characters count two), "…" at the end when cut. */
const char *mm_fmt_fit(mm_arena *arena, const char *text, int columns);
/* "zh", "ja", "ko" when the text holds such script, NULL otherwise: for the lang attribute. */
const char *mm_fmt_language(const char *text);

#endif
