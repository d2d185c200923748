/* The table of hyperparameters: one row each, with the stages that have it and what each of them
 * begins with. Only config.c reads it; everybody else asks a configuration. */
#ifndef MM_RUNNER_CONFIG_TABLE_H
#define MM_RUNNER_CONFIG_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum mm_stage {
    MM_STAGE_PRETRAIN = 0,
    MM_STAGE_SFT,
    MM_STAGE_LORA,
    MM_STAGE_DPO,
    MM_STAGE_DISTILL,
    MM_STAGES
} mm_stage;

typedef enum mm_hyper_type {
    MM_HYPER_INT,
    MM_HYPER_REAL,
    MM_HYPER_BOOL,
    MM_HYPER_CHOICE,
    MM_HYPER_TARGETS /* linears: "square", "all", or names joined by '+' */
} mm_hyper_type;

typedef struct mm_hyper {
    const char *flag;    /* as on the command line, with dashes */
    const char *name;    /* database name */
    const char *aliases; /* further spellings, comma-separated */
    mm_hyper_type type;
    uint32_t stages;       /* bits 1 << mm_stage */
    const char *otherwise; /* default; "" = decided by preset, device or data */
    double min;
    double max;
    const char *choices;
    const char *help;
    const char *group;
} mm_hyper;

/* Rows of a flag or a name that several have belong to different stages. */
enum { MM_HYPERS = 64, MM_HYPER_VALUE_BYTES = 64 };
extern const mm_hyper mm_hyper_table[MM_HYPERS];

/* The group of the rows that a model's weights fit one value of only. */
extern const char mm_hyper_model[];

/* What a stage begins with: the row's own default, or the stage's. `is_minimind`: under --compat
 * minimind. Static text. */
const char *mm_hyper_default(const mm_hyper *row, mm_stage stage, bool is_minimind);

/* "pretrain", "sft" …; a "merge" or "import" is read as "pretrain". False: there is no such. */
bool mm_stage_parse(const char *name, mm_stage *out);
const char *mm_stage_name(mm_stage stage);
/* The names of --stage. */
#define MM_STAGE_NAMES "pretrain,sft,lora,dpo,distill"

/* Equal but for dashes against underscores. */
bool mm_hyper_same_name(const char *a, const char *b, size_t length_b);
bool mm_hyper_in_list(const char *name, const char *list);
/* Row that one of the stages (bits) calls so: database name, flag, or alias; -1: none. */
int mm_hyper_find(uint32_t stages, const char *name);
/* Row of this very database name; -1: none. */
int mm_hyper_find_name(uint32_t stages, const char *name);

#endif
