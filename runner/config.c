/* Hyperparameters: one table is the flags, the database names, the defaults, the bounds and the
 * help. A value is kept as its canonical text together with its origin; typed readers parse it
 * again, which cannot fail because only checked text is ever stored. */
#include "runner/config.h"

#include "core/base/file.h"
#include "core/base/nearest.h"
#include "core/data/rows.h"
#include "core/nn/engine.h"
#include "runner/args.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef enum value_type { INT, REAL, BOOL, CHOICE } value_type;

typedef struct hyper {
    const char *flag;    // as on the command line, with dashes
    const char *name;    // database name
    const char *aliases; // further spellings, comma-separated
    value_type type;
    const char *otherwise; // default; "" = decided by preset, device or data
    double min;
    double max;
    const char *choices;
    const char *help;
    const char *group;
} hyper;

#define MODEL    "Model"
#define TRAINING "Training"
#define DATA     "Data"
#define RECORD   "Machine and record"

// clang-format off
static const hyper TABLE[] = {
    {"preset", "preset", NULL, CHOICE, "v3", 0, 0, "v3,v2-small,v2",
     "model family that decides what is not given (v3: 64M, Qwen3-shaped; v2-small: 26M; v2: 104M)", MODEL},
    {"hidden", "hidden_size", "dim", INT, "", 8, 16384, NULL, "width of the residual stream (v3: 768)", MODEL},
    {"layers", "num_hidden_layers", "n_layers", INT, "", 1, 256, NULL, "decoder layers (v3: 8)", MODEL},
    {"heads", "num_attention_heads", "n_heads", INT, "", 1, 256, NULL, "query heads (v3: 8)", MODEL},
    {"kv-heads", "num_key_value_heads", "n_kv_heads", INT, "", 1, 256, NULL, "key/value heads (v3: 4)", MODEL},
    {"head-dim", "head_dim", NULL, INT, "", 2, 512, NULL, "width of a head (hidden / heads)", MODEL},
    {"ffn", "intermediate_size", "hidden_dim", INT, "", 8, 65536, NULL, "feed-forward width (by the preset's rule)", MODEL},
    {"vocab", "vocab_size", NULL, INT, "", 292, 1000000, NULL, "vocabulary (the tokenizer's); size to train when none is given", MODEL},
    {"rope-theta", "rope_theta", NULL, REAL, "", 1, 1e9, NULL, "base of the rotary frequencies", MODEL},
    {"max-positions", "max_position_embeddings", NULL, INT, "", 4, 1048576, NULL, "longest text the model claims to take (32768)", MODEL},
    {"norm-eps", "rms_norm_eps", NULL, REAL, "", 1e-12, 1e-2, NULL, "epsilon of RMSNorm", MODEL},
    {"dropout", "dropout", NULL, REAL, "0", 0, 0.9, NULL, "dropout probability", MODEL},
    {"tie-embeddings", "tie_word_embeddings", NULL, BOOL, "", 0, 0, NULL, "share embedding and output matrix", MODEL},
    {"qk-norm", "qk_norm", NULL, BOOL, "", 0, 0, NULL, "normalise queries and keys per head", MODEL},

    {"epochs", "epochs", NULL, INT, "1", 1, 100000, NULL, "passes over the data (unless --steps or --tokens)", TRAINING},
    {"steps", "steps", NULL, INT, "", 1, 1e12, NULL, "optimizer steps", TRAINING},
    {"tokens", "tokens", NULL, INT, "", 1, 1e15, NULL, "tokens to train on", TRAINING},
    {"batch", "batch_size", NULL, INT, "8", 1, 65536, NULL, "rows of --seq-len tokens per micro-batch", TRAINING},
    {"accum", "accumulation_steps", "grad_accum_steps", INT, "1", 1, 65536, NULL, "micro-batches per optimizer step", TRAINING},
    {"seq-len", "max_seq_len", NULL, INT, "340", 4, 1048576, NULL, "tokens per row, the training context", TRAINING},
    {"lr", "learning_rate", NULL, REAL, "0.0005", 0, 10, NULL, "peak learning rate", TRAINING},
    {"lr-schedule", "lr_schedule", NULL, CHOICE, "cosine", 0, 0, "cosine,cosine-v2,constant,linear", "shape of the learning rate", TRAINING},
    {"warmup", "warmup_steps", "warmup_iters", INT, "0", 0, 1e9, NULL, "steps of linear warm-up", TRAINING},
    {"weight-decay", "weight_decay", NULL, REAL, "0.01", 0, 10, NULL, "decoupled weight decay", TRAINING},
    {"decay-all", "decay_all", NULL, BOOL, "true", 0, 0, NULL, "decay norms and embeddings too, as MiniMind does", TRAINING},
    {"beta1", "beta1", NULL, REAL, "0.9", 0, 0.999999, NULL, "AdamW first moment", TRAINING},
    {"beta2", "beta2", NULL, REAL, "0.999", 0, 0.9999999, NULL, "AdamW second moment", TRAINING},
    {"adam-eps", "adam_eps", NULL, REAL, "1e-08", 0, 1, NULL, "AdamW epsilon", TRAINING},
    {"clip", "grad_clip", NULL, REAL, "1", 0, 1e9, NULL, "largest gradient norm (0: no clipping)", TRAINING},

    {"pack", "pack", NULL, BOOL, "true", 0, 0, NULL, "pack documents without padding; off pads as MiniMind does", DATA},
    {"format", "row_format", NULL, CHOICE, "auto", 0, 0, MM_ROW_FORMATS, "shape of the data rows", DATA},
    {"on-bad-row", "on_bad_row", NULL, CHOICE, "stop", 0, 0, "stop,skip", "stop when over 0.1 % of the rows are bad, or skip them", DATA},
    {"val-fraction", "val_fraction", NULL, REAL, "0.01", 0, 0.5, NULL, "share of rows held out when there is no --val file", DATA},
    {"eval-rows", "eval_rows", NULL, INT, "256", 1, 1e9, NULL, "held-out rows scored at each evaluation", DATA},

    {"dtype", "dtype", NULL, CHOICE, "", 0, 0, "fp32,bf16", "precision of matrix products and activations (the processor's fastest)", RECORD},
    {"device", "device", NULL, CHOICE, "cpu", 0, 0, "cpu,cuda", "where to train", RECORD},
    {"threads", "threads", NULL, INT, "0", 0, 1024, NULL, "worker threads (0: all processors)", RECORD},
    {"seed", "seed", NULL, INT, "42", 0, 9.007199254740992e15, NULL, "seed of everything random", RECORD},
    {"log-every", "log_interval", NULL, INT, "1", 1, 1e9, NULL, "steps between metric points", RECORD},
    {"eval-every", "eval_interval", NULL, INT, "", 0, 1e12, NULL, "steps between evaluations (a tenth of the run; 0: only at the end)", RECORD},
    {"save-every", "save_interval", NULL, INT, "", 0, 1e12, NULL, "steps between checkpoints (as evaluations; 0: only at the end)", RECORD},
    {"keep", "keep_checkpoints", NULL, INT, "2", 1, 1000000, NULL, "newest checkpoints kept, besides the best and the final one", RECORD},
    {"gen-tokens", "gen_tokens", NULL, INT, "64", 0, 8192, NULL, "length of the sample answers at each evaluation", RECORD},
};
// clang-format on

enum { N_HYPER = sizeof TABLE / sizeof TABLE[0], VALUE_BYTES = 64 };

struct mm_config {
    char value[N_HYPER][VALUE_BYTES]; // "" = not decided yet
    char origin[N_HYPER][24];
};

// Equal but for dashes against underscores.
static bool same_name(const char *a, const char *b, size_t length_b)
{
    size_t i = 0;
    for (; i < length_b && a[i]; i++) {
        const char x = a[i] == '-' ? '_' : a[i];
        const char y = b[i] == '-' ? '_' : b[i];
        if (x != y) return false;
    }
    return i == length_b && a[i] == '\0';
}

static bool in_list(const char *name, const char *list)
{
    while (list && *list) {
        const size_t length = strcspn(list, ",");
        if (same_name(name, list, length)) return true;
        list += length + (list[length] == ',');
    }
    return false;
}

static int find(const char *name)
{
    for (int i = 0; i < N_HYPER; i++) {
        const hyper *h = &TABLE[i];
        if (same_name(name, h->flag, strlen(h->flag)) ||
            same_name(name, h->name, strlen(h->name)) || in_list(name, h->aliases))
            return i;
    }
    return -1;
}

static int must_find(const char *name)
{
    const int i = find(name);
    MM_ASSERT(i >= 0);
    return i;
}

bool mm_config_known(const char *name, const char **canonical)
{
    const int i = find(name);
    if (i >= 0 && canonical) *canonical = TABLE[i].name;
    return i >= 0;
}

static const char *metavar(value_type type)
{
    switch (type) {
    case INT:
        return "N";
    case REAL:
        return "X";
    case BOOL:
        return "on|off";
    default:
        return "NAME";
    }
}

const mm_option *mm_config_options(void)
{
    // Filled on first use by the one thread that parses the command line.
    static mm_option options[N_HYPER + 1];
    static char alias_text[N_HYPER][96];
    if (options[0].name) return options;
    for (int i = 0; i < N_HYPER; i++) {
        const hyper *h = &TABLE[i];
        snprintf(alias_text[i], sizeof alias_text[i], "%s%s%s", h->name, h->aliases ? "," : "",
                 h->aliases ? h->aliases : "");
        // Values stay text here: a sweep takes comma lists. mm_config_set checks type and bounds.
        options[i] = (mm_option){.name = h->flag,
                                 .aliases = alias_text[i],
                                 .type = MM_OPTION_TEXT,
                                 .value = metavar(h->type),
                                 .help = h->help,
                                 .group = h->group,
                                 .choices = h->choices};
    }
    return options;
}

mm_status mm_config_new(mm_config **out, const char *stage, mm_err *err)
{
    *out = NULL;
    if (strcmp(stage, "pretrain") != 0)
        return MM_FAIL(err, MM_EUSAGE, "--stage: expected pretrain, found '%s'", stage);
    mm_config *config = mm_calloc(1, sizeof *config);
    if (!config) return MM_FAIL(err, MM_ENOMEM, "no memory for the configuration");
    for (int i = 0; i < N_HYPER; i++) {
        snprintf(config->value[i], VALUE_BYTES, "%s", TABLE[i].otherwise);
        snprintf(config->origin[i], sizeof config->origin[i], "default");
    }
    *out = config;
    return MM_OK;
}

void mm_config_free(mm_config *config) { mm_free(config); }

mm_status mm_config_copy(mm_config **out, const mm_config *from, mm_err *err)
{
    *out = mm_alloc(sizeof **out);
    if (!*out) return MM_FAIL(err, MM_ENOMEM, "no memory for the configuration");
    **out = *from;
    return MM_OK;
}

static mm_status parse_int(const hyper *h, const char *text, char *out, mm_err *err)
{
    // "1e6" and "10k" are what people write for tokens and steps.
    char *end;
    errno = 0;
    double value = strtod(text, &end);
    if (end != text && (*end == 'k' || *end == 'K'))
        value *= 1e3, end++;
    else if (end != text && (*end == 'm' || *end == 'M'))
        value *= 1e6, end++;
    if (end == text || *end != '\0' || errno != 0 || value != floor(value))
        return MM_FAIL(err, MM_EUSAGE, "--%s: expected a whole number, found '%s'", h->flag, text);
    if (value < h->min || value > h->max)
        return MM_FAIL(err, MM_EUSAGE, "--%s: expected %.16g to %.16g, found '%s'", h->flag, h->min,
                       h->max, text);
    snprintf(out, VALUE_BYTES, "%lld", (long long)value);
    return MM_OK;
}

// Shortest text that reads back equal, so that 5e-4 and 0.0005 are one value in the database; whole
// numbers of ordinary size without an exponent.
static void put_real(char *out, double value)
{
    if (fabs(value) < 1e15 && !(floor(value) < value)) {
        snprintf(out, VALUE_BYTES, "%.0f", value);
        return;
    }
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(out, VALUE_BYTES, "%.*g", digits, value);
        const double back = strtod(out, NULL);
        if (!(back < value) && !(back > value)) break;
    }
}

static mm_status parse_real(const hyper *h, const char *text, char *out, mm_err *err)
{
    char *end;
    errno = 0;
    const double value = strtod(text, &end);
    if (end == text || *end != '\0' || !isfinite(value))
        return MM_FAIL(err, MM_EUSAGE, "--%s: expected a number, found '%s'", h->flag, text);
    if (value < h->min || value > h->max)
        return MM_FAIL(err, MM_EUSAGE, "--%s: expected %g to %g, found '%s'", h->flag, h->min,
                       h->max, text);
    put_real(out, value);
    return MM_OK;
}

// The values a choice has, as the table spells them: "cosine_v2" is cosine-v2. MiniMind's names of
// number types are further spellings of ours.
static mm_status parse_choice(const hyper *h, const char *text, char *out, mm_err *err)
{
    static const struct {
        const char *other;
        const char *ours;
    } SPELLINGS[] = {{"float32", "fp32"}, {"bfloat16", "bf16"}};
    const char *wanted = text;
    for (size_t i = 0; i < sizeof SPELLINGS / sizeof SPELLINGS[0]; i++)
        if (strcmp(text, SPELLINGS[i].other) == 0) wanted = SPELLINGS[i].ours;
    for (const char *at = h->choices; *at;) {
        const size_t length = strcspn(at, ",");
        if (same_name(wanted, at, length)) {
            snprintf(out, VALUE_BYTES, "%.*s", (int)length, at);
            return MM_OK;
        }
        at += length + (at[length] == ',');
    }
    return MM_FAIL(err, MM_EUSAGE, "--%s: expected one of %s, found '%s'", h->flag, h->choices,
                   text);
}

static mm_status parse_value(const hyper *h, const char *text, char *out, mm_err *err)
{
    switch (h->type) {
    case INT:
        return parse_int(h, text, out, err);
    case REAL:
        return parse_real(h, text, out, err);
    case BOOL:
        if (in_list(text, "on,true,yes,1"))
            snprintf(out, VALUE_BYTES, "true");
        else if (in_list(text, "off,false,no,0"))
            snprintf(out, VALUE_BYTES, "false");
        else
            return MM_FAIL(err, MM_EUSAGE, "--%s: expected on or off, found '%s'", h->flag, text);
        return MM_OK;
    case CHOICE:
        return parse_choice(h, text, out, err);
    }
    return MM_OK;
}

static const char *nearest(const char *name)
{
    mm_nearest near = {.wanted = name};
    for (int i = 0; i < N_HYPER; i++) {
        mm_nearest_offer(&near, TABLE[i].flag, strlen(TABLE[i].flag));
        mm_nearest_offer(&near, TABLE[i].name, strlen(TABLE[i].name));
    }
    return mm_nearest_found(&near) ? near.best : NULL;
}

mm_status mm_config_set(mm_config *config, const char *name, const char *value, const char *origin,
                        mm_err *err)
{
    const int i = find(name);
    if (i < 0) {
        const char *near = nearest(name);
        return MM_FAIL(err, MM_EUSAGE, "unknown hyperparameter '%s'%s%s%s", name,
                       near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
    }
    char canonical[VALUE_BYTES] = "";
    MM_TRY(parse_value(&TABLE[i], value, canonical, err));
    snprintf(config->value[i], VALUE_BYTES, "%s", canonical);
    snprintf(config->origin[i], sizeof config->origin[i], "%s", origin);
    return MM_OK;
}

mm_status mm_config_from_args(mm_config *config, const mm_args *args, bool lists, mm_err *err)
{
    for (int i = 0; i < N_HYPER; i++) {
        const char *value = mm_args_text(args, TABLE[i].flag);
        if (!value) continue;
        if (strchr(value, ',')) {
            if (lists) continue;
            return MM_FAIL(
                err, MM_EUSAGE,
                "--%s: one value expected, found the list '%s'; `mmrun sweep` takes lists",
                TABLE[i].flag, value);
        }
        MM_TRY(mm_config_set(config, TABLE[i].name, value, "command line", err));
    }
    return MM_OK;
}

static char *trim(char *text)
{
    while (isspace((unsigned char)*text))
        text++;
    char *end = text + strlen(text);
    while (end > text && isspace((unsigned char)end[-1]))
        *--end = '\0';
    return text;
}

// Cuts a comment that is not inside quotes, then the quotes themselves.
static char *unquote(char *text)
{
    char quote = '\0';
    for (char *at = text; *at; at++) {
        if (!quote && *at == '#') {
            *at = '\0';
            break;
        }
        if (!quote && (*at == '"' || *at == '\''))
            quote = *at;
        else if (*at == quote)
            quote = '\0';
    }
    text = trim(text);
    const size_t length = strlen(text);
    if (length >= 2 && (*text == '"' || *text == '\'') && text[length - 1] == *text) {
        text[length - 1] = '\0';
        text++;
    }
    return text;
}

mm_status mm_config_from_file(mm_config *config, const char *path, mm_err *err)
{
    enum { FILE_BYTES_MAX = 1 << 20 };
    char *text = NULL;
    size_t bytes = 0;
    MM_TRY(mm_file_read(path, FILE_BYTES_MAX, &text, &bytes, err));
    mm_status status = MM_OK;
    int line = 0;
    for (char *next = text; next && status == MM_OK;) {
        char *at = next;
        char *newline = strchr(at, '\n');
        next = newline ? newline + 1 : NULL;
        if (newline) *newline = '\0';
        line++;
        at = trim(at);
        // Section headings only group keys.
        if (*at == '\0' || *at == '#' || *at == '[') continue;
        char *equals = strchr(at, '=');
        if (!equals) {
            status = MM_FAIL(err, MM_EFORMAT, "%s line %d: expected key = value, found '%s'", path,
                             line, at);
            break;
        }
        *equals = '\0';
        status = mm_config_set(config, trim(at), unquote(equals + 1), "file", err);
        if (status != MM_OK) mm_err_context(err, "%s line %d", path, line);
    }
    mm_free(text);
    return status;
}

mm_status mm_config_from_params(mm_config *config, const mm_param *params, size_t count,
                                const char *origin, mm_err *err)
{
    for (size_t k = 0; k < count; k++) {
        const int i = find(params[k].name);
        // A run's record also holds facts that are no hyperparameters (tokenizer_hash, prompts …).
        if (i < 0 || !params[k].value) continue;
        const char *from = origin ? origin : params[k].origin;
        MM_TRY(
            mm_config_set(config, params[k].name, params[k].value, from ? from : "default", err));
    }
    return MM_OK;
}

int64_t mm_config_int(const mm_config *config, const char *name)
{
    return strtoll(config->value[must_find(name)], NULL, 10);
}

double mm_config_real(const mm_config *config, const char *name)
{
    return strtod(config->value[must_find(name)], NULL);
}

bool mm_config_bool(const mm_config *config, const char *name)
{
    return strcmp(config->value[must_find(name)], "true") == 0;
}

const char *mm_config_text(const mm_config *config, const char *name)
{
    return config->value[must_find(name)];
}

bool mm_config_is_set(const mm_config *config, const char *name)
{
    const int i = must_find(name);
    return config->value[i][0] != '\0' && strcmp(config->origin[i], "default") != 0;
}

// Puts a value that the preset or the data decided; what the user set stays.
static void decide(mm_config *config, const char *name, const char *origin, double value)
{
    const int i = must_find(name);
    if (config->value[i][0] != '\0' && strcmp(config->origin[i], "default") != 0) return;
    const value_type type = TABLE[i].type;
    if (type == INT)
        snprintf(config->value[i], VALUE_BYTES, "%lld", (long long)value);
    else if (type == BOOL)
        snprintf(config->value[i], VALUE_BYTES, "%s", value > 0 ? "true" : "false");
    else
        put_real(config->value[i], value);
    snprintf(config->origin[i], sizeof config->origin[i], "%s", origin);
}

// How firmly a value was chosen: what is given for this very run goes before a file.
static int firmness(const mm_config *config, const char *name)
{
    const char *origin = config->origin[must_find(name)];
    if (!mm_config_is_set(config, name)) return 0;
    if (in_list(origin, "command line,sweep")) return 3;
    return strcmp(origin, "data") == 0 ? 1 : 2;
}

mm_status mm_config_length(mm_config *config, const char **decides, mm_err *err)
{
    static const char *const NAMES[] = {"steps", "tokens", "epochs"};
    enum { N_NAMES = sizeof NAMES / sizeof NAMES[0] };
    const char *best = "epochs";
    int most = 0;
    for (size_t k = 0; k < N_NAMES; k++) {
        const int firm = firmness(config, NAMES[k]);
        if (firm > 0 && firm == most)
            return MM_FAIL(err, MM_EUSAGE,
                           "--%s and --%s both say how long to train: one of them is expected",
                           best, NAMES[k]);
        if (firm <= most) continue;
        most = firm;
        best = NAMES[k];
    }
    // What does not count is not recorded either: a run of 100 steps is not "1 epoch".
    for (size_t k = 0; k < N_NAMES; k++)
        if (strcmp(NAMES[k], best) != 0) config->value[must_find(NAMES[k])][0] = '\0';
    *decides = best;
    return MM_OK;
}

void mm_config_decide(mm_config *config, const char *name, int64_t value)
{
    decide(config, name, "data", (double)value);
}

mm_dtype mm_config_dtype(mm_config *config)
{
    const int i = must_find("dtype");
    if (config->value[i][0] == '\0') {
        const bool is_bf16 = mm_engine_best_dtype() == MM_BF16;
        snprintf(config->value[i], VALUE_BYTES, "%s", is_bf16 ? "bf16" : "fp32");
        snprintf(config->origin[i], sizeof config->origin[i], "processor");
    }
    return strcmp(config->value[i], "bf16") == 0 ? MM_BF16 : MM_F32;
}

static void take_int(const mm_config *config, const char *name, int32_t *field)
{
    if (mm_config_is_set(config, name)) *field = (int32_t)mm_config_int(config, name);
}

mm_status mm_config_model(mm_config *config, int32_t vocab_size, mm_model_config *out, mm_err *err)
{
    MM_TRY(mm_model_config_preset(out, mm_config_text(config, "preset"), err));
    // A width of one's own takes the preset's rules for what hangs on it.
    if (mm_config_is_set(config, "hidden_size") ||
        mm_config_is_set(config, "num_attention_heads")) {
        out->head_dim = 0;
    }
    if (mm_config_is_set(config, "hidden_size")) out->intermediate_size = 0;
    take_int(config, "hidden_size", &out->hidden_size);
    take_int(config, "num_hidden_layers", &out->num_hidden_layers);
    take_int(config, "num_attention_heads", &out->num_attention_heads);
    take_int(config, "num_key_value_heads", &out->num_key_value_heads);
    take_int(config, "head_dim", &out->head_dim);
    take_int(config, "intermediate_size", &out->intermediate_size);
    take_int(config, "vocab_size", &out->vocab_size);
    take_int(config, "max_position_embeddings", &out->max_position_embeddings);
    // Fewer or other heads than the preset's: as many groups of them as come nearest to it.
    if (mm_config_is_set(config, "num_attention_heads") &&
        !mm_config_is_set(config, "num_key_value_heads"))
        while (out->num_attention_heads % out->num_key_value_heads != 0)
            out->num_key_value_heads--;
    if (vocab_size > 0) {
        if (mm_config_is_set(config, "vocab_size") && out->vocab_size < vocab_size)
            return MM_FAIL(err, MM_ECONFIG, "--vocab: the tokenizer has %d tokens, found %d",
                           vocab_size, out->vocab_size);
        if (!mm_config_is_set(config, "vocab_size")) out->vocab_size = vocab_size;
    }
    if (mm_config_is_set(config, "rope_theta"))
        out->rope_theta = mm_config_real(config, "rope_theta");
    if (mm_config_is_set(config, "rms_norm_eps"))
        out->rms_norm_eps = mm_config_real(config, "rms_norm_eps");
    if (mm_config_is_set(config, "tie_word_embeddings"))
        out->tie_word_embeddings = mm_config_bool(config, "tie_word_embeddings");
    if (mm_config_is_set(config, "qk_norm")) out->qk_norm = mm_config_bool(config, "qk_norm");
    out->dropout = mm_config_real(config, "dropout");
    MM_TRY(mm_model_config_resolve(out, err));
    decide(config, "hidden_size", "preset", out->hidden_size);
    decide(config, "num_hidden_layers", "preset", out->num_hidden_layers);
    decide(config, "num_attention_heads", "preset", out->num_attention_heads);
    decide(config, "num_key_value_heads", "preset", out->num_key_value_heads);
    decide(config, "head_dim", "preset", out->head_dim);
    decide(config, "intermediate_size", "preset", out->intermediate_size);
    decide(config, "vocab_size", "tokenizer", out->vocab_size);
    decide(config, "max_position_embeddings", "preset", out->max_position_embeddings);
    decide(config, "rope_theta", "preset", out->rope_theta);
    decide(config, "rms_norm_eps", "preset", out->rms_norm_eps);
    decide(config, "tie_word_embeddings", "preset", out->tie_word_embeddings ? 1 : 0);
    decide(config, "qk_norm", "preset", out->qk_norm ? 1 : 0);
    return MM_OK;
}

// A value nobody chose counts as default, whoever worked it out.
static bool is_default(const char *origin)
{
    return in_list(origin, "default,preset,tokenizer,data,processor");
}

mm_status mm_config_params(const mm_config *config, mm_arena *arena, mm_param **out, size_t *count,
                           mm_err *err)
{
    mm_param *params = mm_arena_alloc(arena, N_HYPER * sizeof *params);
    if (!params) return MM_FAIL(err, MM_ENOMEM, "no memory for the configuration");
    size_t n = 0;
    for (int i = 0; i < N_HYPER; i++) {
        if (config->value[i][0] == '\0') continue;
        params[n].name = TABLE[i].name;
        params[n].value = mm_arena_strdup(arena, config->value[i]);
        params[n].origin = mm_arena_strdup(arena, config->origin[i]);
        if (!params[n].value || !params[n].origin)
            return MM_FAIL(err, MM_ENOMEM, "no memory for the configuration");
        params[n].is_default = is_default(params[n].origin);
        n++;
    }
    *out = params;
    *count = n;
    return MM_OK;
}

void mm_config_add_flags(const mm_config *config, mm_str *out)
{
    for (int i = 0; i < N_HYPER; i++) {
        if (config->value[i][0] == '\0' || is_default(config->origin[i])) continue;
        mm_str_addf(out, " --%s %s", TABLE[i].flag, config->value[i]);
    }
}

mm_status mm_config_shape_from_params(mm_config *config, const mm_param *params, size_t count,
                                      mm_err *err)
{
    for (size_t k = 0; k < count; k++) {
        const int i = find(params[k].name);
        if (i < 0 || strcmp(TABLE[i].group, MODEL) != 0 || !params[k].value) continue;
        MM_TRY(mm_config_set(config, params[k].name, params[k].value, "parent", err));
    }
    return MM_OK;
}

const char *mm_config_flag(size_t i) { return i < N_HYPER ? TABLE[i].flag : NULL; }
