/* What our tokenizers do, for check_tokenizers.py to compare.
 *   dump_tokens encode TOKENIZER FLAGS    JSON strings on stdin, one a line -> ids, one line each
 *   dump_tokens decode TOKENIZER          ids on stdin -> JSON strings
 *   dump_tokens write TOKENIZER DIR [NEW TOKEN...] */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "data/tokenizer.h"
#include "json/json.h"

static int encode_line(const struct tokenizer *t, const char *line, size_t len, unsigned flags,
                       struct err *e)
{
    cJSON *text = NULL;
    struct ids ids = {0};
    int rc = json_parse(line, len, JSON_LIMITS_FILE, &text, e);

    if (rc == 0)
        rc = tokenizer_encode(t, text->valuestring, strlen(text->valuestring), flags, &ids, e);
    for (size_t i = 0; rc == 0 && i < ids.n; i++)
        printf("%s%d", i == 0 ? "" : " ", ids.v[i]);
    putchar('\n');
    ids_free(&ids);
    cJSON_Delete(text);
    return rc;
}

static int decode_line(const struct tokenizer *t, const char *line)
{
    struct ids ids = {0};
    struct buf text = BUF_INIT, quoted = BUF_INIT;

    for (char *end; *line != '\0' && *line != '\n'; line = end + strspn(end, " "))
        ids_push(&ids, (int32_t)strtol(line, &end, 10));
    tokenizer_decode(t, ids.v, ids.n, &text);
    json_quote(text.len > 0 ? text.data : "", text.len, &quoted);
    puts(quoted.data);
    ids_free(&ids);
    buf_free(&text);
    buf_free(&quoted);
    return 0;
}

int main(int argc, char **argv)
{
    struct tokenizer *t = NULL;
    struct err e = {0};
    char *line = NULL;
    size_t cap = 0;
    int32_t first;
    int rc;

    if (argc < 3)
        return 2;
    rc = tokenizer_load(argv[2], &t, &e);
    if (rc == 0 && strcmp(argv[1], "write") == 0 && argc > 3) {
        rc = file_make_dirs(argv[3], &e);
        if (rc == 0)
            rc = tokenizer_add(t, (const char *const *)(argv + 4), (size_t)(argc - 4), &first, &e);
        if (rc == 0)
            rc = tokenizer_write(t, argv[3], &e);
    } else if (rc == 0) {
        for (ssize_t n; rc == 0 && (n = getline(&line, &cap, stdin)) > 0;)
            rc = strcmp(argv[1], "encode") == 0 && argc > 3
                     ? encode_line(t, line, (size_t)n, (unsigned)atoi(argv[3]), &e)
                     : decode_line(t, line);
    }
    if (rc != 0)
        fprintf(stderr, "%s\n", e.msg);
    free(line);
    tokenizer_free(t);
    return rc != 0;
}
