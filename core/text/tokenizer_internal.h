/* What the files of core/text share about a tokenizer: its struct, and encoding with guarded spans.
 * Nobody outside the folder includes this.
 */
#ifndef MM_TEXT_TOKENIZER_INTERNAL_H
#define MM_TEXT_TOKENIZER_INTERNAL_H

#include "core/text/bpe.h"

typedef struct mm_token {
    const char *text;  /* as spelled in tokenizer.json, ends with NUL and holds none */
    const char *bytes; /* what it stands for in decoded text */
    uint32_t n_bytes;
    bool is_added;
    bool is_special;
    bool is_ambiguous;  /* added tokens: spelled in byte symbols it would stand for other bytes */
    bool is_normalized; /* added tokens: matched in a second pass, after the others */
} mm_token;

/* Added tokens of one pass, sorted by text. */
typedef struct mm_added_list {
    int32_t *ids;
    size_t count;
    bool starts[256]; /* first bytes that occur */
} mm_added_list;

enum { MM_ADDED_PASSES = 2 };

struct mm_tokenizer {
    mm_arena strings; /* owns every token's text and bytes */
    mm_token *tokens; /* n_tokens */
    int32_t n_tokens;
    int32_t *by_text; /* open addressing over token text: id or -1 */
    size_t n_by_text; /* power of two */
    mm_added_list added[MM_ADDED_PASSES];
    mm_bpe bpe;
    int32_t bos;
    int32_t eos;
    int32_t pad;
    char *json; /* the text it was read from */
    size_t json_bytes;
    char *config; /* NULL when there was none */
    size_t config_bytes;
    char *chat_template; /* NULL when the config has none */
    char hash[MM_SHA256_HEX_BYTES];
};

/* Which added tokens a span of text may become. */
typedef enum mm_guard_level {
    MM_GUARD_ALL = 0,  /* text of the template: every added token */
    MM_GUARD_TAGS = 1, /* only those not marked special: <think>, <tool_call> ... */
    MM_GUARD_TEXT = 2  /* none */
} mm_guard_level;

/* Consecutive spans that cover a text; each begins where the one before ends. */
typedef struct mm_guard {
    size_t end; /* byte offset, exclusive */
    mm_guard_level level;
} mm_guard;

/* mm_tokenizer_encode with a level per span. An added token must lie inside one span. The spans do
 * not cut words: what is not an added token is split as one text. */
MM_NODISCARD mm_status mm_tokenizer_encode_guarded(const mm_tokenizer *tokenizer, const char *text,
                                                   size_t length, const mm_guard *guards,
                                                   size_t n_guards, mm_ids *out, mm_err *err);

/* The reserved tokens of docs/minimind.md, id = index. */
enum { MM_RESERVED_TOKENS = 36, MM_BYTE_SYMBOLS = 256 };
typedef struct mm_reserved {
    const char *text;
    bool is_special;
} mm_reserved;
extern const mm_reserved mm_reserved_tokens[MM_RESERVED_TOKENS];

/* GPT-2's one-to-one map between bytes and printable characters. */
int mm_symbol_byte(uint32_t code); /* -1 when the character stands for no byte */
/* The byte whose symbol is number `order` (0..255) by code point: its id is 36 + order in
 * MiniMind's form. */
uint8_t mm_byte_of_order(int32_t order);
/* The symbol as UTF-8 with its final NUL. */
enum { MM_SYMBOL_TEXT_BYTES = 3 };
void mm_byte_symbol_text(uint8_t byte, char out[MM_SYMBOL_TEXT_BYTES]);
/* Appends the UTF-8 of the symbols of `bytes`. */
void mm_byte_symbols_add(mm_str *out, const char *bytes, size_t length);

/* A JSON string with quotes, escaped as Python's json.dumps(ensure_ascii=False) does; text is
 * UTF-8. */
void mm_text_add_json_string(mm_str *out, const char *text, size_t length);

/* A new tokenizer's two files in MiniMind's form (docs/minimind.md). `tokens` are the bytes of the
 * learned tokens in id order, after the reserved ones and the byte symbols; `merges` pairs of ids.
 */
typedef struct mm_trained {
    const char *const *tokens; /* n_tokens, bytes */
    const uint32_t *token_bytes;
    size_t n_tokens;
    const int32_t (*merges)[2]; /* n_merges */
    size_t n_merges;
} mm_trained;
void mm_trained_json(const mm_trained *trained, mm_str *out);
/* The config of a tokenizer. Names of tokens that it lacks are left out; NULL template too. */
void mm_tokenizer_config_write(const mm_tokenizer *tokenizer, const char *chat_template,
                               mm_str *out);

#endif
