/* The table of hyperparameters, and what each stage begins with.
 *
 * A row says which stages have it. The same flag may mean another thing in another stage (--alpha
 * of lora and of distill): then there are two rows, whose stages do not meet; a test sees to it.
 * Numbers that differ between stages stand side by side in a second table, as MiniMind's recipe
 * gives them (docs/decisions/0029-one-table-many-stages.md). */
#include "runner/config_table.h"

#include "core/data/rows.h"
#include "core/nn/preference.h"
#include "core/text/chat.h"

#include <string.h>

enum {
    P = 1 << MM_STAGE_PRETRAIN,
    S = 1 << MM_STAGE_SFT,
    L = 1 << MM_STAGE_LORA,
    D = 1 << MM_STAGE_DPO,
    T = 1 << MM_STAGE_DISTILL,
    CHAT = S | L | D | T,
    EVERY = P | CHAT
};

#define INT     MM_HYPER_INT
#define REAL    MM_HYPER_REAL
#define BOOL    MM_HYPER_BOOL
#define CHOICE  MM_HYPER_CHOICE
#define TARGETS MM_HYPER_TARGETS

const char mm_hyper_model[] = "Model";
#define MODEL mm_hyper_model
static const char ADAPTERS[] = "Adapters";
static const char PREFERENCE[] = "Preference";
static const char TEACHING[] = "Distillation";
static const char TRAINING[] = "Training";
static const char DATA[] = "Data";
static const char RECORD[] = "Machine and record";

// clang-format off
const mm_hyper mm_hyper_table[MM_HYPERS] = {
    {"preset", "preset", NULL, CHOICE, EVERY, "v3", 0, 0, "v3,v2-small,v2",
     "model family that decides what is not given (v3: 64M, Qwen3-shaped; v2-small: 26M; v2: 104M)", MODEL},
    {"hidden", "hidden_size", "dim,student_hidden_size", INT, EVERY, "", 8, 16384, NULL, "width of the residual stream (v3: 768)", MODEL},
    {"layers", "num_hidden_layers", "n_layers,student_num_layers", INT, EVERY, "", 1, 256, NULL, "decoder layers (v3: 8)", MODEL},
    {"heads", "num_attention_heads", "n_heads", INT, EVERY, "", 1, 256, NULL, "query heads (v3: 8)", MODEL},
    {"kv-heads", "num_key_value_heads", "n_kv_heads", INT, EVERY, "", 1, 256, NULL, "key/value heads (v3: 4)", MODEL},
    {"head-dim", "head_dim", NULL, INT, EVERY, "", 2, 512, NULL, "width of a head (hidden / heads)", MODEL},
    {"ffn", "intermediate_size", "hidden_dim", INT, EVERY, "", 8, 65536, NULL, "feed-forward width (by the preset's rule)", MODEL},
    {"vocab", "vocab_size", NULL, INT, EVERY, "", 292, 1000000, NULL, "vocabulary (the tokenizer's); size to train when none is given", MODEL},
    {"rope-theta", "rope_theta", NULL, REAL, EVERY, "", 1, 1e9, NULL, "base of the rotary frequencies", MODEL},
    {"max-positions", "max_position_embeddings", NULL, INT, EVERY, "", 4, 1048576, NULL, "longest text the model claims to take (32768)", MODEL},
    {"norm-eps", "rms_norm_eps", NULL, REAL, EVERY, "", 1e-12, 1e-2, NULL, "epsilon of RMSNorm", MODEL},
    {"tie-embeddings", "tie_word_embeddings", NULL, BOOL, EVERY, "", 0, 0, NULL, "share embedding and output matrix", MODEL},
    {"qk-norm", "qk_norm", NULL, BOOL, EVERY, "", 0, 0, NULL, "normalise queries and keys per head", MODEL},

    {"rank", "lora_rank", "lora_rank", INT, L, "16", 1, 4096, NULL, "rank of the adapters", ADAPTERS},
    {"rank", "lora_rank", "lora_rank", INT, D, "0", 0, 4096, NULL, "train adapters of this rank on frozen weights (0: all weights)", ADAPTERS},
    {"alpha", "lora_alpha", "lora_alpha", REAL, L | D, "", 1e-6, 1e6, NULL, "the adapters count alpha / rank times (as the rank: once)", ADAPTERS},
    {"dropout", "lora_dropout", "lora_dropout", REAL, L, "0", 0, 0.9, NULL, "dropout probability of what enters the adapters", ADAPTERS},
    {"lora-dropout", "lora_dropout", NULL, REAL, D, "0", 0, 0.9, NULL, "dropout probability of what enters the adapters", ADAPTERS},
    {"targets", "lora_targets", "lora_targets,target_modules", TARGETS, L | D, "square", 0, 0, NULL,
     "linears with adapters: names joined by '+' (q_proj+o_proj), all, or square: those as wide as they are high, as MiniMind", ADAPTERS},

    {"loss", "dpo_loss", "dpo_loss,loss_type", CHOICE, D, "sigmoid", 0, 0, MM_PREFERENCE_KINDS, "loss of a pair", PREFERENCE},
    {"beta", "beta", NULL, REAL, D, "0.15", 1e-6, 1e3, NULL, "how strongly a preference counts beside staying near the start", PREFERENCE},
    {"label-smoothing", "label_smoothing", NULL, REAL, D, "0", 0, 0.4999, NULL, "share of pairs that are taken to be the wrong way round (sigmoid)", PREFERENCE},
    {"logp", "logp", NULL, CHOICE, D, "sum", 0, 0, "sum,mean", "log-probability of an answer: the sum over its tokens, or their mean", PREFERENCE},
    {"gamma", "simpo_gamma", "simpo_gamma", REAL, D, "0.5", 0, 1e3, NULL, "margin that simpo asks for", PREFERENCE},

    {"alpha", "distill_alpha", "distill_alpha", REAL, T, "0.5", 0, 1, NULL, "weight of the labels; the teacher has the rest", TEACHING},
    {"temperature", "distill_temperature", "distill_temperature", REAL, T, "1.5", 0.01, 100, NULL, "temperature at which both models' probabilities are compared", TEACHING},

    {"epochs", "epochs", NULL, INT, EVERY, "1", 1, 100000, NULL, "passes over the data (unless --steps or --tokens)", TRAINING},
    {"steps", "steps", NULL, INT, EVERY, "", 1, 1e12, NULL, "optimizer steps", TRAINING},
    {"tokens", "tokens", NULL, INT, EVERY, "", 1, 1e15, NULL, "tokens to train on", TRAINING},
    {"batch", "batch_size", NULL, INT, P, "8", 1, 65536, NULL, "rows of --seq-len tokens per micro-batch", TRAINING},
    {"batch", "batch_size", NULL, INT, S | L | T, "16", 1, 65536, NULL, "conversations per step, times --accum", TRAINING},
    {"batch", "batch_size", NULL, INT, D, "4", 1, 65536, NULL, "pairs per step, times --accum", TRAINING},
    {"accum", "accumulation_steps", "grad_accum_steps", INT, EVERY, "1", 1, 65536, NULL, "batches per optimizer step", TRAINING},
    {"seq-len", "max_seq_len", NULL, INT, P, "340", 4, 1048576, NULL, "tokens per row, the training context", TRAINING},
    {"seq-len", "max_seq_len", NULL, INT, CHAT, "340", 4, 1048576, NULL, "tokens at which a conversation is cut", TRAINING},
    {"lr", "learning_rate", NULL, REAL, EVERY, "0.0005", 0, 10, NULL, "peak learning rate", TRAINING},
    {"lr-schedule", "lr_schedule", NULL, CHOICE, EVERY, "cosine", 0, 0, "cosine,cosine-v2,constant,linear", "shape of the learning rate", TRAINING},
    {"warmup", "warmup_steps", "warmup_iters", INT, EVERY, "0", 0, 1e9, NULL, "steps of linear warm-up", TRAINING},
    {"dropout", "dropout", NULL, REAL, P | S | D | T, "0", 0, 0.9, NULL, "dropout probability", TRAINING},
    {"weight-decay", "weight_decay", NULL, REAL, EVERY, "0.01", 0, 10, NULL, "decoupled weight decay", TRAINING},
    {"decay-all", "decay_all", NULL, BOOL, EVERY, "true", 0, 0, NULL, "decay norms and embeddings too, as MiniMind does", TRAINING},
    {"beta1", "beta1", NULL, REAL, EVERY, "0.9", 0, 0.999999, NULL, "AdamW first moment", TRAINING},
    {"beta2", "beta2", NULL, REAL, EVERY, "0.999", 0, 0.9999999, NULL, "AdamW second moment", TRAINING},
    {"adam-eps", "adam_eps", NULL, REAL, EVERY, "1e-08", 0, 1, NULL, "AdamW epsilon", TRAINING},
    {"clip", "grad_clip", NULL, REAL, EVERY, "1", 0, 1e9, NULL, "largest gradient norm (0: no clipping)", TRAINING},
    {"compat", "compat", NULL, CHOICE, EVERY, "off", 0, 0, "off,minimind",
     "minimind: padded rows, means of means, its defaults where ours differ (docs/minimind.md)", TRAINING},

    {"mask", "mask", NULL, CHOICE, CHAT, "all-answers", 0, 0, "all-answers,last-answer,with-system", "what of a conversation is learned", DATA},
    {"system-prompt-share", "system_prompt_share", NULL, REAL, S | L | T, "0.2", 0, 1, NULL, "share of conversations without a system prompt that get one, drawn anew each epoch", DATA},
    {"drop-think-share", "drop_think_share", "empty_think_ratio", REAL, CHAT, "0.8", 0, 1, NULL, "share of conversations that lose their empty think blocks, drawn anew each epoch", DATA},
    {"pack", "pack", NULL, BOOL, EVERY, "true", 0, 0, NULL, "pack rows without padding; off pads as MiniMind does", DATA},
    {"format", "row_format", NULL, CHOICE, EVERY, "auto", 0, 0, MM_ROW_FORMATS, "shape of the data rows", DATA},
    {"on-bad-row", "on_bad_row", NULL, CHOICE, EVERY, "stop", 0, 0, "stop,skip", "stop when over 0.1 % of the rows are bad, or skip them", DATA},
    {"val-fraction", "val_fraction", NULL, REAL, P, "0.01", 0, 0.5, NULL, "share of rows held out when there is no --val file", DATA},
    {"val-fraction", "val_fraction", NULL, REAL, CHAT, "", 0, 0.5, NULL, "share of rows held out when there is no --val file (0.01, of small files enough for about 64 rows, 0.1 at most)", DATA},
    {"eval-rows", "eval_rows", NULL, INT, EVERY, "256", 1, 1e9, NULL, "held-out rows scored at each evaluation", DATA},

    {"dtype", "dtype", NULL, CHOICE, EVERY, "", 0, 0, "fp32,bf16", "precision of matrix products and activations (the processor's fastest)", RECORD},
    {"device", "device", NULL, CHOICE, EVERY, "cpu", 0, 0, "cpu,cuda", "where to train", RECORD},
    {"threads", "threads", NULL, INT, EVERY, "0", 0, 1024, NULL, "worker threads (0: all processors)", RECORD},
    {"seed", "seed", NULL, INT, EVERY, "42", 0, 9.007199254740992e15, NULL, "seed of everything random", RECORD},
    {"log-every", "log_interval", NULL, INT, EVERY, "1", 1, 1e9, NULL, "steps between metric points", RECORD},
    {"eval-every", "eval_interval", NULL, INT, EVERY, "", 0, 1e12, NULL, "steps between evaluations (a tenth of the run; 0: only at the end)", RECORD},
    {"save-every", "save_interval", NULL, INT, EVERY, "", 0, 1e12, NULL, "steps between checkpoints (as evaluations; 0: only at the end)", RECORD},
    {"keep", "keep_checkpoints", NULL, INT, EVERY, "2", 1, 1000000, NULL, "newest checkpoints kept, besides the best and the final one", RECORD},
    {"gen-tokens", "gen_tokens", NULL, INT, EVERY, "64", 0, 8192, NULL, "length of the sample answers at each evaluation", RECORD},
};

// MiniMind's recipe but for two: a pretraining step is smaller (decision 7), and dpo learns fast
// enough to be seen.
static const struct {
    const char *name;
    const char *value[MM_STAGES]; // pretrain, sft, lora, dpo, distill
} BY_STAGE[] = {
    {"epochs",        {"1",      "2",     "10",     "1",     "6"}},
    {"batch_size",    {"8",      "16",    "32",     "4",     "32"}},
    {"max_seq_len",   {"340",    "768",   "340",    "1024",  "340"}},
    {"learning_rate", {"0.0005", "1e-05", "0.0001", "1e-06", "5e-06"}},
};

// What --compat minimind puts in place of our defaults; NULL: the same.
static const struct {
    const char *name;
    const char *value[MM_STAGES];
} BY_STAGE_MINIMIND[] = {
    {"epochs",             {"2",  NULL, NULL, NULL, NULL}},
    {"batch_size",         {"32", NULL, NULL, NULL, NULL}},
    {"accumulation_steps", {"8",  NULL, NULL, NULL, NULL}},
    {"learning_rate",      {NULL, NULL, NULL, "4e-08", NULL}},
    {"pack",               {"false", "false", "false", NULL, "false"}},
};
// clang-format on

static const char *const STAGE_NAMES[MM_STAGES] = {"pretrain", "sft", "lora", "dpo", "distill"};

const char *mm_hyper_default(const mm_hyper *row, mm_stage stage, bool is_minimind)
{
    const size_t n_minimind = sizeof BY_STAGE_MINIMIND / sizeof BY_STAGE_MINIMIND[0];
    for (size_t i = 0; is_minimind && i < n_minimind; i++)
        if (strcmp(row->name, BY_STAGE_MINIMIND[i].name) == 0 && BY_STAGE_MINIMIND[i].value[stage])
            return BY_STAGE_MINIMIND[i].value[stage];
    for (size_t i = 0; i < sizeof BY_STAGE / sizeof BY_STAGE[0]; i++)
        if (strcmp(row->name, BY_STAGE[i].name) == 0) return BY_STAGE[i].value[stage];
    return row->otherwise;
}

bool mm_stage_parse(const char *name, mm_stage *out)
{
    for (int i = 0; i < MM_STAGES; i++)
        if (strcmp(name, STAGE_NAMES[i]) == 0) {
            *out = (mm_stage)i;
            return true;
        }
    *out = MM_STAGE_PRETRAIN;
    return strcmp(name, "import") == 0 || strcmp(name, "merge") == 0;
}

const char *mm_stage_name(mm_stage stage) { return STAGE_NAMES[stage]; }

bool mm_hyper_same_name(const char *a, const char *b, size_t length_b)
{
    size_t i = 0;
    for (; i < length_b && a[i]; i++) {
        const char x = a[i] == '-' ? '_' : a[i];
        const char y = b[i] == '-' ? '_' : b[i];
        if (x != y) return false;
    }
    return i == length_b && a[i] == '\0';
}

bool mm_hyper_in_list(const char *name, const char *list)
{
    while (list && *list) {
        const size_t length = strcspn(list, ",");
        if (mm_hyper_same_name(name, list, length)) return true;
        list += length + (list[length] == ',');
    }
    return false;
}

int mm_hyper_find_name(uint32_t stages, const char *name)
{
    for (int i = 0; i < MM_HYPERS; i++)
        if ((mm_hyper_table[i].stages & stages) != 0 && strcmp(name, mm_hyper_table[i].name) == 0)
            return i;
    return -1;
}

int mm_hyper_find(uint32_t stages, const char *name)
{
    for (int i = 0; i < MM_HYPERS; i++) {
        const mm_hyper *row = &mm_hyper_table[i];
        if ((row->stages & stages) == 0) continue;
        if (mm_hyper_same_name(name, row->flag, strlen(row->flag)) ||
            mm_hyper_same_name(name, row->name, strlen(row->name)) ||
            mm_hyper_in_list(name, row->aliases))
            return i;
    }
    return -1;
}
