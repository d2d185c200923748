/* `mmrun data synth` and `mmrun data show`: making data, and looking at it as the model will. */
#include "core/base/file.h"
#include "core/data/rows.h"
#include "core/data/synth.h"
#include "runner/commands.h"

#include <stdio.h>
#include <string.h>

const mm_option mm_data_synth_options[] = {
    {.name = "out",
     .aliases = "o,output",
     .type = MM_OPTION_PATH,
     .value = "DIR",
     .help = "folder for the files (./dataset)"},
    {.name = "kind",
     .type = MM_OPTION_CHOICE,
     .value = "KIND",
     .choices = "all,pretrain,sft,preference,rl,arithmetic,persona",
     .help = "which files (all)"},
    {.name = "rows",
     .aliases = "n",
     .type = MM_OPTION_INT,
     .value = "N",
     .min = 1,
     .max = 1e9,
     .help = "rows of each training file (20000); a twentieth as many are held out"},
    {.name = "seed",
     .type = MM_OPTION_INT,
     .value = "N",
     .min = 0,
     .max = 9007199254740992.0,
     .help = "same seed, same bytes (42)"},
    {0},
};

const mm_option mm_data_show_options[] = {
    {.name = "rows",
     .aliases = "n",
     .type = MM_OPTION_INT,
     .value = "N",
     .min = 1,
     .max = 1e9,
     .help = "how many samples (3)"},
    {.name = "tokenizer",
     .aliases = "t",
     .type = MM_OPTION_PATH,
     .value = "PATH|RUN",
     .help = "show tokens, and exactly which are learned"},
    {.name = "stage",
     .type = MM_OPTION_CHOICE,
     .value = "STAGE",
     .choices = "pretrain,sft,lora,dpo,distill",
     .help =
         "as this stage sees them: dpo wants pairs, the others refuse them, pretrain learns all"},
    {.name = "mask",
     .type = MM_OPTION_CHOICE,
     .value = "KIND",
     .choices = MM_MASK_KINDS,
     .help = "what of a conversation is learned (all-answers)"},
    {.name = "drop-think", .help = "without empty think blocks, as --drop-think-share draws it"},
    {.name = "seq-len",
     .type = MM_OPTION_INT,
     .value = "N",
     .min = 3,
     .max = 1048576,
     .help = "cut conversations as training does (with --tokenizer)"},
    {.name = "format",
     .type = MM_OPTION_CHOICE,
     .value = "FORMAT",
     .choices = MM_ROW_FORMATS,
     .help = "shape of the rows, when it is not to be detected"},
    {0},
};

static const int64_t DEFAULT_ROWS = 20000;
static const int64_t DEFAULT_SEED = 42;
enum { HELD_OUT_SHARE = 20, DEFAULT_SAMPLES = 3 };

static mm_status write_file(const char *dir, mm_synth_options options, json_t *paths, mm_err *err)
{
    char name[64];
    char *path = NULL;
    snprintf(name, sizeof name, "%s%s.jsonl", mm_synth_kind_name(options.kind),
             options.held_out ? "_val" : "");
    MM_TRY(mm_path_join(&path, dir, name, err));
    const mm_status status = mm_synth_file(&options, path, err);
    if (status == MM_OK && paths)
        json_array_append_new(paths, mm_json_of_text(path));
    else if (status == MM_OK)
        mm_out("%s\n", path);
    mm_out_flush();
    mm_free(path);
    return status;
}

mm_status mm_cmd_data_synth(const mm_context *context, const mm_args *args, mm_err *err)
{
    const char *dir = mm_args_text(args, "out");
    const char *kind = mm_args_text(args, "kind");
    const int64_t rows = mm_args_int(args, "rows", DEFAULT_ROWS);
    const bool is_all = !kind || strcmp(kind, "all") == 0;
    json_t *paths = context->json ? json_array() : NULL;
    mm_status status = MM_OK;
    if (!dir) dir = "./dataset";
    MM_GO(mm_dir_make(dir, err));
    for (int k = 0; k < MM_SYNTH_KINDS; k++) {
        mm_synth_options options = {.kind = (mm_synth_kind)k,
                                    .seed = (uint64_t)mm_args_int(args, "seed", DEFAULT_SEED),
                                    .rows = rows};
        if (!is_all && strcmp(kind, mm_synth_kind_name(options.kind)) != 0) continue;
        MM_GO(write_file(dir, options, paths, err));
        options.held_out = true;
        options.rows = rows / HELD_OUT_SHARE > 0 ? rows / HELD_OUT_SHARE : 1;
        MM_GO(write_file(dir, options, paths, err));
    }
    if (paths) {
        json_t *object = json_pack("{s:O}", "files", paths);
        mm_out_json(object);
        json_decref(object);
    }
done:
    json_decref(paths);
    return status;
}

/* ---- show --------------------------------------------------------------------------------------
 */

/* Learned text is coloured; without colour it stands between these. */
static const char OPEN[] = "[[";
static const char CLOSE[] = "]]";

typedef struct view {
    const mm_context *context;
    const mm_tokenizer *tokenizer; /* NULL: text only */
    const char *path;
    const char *stage;       /* NULL: any row goes */
    mm_chat_options options; /* of the rendering */
    int64_t seq_len;         /* 0: no cut */
    json_t *list;            /* --json: the samples */
} view;

static void mark(const view *v, bool is_learned)
{
    if (v->context->color_out)
        mm_out_color(v->context, is_learned ? MM_COLOR_GREEN : MM_COLOR_NONE);
    else
        mm_out("%s", is_learned ? OPEN : CLOSE);
}

/* Tokens as text, runs of learned ones marked. Bytes of a character may be spread over tokens, so
 * decoding is done per run of equal mask. */
static mm_status out_tokens(const view *v, const mm_ids *ids, const char *mask, mm_err *err)
{
    size_t learned = 0;
    for (size_t i = 0; mask && i < ids->count; i++)
        learned += mask[i] != 0;
    for (size_t first = 0; first < ids->count;) {
        const bool is_learned = mask && mask[first];
        size_t last = first;
        while (last < ids->count && (mask && mask[last]) == is_learned)
            last++;
        mm_str text = {0};
        const mm_status status =
            mm_tokenizer_decode(v->tokenizer, ids->data + first, last - first, false, &text, err);
        if (status == MM_OK) {
            if (is_learned) mark(v, true);
            mm_out("%.*s", (int)text.length, mm_str_text(&text));
            if (is_learned) mark(v, false);
        }
        mm_str_drop(&text);
        MM_TRY(status);
        first = last;
    }
    mm_out("\n");
    mm_out_color(v->context, MM_COLOR_DIM);
    mm_out("  %zu tokens, %zu learned\n", ids->count, mask ? learned : ids->count);
    mm_out_color(v->context, MM_COLOR_NONE);
    return MM_OK;
}

static void set_sample(json_t *sample, const char *key, const mm_ids *ids, const mm_str *mask)
{
    json_t *tokens = json_array();
    json_t *learned = json_array();
    for (size_t i = 0; i < ids->count; i++) {
        json_array_append_new(tokens, json_integer(ids->data[i]));
        if (mask) json_array_append_new(learned, json_integer(mask->data[i] != 0));
    }
    json_object_set_new(
        sample, key,
        json_pack("{s:o, s:o}", "ids", tokens, "learned", mask ? learned : json_null()));
    if (!mask) json_decref(learned);
}

static mm_status show_chat(const view *v, const mm_conversation *chat, const char *what,
                           json_t *sample, mm_err *err)
{
    mm_str text = {0};
    mm_str mask = {0};
    mm_ids ids = {0};
    mm_status status = MM_OK;
    MM_GO(mm_chat_render(chat, &v->options, &text, err));
    if (v->tokenizer) MM_GO(mm_chat_encode(v->tokenizer, chat, &v->options, &ids, &mask, err));
    if (v->seq_len > 0 && ids.count > (size_t)v->seq_len) ids.count = (size_t)v->seq_len;
    if (sample) {
        char key[32];
        json_object_set_new(sample, what, mm_json_of_text(mm_str_text(&text)));
        snprintf(key, sizeof key, "%s_tokens", what);
        if (v->tokenizer) set_sample(sample, key, &ids, &mask);
    } else {
        if (strcmp(what, "chat") != 0) mm_out("(%s)\n", what);
        if (v->tokenizer)
            MM_GO(out_tokens(v, &ids, mm_str_text(&mask), err));
        else
            mm_out("%s%s", mm_str_text(&text),
                   text.length > 0 && text.data[text.length - 1] == '\n' ? "" : "\n");
    }
done:
    mm_ids_drop(&ids);
    mm_str_drop(&mask);
    mm_str_drop(&text);
    return status;
}

static mm_status show_text(const view *v, const mm_row *row, json_t *sample, mm_err *err)
{
    mm_ids ids = {0};
    mm_status status = MM_OK;
    if (v->tokenizer)
        MM_GO(mm_tokenizer_encode(v->tokenizer, row->text, row->text_bytes, MM_ADDED_PARSE, &ids,
                                  err));
    if (sample) {
        json_object_set_new(sample, "text", mm_json_of_text(row->text));
        if (v->tokenizer) set_sample(sample, "text_tokens", &ids, NULL);
    } else if (v->tokenizer) {
        MM_GO(out_tokens(v, &ids, NULL, err));
    } else {
        mm_out("%.*s\n", (int)row->text_bytes, row->text);
    }
done:
    mm_ids_drop(&ids);
    return status;
}

// A row that the stage would refuse.
static mm_status check_stage(const view *v, const mm_row *row, mm_err *err)
{
    const bool is_pair = row->kind == MM_ROW_PAIR;
    if (!v->stage || is_pair == (strcmp(v->stage, "dpo") == 0)) return MM_OK;
    return MM_FAIL(err, MM_EFORMAT, "%s:%lld: %s", v->path, (long long)row->line,
                   is_pair ? "a preference row (chosen and rejected); --stage dpo learns from those"
                           : "a row without chosen and rejected; dpo learns from preference pairs");
}

static mm_status show_row(const view *v, const mm_row *row, mm_err *err)
{
    static const char *const KINDS[] = {"text", "chat", "pair"};
    json_t *sample = NULL;
    mm_status status = MM_OK;
    MM_TRY(check_stage(v, row, err));
    if (v->list) {
        sample = json_pack("{s:I, s:s}", "line", (json_int_t)row->line, "kind", KINDS[row->kind]);
    } else {
        mm_out_color(v->context, MM_COLOR_BOLD);
        mm_out("line %lld", (long long)row->line);
        mm_out_color(v->context, MM_COLOR_NONE);
        mm_out("\n");
    }
    if (row->kind == MM_ROW_TEXT) {
        MM_GO(show_text(v, row, sample, err));
    } else if (row->kind == MM_ROW_CHAT) {
        MM_GO(show_chat(v, &row->chat, "chat", sample, err));
    } else {
        MM_GO(show_chat(v, &row->chat, "chosen", sample, err));
        MM_GO(show_chat(v, &row->rejected, "rejected", sample, err));
    }
    if (v->list)
        json_array_append(v->list, sample);
    else
        mm_out("\n");
done:
    json_decref(sample);
    return status;
}

static mm_status read_view(view *v, const mm_context *context, const mm_args *args, mm_err *err)
{
    const char *mask = mm_args_text(args, "mask");
    v->context = context;
    v->path = mm_args_at(args, 0);
    v->stage = mm_args_text(args, "stage");
    v->seq_len = mm_args_int(args, "seq-len", 0);
    v->options.drop_empty_think = mm_args_has(args, "drop-think");
    if (v->stage && strcmp(v->stage, "pretrain") == 0) v->options.mask = MM_MASK_ALL;
    return mask ? mm_mask_kind_parse(mask, &v->options.mask, err) : MM_OK;
}

static void show_end(const view *v, const mm_row_reader *reader, bool has_chat)
{
    const mm_context *context = v->context;
    if (v->list) {
        json_t *object =
            json_pack("{s:o, s:s, s:s, s:O}", "path", mm_json_of_text(v->path), "format",
                      mm_row_format_name(mm_row_reader_report(reader)->format), "mask",
                      mm_mask_kind_name(v->options.mask), "samples", v->list);
        mm_out_json(object);
        json_decref(object);
    } else if (has_chat && !v->tokenizer) {
        mm_say(context, "--tokenizer PATH shows which tokens are learned.");
    } else if (has_chat && !context->color_out) {
        mm_say(context, "Between %s and %s stands what is learned.", OPEN, CLOSE);
    } else if (has_chat) {
        mm_say(context, "What is learned is green.");
    }
}

mm_status mm_cmd_data_show(const mm_context *context, const mm_args *args, mm_err *err)
{
    mm_row_reader *reader = NULL;
    mm_tokenizer *tokenizer = NULL;
    mm_row_format format = MM_ROWS_AUTO;
    view v = {.list = context->json ? json_array() : NULL};
    const char *named = mm_args_text(args, "tokenizer");
    const char *format_name = mm_args_text(args, "format");
    const int64_t wanted = mm_args_int(args, "rows", DEFAULT_SAMPLES);
    const mm_row *row = NULL;
    bool has_chat = false;
    mm_status status = MM_OK;
    MM_GO(read_view(&v, context, args, err));
    if (format_name) MM_GO(mm_row_format_parse(format_name, &format, err));
    if (named) MM_GO(mm_context_tokenizer(context, named, &tokenizer, err));
    v.tokenizer = tokenizer;
    MM_GO(mm_row_reader_open(&reader, v.path, format, err));
    for (int64_t i = 0; i < wanted && !mm_out_failed(); i++) {
        MM_GO(mm_row_reader_next(reader, &row, err));
        if (!row) break;
        has_chat |= row->kind != MM_ROW_TEXT;
        MM_GO(show_row(&v, row, err));
    }
    show_end(&v, reader, has_chat);
done:
    json_decref(v.list);
    mm_row_reader_close(reader);
    mm_tokenizer_free(tokenizer);
    return status;
}
