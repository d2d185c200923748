/* Where a run comes from: opening --from and --teacher, and refusing what does not fit. */
#include "runner/lineage.h"

#include "runner/commands.h"
#include "runner/load.h"
#include "runner/train.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SHORT_HASH = 12 };

static bool is_stage(const mm_config *config, const char *stage)
{
    return strcmp(mm_config_stage(config), stage) == 0;
}

// ---- opening -----------------------------------------------------------------------------------

static bool has_adapters(const mm_parent *parent)
{
    const char *rank = mm_param_find(parent->params, parent->n_params, "lora_rank");
    return rank && strtol(rank, NULL, 10) > 0;
}

// Adapters are a part of a model: without the weights below them they are nothing to start from.
static mm_status check_base(const mm_lineage *lineage, mm_arena *arena, const mm_parent *parent,
                            int64_t checkpoint_id, mm_err *err)
{
    mm_blob *blobs = NULL;
    size_t n = 0;
    if (!has_adapters(parent)) return MM_OK;
    MM_TRY(mm_checkpoint_blobs(lineage->store, checkpoint_id, arena, &blobs, &n, err));
    for (size_t i = 0; i < n; i++)
        if (strcmp(blobs[i].name, "model.embed_tokens.weight") == 0) return MM_OK;
    return MM_FAIL(err, MM_EUSAGE,
                   "run '%s' holds adapters without the weights they belong to: its base is gone",
                   parent->name);
}

static mm_status open_parent(mm_parent *out, mm_lineage *lineage, const mm_context *context,
                             const char *reference, mm_err *err)
{
    mm_run_ref ref;
    mm_run_info run;
    mm_checkpoint_info checkpoint;
    mm_checkpoint_info *list = NULL;
    size_t n = 0;
    mm_arena *arena = &lineage->arena;
    MM_TRY(mm_store_resolve(lineage->store, reference, &ref, err));
    MM_TRY(mm_store_run(lineage->store, ref.run_id, arena, &run, err));
    MM_TRY(mm_checkpoint_list(lineage->store, ref.run_id, arena, &list, &n, err));
    if (n == 0)
        return MM_FAIL(err, MM_EUSAGE,
                       "run '%s' is %s and has no checkpoint to start from\n%s resume %s goes on "
                       "with it",
                       run.name, run.status, mm_shell_mmrun(arena, context),
                       mm_shell_text(arena, run.name));
    MM_TRY(mm_store_resolve_checkpoint(lineage->store, &ref, arena, &checkpoint, err));
    out->name = run.name;
    out->step = checkpoint.step;
    MM_TRY(mm_store_params(lineage->store, ref.run_id, arena, &out->params, &out->n_params, err));
    out->tokenizer_hash = mm_param_find(out->params, out->n_params, "tokenizer_hash");
    if (!out->tokenizer_hash)
        return MM_FAIL(err, MM_EUSAGE, "run '%s' has no tokenizer on record", run.name);
    MM_TRY(check_base(lineage, arena, out, checkpoint.id, err));
    out->run_id = ref.run_id;
    return MM_OK;
}

static mm_status open_named(mm_parent *out, mm_lineage *lineage, const mm_context *context,
                            const char *option, const char *reference, mm_err *err)
{
    if (!lineage->store) MM_TRY(mm_context_store(context, MM_STORE_WRITE, &lineage->store, err));
    const mm_status status = open_parent(out, lineage, context, reference, err);
    if (status != MM_OK) mm_err_context(err, "--%s %s", option, reference);
    return status;
}

// What a stage cannot do without, before anything is opened. MiniMind writes "none" for fresh
// weights.
static mm_status check_given(const mm_config *config, const mm_args *args, mm_err *err)
{
    const char *stage = mm_config_stage(config);
    const char *from = mm_args_text(args, "from");
    const bool is_distill = is_stage(config, "distill");
    const bool is_fresh = from && strcmp(from, "none") == 0;
    if (is_stage(config, "pretrain")) return MM_OK;
    if (is_distill && !mm_args_has(args, "teacher"))
        return MM_FAIL(err, MM_EUSAGE,
                       "distill needs --teacher RUN: the model to learn from\n"
                       "`mmrun runs` lists them");
    if (!from && is_distill)
        return MM_FAIL(err, MM_EUSAGE,
                       "distill needs a student: --from RUN starts from its weights\n"
                       "`--from none --hidden 256 --layers 4` begins with fresh ones");
    if (!from)
        return MM_FAIL(err, MM_EUSAGE,
                       "%s needs --from RUN: the model to start from\n"
                       "`mmrun %s --from last` takes the newest; `mmrun runs` lists them",
                       stage, stage);
    if (is_fresh && is_stage(config, "lora"))
        return MM_FAIL(err, MM_EUSAGE,
                       "--from none: adapters stand beside weights that were learned; name a RUN");
    if (is_fresh && !is_distill && !mm_args_has(args, "tokenizer"))
        return MM_FAIL(err, MM_EUSAGE, "--from none: fresh weights need --tokenizer PATH");
    return MM_OK;
}

// ---- the rules ---------------------------------------------------------------------------------

// "--hidden 64 (it has 32), --tokenizer 0123… (4567…)".
static void add_difference(mm_str *out, const char *what, const char *wanted, const char *has)
{
    mm_str_addf(out, "%s%s %s (%s%s)", out->length ? ", " : "", what, wanted,
                out->length ? "" : "it has ", has);
}

static void add_hashes(mm_str *out, const char *what, const char *wanted, const char *has)
{
    char hash[2][SHORT_HASH + 4];
    snprintf(hash[0], sizeof hash[0], "%.*s…", SHORT_HASH, wanted);
    snprintf(hash[1], sizeof hash[1], "%.*s…", SHORT_HASH, has);
    add_difference(out, what, hash[0], hash[1]);
}

// Everything the weights of --from fix.
static void compare_shape(const mm_parent *from, const mm_config *config, mm_str *out)
{
    static const struct {
        const char *flag;
        const char *name;
    } SHAPE[] = {{"--hidden", "hidden_size"},
                 {"--layers", "num_hidden_layers"},
                 {"--heads", "num_attention_heads"},
                 {"--kv-heads", "num_key_value_heads"},
                 {"--head-dim", "head_dim"},
                 {"--ffn", "intermediate_size"},
                 {"--vocab", "vocab_size"},
                 {"--tie-embeddings", "tie_word_embeddings"},
                 {"--qk-norm", "qk_norm"}};
    for (size_t i = 0; i < sizeof SHAPE / sizeof SHAPE[0]; i++) {
        const char *wanted = mm_config_text(config, SHAPE[i].name);
        const char *has = mm_param_find(from->params, from->n_params, SHAPE[i].name);
        if (has && *wanted && strcmp(wanted, has) != 0)
            add_difference(out, SHAPE[i].flag, wanted, has);
    }
}

// A run with adapters of its own trains its parent's on, if those are of the same form.
static bool goes_on(const mm_parent *from, const mm_config *config)
{
    return has_adapters(from) && mm_config_int(config, "lora_rank") > 0;
}

// What is not decided yet ("" and "square") is compared when it is.
static void compare_adapters(const mm_parent *from, const mm_config *config, mm_str *out)
{
    static const char *const FLAGS[] = {"--rank", "--alpha", "--targets"};
    static const char *const NAMES[] = {"lora_rank", "lora_alpha", "lora_targets"};
    for (size_t i = 0; i < sizeof NAMES / sizeof NAMES[0] && goes_on(from, config); i++) {
        const char *wanted = mm_config_text(config, NAMES[i]);
        const char *has = mm_param_find(from->params, from->n_params, NAMES[i]);
        const bool is_open = !*wanted || strcmp(wanted, "square") == 0;
        if (has && !is_open && strcmp(wanted, has) != 0) add_difference(out, FLAGS[i], wanted, has);
    }
}

static void compare_vocab(const mm_parent *teacher, const mm_config *config, mm_str *out)
{
    const char *has = mm_param_find(teacher->params, teacher->n_params, "vocab_size");
    const char *wanted = mm_config_text(config, "vocab_size");
    if (has && *wanted && strtol(has, NULL, 10) < strtol(wanted, NULL, 10))
        add_difference(out, "a vocabulary of", wanted, has);
}

// `hint` says what to do instead.
static mm_status refuse(const mm_parent *parent, const char *option, mm_str *differences,
                        const char *hint, mm_err *err)
{
    mm_status status = MM_OK;
    if (differences->length > 0)
        status = MM_FAIL(err, MM_EUSAGE, "--%s %s@%" PRId64 " does not fit %s\n%s", option,
                         parent->name, parent->step, mm_str_text(differences), hint);
    mm_str_drop(differences);
    return status;
}

// `hash` is the tokenizer's that the run would use otherwise, NULL where nothing else asks for one.
static mm_status check_from(const mm_parent *from, const mm_config *config, const char *hash,
                            mm_err *err)
{
    mm_str differences = {0};
    if (from->run_id == 0) return MM_OK;
    compare_adapters(from, config, &differences);
    const bool is_of_adapters = differences.length > 0;
    compare_shape(from, config, &differences);
    if (hash && strcmp(hash, from->tokenizer_hash) != 0)
        add_hashes(&differences, "--tokenizer", hash, from->tokenizer_hash);
    return refuse(from, "from", &differences,
                  is_of_adapters
                      ? "its adapters go on as they are without these options; after `mmrun merge` "
                        "a run can have others"
                      : "without these options the run takes what its parent has",
                  err);
}

static mm_status check_teacher(const mm_parent *teacher, const mm_config *config, const char *hash,
                               mm_err *err)
{
    mm_str differences = {0};
    if (teacher->run_id == 0) return MM_OK;
    if (hash && strcmp(hash, teacher->tokenizer_hash) != 0)
        add_hashes(&differences, "the student's tokenizer", hash, teacher->tokenizer_hash);
    compare_vocab(teacher, config, &differences);
    return refuse(
        teacher, "teacher", &differences,
        "teacher and student must read the same tokens: `mmrun generate TEACHER --prompts "
        "FILE -o ANSWERS` makes data for sft with any tokenizer",
        err);
}

mm_status mm_lineage_check(const mm_lineage *lineage, const mm_config *config, mm_err *err)
{
    MM_TRY(check_from(&lineage->from, config, lineage->tokenizer_hash, err));
    return check_teacher(&lineage->teacher, config, lineage->tokenizer_hash, err);
}

// Which tokenizer the run uses: what --tokenizer names has to be the parent's.
static mm_status choose_tokenizer(mm_lineage *lineage, const mm_args *args, mm_err *err)
{
    const char *path = mm_args_text(args, "tokenizer");
    const mm_parent *from = &lineage->from;
    if (!from->run_id && !lineage->teacher.run_id) return MM_OK;
    lineage->tokenizer_hash = from->run_id ? from->tokenizer_hash : lineage->teacher.tokenizer_hash;
    if (!path) return MM_OK;
    mm_tokenizer *tokenizer = NULL;
    MM_TRY(mm_tokenizer_load(&tokenizer, path, err));
    lineage->tokenizer_hash = mm_arena_strdup(&lineage->arena, mm_tokenizer_hash(tokenizer));
    mm_tokenizer_free(tokenizer);
    return lineage->tokenizer_hash ? MM_OK : MM_FAIL(err, MM_ENOMEM, "no memory for a hash");
}

// An impossible shape is refused before data are made or read; only the vocabulary is not known
// yet.
static mm_status check_shape(const mm_config *config, mm_err *err)
{
    mm_config *copy = NULL; // looking at the shape would note preset sizes in the record
    mm_model_config shape;
    MM_TRY(mm_config_copy(&copy, config, err));
    const mm_status status = mm_config_model(copy, 0, &shape, err);
    mm_config_free(copy);
    return status;
}

mm_status mm_lineage_configure(mm_lineage *out, const mm_context *context, const mm_args *args,
                               const char *stage, bool lists, mm_config **config, mm_err *err)
{
    const char *from = mm_args_text(args, "from");
    const char *teacher = mm_args_text(args, "teacher");
    const char *file = mm_args_text(args, "config");
    *out = (mm_lineage){0};
    MM_TRY(mm_config_new(config, stage, err));
    MM_TRY(check_given(*config, args, err));
    if (teacher && strcmp(stage, "distill") != 0)
        return MM_FAIL(err, MM_EUSAGE, "--teacher belongs to distill, found with %s", stage);
    if (from && strcmp(from, "none") != 0)
        MM_TRY(open_named(&out->from, out, context, "from", from, err));
    if (teacher) MM_TRY(open_named(&out->teacher, out, context, "teacher", teacher, err));
    if (out->from.run_id)
        MM_TRY(mm_config_shape_from_params(*config, out->from.params, out->from.n_params, err));
    if (file) MM_TRY(mm_config_from_file(*config, file, err));
    MM_TRY(mm_config_from_args(*config, args, lists, err));
    MM_TRY(choose_tokenizer(out, args, err));
    MM_TRY(mm_lineage_check(out, *config, err));
    if (has_adapters(&out->from))
        mm_say(context,
               goes_on(&out->from, *config)
                   ? "%s has adapters: this run trains them on."
                   : "%s has adapters: this run starts from its weights with them merged in.",
               out->from.name);
    return check_shape(*config, err);
}

void mm_lineage_drop(mm_lineage *lineage)
{
    if (!lineage) return;
    mm_store_close(lineage->store);
    mm_arena_drop(&lineage->arena);
    *lineage = (mm_lineage){0};
}

// ---- the record --------------------------------------------------------------------------------

static void add_reference(mm_str *out, const mm_parent *parent)
{
    char step[24];
    mm_str text = {0};
    snprintf(step, sizeof step, "@%" PRId64, parent->step);
    mm_str_add(&text, parent->name);
    mm_str_add(&text, step);
    mm_shell_add(out, mm_str_text(&text));
    mm_str_drop(&text);
}

// The parent that an option of the command line names; NULL: it is no such option.
static const mm_parent *parent_of(const mm_lineage *lineage, const char *word, size_t length)
{
    static const char *const FROM[] = {"--from", "--from_weight", "--from_student_weight"};
    static const char *const TEACHER[] = {"--teacher", "--from_teacher_weight"};
    char name[32];
    if (length >= sizeof name) return NULL;
    for (size_t i = 0; i <= length; i++)
        name[i] = (char)(i == length ? '\0' : i > 1 && word[i] == '-' ? '_' : word[i]);
    for (size_t i = 0; lineage->from.run_id && i < sizeof FROM / sizeof FROM[0]; i++)
        if (strcmp(name, FROM[i]) == 0) return &lineage->from;
    for (size_t i = 0; lineage->teacher.run_id && i < sizeof TEACHER / sizeof TEACHER[0]; i++)
        if (strcmp(name, TEACHER[i]) == 0) return &lineage->teacher;
    return NULL;
}

mm_status mm_lineage_command(const mm_lineage *lineage, const mm_context *context, mm_str *out,
                             mm_err *err)
{
    mm_str_add(out, "mmrun");
    for (int i = 1; i < context->argc; i++) {
        const char *word = context->argv[i];
        const size_t length = strcspn(word, "=");
        const mm_parent *parent = parent_of(lineage, word, length);
        mm_str_add_char(out, ' ');
        if (!parent) {
            mm_shell_add(out, word);
            continue;
        }
        mm_str_add_bytes(out, word, length);
        mm_str_add_char(out, ' ');
        add_reference(out, parent);
        if (!word[length]) i++; // the reference was a word of its own
    }
    return mm_str_check(out, err);
}

void mm_lineage_add_flags(const mm_lineage *lineage, mm_str *out)
{
    if (lineage->from.run_id) {
        mm_str_add(out, " --from ");
        add_reference(out, &lineage->from);
    }
    if (!lineage->teacher.run_id) return;
    if (!lineage->from.run_id) mm_str_add(out, " --from none");
    mm_str_add(out, " --teacher ");
    add_reference(out, &lineage->teacher);
}
