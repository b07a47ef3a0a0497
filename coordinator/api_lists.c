/* What belongs to a job and can be long: spec, tasks, events, series, logs; and all artefacts.
 * Bounded by ?limit= and paged by key. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "coordinator/api_inner.h"
#include "coordinator/job_id.h"

#define LOG_READ_MAX (256u << 10)

static void storage_problem(struct api_response *r, const struct err *e)
{
    api_problem(r, 500, "storage", "%s", e->msg);
}

static void on_spec(struct coordinator *c, const struct sched_job *j, struct api_response *r)
{
    struct err e = {0};

    if (journal_spec(c->journal, j->id, &r->body, &e) != 0) {
        storage_problem(r, &e);
        return;
    }
    r->status = 200;
    r->content_type = "application/json";
}

typedef int (*page_fn)(struct journal *j, uint64_t job, uint64_t after, int limit, struct buf *out,
                       uint64_t *next, struct err *e);

static void on_page(struct coordinator *c, const struct api_request *q, const struct sched_job *j,
                    page_fn fn, struct api_response *r)
{
    uint64_t after = (uint64_t)api_query_int(q, "page_token", 0, INT64_MAX,
                                             api_query_int(q, "after", 0, INT64_MAX, 0)),
             next = 0;
    int limit = (int)api_query_int(q, "limit", 1, 1000, 1000);
    struct err e = {0};

    buf_str(&r->body, "{\"items\":[");
    if (fn(c->journal, j->id, after, limit, &r->body, &next, &e) != 0) {
        storage_problem(r, &e);
        return;
    }
    if (next != 0)
        buf_printf(&r->body, "],\"next_page_token\":\"%" PRIu64 "\"}\n", next);
    else
        buf_str(&r->body, "],\"next_page_token\":null}\n");
    r->status = 200;
    r->content_type = "application/json";
}

static void on_series(struct coordinator *c, const struct api_request *q, const struct sched_job *j,
                      struct api_response *r)
{
    char names[512] = "", *save = NULL;
    int points = (int)api_query_int(q, "points", 1, 2000, 500), rc = 0;
    struct err e = {0};

    buf_str(&r->body, "{\"items\":[");
    if (!api_query(q, "names", names, sizeof names) || names[0] == '\0') {
        rc = journal_series(c->journal, j->id, NULL, points, &r->body, &e);
    } else {
        for (char *name = strtok_r(names, ",", &save); name != NULL && rc == 0;
             name = strtok_r(NULL, ",", &save)) {
            struct buf one = BUF_INIT;

            rc = journal_series(c->journal, j->id, name, points, &one, &e);
            if (one.len > 0 && r->body.data[r->body.len - 1] != '[')
                buf_char(&r->body, ',');
            buf_add(&r->body, one.len > 0 ? one.data : "", one.len);
            buf_free(&one);
        }
    }
    if (rc != 0) {
        storage_problem(r, &e);
        return;
    }
    buf_str(&r->body, "]}\n");
    r->status = 200;
    r->content_type = "application/json";
}

/* Lines are "time TAB worker TAB text"; offset is in bytes, of the next line in "next_offset". A
 * cut last line is left for later. */
static void on_logs(struct coordinator *c, const struct api_request *q, const struct sched_job *j,
                    struct api_response *r)
{
    char path[600];
    int64_t offset = api_query_int(q, "offset", 0, INT64_MAX, 0),
            limit = api_query_int(q, "limit", 1, 1000, 1000), n = 0;
    char *text = mem_alloc(LOG_READ_MAX + 1), *line = text, *end = NULL;
    int fd = -1;
    ssize_t got = 0;

    handlers_log_path(c, j->id, path, sizeof path);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0)
        got = pread(fd, text, LOG_READ_MAX, (off_t)offset);
    if (fd >= 0)
        close(fd);
    text[got > 0 ? got : 0] = '\0';
    buf_str(&r->body, "{\"items\":[");
    while (n < limit && (end = strchr(line, '\n')) != NULL) {
        char *tab1 = memchr(line, '\t', (size_t)(end - line));
        char *tab2 = tab1 != NULL ? memchr(tab1 + 1, '\t', (size_t)(end - tab1 - 1)) : NULL;

        if (tab2 != NULL) {
            buf_printf(&r->body, "%s{\"offset\":%" PRId64 ",\"time\":", n++ > 0 ? "," : "",
                       offset + (line - text));
            json_quote(line, (size_t)(tab1 - line), &r->body);
            buf_str(&r->body, ",\"worker\":");
            json_quote(tab1 + 1, (size_t)(tab2 - tab1 - 1), &r->body);
            buf_str(&r->body, ",\"text\":");
            json_quote(tab2 + 1, (size_t)(end - tab2 - 1), &r->body);
            buf_char(&r->body, '}');
        }
        line = end + 1;
    }
    buf_printf(&r->body, "],\"next_offset\":%" PRId64 "}\n", offset + (line - text));
    free(text);
    r->status = 200;
    r->content_type = "application/json";
}

void api_lists(struct coordinator *c, const struct api_request *q, const struct sched_job *j,
               const char *what, struct api_response *r)
{
    if (strcmp(what, "spec") == 0)
        on_spec(c, j, r);
    else if (strcmp(what, "tasks") == 0)
        on_page(c, q, j, journal_tasks, r);
    else if (strcmp(what, "events") == 0)
        on_page(c, q, j, journal_events, r);
    else if (strcmp(what, "series") == 0)
        on_series(c, q, j, r);
    else if (strcmp(what, "logs") == 0)
        on_logs(c, q, j, r);
    else
        api_problem(r, 404, "not_found",
                    "a job has no \"%s\"; it has spec, tasks, events, series, logs", what);
}

void api_artifacts(struct coordinator *c, const struct api_request *q, struct api_response *r)
{
    struct buf rows = BUF_INIT;
    struct err e = {0};
    char *save = NULL;
    cJSON *o = cJSON_CreateObject(), *items = cJSON_AddArrayToObject(o, "items");

    if (journal_artifacts(c->journal, (int)api_query_int(q, "limit", 1, 1000, 200), &rows, &e) !=
        0) {
        cJSON_Delete(o);
        buf_free(&rows);
        storage_problem(r, &e);
        return;
    }
    for (char *line = rows.len > 0 ? strtok_r(rows.data, "\n", &save) : NULL; line != NULL;
         line = strtok_r(NULL, "\n", &save)) {
        cJSON *item = cJSON_CreateObject();
        char *inner = NULL, id[JOB_ID_TEXT], path[700];
        const char *job = strtok_r(line, "\t", &inner), *stage = strtok_r(NULL, "\t", &inner),
                   *name = strtok_r(NULL, "\t", &inner);
        const char *digest = strtok_r(NULL, "\t", &inner);
        uint64_t size = 0;

        if (!digest_is_valid(digest)) { /* an output that its tasks did not make */
            cJSON_Delete(item);
            continue;
        }
        job_id_format(strtoull(job, NULL, 10), id);
        cJSON_AddStringToObject(item, "digest", digest);
        cJSON_AddStringToObject(item, "job", id);
        cJSON_AddStringToObject(item, "stage", stage);
        cJSON_AddStringToObject(item, "name", name);
        blob_path(c->blobs, digest, path, sizeof path);
        if (file_size(path, &size, &e) == 0)
            cJSON_AddNumberToObject(item, "size", (double)size);
        else
            cJSON_AddNullToObject(item, "size");
        cJSON_AddStringToObject(item, "type", blob_is_tree(c->blobs, digest) ? "tree" : "file");
        cJSON_AddItemToArray(items, item);
    }
    buf_free(&rows);
    api_json(r, 200, o);
}
