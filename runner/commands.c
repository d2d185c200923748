/* The table of commands: what `mmrun help` lists, in that order. */
#include "runner/commands.h"

#include "runner/config.h"
#include "runner/load.h"
#include "runner/sample.h"

static const char GROUP_START[] = "Start here";
static const char GROUP_DATA[] = "Data and tokenizers";
static const char GROUP_TRAIN[] = "Train";
static const char GROUP_USE[] = "Use a model";
static const char GROUP_LOOK[] = "Look and compare";
static const char GROUP_EXCHANGE[] = "Exchange";
static const char GROUP_TIDY[] = "Tidy up";

#define RUN_HELP "RUN is an id, a unique name, or `last`"
#define FROM_HELP                                                                                  \
    "Starts from the weights, shape and tokenizer of --from RUN[@STEP|@best]; without --data it "  \
    "learns from self-made rows. "
#define AT_HELP RUN_HELP "; RUN@STEP, RUN@best or RUN@final names one of its checkpoints."

const mm_command mm_commands[] = {
    {.name = "demo",
     .group = GROUP_START,
     .summary = "the whole pipeline on self-made data, offline, ending in a report",
     .options = {mm_demo_options},
     .run = mm_cmd_demo},
    {.name = "doctor",
     .group = GROUP_START,
     .summary = "look at this machine, and say how to mend what is missing",
     .run = mm_cmd_doctor},
    {.name = "bench",
     .group = GROUP_START,
     .summary = "how fast this machine trains and generates, op by op beside its limits",
     .details = "Trains and generates with a small model, for less than a minute, and records "
                "nothing. `bench train`, `bench generate` and `bench tokenizer` measure one of "
                "them at a chosen size.\n"
                "Examples:\n"
                "  mmrun bench\n"
                "  mmrun bench train --preset v2-small --batch 8 --seq-len 512 --dtype bf16\n",
     .options = {mm_bench_train_options},
     .config_stage = "pretrain",
     .run = mm_cmd_bench},
    {.name = "bench train",
     .group = GROUP_START,
     .summary = "training steps, op by op beside the peak and the memory of this machine",
     .details = "Example:\n  mmrun bench train --preset v3 --rounds 3 --dtype fp32\n",
     .options = {mm_bench_train_options},
     .config_stage = "pretrain",
     .run = mm_cmd_bench_train},
    {.name = "bench generate",
     .group = GROUP_START,
     .summary = "tokens per second of prefill and decode",
     .details = "Example:\n  mmrun bench generate --preset v3 --rows 32 --new-tokens 128\n",
     .options = {mm_bench_generate_options},
     .config_stage = "pretrain",
     .run = mm_cmd_bench_generate},
    {.name = "bench tokenizer",
     .group = GROUP_START,
     .summary = "encoding and learning a vocabulary, on the text of a file",
     .options = {mm_bench_tokenizer_options},
     .run = mm_cmd_bench_tokenizer},
    {.name = "help",
     .group = GROUP_START,
     .summary = "this list, or one command in full",
     .usage = "[COMMAND]",
     .args_max = 2,
     .run = mm_cmd_help},

    {.name = "pretrain",
     .group = GROUP_TRAIN,
     .summary = "train a model from scratch on text",
     .details = "Examples:\n"
                "  mmrun pretrain --data stories.jsonl --hidden 256 --layers 4 --steps 1000\n"
                "  mmrun pretrain --data a.jsonl b.jsonl --tokenizer tok/ --name first\n",
     .options = {mm_stage_options, mm_train_options, mm_without_effect_options},
     .config_stage = "pretrain",
     .run = mm_cmd_pretrain},
    {.name = "sft",
     .group = GROUP_TRAIN,
     .summary = "teach a model to answer, from conversations",
     .details = FROM_HELP "Only the assistant's words are learned.\n"
                          "Examples:\n"
                          "  mmrun sft --from base --data sft.jsonl --name chatty\n"
                          "  mmrun sft --from last --data sft.jsonl --epochs 3 --lr 5e-5 --mask "
                          "last-answer\n",
     .options = {mm_stage_options, mm_train_options, mm_without_effect_options},
     .config_stage = "sft",
     .run = mm_cmd_sft},
    {.name = "lora",
     .group = GROUP_TRAIN,
     .summary = "teach small adapters beside frozen weights, from conversations",
     .details = FROM_HELP "Checkpoints are small; `mmrun merge` makes full weights of them.\n"
                          "Examples:\n"
                          "  mmrun lora --from chatty --data persona.jsonl --rank 16\n"
                          "  mmrun lora --from chatty --data persona.jsonl --targets all "
                          "--alpha 32\n",
     .options = {mm_stage_options, mm_train_options, mm_without_effect_options},
     .config_stage = "lora",
     .run = mm_cmd_lora},
    {.name = "dpo",
     .group = GROUP_TRAIN,
     .summary = "make good answers more likely than bad ones, from preference pairs",
     .details = FROM_HELP "The first loss is ln 2 = 0.693; watch dpo/margin and dpo/accuracy.\n"
                          "Examples:\n"
                          "  mmrun dpo --from chatty --data dpo.jsonl\n"
                          "  mmrun dpo --from chatty --data dpo.jsonl --loss ipo --beta 0.1 "
                          "--rank 16\n",
     .options = {mm_stage_options, mm_train_options, mm_without_effect_options},
     .config_stage = "dpo",
     .run = mm_cmd_dpo},
    {.name = "distill",
     .group = GROUP_TRAIN,
     .summary = "let a model learn from the probabilities of another one",
     .details = FROM_HELP "Teacher and student have one tokenizer; their sizes may differ.\n"
                          "Examples:\n"
                          "  mmrun distill --teacher big --from small --data sft.jsonl\n"
                          "  mmrun distill --teacher big --from none --hidden 256 --layers 4 "
                          "--data sft.jsonl --lr 5e-4\n",
     .options = {mm_distill_options, mm_stage_options, mm_train_options, mm_without_effect_options},
     .config_stage = "distill",
     .run = mm_cmd_distill},
    {.name = "resume",
     .group = GROUP_TRAIN,
     .summary = "go on with a run that was stopped or killed",
     .usage = "RUN",
     .details =
         RUN_HELP ".\n"
                  "Everything comes from the record of the run: the loss goes on bit for bit "
                  "where device and number of threads are the same.\n",
     .options = {mm_resume_options},
     .args_min = 1,
     .args_max = 1,
     .run = mm_cmd_resume},
    {.name = "sweep",
     .group = GROUP_TRAIN,
     .summary = "train a grid: every hyperparameter takes a comma list",
     .details = "Examples:\n"
                "  mmrun sweep --hidden 64,96\n"
                "  mmrun sweep --data stories.jsonl --hidden 256,512 --lr 5e-4,1e-3 --steps 500\n"
                "  mmrun sweep --stage lora --from chatty --data persona.jsonl --rank 4,16\n"
                "  mmrun sweep --stage dpo --from chatty --data dpo.jsonl --beta 0.1,0.3\n",
     .options = {mm_sweep_options, mm_train_options},
     .config_stage = "",
     .run = mm_cmd_sweep},

    {.name = "runs",
     .group = GROUP_LOOK,
     .summary = "list runs",
     .options = {mm_runs_options},
     .run = mm_cmd_runs},
    {.name = "show",
     .group = GROUP_LOOK,
     .summary = "everything about one run",
     .usage = "RUN",
     .details = RUN_HELP ".\n",
     .options = {mm_show_options},
     .args_min = 1,
     .args_max = 1,
     .run = mm_cmd_show},
    {.name = "compare",
     .group = GROUP_LOOK,
     .summary = "what differs between runs, and which is best",
     .usage = "RUN RUN...",
     .details = RUN_HELP ".\n",
     .args_min = 2,
     .args_max = 64,
     .run = mm_cmd_compare},
    {.name = "report",
     .group = GROUP_LOOK,
     .summary = "one self-contained HTML page about one run or several",
     .usage = "[RUN...]",
     .details = RUN_HELP ". Without any: the sweep of the newest run, or the latest 20 runs.\n"
                         "The path of the page is printed on stdout.\n",
     .options = {mm_report_options_table},
     .args_max = SIZE_MAX,
     .run = mm_cmd_report},

    {.name = "chat",
     .group = GROUP_USE,
     .summary = "talk with a model, turn by turn",
     .usage = "RUN",
     .details = AT_HELP
     "\n"
     "On a terminal /help lists the commands inside the conversation, and Ctrl-C stops an "
     "answer. Otherwise each line of standard input is a question or a command, and each "
     "answer goes to standard output.\n",
     .options = {mm_chat_options_table, mm_sample_options, mm_load_options},
     .args_min = 1,
     .args_max = 1,
     .run = mm_cmd_chat},
    {.name = "eval",
     .group = GROUP_USE,
     .summary = "score models on held-out rows, multiple choice and prompts",
     .usage = "RUN...",
     .details = AT_HELP " Every number is recorded with its run; several runs stand side by side.\n"
                        "Examples:\n"
                        "  mmrun eval chatty --choices ceval.jsonl --dev dev.jsonl --shots 5\n"
                        "  mmrun eval base chatty --prompts sums.jsonl --match number --no-loss\n"
                        "  mmrun eval preferred --data pairs_val.jsonl --reference chatty\n",
     .options = {mm_eval_options, mm_load_options},
     .args_min = 1,
     .args_max = 64,
     .run = mm_cmd_eval},
    {.name = "generate",
     .group = GROUP_USE,
     .summary = "let a model answer a prompt, or a file of them",
     .usage = "RUN [PROMPT]",
     .details =
         AT_HELP "\n"
                 "Runs of pretrain write on from the prompt, runs that were taught to answer see "
                 "it as a turn of a chat. --prompts FILE -o OUT writes a conversation per prompt, "
                 "which sft takes as data; a command that was stopped goes on with the same "
                 "call.\n"
                 "Examples:\n"
                 "  mmrun generate last \"Once upon a time\"\n"
                 "  mmrun generate last \"Who are you?\" --system \"Answer in one line.\"\n"
                 "  mmrun generate base \"Who are you?\" --lora persona\n"
                 "  mmrun generate teacher --prompts questions.jsonl -o answers.jsonl\n",
     .options = {mm_generate_options, mm_sample_options, mm_load_options},
     .args_min = 1,
     .args_max = 2,
     .run = mm_cmd_generate},

    {.name = "data synth",
     .group = GROUP_DATA,
     .summary = "write self-made bilingual training data, no download needed",
     .details = "Writes KIND.jsonl and KIND_val.jsonl (combinations that are held out) and prints "
                "their paths on stdout.\n",
     .options = {mm_data_synth_options},
     .run = mm_cmd_data_synth},
    {.name = "data check",
     .group = GROUP_DATA,
     .summary = "schema, rows, bad rows by line, lengths, duplicates",
     .usage = "FILE...",
     .details = "Exits with 2 when a file cannot be trained on.\n",
     .options = {mm_data_check_options},
     .args_min = 1,
     .args_max = SIZE_MAX,
     .run = mm_cmd_data_check},
    {.name = "data show",
     .group = GROUP_DATA,
     .summary = "samples as the model will see them, with the loss mask",
     .usage = "FILE",
     .options = {mm_data_show_options},
     .args_min = 1,
     .args_max = 1,
     .run = mm_cmd_data_show},
    {.name = "tokenizer train",
     .group = GROUP_DATA,
     .summary = "train a byte-level BPE tokenizer",
     .details = "Example:\n  mmrun tokenizer train --data stories.jsonl --vocab 6400 -o tok/\n",
     .options = {mm_tokenizer_train_options},
     .run = mm_cmd_tokenizer_train},
    {.name = "tokenizer encode",
     .group = GROUP_DATA,
     .summary = "text to ids; - reads standard input",
     .usage = "TEXT|-",
     .options = {mm_tokenizer_encode_options},
     .args_min = 1,
     .args_max = 1,
     .run = mm_cmd_tokenizer_encode},
    {.name = "tokenizer decode",
     .group = GROUP_DATA,
     .summary = "ids to text; - reads standard input",
     .usage = "ID...|-",
     .options = {mm_tokenizer_decode_options},
     .args_min = 1,
     .args_max = SIZE_MAX,
     .run = mm_cmd_tokenizer_decode},
    {.name = "tokenizer show",
     .group = GROUP_DATA,
     .summary = "vocabulary, hash, special tokens, compression",
     .options = {mm_tokenizer_show_options},
     .run = mm_cmd_tokenizer_show},

    {.name = "merge",
     .group = GROUP_EXCHANGE,
     .summary = "weights and adapters of a run as one full set of weights, a run of its own",
     .usage = "RUN",
     .details = AT_HELP "\n"
                        "Examples:\n"
                        "  mmrun merge persona --name persona-full\n"
                        "  mmrun merge last@200\n",
     .options = {mm_merge_options},
     .args_min = 1,
     .args_max = 1,
     .run = mm_cmd_merge},
    {.name = "export",
     .group = GROUP_EXCHANGE,
     .summary = "a model for transformers, or a run's metrics as CSV or JSON lines",
     .usage = "RUN",
     .details = AT_HELP "\n"
                        "Examples:\n"
                        "  mmrun export last -o model/                  (loads in transformers)\n"
                        "  mmrun export last -o adapters/ --format peft (loads in peft)\n"
                        "  mmrun export last --format csv > metrics.csv\n",
     .options = {mm_export_options},
     .args_min = 1,
     .args_max = 1,
     .run = mm_cmd_export},
    {.name = "import",
     .group = GROUP_EXCHANGE,
     .summary = "take in a Hugging Face folder, or one of peft's adapters, as a run",
     .usage = "DIR",
     .details = "Examples:\n"
                "  mmrun import model/ --name taken\n"
                "  mmrun import adapters/ --base taken\n",
     .options = {mm_import_options},
     .args_min = 1,
     .args_max = 1,
     .run = mm_cmd_import},

    {.name = "tag",
     .group = GROUP_TIDY,
     .summary = "put tags on a run, or take them off",
     .usage = "RUN TAG...",
     .options = {mm_tag_options},
     .args_min = 2,
     .args_max = SIZE_MAX,
     .run = mm_cmd_tag},
    {.name = "note",
     .group = GROUP_TIDY,
     .summary = "add a dated note to a run",
     .usage = "RUN TEXT",
     .args_min = 2,
     .args_max = 2,
     .run = mm_cmd_note},
    {.name = "rename",
     .group = GROUP_TIDY,
     .summary = "give a run another name",
     .usage = "RUN NAME",
     .args_min = 2,
     .args_max = 2,
     .run = mm_cmd_rename},
    {.name = "rm",
     .group = GROUP_TIDY,
     .summary = "delete runs with their checkpoints",
     .usage = "RUN...",
     .options = {mm_rm_options},
     .args_min = 1,
     .args_max = SIZE_MAX,
     .run = mm_cmd_rm},
    {.name = "db info",
     .group = GROUP_TIDY,
     .summary = "size and content of the database",
     .run = mm_cmd_db_info},
    {.name = "db check",
     .group = GROUP_TIDY,
     .summary = "verify the database and every checkpoint in it",
     .run = mm_cmd_db_check},
    {.name = "db backup",
     .group = GROUP_TIDY,
     .summary = "a consistent, verified copy, while others may write",
     .usage = "PATH",
     .args_min = 1,
     .args_max = 1,
     .run = mm_cmd_db_backup},
    {.name = "completion",
     .group = GROUP_TIDY,
     .summary = "print the completion script of a shell",
     .usage = "bash|zsh|fish",
     .details = "Example:\n  source <(mmrun completion bash)\n",
     .args_min = 1,
     .args_max = 1,
     .run = mm_cmd_completion},
    {0},
};
