/* Shared parts of the tests of core/text. */
#include "tests/text/text_fixture.h"

#include "core/base/file.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

static const char *const SENTENCES[] = {
    "The quick brown fox jumps over the lazy dog. The dog doesn't mind, it's used to the fox.\n",
    "def answer(x):\n    return x * 42  # and that's that\n",
    "春眠不覺曉，處處聞啼鳥。夜來風雨聲，花落知多少。\n",
    "今天天气很好，我们去公园散步。今天的天空是蓝色的。\n",
    "1, 2, 3, 10, 20, 30, 100, 200, 300\t\t4.5 and 6.75\n",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n",
};

mm_tokenizer *fixture_tokenizer(int32_t vocab_size)
{
    mm_err err;
    mm_bpe_trainer *trainer;
    mm_tokenizer *tokenizer;
    assert_ok(mm_bpe_trainer_new(&trainer, vocab_size, &err));
    for (size_t i = 0; i < sizeof SENTENCES / sizeof *SENTENCES; i++)
        assert_ok(mm_bpe_trainer_feed(trainer, SENTENCES[i], strlen(SENTENCES[i]), &err));
    assert_ok(mm_bpe_trainer_finish(trainer, &tokenizer, NULL, NULL, &err));
    mm_bpe_trainer_free(trainer);
    return tokenizer;
}

mm_tokenizer *fixture_minimind(void)
{
    mm_err err;
    mm_tokenizer *tokenizer;
    const char *path = MM_SHARED_DATA "/minimind-tokenizer";
    if (!mm_file_is_dir(path)) {
        printf("skipped: the shared data folder has no minimind-tokenizer\n");
        return NULL;
    }
    assert_ok(mm_tokenizer_load(&tokenizer, path, &err));
    return tokenizer;
}

static void add_code_point(mm_str *out, uint32_t code)
{
    char bytes[4];
    size_t length;
    if (code < 0x80) {
        bytes[0] = (char)code;
        length = 1;
    } else if (code < 0x800) {
        bytes[0] = (char)(0xC0 | code >> 6);
        length = 2;
    } else if (code < 0x10000) {
        bytes[0] = (char)(0xE0 | code >> 12);
        length = 3;
    } else {
        bytes[0] = (char)(0xF0 | code >> 18);
        length = 4;
    }
    for (size_t i = 1; i < length; i++)
        bytes[i] = (char)(0x80 | (code >> (6 * (length - 1 - i)) & 0x3F));
    mm_str_add_bytes(out, bytes, length);
}

static void add_character(mm_rng *rng, mm_str *out)
{
    static const uint32_t ranges[][2] = {
        {'a', 'z'},         {'A', 'Z'},         {'0', '9'},           {' ', ' '},
        {' ', '/'},         {0x00, 0x1F},       {0x7F, 0xA0},         {0xC0, 0x24F},
        {0x300, 0x36F},     {0x400, 0x4FF},     {0x5D0, 0x64A},       {0x1680, 0x1680},
        {0x2000, 0x2064},   {0x3000, 0x303F},   {0x4E00, 0x9FFF},     {0xAC00, 0xD7A3},
        {0xE000, 0xF8FF},   {0xFE00, 0xFE0F},   {0xFEFF, 0xFEFF},     {0xFF00, 0xFFEF},
        {0xFFF9, 0xFFFF},   {0x1F300, 0x1FAFF}, {0x1F3FB, 0x1F3FF},   {0x20000, 0x2A6DF},
        {0x31350, 0x323AF}, {0xE0100, 0xE01EF}, {0x10FFFE, 0x10FFFF}, {0x85, 0x85},
    };
    const uint32_t *range = ranges[mm_rng_below(rng, sizeof ranges / sizeof *ranges)];
    add_code_point(out, range[0] + mm_rng_below(rng, range[1] - range[0] + 1));
}

void fixture_add_text(mm_rng *rng, mm_str *out)
{
    static const char *const pieces[] = {"<|im_start|>", "<|im_end|>", "<think>", "</think>",
                                         "<|im_",        "'s",         "'ll",     "don't",
                                         "  ",           "\n\n",       "\r\n",    " \t "};
    const uint32_t n_parts = mm_rng_below(rng, 24);
    for (uint32_t part = 0; part < n_parts; part++) {
        const uint32_t kind = mm_rng_below(rng, 4);
        if (kind == 0) {
            mm_str_add(out, pieces[mm_rng_below(rng, sizeof pieces / sizeof *pieces)]);
        } else if (kind == 1) {
            const char *sentence =
                SENTENCES[mm_rng_below(rng, sizeof SENTENCES / sizeof *SENTENCES)];
            mm_str_add(out, sentence);
        } else {
            const uint32_t count = 1 + mm_rng_below(rng, 12);
            for (uint32_t i = 0; i < count; i++)
                add_character(rng, out);
        }
    }
}
