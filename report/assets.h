/* Style sheet and script of the report, embedded at build time from report/assets/. */
#ifndef MM_REPORT_ASSETS_H
#define MM_REPORT_ASSETS_H

#include <stddef.h>

extern const unsigned char mm_report_css[];
extern const size_t mm_report_css_bytes;
extern const unsigned char mm_report_js[];
extern const size_t mm_report_js_bytes;

#endif
