/* Every command's function and option tables, and what several commands share.
 *
 * A command lives in cmd_<name>.c and reads its arguments, does the work and prints data on stdout
 * (one documented JSON value with --json, docs/json.md) and talk on stderr. Option tables end with
 * a zeroed row. The table of commands itself is in commands.c.
 */
#ifndef MM_RUNNER_COMMANDS_H
#define MM_RUNNER_COMMANDS_H

#include "core/data/rows.h"
#include "core/text/tokenizer.h"
#include "runner/cli.h"
#include "store/query.h"

/* Training. */
mm_status mm_cmd_demo(const mm_context *context, const mm_args *args, mm_err *err);
mm_status mm_cmd_pretrain(const mm_context *context, const mm_args *args, mm_err *err);
mm_status mm_cmd_sft(const mm_context *context, const mm_args *args, mm_err *err);
mm_status mm_cmd_lora(const mm_context *context, const mm_args *args, mm_err *err);
mm_status mm_cmd_dpo(const mm_context *context, const mm_args *args, mm_err *err);
mm_status mm_cmd_distill(const mm_context *context, const mm_args *args, mm_err *err);
mm_status mm_cmd_resume(const mm_context *context, const mm_args *args, mm_err *err);
mm_status mm_cmd_sweep(const mm_context *context, const mm_args *args, mm_err *err);
/* Measuring. */
mm_status mm_cmd_bench(const mm_context *context, const mm_args *args, mm_err *err);
mm_status mm_cmd_bench_train(const mm_context *context, const mm_args *args, mm_err *err);
mm_status mm_cmd_bench_generate(const mm_context *context, const mm_args *args, mm_err *err);
mm_status mm_cmd_bench_tokenizer(const mm_context *context, const mm_args *args, mm_err *err);
/* Using a model. */
mm_status mm_cmd_chat(const mm_context *context, const mm_args *args, mm_err *err);
mm_status mm_cmd_eval(const mm_context *context, const mm_args *args, mm_err *err);
mm_status mm_cmd_generate(const mm_context *context, const mm_args *args, mm_err *err);
/* Looking and comparing. */
mm_status mm_cmd_runs(const mm_context *context, const mm_args *args, mm_err *err);
mm_status mm_cmd_show(const mm_context *context, const mm_args *args, mm_err *err);
mm_status mm_cmd_compare(const mm_context *context, const mm_args *args, mm_err *err);
mm_status mm_cmd_report(const mm_context *context, const mm_args *args, mm_err *err);
/* Tidying. */
mm_status mm_cmd_tag(const mm_context *context, const mm_args *args, mm_err *err);
mm_status mm_cmd_note(const mm_context *context, const mm_args *args, mm_err *err);
mm_status mm_cmd_rename(const mm_context *context, const mm_args *args, mm_err *err);
mm_status mm_cmd_rm(const mm_context *context, const mm_args *args, mm_err *err);
/* Exchange. */
mm_status mm_cmd_export(const mm_context *context, const mm_args *args, mm_err *err);
mm_status mm_cmd_merge(const mm_context *context, const mm_args *args, mm_err *err);
mm_status mm_cmd_import(const mm_context *context, const mm_args *args, mm_err *err);
/* Data and tokenizers. */
mm_status mm_cmd_data_synth(const mm_context *context, const mm_args *args, mm_err *err);
mm_status mm_cmd_data_check(const mm_context *context, const mm_args *args, mm_err *err);
mm_status mm_cmd_data_show(const mm_context *context, const mm_args *args, mm_err *err);
mm_status mm_cmd_tokenizer_train(const mm_context *context, const mm_args *args, mm_err *err);
mm_status mm_cmd_tokenizer_encode(const mm_context *context, const mm_args *args, mm_err *err);
mm_status mm_cmd_tokenizer_decode(const mm_context *context, const mm_args *args, mm_err *err);
mm_status mm_cmd_tokenizer_show(const mm_context *context, const mm_args *args, mm_err *err);
/* The database, the machine, the program itself. */
mm_status mm_cmd_db_info(const mm_context *context, const mm_args *args, mm_err *err);
mm_status mm_cmd_db_check(const mm_context *context, const mm_args *args, mm_err *err);
mm_status mm_cmd_db_backup(const mm_context *context, const mm_args *args, mm_err *err);
mm_status mm_cmd_doctor(const mm_context *context, const mm_args *args, mm_err *err);
mm_status mm_cmd_help(const mm_context *context, const mm_args *args, mm_err *err);
mm_status mm_cmd_completion(const mm_context *context, const mm_args *args, mm_err *err);

extern const mm_option mm_demo_options[];
extern const mm_option mm_stage_options[];
extern const mm_option mm_distill_options[];
extern const mm_option mm_without_effect_options[];
extern const char mm_without_effect[]; /* heading of the rows that only are accepted */
extern const mm_option mm_resume_options[];
extern const mm_option mm_sweep_options[];
extern const mm_option mm_bench_train_options[];
extern const mm_option mm_bench_generate_options[];
extern const mm_option mm_bench_tokenizer_options[];
extern const mm_option mm_chat_options_table[]; /* mm_chat_options is core/text's struct */
extern const mm_option mm_eval_options[];
extern const mm_option mm_generate_options[];
extern const mm_option mm_runs_options[];
extern const mm_option mm_show_options[];
extern const mm_option mm_report_options_table[]; /* mm_report_options is report's struct */
extern const mm_option mm_tag_options[];
extern const mm_option mm_rm_options[];
extern const mm_option mm_export_options[];
extern const mm_option mm_import_options[];
extern const mm_option mm_merge_options[];
extern const mm_option mm_data_synth_options[];
extern const mm_option mm_data_check_options[];
extern const mm_option mm_data_show_options[];
extern const mm_option mm_tokenizer_train_options[];
extern const mm_option mm_tokenizer_encode_options[];
extern const mm_option mm_tokenizer_decode_options[];
extern const mm_option mm_tokenizer_show_options[];

/* Opens the database of the context. A missing one names the ways to get one. Caller closes. */
MM_NODISCARD mm_status mm_context_store(const mm_context *context, mm_store_mode mode,
                                        mm_store **out, mm_err *err);
/* For work that is worth doing without its record: a database that can only be read is said, and
 * *records is false. */
MM_NODISCARD mm_status mm_context_store_to_record(const mm_context *context, mm_store **out,
                                                  bool *records, mm_err *err);
/* `text` is a tokenizer.json, a folder that holds one, or a RUN whose tokenizer is meant. Caller
 * frees. */
MM_NODISCARD mm_status mm_context_tokenizer(const mm_context *context, const char *text,
                                            mm_tokenizer **out, mm_err *err);
/* Resolves RUN without an @ part; one with it is MM_EUSAGE. */
MM_NODISCARD mm_status mm_store_resolve_run(mm_store *store, const char *text, int64_t *run_id,
                                            mm_err *err);
/* The whole of standard input, or of a file when `path` is not "-". At most `limit` bytes. */
MM_NODISCARD mm_status mm_input_read(const char *path, size_t limit, char **data, size_t *bytes,
                                     mm_err *err);

typedef mm_status (*mm_text_fn)(void *context, const char *text, size_t length, mm_err *err);
/* Every text of a data file's first `limit` rows (0: all), in order: of conversations the words,
 * not the template around them. Bad rows are counted in the report. */
MM_NODISCARD mm_status mm_input_texts(const char *path, int64_t limit, mm_text_fn each,
                                      void *context, mm_row_report *report, mm_err *err);

/* The stable shape of a run in --json output (docs/json.md); a new reference. */
json_t *mm_json_of_run(const mm_run_info *run);
/* Colour of a run's status. */
mm_color mm_status_color(const char *status);
/* "12s", "5m", "3h", "12d": how long ago. */
void mm_age_text(int64_t since_ms, int64_t now_ms, char out[MM_NUMBER_BYTES]);

#endif
