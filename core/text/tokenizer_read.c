/* Reading tokenizer.json and tokenizer_config.json.
 *
 * The files come from anywhere: every field is checked, and one that asks for behaviour this
 * tokenizer does not have is refused by name rather than ignored. What holds after reading: ids are
 * 0..n-1 without holes, every byte has a symbol in the vocabulary (so any text can be encoded),
 * every merge names three tokens of the vocabulary.
 */
#include "core/text/tokenizer_internal.h"

#include "core/base/file.h"
#include "core/base/json.h"
#include "core/base/utf8.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { VOCAB_MAX = 1 << 20, MERGES_MAX = 1 << 22, FILE_BYTES_MAX = 256 << 20, SHOWN_BYTES = 48 };

/* What is being read; fields are named in messages by their path. */
typedef struct reader {
    mm_tokenizer *tokenizer;
    const char *what;
    mm_err *err;
} reader;

/* Text from the file, made safe and short enough for a message. */
typedef struct shown {
    char text[SHOWN_BYTES];
} shown;

static shown show(const char *text)
{
    shown result = {{0}};
    mm_str safe;
    mm_str_init(&safe, 0);
    const size_t length = strnlen(text, SHOWN_BYTES);
    mm_utf8_add_printable(&safe, text, mm_utf8_valid(text, length));
    const char *printable = mm_str_text(&safe);
    memcpy(result.text, printable, mm_utf8_valid(printable, strnlen(printable, SHOWN_BYTES - 1)));
    mm_str_drop(&safe);
    return result;
}

static const char *kind_of(const json_t *value)
{
    if (!value) return "nothing";
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "an array";
    case JSON_STRING:
        return "a string";
    case JSON_INTEGER:
    case JSON_REAL:
        return "a number";
    case JSON_TRUE:
        return "true";
    case JSON_FALSE:
        return "false";
    default:
        return "null";
    }
}

#define REFUSE(r, format, ...) MM_FAIL((r)->err, MM_EFORMAT, "%s: " format, (r)->what, __VA_ARGS__)

/* What a field may be for the tokenizer to behave as this one does. */
typedef enum allowed {
    MAY_BE_ABSENT = 1,
    MAY_BE_NULL = 2,
    MAY_BE_FALSE = 4,
    MAY_BE_TRUE = 8,
    MAY_BE_EMPTY = 16,  /* "" */
    MAY_BE_STRING = 32, /* has no effect here */
    MAY_BE_ANYTHING = 64
} allowed;

typedef struct field_rule {
    const char *name;
    int allowed; /* of enum allowed */
} field_rule;

static bool is_allowed(const json_t *value, int rule)
{
    if (rule & MAY_BE_ANYTHING) return true;
    if (!value) return rule & MAY_BE_ABSENT;
    if (json_is_null(value)) return rule & MAY_BE_NULL;
    if (json_is_false(value)) return rule & MAY_BE_FALSE;
    if (json_is_true(value)) return rule & MAY_BE_TRUE;
    if (!json_is_string(value)) return false;
    return (rule & MAY_BE_STRING) || ((rule & MAY_BE_EMPTY) && json_string_length(value) == 0);
}

static void allowed_text(int rule, char *out, size_t bytes)
{
    snprintf(out, bytes, "%s%s%s%s%s%s", rule & MAY_BE_STRING ? " a string" : "",
             rule & MAY_BE_NULL ? " null" : "", rule & MAY_BE_FALSE ? " false" : "",
             rule & MAY_BE_TRUE ? " true" : "", rule & MAY_BE_EMPTY ? " \"\"" : "",
             rule & MAY_BE_ABSENT ? " or nothing" : "");
}

/* Checks that every field of `object` follows its rule and that there is no other. */
static mm_status check_fields(const reader *r, const char *path, const json_t *object,
                              const field_rule *rules, size_t n_rules)
{
    for (size_t i = 0; i < n_rules; i++) {
        const json_t *value = json_object_get(object, rules[i].name);
        if (is_allowed(value, rules[i].allowed)) continue;
        char expected[64];
        allowed_text(rules[i].allowed, expected, sizeof expected);
        if (json_is_string(value))
            return REFUSE(r, "%s%s: expected%s, found \"%s\"", path, rules[i].name, expected,
                          show(json_string_value(value)).text);
        return REFUSE(r, "%s%s: expected%s, found %s", path, rules[i].name, expected,
                      kind_of(value));
    }
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)object, key, value)
    {
        size_t i = 0;
        while (i < n_rules && strcmp(key, rules[i].name) != 0)
            i++;
        if (i == n_rules)
            return REFUSE(r, "%s%s: this field is not supported", path, show(key).text);
    }
    return MM_OK;
}

/* Checks `object` ("pre_tokenizer") to be an object of this type with these fields. */
static mm_status check_component(const reader *r, const char *name, const json_t *object,
                                 const char *type, const field_rule *rules, size_t n_rules)
{
    if (!json_is_object(object))
        return REFUSE(r, "%s: expected a %s, found %s", name, type, kind_of(object));
    const char *found = json_string_value(json_object_get(object, "type"));
    if (!found || strcmp(found, type) != 0)
        return REFUSE(r, "%s.type: only \"%s\" is supported, found \"%s\"", name, type,
                      found ? show(found).text : "");
    char path[64];
    snprintf(path, sizeof path, "%s.", name);
    return check_fields(r, path, object, rules, n_rules);
}

static mm_status check_pipeline(const reader *r, const json_t *root)
{
    static const field_rule top[] = {
        {"version", MAY_BE_STRING},
        {"truncation", MAY_BE_NULL | MAY_BE_ABSENT},
        {"padding", MAY_BE_NULL | MAY_BE_ABSENT},
        {"added_tokens", MAY_BE_ANYTHING},
        {"normalizer", MAY_BE_NULL | MAY_BE_ABSENT},
        {"pre_tokenizer", MAY_BE_ANYTHING},
        {"post_processor", MAY_BE_ANYTHING},
        {"decoder", MAY_BE_ANYTHING},
        {"model", MAY_BE_ANYTHING},
    };
    // trim_offsets changes offsets only, which this tokenizer does not report.
    static const field_rule splitter[] = {
        {"type", MAY_BE_STRING},
        {"add_prefix_space", MAY_BE_FALSE},
        {"trim_offsets", MAY_BE_ANYTHING},
        {"use_regex", MAY_BE_TRUE | MAY_BE_ABSENT},
    };
    static const field_rule byte_level[] = {
        {"type", MAY_BE_STRING},
        {"add_prefix_space", MAY_BE_ANYTHING},
        {"trim_offsets", MAY_BE_ANYTHING},
        {"use_regex", MAY_BE_ANYTHING},
    };
    MM_TRY(check_fields(r, "", root, top, sizeof top / sizeof *top));
    const char *version = json_string_value(json_object_get(root, "version"));
    if (strcmp(version, "1.0") != 0)
        return REFUSE(r, "version: expected \"1.0\", found \"%s\"", show(version).text);
    MM_TRY(check_component(r, "pre_tokenizer", json_object_get(root, "pre_tokenizer"), "ByteLevel",
                           splitter, sizeof splitter / sizeof *splitter));
    const json_t *post = json_object_get(root, "post_processor");
    if (post && !json_is_null(post))
        MM_TRY(check_component(r, "post_processor", post, "ByteLevel", byte_level,
                               sizeof byte_level / sizeof *byte_level));
    return check_component(r, "decoder", json_object_get(root, "decoder"), "ByteLevel", byte_level,
                           sizeof byte_level / sizeof *byte_level);
}

static mm_status check_model(const reader *r, const json_t *model)
{
    // Without a missing byte nothing is ever unknown, so the unknown token has no effect.
    static const field_rule rules[] = {
        {"type", MAY_BE_STRING},
        {"dropout", MAY_BE_NULL | MAY_BE_ABSENT},
        {"unk_token", MAY_BE_NULL | MAY_BE_STRING | MAY_BE_ABSENT},
        {"continuing_subword_prefix", MAY_BE_NULL | MAY_BE_EMPTY | MAY_BE_ABSENT},
        {"end_of_word_suffix", MAY_BE_NULL | MAY_BE_EMPTY | MAY_BE_ABSENT},
        {"fuse_unk", MAY_BE_FALSE | MAY_BE_TRUE | MAY_BE_ABSENT},
        {"byte_fallback", MAY_BE_FALSE | MAY_BE_ABSENT},
        {"ignore_merges", MAY_BE_FALSE | MAY_BE_ABSENT},
        {"vocab", MAY_BE_ANYTHING},
        {"merges", MAY_BE_ANYTHING},
    };
    MM_TRY(check_component(r, "model", model, "BPE", rules, sizeof rules / sizeof *rules));
    const json_t *vocab = json_object_get(model, "vocab");
    const json_t *merges = json_object_get(model, "merges");
    if (!json_is_object(vocab))
        return REFUSE(r, "model.vocab: expected an object, found %s", kind_of(vocab));
    if (!json_is_array(merges))
        return REFUSE(r, "model.merges: expected an array, found %s", kind_of(merges));
    if (json_object_size(vocab) > VOCAB_MAX)
        return REFUSE(r, "model.vocab: %zu tokens, the limit is %d", json_object_size(vocab),
                      VOCAB_MAX);
    if (json_array_size(merges) > MERGES_MAX)
        return REFUSE(r, "model.merges: %zu merges, the limit is %d", json_array_size(merges),
                      MERGES_MAX);
    return MM_OK;
}

static size_t text_slot(const mm_tokenizer *tokenizer, const char *text)
{
    uint64_t hash = 0xCBF29CE484222325u; // FNV-1a
    for (const char *c = text; *c; c++)
        hash = (hash ^ (unsigned char)*c) * 0x100000001B3u;
    size_t slot = (size_t)(hash ^ hash >> 32) & (tokenizer->n_by_text - 1);
    while (tokenizer->by_text[slot] >= 0 &&
           strcmp(tokenizer->tokens[tokenizer->by_text[slot]].text, text) != 0) {
        slot = (slot + 1) & (tokenizer->n_by_text - 1);
    }
    return slot;
}

int32_t mm_tokenizer_id(const mm_tokenizer *tokenizer, const char *token)
{
    return tokenizer->by_text[text_slot(tokenizer, token)];
}

/* Gives the token of this id its text, and its bytes: those that its characters stand for, or the
 * text itself if one of them stands for none. */
static mm_status set_token(const reader *r, const char *path, const char *text, json_int_t id)
{
    mm_tokenizer *tokenizer = r->tokenizer;
    if (id < 0 || id >= tokenizer->n_tokens)
        return REFUSE(r, "%s: token \"%s\" has id %lld, expected 0..%d without holes", path,
                      show(text).text, (long long)id, tokenizer->n_tokens - 1);
    mm_token *token = &tokenizer->tokens[id];
    if (token->text)
        return REFUSE(r, "%s: tokens \"%s\" and \"%s\" have the same id %lld", path,
                      show(token->text).text, show(text).text, (long long)id);
    const size_t length = strlen(text);
    if (length == 0) return REFUSE(r, "%s: token %lld is empty", path, (long long)id);
    token->text = mm_arena_strndup(&tokenizer->strings, text, length);
    char *bytes = mm_arena_alloc(&tokenizer->strings, length + 1);
    if (!token->text || !bytes) return MM_FAIL(r->err, MM_ENOMEM, "out of memory for tokens");
    token->bytes = token->text;
    token->n_bytes = (uint32_t)length;
    tokenizer->by_text[text_slot(tokenizer, text)] = (int32_t)id;
    uint32_t n_bytes = 0;
    for (size_t at = 0; at < length;) {
        uint32_t code;
        const int size = mm_utf8_next(text + at, length - at, &code);
        MM_ASSERT(size > 0); // jansson lets only well-formed UTF-8 through
        const int byte = mm_symbol_byte(code);
        if (byte < 0) return MM_OK;
        bytes[n_bytes++] = (char)byte;
        at += (size_t)size;
    }
    token->bytes = bytes;
    token->n_bytes = n_bytes;
    return MM_OK;
}

static mm_status read_added_token(const reader *r, size_t index, const json_t *entry)
{
    // Stripping and whole-word matching would need the text around; no MiniMind-like file uses
    // them.
    static const field_rule rules[] = {
        {"id", MAY_BE_ANYTHING},
        {"content", MAY_BE_STRING},
        {"single_word", MAY_BE_FALSE},
        {"lstrip", MAY_BE_FALSE},
        {"rstrip", MAY_BE_FALSE},
        {"normalized", MAY_BE_FALSE | MAY_BE_TRUE},
        {"special", MAY_BE_FALSE | MAY_BE_TRUE},
    };
    char path[40];
    snprintf(path, sizeof path, "added_tokens[%zu].", index);
    if (!json_is_object(entry))
        return REFUSE(r, "added_tokens[%zu]: expected an object, found %s", index, kind_of(entry));
    MM_TRY(check_fields(r, path, entry, rules, sizeof rules / sizeof *rules));
    const json_t *id = json_object_get(entry, "id");
    if (!json_is_integer(id))
        return REFUSE(r, "%sid: expected an integer, found %s", path, kind_of(id));
    const char *text = json_string_value(json_object_get(entry, "content"));
    const int32_t known = mm_tokenizer_id(r->tokenizer, text);
    if (known < 0)
        MM_TRY(set_token(r, "added_tokens", text, json_integer_value(id)));
    else if (known != json_integer_value(id))
        return REFUSE(r, "%sid: \"%s\" has id %lld here and %d in model.vocab", path,
                      show(text).text, (long long)json_integer_value(id), known);
    mm_token *token = &r->tokenizer->tokens[json_integer_value(id)];
    if (token->is_added) return REFUSE(r, "%scontent: \"%s\" occurs twice", path, show(text).text);
    token->is_ambiguous =
        token->n_bytes != strlen(text) || memcmp(token->bytes, text, token->n_bytes) != 0;
    token->bytes = token->text; // decodes as written, also where its characters are byte symbols
    token->n_bytes = (uint32_t)strlen(text);
    token->is_added = true;
    token->is_special = json_is_true(json_object_get(entry, "special"));
    token->is_normalized = json_is_true(json_object_get(entry, "normalized"));
    return MM_OK;
}

/* A token that merging can produce must not be an added token that decodes to something else:
 * decoding could not tell which was meant. */
static mm_status check_meaning(const reader *r, int32_t id)
{
    const mm_token *token = &r->tokenizer->tokens[id];
    if (!token->is_ambiguous) return MM_OK;
    return REFUSE(r, "added_tokens: \"%s\" is also how the vocabulary spells other text",
                  show(token->text).text);
}

/* Sizes the token table: the vocabulary and those added tokens that are not in it. */
static mm_status make_tables(const reader *r, const json_t *vocab, const json_t *added)
{
    mm_tokenizer *tokenizer = r->tokenizer;
    if (json_array_size(added) > VOCAB_MAX)
        return REFUSE(r, "added_tokens: %zu tokens, the limit is %d", json_array_size(added),
                      VOCAB_MAX);
    size_t count = json_object_size(vocab);
    for (size_t i = 0; i < json_array_size(added); i++) {
        const json_t *content = json_object_get(json_array_get(added, i), "content");
        if (json_is_string(content) && !json_object_get(vocab, json_string_value(content))) count++;
    }
    tokenizer->n_tokens = (int32_t)count;
    tokenizer->n_by_text = 16;
    while (tokenizer->n_by_text < 2 * count)
        tokenizer->n_by_text *= 2;
    tokenizer->tokens = mm_calloc(count, sizeof *tokenizer->tokens);
    tokenizer->by_text = mm_alloc(tokenizer->n_by_text * sizeof *tokenizer->by_text);
    if (!tokenizer->tokens || !tokenizer->by_text)
        return MM_FAIL(r->err, MM_ENOMEM, "out of memory for %zu tokens", count);
    memset(tokenizer->by_text, 0xFF, tokenizer->n_by_text * sizeof *tokenizer->by_text); // all -1
    return MM_OK;
}

static mm_status read_vocab(const reader *r, const json_t *root)
{
    const json_t *added = json_object_get(root, "added_tokens");
    if (added && !json_is_array(added))
        return REFUSE(r, "added_tokens: expected an array, found %s", kind_of(added));
    json_t *vocab = json_object_get(json_object_get(root, "model"), "vocab");
    MM_TRY(make_tables(r, vocab, added));
    const char *text;
    json_t *id;
    json_object_foreach(vocab, text, id)
    {
        if (!json_is_integer(id))
            return REFUSE(r, "model.vocab: the id of \"%s\" must be an integer, found %s",
                          show(text).text, kind_of(id));
        MM_TRY(set_token(r, "model.vocab", text, json_integer_value(id)));
    }
    for (int byte = 0; byte < 256; byte++) {
        char symbol[MM_SYMBOL_TEXT_BYTES];
        mm_byte_symbol_text((uint8_t)byte, symbol);
        const int32_t known = mm_tokenizer_id(r->tokenizer, symbol);
        if (known < 0) return REFUSE(r, "model.vocab: the symbol of byte 0x%02x is missing", byte);
        r->tokenizer->bpe.byte_ids[byte] = known;
    }
    for (size_t i = 0; i < json_array_size(added); i++)
        MM_TRY(read_added_token(r, i, json_array_get(added, i)));
    for (int byte = 0; byte < 256; byte++)
        MM_TRY(check_meaning(r, r->tokenizer->bpe.byte_ids[byte]));
    return MM_OK;
}

static void hash_number(mm_sha256 *hash, uint64_t number)
{
    uint8_t bytes[8];
    for (int i = 0; i < 8; i++)
        bytes[i] = (uint8_t)(number >> 8 * i);
    mm_sha256_update(hash, bytes, sizeof bytes);
}

/* The hash covers what decides ids and text, and nothing else (spelling of the file, key order). */
static void hash_tokens(mm_sha256 *hash, const mm_tokenizer *tokenizer)
{
    hash_number(hash, (uint64_t)tokenizer->n_tokens);
    for (int32_t id = 0; id < tokenizer->n_tokens; id++) {
        const mm_token *token = &tokenizer->tokens[id];
        const size_t length = strlen(token->text);
        hash_number(hash, (token->is_added ? 1u : 0u) | (token->is_special ? 2u : 0u) |
                              (token->is_normalized ? 4u : 0u));
        hash_number(hash, length);
        mm_sha256_update(hash, token->text, length);
    }
}

/* Finds the two halves of a merge in either spelling; `scratch` holds them. */
static mm_status merge_halves(const reader *r, size_t rank, const json_t *entry, mm_str *scratch,
                              const char **left, const char **right)
{
    if (json_is_array(entry) && json_array_size(entry) == 2) {
        *left = json_string_value(json_array_get(entry, 0));
        *right = json_string_value(json_array_get(entry, 1));
        if (*left && *right) return MM_OK;
    } else if (json_is_string(entry)) {
        mm_str_clear(scratch);
        mm_str_add_bytes(scratch, json_string_value(entry), json_string_length(entry));
        MM_TRY(mm_str_check(scratch, r->err));
        // No byte symbol is a space, so exactly one separates the halves.
        char *space = scratch->length > 0 ? strchr(scratch->data, ' ') : NULL;
        if (space && !strchr(space + 1, ' ')) {
            *space = '\0';
            *left = scratch->data;
            *right = space + 1;
            return MM_OK;
        }
    }
    return REFUSE(r, "model.merges[%zu]: expected two tokens, as [\"a\",\"b\"] or \"a b\"", rank);
}

static mm_status read_merges(const reader *r, const json_t *merges, mm_sha256 *hash)
{
    mm_status status = MM_OK;
    mm_str halves;
    mm_str joined;
    mm_str_init(&halves, 0);
    mm_str_init(&joined, 0);
    MM_GO(mm_bpe_init(&r->tokenizer->bpe, json_array_size(merges), r->err));
    for (size_t rank = 0; rank < json_array_size(merges); rank++) {
        const char *left = NULL;
        const char *right = NULL;
        MM_GO(merge_halves(r, rank, json_array_get(merges, rank), &halves, &left, &right));
        mm_str_clear(&joined);
        mm_str_add(&joined, left);
        mm_str_add(&joined, right);
        MM_GO(mm_str_check(&joined, r->err));
        const char *names[3] = {left, right, mm_str_text(&joined)};
        int32_t ids[3];
        for (int i = 0; i < 3; i++) {
            ids[i] = mm_tokenizer_id(r->tokenizer, names[i]);
            if (ids[i] >= 0) continue;
            status = REFUSE(r, "model.merges[%zu]: \"%s\" is not in the vocabulary", rank,
                            show(names[i]).text);
            goto done;
        }
        if (!mm_bpe_add(&r->tokenizer->bpe, ids[0], ids[1], (uint32_t)rank, ids[2])) {
            status = REFUSE(r, "model.merges[%zu]: \"%s\" + \"%s\" occurs twice", rank,
                            show(left).text, show(right).text);
            goto done;
        }
        const mm_token *sides[2] = {&r->tokenizer->tokens[ids[0]], &r->tokenizer->tokens[ids[1]]};
        mm_bpe_add_seam(&r->tokenizer->bpe, sides[0]->bytes, sides[0]->n_bytes, sides[1]->bytes,
                        sides[1]->n_bytes);
        MM_GO(check_meaning(r, ids[2]));
        hash_number(hash, (uint64_t)ids[0]);
        hash_number(hash, (uint64_t)ids[1]);
    }
done:
    mm_str_drop(&joined);
    mm_str_drop(&halves);
    return status;
}

static int compare_text(const void *a, const void *b, void *context)
{
    const mm_token *tokens = context;
    return strcmp(tokens[*(const int32_t *)a].text, tokens[*(const int32_t *)b].text);
}

static mm_status index_added(const reader *r)
{
    mm_tokenizer *tokenizer = r->tokenizer;
    for (int pass = 0; pass < MM_ADDED_PASSES; pass++) {
        mm_added_list *list = &tokenizer->added[pass];
        size_t count = 0;
        for (int32_t id = 0; id < tokenizer->n_tokens; id++) {
            const mm_token *token = &tokenizer->tokens[id];
            if (token->is_added && token->is_normalized == (pass == 1)) count++;
        }
        list->ids = mm_alloc(count * sizeof *list->ids);
        if (!list->ids) return MM_FAIL(r->err, MM_ENOMEM, "out of memory for added tokens");
        for (int32_t id = 0; id < tokenizer->n_tokens; id++) {
            const mm_token *token = &tokenizer->tokens[id];
            if (!token->is_added || token->is_normalized != (pass == 1)) continue;
            list->ids[list->count++] = id;
            list->starts[(unsigned char)token->text[0]] = true;
        }
        qsort_r(list->ids, list->count, sizeof *list->ids, compare_text, tokenizer->tokens);
    }
    return MM_OK;
}

static mm_status read_model(const reader *r, const json_t *root)
{
    const json_t *model = json_object_get(root, "model");
    uint8_t digest[MM_SHA256_BYTES];
    mm_sha256 hash = {0};
    mm_status status = MM_OK;
    if (!json_is_object(root)) {
        status = REFUSE(r, "expected an object, found %s", kind_of(root));
        goto done;
    }
    MM_GO(check_pipeline(r, root));
    MM_GO(check_model(r, model));
    MM_GO(read_vocab(r, root));
    MM_GO(index_added(r));
    MM_GO(mm_sha256_init(&hash, r->err));
    hash_tokens(&hash, r->tokenizer);
    MM_GO(read_merges(r, json_object_get(model, "merges"), &hash));
    mm_sha256_final(&hash, digest);
    mm_sha256_hex(digest, r->tokenizer->hash);
done:
    mm_sha256_drop(&hash);
    return status;
}

/* A token named by the config, as a string or as an object with its content. */
static mm_status read_named_token(const reader *r, const json_t *config, const char *name,
                                  int32_t *id)
{
    const json_t *value = json_object_get(config, name);
    if (json_is_object(value)) value = json_object_get(value, "content");
    if (!value || json_is_null(value)) return MM_OK;
    if (!json_is_string(value))
        return REFUSE(r, "%s: expected a token's text, found %s", name, kind_of(value));
    *id = mm_tokenizer_id(r->tokenizer, json_string_value(value));
    if (*id < 0)
        return REFUSE(r, "%s: \"%s\" is not in the vocabulary", name,
                      show(json_string_value(value)).text);
    return MM_OK;
}

static mm_status read_config(const reader *r, const json_t *config)
{
    mm_tokenizer *tokenizer = r->tokenizer;
    if (!json_is_object(config)) return REFUSE(r, "expected an object, found %s", kind_of(config));
    if (json_is_true(json_object_get(config, "add_prefix_space")))
        return REFUSE(r, "%s", "add_prefix_space: only false is supported, found true");
    MM_TRY(read_named_token(r, config, "bos_token", &tokenizer->bos));
    MM_TRY(read_named_token(r, config, "eos_token", &tokenizer->eos));
    MM_TRY(read_named_token(r, config, "pad_token", &tokenizer->pad));
    const json_t *chat = json_object_get(config, "chat_template");
    for (size_t i = 0; json_is_array(chat) && i < json_array_size(chat); i++) {
        const json_t *entry = json_array_get(chat, i); // several templates, each with a name
        const char *name = json_string_value(json_object_get(entry, "name"));
        if (name && strcmp(name, "default") == 0) chat = json_object_get(entry, "template");
    }
    if (!json_is_string(chat)) return MM_OK;
    tokenizer->chat_template = mm_strdup(json_string_value(chat));
    if (!tokenizer->chat_template) return MM_FAIL(r->err, MM_ENOMEM, "out of memory");
    return MM_OK;
}

/* "dir/name" for the `path` of a file in that folder. */
static mm_status sibling(char **out, const char *path, const char *name, mm_err *err)
{
    const char *slash = strrchr(path, '/');
    mm_str text;
    mm_str_init(&text, 0);
    if (slash) mm_str_add_bytes(&text, path, (size_t)(slash - path) + 1);
    mm_str_add(&text, name);
    size_t length;
    return mm_str_take(&text, out, &length, err);
}

mm_status mm_tokenizer_parse(mm_tokenizer **out, const char *json, size_t json_bytes,
                             const char *config, size_t config_bytes, const char *what, mm_err *err)
{
    mm_status status = MM_OK;
    json_t *root = NULL;
    json_t *settings = NULL;
    char *config_what = NULL;
    *out = NULL;
    mm_tokenizer *tokenizer = mm_calloc(1, sizeof *tokenizer);
    if (!tokenizer) return MM_FAIL(err, MM_ENOMEM, "out of memory for a tokenizer");
    tokenizer->bos = tokenizer->eos = tokenizer->pad = -1;
    reader r = {.tokenizer = tokenizer, .what = what, .err = err};
    if (json_bytes > FILE_BYTES_MAX || config_bytes > FILE_BYTES_MAX) {
        status = REFUSE(&r, "more than %d bytes", FILE_BYTES_MAX);
        goto done;
    }
    MM_GO(mm_json_parse(json, json_bytes, what, &root, err));
    MM_GO(read_model(&r, root));
    tokenizer->json = mm_strndup(json, json_bytes);
    tokenizer->json_bytes = json_bytes;
    tokenizer->config = config ? mm_strndup(config, config_bytes) : NULL;
    tokenizer->config_bytes = config_bytes;
    if (!tokenizer->json || (config && !tokenizer->config)) {
        status = MM_FAIL(err, MM_ENOMEM, "out of memory for a tokenizer");
        goto done;
    }
    if (config) {
        MM_GO(sibling(&config_what, what, "tokenizer_config.json", err));
        r.what = config_what;
        MM_GO(mm_json_parse(config, config_bytes, config_what, &settings, err));
        MM_GO(read_config(&r, settings));
    }
    *out = tokenizer;
    tokenizer = NULL;
done:
    json_decref(settings);
    json_decref(root);
    mm_free(config_what);
    mm_tokenizer_free(tokenizer);
    return status;
}

mm_status mm_tokenizer_load(mm_tokenizer **out, const char *path, mm_err *err)
{
    mm_status status = MM_OK;
    char *json_path = NULL;
    char *config_path = NULL;
    char *template_path = NULL;
    char *json = NULL;
    char *config = NULL;
    size_t json_bytes = 0;
    size_t config_bytes = 0;
    *out = NULL;
    if (mm_file_is_dir(path)) {
        MM_GO(mm_path_join(&json_path, path, "tokenizer.json", err));
    } else {
        json_path = mm_strdup(path);
        if (!json_path) {
            status = MM_FAIL(err, MM_ENOMEM, "out of memory");
            goto done;
        }
    }
    MM_GO(sibling(&config_path, json_path, "tokenizer_config.json", err));
    MM_GO(sibling(&template_path, json_path, "chat_template.jinja", err));
    MM_GO(mm_file_read(json_path, FILE_BYTES_MAX, &json, &json_bytes, err));
    if (mm_file_exists(config_path))
        MM_GO(mm_file_read(config_path, FILE_BYTES_MAX, &config, &config_bytes, err));
    MM_GO(mm_tokenizer_parse(out, json, json_bytes, config, config_bytes, json_path, err));
    // Newer folders keep the template in a file of its own.
    if (!(*out)->chat_template && mm_file_exists(template_path)) {
        size_t bytes;
        status = mm_file_read(template_path, FILE_BYTES_MAX, &(*out)->chat_template, &bytes, err);
    }
done:
    if (status != MM_OK) {
        mm_tokenizer_free(*out);
        *out = NULL;
    }
    mm_free(config);
    mm_free(json);
    mm_free(template_path);
    mm_free(config_path);
    mm_free(json_path);
    return status;
}
