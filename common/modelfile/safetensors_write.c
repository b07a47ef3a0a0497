/* Streams the tensors into a temporary sibling: a large model is never in memory twice. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/file.h"
#include "json/json.h"
#include "modelfile/safetensors.h"

static int name_order(const void *a, const void *b)
{
    return strcmp(((const struct safetensors_out *)a)->name,
                  ((const struct safetensors_out *)b)->name);
}

static uint64_t elements(const struct safetensors_out *x)
{
    return x->cols == 0 ? x->rows : x->rows * x->cols;
}

static void header_put(const struct safetensors_out *list, size_t n, struct buf *out)
{
    uint64_t at = 0;

    buf_add(out, "\0\0\0\0\0\0\0\0", 8);
    buf_str(out, "{\"__metadata__\":{\"format\":\"pt\"}");
    for (size_t i = 0; i < n; i++) {
        uint64_t end = at + elements(&list[i]) * 4;
        buf_char(out, ',');
        json_quote(list[i].name, strlen(list[i].name), out);
        buf_printf(out, ":{\"dtype\":\"F32\",\"shape\":[%llu", (unsigned long long)list[i].rows);
        if (list[i].cols != 0)
            buf_printf(out, ",%llu", (unsigned long long)list[i].cols);
        buf_printf(out, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)at,
                   (unsigned long long)end);
        at = end;
    }
    buf_char(out, '}');
    while (out->len % 8 != 0)
        buf_char(out, ' ');
    for (int i = 0; i < 8; i++)
        out->data[i] = (char)((uint64_t)(out->len - 8) >> (8 * i) & 255);
}

int safetensors_write(const char *path, struct safetensors_out *list, size_t n, struct err *e)
{
    int rc = 0;
    char *temp = mem_printf("%s.tmp.XXXXXX", path), *dir = mem_strdup(path);
    char *slash = strrchr(dir, '/');
    struct buf header = BUF_INIT;
    int fd = mkostemp(temp, O_CLOEXEC);

    if (fd < 0) {
        rc = err_sys(e, "create %s", temp);
        goto out;
    }
    qsort(list, n, sizeof *list, name_order);
    header_put(list, n, &header);
    rc = file_write_all(fd, header.data, header.len, e);
    for (size_t i = 0; rc == 0 && i < n; i++)
        rc = file_write_all(fd, list[i].data, elements(&list[i]) * 4, e);
    if (rc == 0 && fchmod(fd, 0644) != 0)
        rc = err_sys(e, "chmod %s", temp);
    if (rc == 0 && fsync(fd) != 0)
        rc = err_set(e, errno == ENOSPC ? ERR_NO_SPACE : ERR_IO, "fsync %s: %s", temp,
                     strerror(errno));
    close(fd);
    if (rc == 0 && rename(temp, path) != 0)
        rc = err_sys(e, "rename %s to %s", temp, path);
    if (rc != 0) {
        unlink(temp);
        goto out;
    }
    if (slash != NULL)
        *slash = '\0';
    rc = file_sync_dir(slash == NULL ? "." : slash == dir ? "/" : dir, e);
out:
    buf_free(&header);
    free(temp);
    free(dir);
    return rc;
}
