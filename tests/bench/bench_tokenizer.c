/* Encoding speed: one-word texts (the stories vocabulary), words by pattern (GPT-2), and load
 * times. One thread; seconds that it computed. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/file.h"
#include "data/tokenizer.h"
#include "json/json.h"
#include "tests/bench/bench.h"

#define RUNS 5

static void text_repeat(const char *path, size_t want, struct buf *out)
{
    struct buf one = BUF_INIT;
    struct err e = {0};

    if (file_read(path, 1 << 24, &one, &e) != 0) {
        fprintf(stderr, "%s\n", e.msg);
        exit(1);
    }
    while (out->len + one.len < want)
        buf_add(out, one.data, one.len);
    buf_free(&one);
}

/* Time that this thread computed: the same on a machine that does other things besides. */
static double cpu_s(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* In calls of about `call` bytes that end between characters. */
static size_t encode_all(const struct tokenizer *t, const struct buf *text, size_t call)
{
    struct ids ids = {0};
    struct err e = {0};
    size_t total = 0;

    for (size_t at = 0, n; at < text->len; at += n) {
        for (n = text->len - at < call ? text->len - at : call;
             at + n < text->len && (text->data[at + n] & 0xc0) == 0x80;)
            n--;
        if (tokenizer_encode(t, text->data + at, n, 0, &ids, &e) != 0) {
            fprintf(stderr, "%s\n", e.msg);
            exit(1);
        }
        total += ids.n;
        ids.n = 0;
    }
    ids_free(&ids);
    return total;
}

static void measure(const char *name, const char *path, const char *text_path, size_t bytes,
                    size_t call)
{
    struct tokenizer *t;
    struct buf text = BUF_INIT;
    struct err e = {0};
    double rate[RUNS], start = cpu_s();
    struct bench_spread spread;
    char title[128];
    size_t ids = 0;

    if (tokenizer_load(path, &t, &e) != 0) {
        fprintf(stderr, "%s\n", e.msg);
        exit(1);
    }
    printf("%s: loaded in %.1f ms\n", name, (cpu_s() - start) * 1e3);
    text_repeat(text_path, bytes, &text);
    for (int run = 0; run < RUNS; run++) {
        start = cpu_s();
        ids = encode_all(t, &text, call);
        rate[run] = (double)text.len * 1e-6 / (cpu_s() - start);
    }
    spread = bench_spread_of(rate, RUNS);
    snprintf(title, sizeof title, "tokenize %s, %zu bytes a call", name, call);
    bench_say(title, &spread, "MB/s", (double)NAN, "");
    printf("%.2f bytes an id\n", (double)text.len / (double)ids);
    buf_free(&text);
    tokenizer_free(t);
}

/* The messages of the shipped chat, one a line: English that does not repeat itself. */
static void chat_write(const char *path)
{
    static const char key[] = "\"message\": \"";
    struct buf all = BUF_INIT, text = BUF_INIT;
    gzFile in = gzopen("data/topical-chat.jsonl.gz", "rb");
    FILE *out = fopen(path, "wb");
    int n;

    CHECK(in != NULL && out != NULL);
    do {
        buf_reserve(&all, 1u << 20);
        n = gzread(in, all.data + all.len, 1u << 20);
        all.len += n > 0 ? (size_t)n : 0;
    } while (n > 0);
    buf_char(&all, '\0');
    for (char *at = all.data; (at = strstr(at, key)) != NULL;) {
        char *end = strchr(at += sizeof key - 1, '"');
        buf_add(&text, at, (size_t)(end - at));
        buf_char(&text, '\n');
    }
    CHECK(fwrite(text.data, 1, text.len, out) == text.len && fclose(out) == 0);
    gzclose(in);
    buf_free(&all);
    buf_free(&text);
}

int main(int argc, char **argv)
{
    static const char stories[] = "models/stories260K/tokenizer.bin";
    static const char scripts[] = "tests/data/tokenizers/reference.inp";
    char chat[] = "/tmp/bench_tokenizer.XXXXXX";
    char path[] = "/tmp/bench_tokenizer.XXXXXX.json";
    struct buf packed = BUF_INIT, json = BUF_INIT;
    struct err e = {0};
    int fd = mkstemps(path, 5);

    if (fd < 0 || mkstemp(chat) < 0 ||
        file_read("tests/data/tokenizers/gpt2.tokenizer.json.zst", 1 << 24, &packed, &e) != 0)
        return 1;
    buf_reserve(&json, 4u << 20);
    json.len = ZSTD_decompress(json.data, 4u << 20, packed.data, packed.len);
    if (write(fd, json.data, json.len) != (ssize_t)json.len)
        return 1;
    close(fd);
    (void)bench_args(argc, argv);
    chat_write(chat);
    bench_machine();
    measure("stories260K, English", stories, chat, 4u << 20, 200);
    measure("stories260K, English", stories, chat, 4u << 20, 1u << 20);
    measure("stories260K, many scripts", stories, scripts, 2u << 20, 4000);
    measure("gpt2, English", path, chat, 4u << 20, 200);
    measure("gpt2, English", path, chat, 4u << 20, 1u << 20);
    measure("gpt2, many scripts", path, scripts, 4u << 20, 4000);
    unlink(path);
    unlink(chat);
    buf_free(&packed);
    buf_free(&json);
    return 0;
}
