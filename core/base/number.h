/* Numbers for people: short, with a unit, never more digits than help. NaN is "-". */
#ifndef MM_BASE_NUMBER_H
#define MM_BASE_NUMBER_H

#ifdef __cplusplus
extern "C" {
#endif

enum { MM_NUMBER_BYTES = 24 };
/* "1.23M", "4.50k", "17" */
void mm_count_text(double value, char out[MM_NUMBER_BYTES]);
/* "1.2 GiB", "512 B" */
void mm_bytes_text(double bytes, char out[MM_NUMBER_BYTES]);
/* Four significant digits: "2.314", "0.0005", "4.1e-05"; equally many decimals for equal sizes, so
 * that a column of losses lines up. */
void mm_real_text(double value, char out[MM_NUMBER_BYTES]);

#ifdef __cplusplus
}
#endif
#endif
