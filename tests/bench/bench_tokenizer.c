/* Encoding speed: one-word texts (the stories vocabulary), words by pattern (GPT-2), and load
 * times. One thread. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zstd.h>

#include "base/clock.h"
#include "base/file.h"
#include "data/tokenizer.h"
#include "json/json.h"

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

static void measure(const char *name, const char *path, const char *text_path, size_t bytes,
                    size_t call)
{
    struct tokenizer *t;
    struct buf text = BUF_INIT;
    struct ids ids = {0};
    struct err e = {0};
    uint64_t start = clock_ns(), loaded, done;
    size_t at = 0, n;

    if (tokenizer_load(path, &t, &e) != 0) {
        fprintf(stderr, "%s\n", e.msg);
        exit(1);
    }
    loaded = clock_ns();
    text_repeat(text_path, bytes, &text);
    done = clock_ns();
    for (; at < text.len; at += n) { /* calls of about `call` bytes that end between characters */
        for (n = text.len - at < call ? text.len - at : call;
             at + n < text.len && (text.data[at + n] & 0xc0) == 0x80;)
            n--;
        if (tokenizer_encode(t, text.data + at, n, 0, &ids, &e) != 0) {
            fprintf(stderr, "%s\n", e.msg);
            exit(1);
        }
    }
    done = clock_ns() - done;
    printf("%-24s load %6.1f ms   %7zu bytes a call   %6.1f MB/s   %5.2f M ids/s\n", name,
           (double)(loaded - start) / 1e6, call, (double)text.len * 1e3 / (double)done,
           (double)ids.n * 1e3 / (double)done);
    ids_free(&ids);
    buf_free(&text);
    tokenizer_free(t);
}

int main(void)
{
    char path[] = "/tmp/bench_tokenizer.XXXXXX.json";
    struct buf packed = BUF_INIT, json = BUF_INIT;
    struct err e = {0};
    int fd = mkstemps(path, 5);

    if (fd < 0 ||
        file_read("tests/data/tokenizers/gpt2.tokenizer.json.zst", 1 << 24, &packed, &e) != 0)
        return 1;
    buf_reserve(&json, 4u << 20);
    json.len = ZSTD_decompress(json.data, 4u << 20, packed.data, packed.len);
    if (write(fd, json.data, json.len) != (ssize_t)json.len)
        return 1;
    close(fd);
    measure("stories260K", "models/stories260K/tokenizer.bin", "README.md", 4u << 20, 200);
    measure("stories260K", "models/stories260K/tokenizer.bin", "README.md", 4u << 20, 1u << 20);
    measure("gpt2", path, "README.md", 16u << 20, 200);
    measure("gpt2", path, "README.md", 16u << 20, 1u << 20);
    measure("gpt2, many scripts", path, "tests/data/tokenizers/reference.inp", 8u << 20, 4000);
    unlink(path);
    buf_free(&packed);
    buf_free(&json);
    return 0;
}
