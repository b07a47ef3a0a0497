/* What jobs made: list it, load it, put something there. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "steerctl/cli_store.h"

#define FETCH_MS 600000

int cli_store_open(struct cli_client *cl, struct cli_store *out)
{
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    char *dir = cache != NULL && cache[0] == '/'
                    ? mem_printf("%s/steer", cache)
                    : mem_printf("%s/.cache/steer", home != NULL ? home : "");
    char *blobs = mem_printf("%s/blobs", dir), *trees = mem_printf("%s/trees", dir);
    struct err e = {0};
    int rc = blob_open(blobs, &out->cache, &e);

    if (rc == 0)
        rc = artifact_client_new(cli_client_url(cl), out->cache, trees, &out->client, &e);
    free(blobs);
    free(trees);
    free(dir);
    return rc != 0 ? cli_fail(CLI_UNEXPECTED,
                              "export XDG_CACHE_HOME=DIR   (a directory that can be written)", "%s",
                              e.msg)
                   : CLI_OK;
}

void cli_store_close(struct cli_store *s)
{
    artifact_client_free(s->client);
    blob_close(s->cache);
    *s = (struct cli_store){0};
}

int verb_artifact_ls(struct cli *c)
{
    struct cli_client *cl = NULL;
    cJSON *list = NULL;
    const cJSON *item;
    struct cli_table t = {0};
    int code = cli_client_open(c, &cl);

    if (code == CLI_OK)
        code = cli_get(cl, "/v1/artifacts?limit=1000", &list);
    if (code != CLI_OK)
        goto out;
    if (c->json) {
        cli_print_json(list);
        goto out;
    }
    if (!c->names)
        cli_table_add(&t, 6, "DIGEST", "SIZE", "TYPE", "JOB", "STAGE", "NAME");
    cJSON_ArrayForEach(item, json_get(list, "items"))
    {
        char size[CLI_SHORT], digest[16];
        int64_t bytes = json_int_or(item, "size", -1);
        if (c->names) {
            printf("%s\n", json_string_or(item, "digest", ""));
            continue;
        }
        cli_format_bytes(bytes >= 0 ? (uint64_t)bytes : 0, size);
        snprintf(digest, sizeof digest, "%.12s", json_string_or(item, "digest", ""));
        cli_table_add(&t, 6, digest, bytes >= 0 ? size : "-", json_string_or(item, "type", "-"),
                      json_string_or(item, "job", "-"), json_string_or(item, "stage", "-"),
                      json_string_or(item, "name", "-"));
    }
    if (!c->names)
        cli_table_print(&t, stdout);
out:
    cJSON_Delete(list);
    cli_client_close(cl);
    return code;
}

/* ---- which one ------------------------------------------------------------------------------- */

/* The index-th digest of an output: a text or a list of texts. */
static int output_digest(const cJSON *output, const char *name, int64_t index, struct digest *d)
{
    const cJSON *v = cJSON_IsArray(output) ? cJSON_GetArrayItem(output, (int)index)
                     : index == 0          ? output
                                           : NULL;

    if (!cJSON_IsString(v) || !digest_is_valid(v->valuestring))
        return cli_fail(CLI_NOT_FOUND, "steerctl artifact ls", "output %s has no item %" PRId64,
                        name, index);
    snprintf(d->hex, sizeof d->hex, "%s", v->valuestring);
    return CLI_OK;
}

/* JOB/STAGE/NAME[/N]; a stage made by the planner has a name with a slash ("data/chat"), so the stage is found by trying. */
static int output_find(struct cli_client *cl, const char *job, const char *rest, struct digest *d)
{
    char id[32], path[64];
    cJSON *j = NULL;
    const cJSON *stage, *output = NULL;
    const char *name = NULL;
    int64_t index = 0;
    int code = cli_job_id(cl, job, id);

    if (code != CLI_OK)
        return code;
    snprintf(path, sizeof path, "/v1/jobs/%s", id);
    code = cli_get(cl, path, &j);
    if (code != CLI_OK)
        return code;
    cJSON_ArrayForEach(stage, json_get(j, "stages"))
    {
        const char *text = json_string_or(stage, "name", "");
        size_t n = strlen(text);
        const cJSON *v;
        if (strncmp(rest, text, n) != 0 || rest[n] != '/')
            continue;
        cJSON_ArrayForEach(v, json_get(stage, "outputs"))
        {
            size_t k = strlen(v->string);
            if (strncmp(rest + n + 1, v->string, k) != 0 ||
                (rest[n + 1 + k] != '\0' && rest[n + 1 + k] != '/'))
                continue;
            output = v;
            name = v->string;
            index = rest[n + 1 + k] == '/' ? strtoll(rest + n + 2 + k, NULL, 10) : 0;
        }
    }
    code = output == NULL ? cli_fail(CLI_NOT_FOUND, "steerctl artifact ls",
                                     "job %s has no output \"%.120s\" (yet)", id, rest)
                          : output_digest(output, name, index, d);
    cJSON_Delete(j);
    return code;
}

static int digest_find(struct cli_client *cl, const char *text, struct digest *d)
{
    const char *slash = strchr(text, '/'),
               *hex = strncmp(text, "sha256:", 7) == 0 ? text + 7 : text;
    cJSON *list = NULL;
    const cJSON *item;
    int code, hits = 0;

    if (slash != NULL) {
        char *job = mem_strndup(text, (size_t)(slash - text));
        code = output_find(cl, job, slash + 1, d);
        free(job);
        return code;
    }
    if (digest_is_valid(hex)) {
        snprintf(d->hex, sizeof d->hex, "%s", hex);
        return CLI_OK;
    }
    code = cli_get(cl, "/v1/artifacts?limit=1000", &list);
    if (code != CLI_OK)
        return code;
    cJSON_ArrayForEach(item, json_get(list, "items"))
    {
        const char *digest = json_string_or(item, "digest", "");
        if (strlen(hex) >= 6 && strncmp(digest, hex, strlen(hex)) == 0 && digest_is_valid(digest) &&
            strcmp(d->hex, digest) != 0) {
            snprintf(d->hex, sizeof d->hex, "%s", digest);
            hits++;
        }
    }
    cJSON_Delete(list);
    if (hits == 1)
        return CLI_OK;
    return cli_fail(hits == 0 ? CLI_NOT_FOUND : CLI_USAGE, "steerctl artifact ls",
                    hits == 0 ? "no artefact \"%.80s\" among the newest 1,000; a whole digest, or "
                                "JOB/STAGE/NAME, finds older ones"
                              : "\"%.80s\" is the begin of several digests",
                    text);
}

/* Copied next to its place, then renamed. */
static int file_out(const struct digest *d, const char *from, const char *to, struct err *e)
{
    char *name = file_is_dir(to) ? mem_printf("%s/%s", to, d->hex) : mem_strdup(to);
    char *temp = mem_printf("%s.part.XXXXXX", name);
    static char block[1 << 16];
    FILE *in = NULL;
    int fd = -1, rc = 0;
    size_t n;

    in = fopen(from, "rb");
    fd = in != NULL ? mkostemp(temp, 0) : -1;
    if (in == NULL || fd < 0)
        rc = err_sys(e, "%s", in == NULL ? from : temp);
    while (rc == 0 && (n = fread(block, 1, sizeof block, in)) > 0)
        rc = file_write_all(fd, block, n, e);
    if (rc == 0 && ferror(in))
        rc = err_sys(e, "read %s", from);
    if (rc == 0 && (fchmod(fd, 0644) != 0 || fsync(fd) != 0 || rename(temp, name) != 0))
        rc = err_sys(e, "write %s", name);
    if (in != NULL)
        fclose(in);
    if (fd >= 0) {
        close(fd);
        if (rc != 0)
            unlink(temp);
    }
    free(temp);
    free(name);
    return rc;
}

/* These files are the user's: copied out of the cache, not linked to it, and writable. */
static int tree_out(const char *from, const char *to, struct err *e)
{
    struct blob_store *own = NULL;
    struct tree_file *files = NULL;
    struct buf text = BUF_INIT;
    char *dir = mem_printf("%s.part~steer", to);
    struct digest d;
    struct err ignored;
    size_t n = 0;
    int rc = blob_open(dir, &own, e);

    if (rc == 0)
        rc = blob_put_tree(own, from, &d, e);
    if (rc == 0)
        rc = blob_tree_checkout(own, d.hex, to, e);
    if (rc == 0)
        rc = blob_read(own, d.hex, 64u << 20, &text, e);
    if (rc == 0)
        rc = blob_tree_parse(text.data, text.len, &files, &n, e);
    for (size_t i = 0; rc == 0 && i < n; i++) {
        char *path = mem_printf("%s/%s", to, files[i].path);
        if (chmod(path, 0644) != 0)
            rc = err_sys(e, "chmod %s", path);
        free(path);
    }
    free(files);
    buf_free(&text);
    blob_close(own);
    file_remove_tree(dir, &ignored);
    free(dir);
    return rc;
}

int verb_artifact_get(struct cli *c)
{
    struct cli_client *cl = NULL;
    struct cli_store store = {0};
    struct digest d = {{0}};
    struct err e = {0};
    char path[4608];
    int rc, code = cli_client_open(c, &cl);

    if (code == CLI_OK)
        code = digest_find(cl, c->pos[0], &d);
    if (code == CLI_OK)
        code = cli_store_open(cl, &store);
    if (code == CLI_OK) {
        rc = artifact_fetch(store.client, d.hex, FETCH_MS, path, sizeof path, &e);
        if (rc == 0)
            rc = file_is_dir(path) ? tree_out(path, c->pos[1], &e)
                                   : file_out(&d, path, c->pos[1], &e);
        if (rc != 0)
            code = cli_fail_err(&e, rc == ERR_UNREACHABLE ? "steerctl up" : "steerctl artifact ls");
        else if (c->json)
            printf("{\"digest\":\"%s\"}\n", d.hex);
        else
            printf("%s\n", d.hex);
    }
    cli_store_close(&store);
    cli_client_close(cl);
    return code;
}

int verb_artifact_put(struct cli *c)
{
    struct cli_client *cl = NULL;
    struct cli_store store = {0};
    struct digest d = {{0}};
    int code;

    if (access(c->pos[0], R_OK) != 0)
        return cli_fail(CLI_NOT_FOUND, "ls", "%s: there is no such file or directory", c->pos[0]);
    code = cli_client_open(c, &cl);
    if (code == CLI_OK)
        code = cli_reachable(cl);
    if (code == CLI_OK)
        code = cli_store_open(cl, &store);
    if (code == CLI_OK)
        code = cli_publish(&store, c->pos[0], c->pos[0], &d);
    if (code == CLI_OK)
        printf(c->json ? "{\"digest\":\"%s\"}\n" : "%s\n", d.hex);
    cli_store_close(&store);
    cli_client_close(cl);
    return code;
}
