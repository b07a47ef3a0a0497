#include "json/json_file.h"

#include <stdlib.h>

#include "base/file.h"

int json_file_read(const char *path, size_t bytes_max, struct json_limits limits, cJSON **out,
                   struct err *e)
{
    struct buf text = BUF_INIT;
    int rc = file_read(path, bytes_max, &text, e);

    *out = NULL;
    if (rc == 0)
        rc = json_parse(text.data, text.len, limits, out, e);
    buf_free(&text);
    return rc;
}

int json_file_write(const char *dir, const char *name, const cJSON *value, struct err *e)
{
    char *path = mem_printf("%s/%s", dir, name), *text = cJSON_Print(value);
    struct buf out = BUF_INIT;
    int rc;

    CHECK(text != NULL);
    buf_str(&out, text);
    buf_char(&out, '\n');
    rc = file_write_atomic(path, out.data, out.len, e);
    buf_free(&out);
    cJSON_free(text);
    free(path);
    return rc;
}
