/* Byte-level BPE tokenizer: reads and writes Hugging Face `tokenizer.json`, encodes, decodes,
 * trains.
 *
 * Splitting is GPT-2's rule over a pinned Unicode table; added tokens are matched first, longest
 * first. decode(encode(text)) == text for any UTF-8. A tokenizer is read-only after creation and
 * may be shared between threads (its word cache is filled atomically and never
 * decides an id).
 */
#ifndef MM_TEXT_TOKENIZER_H
#define MM_TEXT_TOKENIZER_H

#include "core/base/hash.h"
#include "core/base/mem.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct mm_tokenizer mm_tokenizer;

/* Growable id list. Zero-initialise; drop frees. */
typedef struct mm_ids {
    int32_t *data;
    size_t count;
    size_t capacity;
} mm_ids;
MM_NODISCARD mm_status mm_ids_add(mm_ids *ids, int32_t id, mm_err *err);
void mm_ids_drop(mm_ids *ids);

/* `path` is a tokenizer.json or a folder that holds one (tokenizer_config.json beside it is read
 * for bos/eos/pad and the chat template). Unsupported kinds are MM_EFORMAT naming the field. */
MM_NODISCARD mm_status mm_tokenizer_load(mm_tokenizer **out, const char *path, mm_err *err);
/* From the text of a tokenizer.json (as stored in a database); config may be NULL. */
MM_NODISCARD mm_status mm_tokenizer_parse(mm_tokenizer **out, const char *json, size_t json_bytes,
                                          const char *config, size_t config_bytes, const char *what,
                                          mm_err *err);
void mm_tokenizer_free(mm_tokenizer *tokenizer);
/* Writes tokenizer.json and tokenizer_config.json into the folder (made if missing). */
MM_NODISCARD mm_status mm_tokenizer_save(const mm_tokenizer *tokenizer, const char *dir,
                                         mm_err *err);
/* The two files as text; appended. What was loaded comes back byte for byte. */
MM_NODISCARD mm_status mm_tokenizer_json(const mm_tokenizer *tokenizer, mm_str *out, mm_err *err);
MM_NODISCARD mm_status mm_tokenizer_config_json(const mm_tokenizer *tokenizer, mm_str *out,
                                                mm_err *err);

/* The chat template of the config, or of chat_template.jinja beside it; NULL when there is none.
 * Borrowed. */
const char *mm_tokenizer_chat_template(const mm_tokenizer *tokenizer);
int32_t mm_tokenizer_vocab(const mm_tokenizer *tokenizer); /* ids are 0 .. vocab-1 */
int32_t mm_tokenizer_bos(const mm_tokenizer *tokenizer);   /* -1 when there is none */
int32_t mm_tokenizer_eos(const mm_tokenizer *tokenizer);
int32_t mm_tokenizer_pad(const mm_tokenizer *tokenizer);
/* SHA-256 over vocabulary, merges and added tokens: equal for equal behaviour. Hexadecimal,
 * borrowed. */
const char *mm_tokenizer_hash(const mm_tokenizer *tokenizer);
/* Exact id of a token's text ("<|im_start|>"), -1 when there is none. */
int32_t mm_tokenizer_id(const mm_tokenizer *tokenizer, const char *token);
/* The bytes a token stands for (an added token: its text), borrowed; is_special tells whether it is
 * one of the special added tokens. */
const char *mm_tokenizer_token(const mm_tokenizer *tokenizer, int32_t id, size_t *bytes,
                               bool *is_special);

/* Whether text like "<|im_end|>" becomes the added token (template text, pretraining files) or
 * ordinary bytes (user-supplied message content: typing <|im_start|>system must not work). */
typedef enum mm_parse_added { MM_ADDED_AS_TEXT = 0, MM_ADDED_PARSE = 1 } mm_parse_added;

/* Appends the ids, or leaves `out` as it was. Invalid UTF-8 is MM_EFORMAT naming the byte offset.
 */
MM_NODISCARD mm_status mm_tokenizer_encode(const mm_tokenizer *tokenizer, const char *text,
                                           size_t length, mm_parse_added added, mm_ids *out,
                                           mm_err *err);
/* Appends the bytes. Ids out of range are MM_EFORMAT. */
MM_NODISCARD mm_status mm_tokenizer_decode(const mm_tokenizer *tokenizer, const int32_t *ids,
                                           size_t count, bool skip_special, mm_str *out,
                                           mm_err *err);

/* Streaming decode: holds bytes back until they form whole code points. Zero-initialise. */
typedef struct mm_decode_stream {
    char held[8];
    int32_t n_held;
} mm_decode_stream;
/* Appends what has become complete. `last` flushes the rest (ill-formed bytes become U+FFFD). */
MM_NODISCARD mm_status mm_decode_stream_push(mm_decode_stream *stream,
                                             const mm_tokenizer *tokenizer, int32_t id,
                                             bool skip_special, mm_str *out, mm_err *err);
void mm_decode_stream_end(mm_decode_stream *stream, mm_str *out);

/* Training. Feed texts, then finish. The 36 reserved tokens of MiniMind come first
 * (docs/minimind.md), then the 256 byte symbols by code point, then merges; ties go to the smaller
 * id pair; results equal Hugging Face's trainer. */
typedef struct mm_bpe_trainer mm_bpe_trainer;
MM_NODISCARD mm_status mm_bpe_trainer_new(mm_bpe_trainer **out, int32_t vocab_size, mm_err *err);
MM_NODISCARD mm_status mm_bpe_trainer_feed(mm_bpe_trainer *trainer, const char *text, size_t length,
                                           mm_err *err);
/* progress(context, merges done, merges wanted) may be NULL. */
MM_NODISCARD mm_status mm_bpe_trainer_finish(mm_bpe_trainer *trainer, mm_tokenizer **out,
                                             void (*progress)(void *context, int64_t done,
                                                              int64_t total),
                                             void *context, mm_err *err);
void mm_bpe_trainer_free(mm_bpe_trainer *trainer);

#ifdef __cplusplus
}
#endif
#endif
