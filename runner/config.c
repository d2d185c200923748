/* Hyperparameters: one table is the flags, the database names, the defaults, the bounds and the
 * help. A value is kept as its canonical text together with its origin; typed readers parse it
 * again, which cannot fail because only checked text is ever stored. */
#include "runner/config.h"

#include "core/base/file.h"
#include "core/base/nearest.h"
#include "core/nn/engine.h"
#include "core/nn/lora.h"
#include "runner/args.h"
#include "runner/config_table.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct mm_config {
    mm_stage stage;
    char value[MM_HYPERS][MM_HYPER_VALUE_BYTES]; // "" = not decided yet, or not of this stage
    char origin[MM_HYPERS][24];
};

static uint32_t bit_of(const mm_config *config) { return 1u << config->stage; }

// Index of a row that the stage must have.
static int must_find(const mm_config *config, const char *name)
{
    const int i = mm_hyper_find_name(bit_of(config), name);
    MM_ASSERT(i >= 0);
    return i;
}

// What the stage does not have reads as nothing, so that code shared by stages may ask.
static const char *value_of(const mm_config *config, const char *name)
{
    const int i = mm_hyper_find_name(bit_of(config), name);
    if (i >= 0) return config->value[i];
    MM_ASSERT(mm_hyper_find_name(UINT32_MAX, name) >= 0);
    return "";
}

bool mm_config_known(const mm_config *config, const char *name, const char **canonical)
{
    const int i = mm_hyper_find(bit_of(config), name);
    if (i >= 0 && canonical) *canonical = mm_hyper_table[i].name;
    return i >= 0;
}

static const char *metavar(mm_hyper_type type)
{
    switch (type) {
    case MM_HYPER_INT:
        return "N";
    case MM_HYPER_REAL:
        return "X";
    case MM_HYPER_BOOL:
        return "on|off";
    case MM_HYPER_TARGETS:
        return "LIST";
    default:
        return "NAME";
    }
}

enum { ALIAS_BYTES = 128 };

// Database name and aliases, without what is a flag of its own among these stages.
static void add_aliases(char text[ALIAS_BYTES], const mm_hyper *row, uint32_t stages)
{
    char all[ALIAS_BYTES];
    snprintf(all, sizeof all, "%s%s%s", row->name, row->aliases ? "," : "",
             row->aliases ? row->aliases : "");
    size_t used = strlen(text);
    for (const char *at = all; *at;) {
        const size_t length = strcspn(at, ",");
        char name[ALIAS_BYTES];
        snprintf(name, sizeof name, "%.*s", (int)length, at);
        at += length + (at[length] == ',');
        bool is_taken = mm_hyper_in_list(name, text);
        for (int i = 0; i < MM_HYPERS; i++)
            is_taken |=
                (mm_hyper_table[i].stages & stages) != 0 && &mm_hyper_table[i] != row &&
                mm_hyper_same_name(name, mm_hyper_table[i].flag, strlen(mm_hyper_table[i].flag));
        if (is_taken) continue;
        MM_ASSERT(used + length + 2 < ALIAS_BYTES);
        used += (size_t)snprintf(text + used, ALIAS_BYTES - used, "%s%s", used ? "," : "", name);
    }
}

const mm_option *mm_config_options(const char *stage)
{
    // Filled on first use by the one thread that parses the command line. The last table is of all
    // stages together, where rows of one flag are one option.
    static mm_option options[MM_STAGES + 1][MM_HYPERS + 1];
    static char alias_text[MM_STAGES + 1][MM_HYPERS][ALIAS_BYTES];
    mm_stage which = MM_STAGES;
    if (*stage) MM_ASSERT(mm_stage_parse(stage, &which));
    const uint32_t stages = which == MM_STAGES ? UINT32_MAX : 1u << which;
    mm_option *out = options[which];
    if (out[0].name) return out;
    size_t n = 0;
    for (int i = 0; i < MM_HYPERS; i++) {
        const mm_hyper *h = &mm_hyper_table[i];
        if ((h->stages & stages) == 0) continue;
        size_t same = 0;
        while (same < n && strcmp(out[same].name, h->flag) != 0)
            same++;
        add_aliases(alias_text[which][same], h, stages);
        if (same < n) continue;
        // Values stay text here: a sweep takes comma lists. mm_config_set checks type and bounds.
        out[n] = (mm_option){.name = h->flag,
                             .aliases = alias_text[which][n],
                             .type = MM_OPTION_TEXT,
                             .value = metavar(h->type),
                             .help = h->help,
                             .group = h->group,
                             .choices = h->choices};
        n++;
    }
    return out;
}

size_t mm_config_stages_of(const char *name, char *out, size_t bytes)
{
    size_t n = 0;
    size_t used = 0;
    out[0] = '\0';
    for (int k = 0; k < MM_STAGES; k++) {
        if (mm_hyper_find(1u << k, name) < 0) continue;
        const int added =
            snprintf(out + used, bytes - used, "%s%s", n ? ", " : "", mm_stage_name((mm_stage)k));
        used = (size_t)added < bytes - used ? used + (size_t)added : bytes - 1;
        n++;
    }
    return n;
}

mm_status mm_config_new(mm_config **out, const char *stage, mm_err *err)
{
    *out = NULL;
    mm_stage which;
    if (!mm_stage_parse(stage, &which))
        return MM_FAIL(err, MM_EUSAGE, "--stage: expected one of %s, found '%s'", MM_STAGE_NAMES,
                       stage);
    mm_config *config = mm_calloc(1, sizeof *config);
    if (!config) return MM_FAIL(err, MM_ENOMEM, "no memory for the configuration");
    config->stage = which;
    for (int i = 0; i < MM_HYPERS; i++) {
        if ((mm_hyper_table[i].stages & bit_of(config)) == 0) continue;
        snprintf(config->value[i], MM_HYPER_VALUE_BYTES, "%s",
                 mm_hyper_default(&mm_hyper_table[i], which, false));
        snprintf(config->origin[i], sizeof config->origin[i], "default");
    }
    *out = config;
    return MM_OK;
}

const char *mm_config_stage(const mm_config *config) { return mm_stage_name(config->stage); }

void mm_config_free(mm_config *config) { mm_free(config); }

mm_status mm_config_copy(mm_config **out, const mm_config *from, mm_err *err)
{
    *out = mm_alloc(sizeof **out);
    if (!*out) return MM_FAIL(err, MM_ENOMEM, "no memory for the configuration");
    **out = *from;
    return MM_OK;
}

static mm_status parse_int(const mm_hyper *h, const char *text, char *out, mm_err *err)
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
    snprintf(out, MM_HYPER_VALUE_BYTES, "%lld", (long long)value);
    return MM_OK;
}

// Shortest text that reads back equal, so that 5e-4 and 0.0005 are one value in the database; whole
// numbers of ordinary size without an exponent.
static void put_real(char *out, double value)
{
    if (fabs(value) < 1e15 && !(floor(value) < value)) {
        snprintf(out, MM_HYPER_VALUE_BYTES, "%.0f", value);
        return;
    }
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(out, MM_HYPER_VALUE_BYTES, "%.*g", digits, value);
        const double back = strtod(out, NULL);
        if (!(back < value) && !(back > value)) break;
    }
}

static mm_status parse_real(const mm_hyper *h, const char *text, char *out, mm_err *err)
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
static mm_status parse_choice(const mm_hyper *h, const char *text, char *out, mm_err *err)
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
        if (mm_hyper_same_name(wanted, at, length)) {
            snprintf(out, MM_HYPER_VALUE_BYTES, "%.*s", (int)length, at);
            return MM_OK;
        }
        at += length + (at[length] == ',');
    }
    return MM_FAIL(err, MM_EUSAGE, "--%s: expected one of %s, found '%s'", h->flag, h->choices,
                   text);
}

// Names joined by '+'; "square" stays until the shape is known.
static mm_status parse_targets(const mm_hyper *h, const char *text, char *out, mm_err *err)
{
    uint32_t targets = 0;
    mm_str canonical = {0};
    if (strcmp(text, "square") == 0) {
        snprintf(out, MM_HYPER_VALUE_BYTES, "square");
        return MM_OK;
    }
    const mm_status status = mm_lora_targets_parse(text, &targets, err);
    if (status != MM_OK) {
        mm_err_context(err, "--%s", h->flag);
        return status == MM_ECONFIG ? MM_EUSAGE : status;
    }
    mm_lora_targets_text(targets, &canonical);
    snprintf(out, MM_HYPER_VALUE_BYTES, "%s", mm_str_text(&canonical));
    mm_str_drop(&canonical);
    return MM_OK;
}

static mm_status parse_value(const mm_hyper *h, const char *text, char *out, mm_err *err)
{
    switch (h->type) {
    case MM_HYPER_INT:
        return parse_int(h, text, out, err);
    case MM_HYPER_REAL:
        return parse_real(h, text, out, err);
    case MM_HYPER_BOOL:
        if (mm_hyper_in_list(text, "on,true,yes,1"))
            snprintf(out, MM_HYPER_VALUE_BYTES, "true");
        else if (mm_hyper_in_list(text, "off,false,no,0"))
            snprintf(out, MM_HYPER_VALUE_BYTES, "false");
        else
            return MM_FAIL(err, MM_EUSAGE, "--%s: expected on or off, found '%s'", h->flag, text);
        return MM_OK;
    case MM_HYPER_CHOICE:
        return parse_choice(h, text, out, err);
    case MM_HYPER_TARGETS:
        return parse_targets(h, text, out, err);
    }
    return MM_OK;
}

static mm_status unknown_name(const mm_config *config, const char *name, mm_err *err)
{
    char stages[64];
    if (mm_config_stages_of(name, stages, sizeof stages) > 0)
        return MM_FAIL(err, MM_EUSAGE, "%s has no hyperparameter '%s': it belongs to %s",
                       mm_config_stage(config), name, stages);
    mm_nearest near = {.wanted = name};
    for (int i = 0; i < MM_HYPERS; i++) {
        const mm_hyper *h = &mm_hyper_table[i];
        if ((h->stages & bit_of(config)) == 0) continue;
        mm_nearest_offer(&near, h->flag, strlen(h->flag));
        mm_nearest_offer(&near, h->name, strlen(h->name));
    }
    const bool is_near = mm_nearest_found(&near);
    return MM_FAIL(err, MM_EUSAGE, "unknown hyperparameter '%s'%s%s%s", name,
                   is_near ? "; did you mean '" : "", is_near ? near.best : "",
                   is_near ? "'?" : "");
}

// Nobody chose the value: it is the stage's own, ours or MiniMind's.
static bool is_untouched(const mm_config *config, int i)
{
    return strcmp(config->origin[i], "default") == 0 || strcmp(config->origin[i], "compat") == 0;
}

// --compat exchanges the defaults; what was chosen, or will be, stays as it is.
static void take_compat(mm_config *config, bool is_minimind)
{
    for (int i = 0; i < MM_HYPERS; i++) {
        const mm_hyper *h = &mm_hyper_table[i];
        if ((h->stages & bit_of(config)) == 0 || !is_untouched(config, i)) continue;
        const char *ours = mm_hyper_default(h, config->stage, false);
        const char *value = mm_hyper_default(h, config->stage, is_minimind);
        snprintf(config->value[i], MM_HYPER_VALUE_BYTES, "%s", value);
        snprintf(config->origin[i], sizeof config->origin[i], "%s",
                 strcmp(value, ours) == 0 ? "default" : "compat");
    }
}

mm_status mm_config_set(mm_config *config, const char *name, const char *value, const char *origin,
                        mm_err *err)
{
    const int i = mm_hyper_find(bit_of(config), name);
    if (i < 0) return unknown_name(config, name, err);
    char canonical[MM_HYPER_VALUE_BYTES] = "";
    MM_TRY(parse_value(&mm_hyper_table[i], value, canonical, err));
    snprintf(config->value[i], MM_HYPER_VALUE_BYTES, "%s", canonical);
    snprintf(config->origin[i], sizeof config->origin[i], "%s", origin);
    if (strcmp(mm_hyper_table[i].name, "compat") == 0)
        take_compat(config, strcmp(canonical, "minimind") == 0);
    return MM_OK;
}

mm_status mm_config_from_args(mm_config *config, const mm_args *args, bool lists, mm_err *err)
{
    for (int i = 0; i < MM_HYPERS; i++) {
        const mm_hyper *h = &mm_hyper_table[i];
        const char *value = mm_args_text(args, h->flag);
        if (!value) continue;
        if (mm_hyper_find(bit_of(config), h->flag) < 0) return unknown_name(config, h->flag, err);
        if ((h->stages & bit_of(config)) == 0) continue;
        if (strchr(value, ',') && (lists || h->type != MM_HYPER_TARGETS)) {
            if (lists) continue;
            return MM_FAIL(
                err, MM_EUSAGE,
                "--%s: one value expected, found the list '%s'; `mmrun sweep` takes lists", h->flag,
                value);
        }
        MM_TRY(mm_config_set(config, h->flag, value, "command line", err));
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
        // A run's record also holds facts that are no hyperparameters (tokenizer_hash, prompts …).
        if (mm_hyper_find_name(bit_of(config), params[k].name) < 0 || !params[k].value) continue;
        const char *from = origin ? origin : params[k].origin;
        MM_TRY(
            mm_config_set(config, params[k].name, params[k].value, from ? from : "default", err));
    }
    return MM_OK;
}

int64_t mm_config_int(const mm_config *config, const char *name)
{
    return strtoll(value_of(config, name), NULL, 10);
}

double mm_config_real(const mm_config *config, const char *name)
{
    return strtod(value_of(config, name), NULL);
}

bool mm_config_bool(const mm_config *config, const char *name)
{
    return strcmp(value_of(config, name), "true") == 0;
}

const char *mm_config_text(const mm_config *config, const char *name)
{
    return value_of(config, name);
}

bool mm_config_is_set(const mm_config *config, const char *name)
{
    const int i = mm_hyper_find_name(bit_of(config), name);
    return i >= 0 && config->value[i][0] != '\0' && !is_untouched(config, i);
}

// Puts a value that the preset or the data decided; what the user set stays.
static void decide(mm_config *config, const char *name, const char *origin, double value)
{
    const int i = must_find(config, name);
    if (config->value[i][0] != '\0' && !is_untouched(config, i)) return;
    const mm_hyper_type type = mm_hyper_table[i].type;
    if (type == MM_HYPER_INT)
        snprintf(config->value[i], MM_HYPER_VALUE_BYTES, "%lld", (long long)value);
    else if (type == MM_HYPER_BOOL)
        snprintf(config->value[i], MM_HYPER_VALUE_BYTES, "%s", value > 0 ? "true" : "false");
    else
        put_real(config->value[i], value);
    snprintf(config->origin[i], sizeof config->origin[i], "%s", origin);
}

// How firmly a value was chosen: what is given for this very run goes before a file.
static int firmness(const mm_config *config, const char *name)
{
    const char *origin = config->origin[must_find(config, name)];
    if (!mm_config_is_set(config, name)) return 0;
    if (mm_hyper_in_list(origin, "command line,sweep")) return 3;
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
        if (strcmp(NAMES[k], best) != 0) config->value[must_find(config, NAMES[k])][0] = '\0';
    *decides = best;
    return MM_OK;
}

void mm_config_decide(mm_config *config, const char *name, double value)
{
    decide(config, name, "data", value);
}

mm_dtype mm_config_dtype(mm_config *config)
{
    const int i = must_find(config, "dtype");
    if (config->value[i][0] == '\0') {
        const bool is_bf16 = mm_engine_best_dtype() == MM_BF16;
        snprintf(config->value[i], MM_HYPER_VALUE_BYTES, "%s", is_bf16 ? "bf16" : "fp32");
        snprintf(config->origin[i], sizeof config->origin[i], "processor");
    }
    return strcmp(config->value[i], "bf16") == 0 ? MM_BF16 : MM_F32;
}

static void take_int(const mm_config *config, const char *name, int32_t *field)
{
    if (mm_config_is_set(config, name)) *field = (int32_t)mm_config_int(config, name);
}

// Linears that are as wide as they are high: what MiniMind adapts.
static uint32_t square_targets(const mm_model_config *shape)
{
    const int32_t width = shape->hidden_size;
    uint32_t targets = 0;
    if (shape->num_attention_heads * shape->head_dim == width)
        targets |= MM_LORA_Q_PROJ | MM_LORA_O_PROJ;
    if (shape->num_key_value_heads * shape->head_dim == width)
        targets |= MM_LORA_K_PROJ | MM_LORA_V_PROJ;
    if (shape->intermediate_size == width)
        targets |= MM_LORA_GATE_PROJ | MM_LORA_UP_PROJ | MM_LORA_DOWN_PROJ;
    return targets;
}

// The adapters of a shape that is resolved. Without any, nothing is said of them in the record.
static mm_status take_adapters(mm_config *config, mm_model_config *out, mm_err *err)
{
    static const char *const DETAILS[] = {"lora_alpha", "lora_dropout", "lora_targets"};
    if (mm_hyper_find_name(bit_of(config), "lora_rank") < 0) return MM_OK;
    out->lora_rank = (int32_t)mm_config_int(config, "lora_rank");
    if (out->lora_rank == 0) {
        for (size_t k = 0; k < sizeof DETAILS / sizeof DETAILS[0]; k++) {
            const int i = must_find(config, DETAILS[k]);
            if (mm_config_is_set(config, DETAILS[k]))
                return MM_FAIL(err, MM_ECONFIG, "--%s: there are no adapters without --rank",
                               mm_hyper_table[i].flag);
            config->value[i][0] = '\0';
        }
        return MM_OK;
    }
    decide(config, "lora_alpha", "preset", out->lora_rank);
    out->lora_alpha = mm_config_real(config, "lora_alpha");
    out->lora_dropout = mm_config_real(config, "lora_dropout");
    if (strcmp(mm_config_text(config, "lora_targets"), "square") != 0)
        return mm_lora_targets_parse(mm_config_text(config, "lora_targets"), &out->lora_targets,
                                     err);
    out->lora_targets = square_targets(out);
    if (out->lora_targets == 0)
        return MM_FAIL(err, MM_ECONFIG,
                       "--targets square: no linear of this shape is as wide as it is high; name "
                       "them, or --targets all");
    mm_str text = {0};
    mm_lora_targets_text(out->lora_targets, &text);
    const int i = must_find(config, "lora_targets");
    snprintf(config->value[i], MM_HYPER_VALUE_BYTES, "%s", mm_str_text(&text));
    if (is_untouched(config, i)) snprintf(config->origin[i], sizeof config->origin[i], "preset");
    mm_str_drop(&text);
    return MM_OK;
}

static mm_status take_shape(mm_config *config, int32_t vocab_size, mm_model_config *out,
                            mm_err *err)
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
    return MM_OK;
}

// What only one of the losses over pairs looks at must not be given to another and be forgotten.
static mm_status check_preference(mm_config *config, mm_err *err)
{
    const char *loss = mm_config_text(config, "dpo_loss");
    if (!*loss) return MM_OK;
    const bool is_simpo = strcmp(loss, "simpo") == 0;
    if (strcmp(loss, "sigmoid") != 0 && mm_config_real(config, "label_smoothing") > 0)
        return MM_FAIL(err, MM_ECONFIG, "--label-smoothing: belongs to --loss sigmoid, found %s",
                       loss);
    if (!is_simpo && mm_config_is_set(config, "simpo_gamma"))
        return MM_FAIL(err, MM_ECONFIG, "--gamma: belongs to --loss simpo, found %s", loss);
    if (!is_simpo) return MM_OK;
    const int i = must_find(config, "logp");
    if (!is_untouched(config, i) && strcmp(config->value[i], "sum") == 0)
        return MM_FAIL(err, MM_ECONFIG, "--logp sum: --loss simpo compares means");
    snprintf(config->value[i], MM_HYPER_VALUE_BYTES, "mean");
    return MM_OK;
}

mm_status mm_config_model(mm_config *config, int32_t vocab_size, mm_model_config *out, mm_err *err)
{
    MM_TRY(check_preference(config, err));
    MM_TRY(take_shape(config, vocab_size, out, err));
    MM_TRY(mm_model_config_resolve(out, err));
    MM_TRY(take_adapters(config, out, err));
    // Adapters are checked against the widths that were resolved.
    if (out->lora_rank > 0) MM_TRY(mm_model_config_resolve(out, err));
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
    return mm_hyper_in_list(origin, "default,compat,preset,tokenizer,data,processor");
}

mm_status mm_config_params(const mm_config *config, mm_arena *arena, mm_param **out, size_t *count,
                           mm_err *err)
{
    mm_param *params = mm_arena_alloc(arena, MM_HYPERS * sizeof *params);
    if (!params) return MM_FAIL(err, MM_ENOMEM, "no memory for the configuration");
    size_t n = 0;
    for (int i = 0; i < MM_HYPERS; i++) {
        if (config->value[i][0] == '\0') continue;
        params[n].name = mm_hyper_table[i].name;
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
    for (int i = 0; i < MM_HYPERS; i++) {
        const char *origin = config->origin[i];
        // What the parent decided comes with --from again.
        if (config->value[i][0] == '\0' || is_default(origin) || strcmp(origin, "parent") == 0)
            continue;
        mm_str_addf(out, " --%s %s", mm_hyper_table[i].flag, config->value[i]);
    }
}

mm_status mm_config_shape_from_params(mm_config *config, const mm_param *params, size_t count,
                                      mm_err *err)
{
    for (size_t k = 0; k < count; k++) {
        const int i = mm_hyper_find_name(bit_of(config), params[k].name);
        const bool is_taken = i >= 0 && (mm_hyper_table[i].group == mm_hyper_model ||
                                         strcmp(mm_hyper_table[i].name, "dtype") == 0);
        if (!is_taken || !params[k].value) continue;
        MM_TRY(mm_config_set(config, params[k].name, params[k].value, "parent", err));
    }
    return MM_OK;
}

const char *mm_config_flag(const mm_config *config, size_t k)
{
    for (int i = 0; i < MM_HYPERS; i++)
        if ((mm_hyper_table[i].stages & bit_of(config)) != 0 && k-- == 0)
            return mm_hyper_table[i].flag;
    return NULL;
}
