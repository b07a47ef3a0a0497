/*
 * Requests to the coordinator. One curl handle, one request at a time; Ctrl-C breaks a waiting request off at once, because
 * curl asks on_progress() several times a second.
 */
#include <curl/curl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "json/json_file.h"
#include "steerctl/cli.h"

#define REPLY_MAX (64u << 20)

volatile sig_atomic_t cli_interrupted;

struct cli_client {
    CURL *curl;
    char *url, *dir;
    bool fixed; /* --server or STEER_SERVER said where */
};

struct download {
    struct buf text;
    bool too_long;
};

static void on_signal(int number)
{
    (void)number;
    cli_interrupted = 1;
}

void cli_catch_interrupts(void)
{
    struct sigaction a = {.sa_handler = on_signal};

    sigaction(SIGINT, &a, NULL);
    sigaction(SIGTERM, &a, NULL);
}

void cli_state_dir(const struct cli *c, char *out, size_t cap)
{
    const char *text = c->opt[OPT_DIR] != NULL ? c->opt[OPT_DIR] : getenv("STEER_DIR");
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");

    if (text != NULL && text[0] != '\0')
        snprintf(out, cap, "%s", text);
    else if (state != NULL && state[0] == '/')
        snprintf(out, cap, "%s/steer", state);
    else
        snprintf(out, cap, "%s/.local/state/steer", home != NULL ? home : "");
}

static char *endpoint_read(const char *dir)
{
    char *path = mem_printf("%s/endpoint.json", dir), *url = NULL;
    struct err e;
    cJSON *j = NULL;

    if (json_file_read(path, 65536, JSON_LIMITS_BODY, &j, &e) == 0) {
        const char *http = json_string_or(j, "http", NULL);
        url = http != NULL ? mem_strdup(http) : NULL;
    }
    cJSON_Delete(j);
    free(path);
    return url;
}

int cli_client_open(const struct cli *c, struct cli_client **out)
{
    struct cli_client *cl = mem_zalloc(1, sizeof *cl);
    const char *server = c->opt[OPT_SERVER] != NULL ? c->opt[OPT_SERVER] : getenv("STEER_SERVER");
    char dir[4096];

    *out = NULL;
    cli_state_dir(c, dir, sizeof dir);
    cl->dir = mem_strdup(dir);
    cl->fixed = server != NULL && server[0] != '\0' &&
                (c->opt[OPT_SERVER] != NULL || c->opt[OPT_DIR] == NULL);
    if (cl->fixed)
        cl->url =
            strstr(server, "://") != NULL ? mem_strdup(server) : mem_printf("http://%s", server);
    else
        cl->url = endpoint_read(dir);
    if (cl->url == NULL) {
        cli_client_close(cl);
        return cli_fail(CLI_UNREACHABLE, "steerctl up",
                        "no coordinator runs here (no endpoint.json in %s)", dir);
    }
    for (size_t n = strlen(cl->url); n > 0 && cl->url[n - 1] == '/'; n--)
        cl->url[n - 1] = '\0';
    CHECK(curl_global_init(CURL_GLOBAL_DEFAULT) == 0);
    cl->curl = curl_easy_init();
    CHECK(cl->curl != NULL);
    *out = cl;
    return CLI_OK;
}

void cli_client_close(struct cli_client *cl)
{
    if (cl == NULL)
        return;
    if (cl->curl != NULL)
        curl_easy_cleanup(cl->curl);
    free(cl->url);
    free(cl->dir);
    free(cl);
}

const char *cli_client_url(const struct cli_client *cl)
{
    return cl->url;
}

int cli_rediscover(struct cli_client *cl)
{
    char *url = cl->fixed ? NULL : endpoint_read(cl->dir);

    if (url == NULL)
        return CLI_UNREACHABLE;
    free(cl->url);
    cl->url = url;
    return CLI_OK;
}

/* ---- one request ----------------------------------------------------------------------------- */

static size_t on_bytes(char *bytes, size_t size, size_t n, void *self)
{
    struct download *d = self;

    if (d->text.len + size * n > REPLY_MAX) {
        d->too_long = true;
        return 0;
    }
    buf_add(&d->text, bytes, size * n);
    return size * n;
}

static int on_progress(void *self, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d)
{
    (void)self;
    (void)a;
    (void)b;
    (void)c;
    (void)d;
    return cli_interrupted;
}

void cli_reply_free(struct cli_reply *r)
{
    cJSON_Delete(r->json);
    *r = (struct cli_reply){0};
}

static struct curl_slist *headers_make(const char *body, const char *key)
{
    struct curl_slist *h = NULL;
    const char *token = getenv("STEER_TOKEN");
    char *line;

    if (body != NULL)
        h = curl_slist_append(h, "Content-Type: application/json");
    if (key != NULL) {
        line = mem_printf("Idempotency-Key: %s", key);
        h = curl_slist_append(h, line);
        free(line);
    }
    if (token != NULL && token[0] != '\0') {
        line = mem_printf("Authorization: Bearer %s", token);
        h = curl_slist_append(h, line);
        free(line);
    }
    return h;
}

bool cli_call(struct cli_client *cl, const char *method, const char *path, const char *body,
              const char *key, uint64_t max_ms, struct cli_reply *r)
{
    CURL *curl = cl->curl;
    struct download d = {BUF_INIT, false};
    struct curl_slist *headers = headers_make(body, key);
    char *url = mem_printf("%s%s", cl->url, path);
    CURLcode code;
    bool answered;

    memset(r, 0, sizeof *r);
    curl_easy_reset(curl);
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, method);
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(curl, CURLOPT_PROXY, "");
    curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS, 3000L);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, (long)max_ms);
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_bytes);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, &d);
    curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, on_progress);
    if (body != NULL) {
        curl_easy_setopt(curl, CURLOPT_POSTFIELDS, body);
        curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)strlen(body));
    }
    code = curl_easy_perform(curl);
    answered = code == CURLE_OK;
    if (answered)
        curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &r->status);
    else if (d.too_long)
        err_set(&r->e, ERR_LIMIT, "the answer is longer than %u MiB", REPLY_MAX >> 20);
    else
        err_set(&r->e, ERR_UNREACHABLE, "the coordinator at %s does not answer: %s", cl->url,
                curl_easy_strerror(code));
    if (answered && d.text.len > 0 &&
        json_parse(d.text.data, d.text.len, JSON_LIMITS_FILE, &r->json, &r->e) != 0)
        r->json = NULL;
    buf_free(&d.text);
    curl_slist_free_all(headers);
    free(url);
    return answered;
}

/* ---- what replies mean ----------------------------------------------------------------------- */

static void errors_print(const cJSON *problem)
{
    const cJSON *item;

    cJSON_ArrayForEach(item, json_get(problem, "errors"))
    {
        int line = (int)json_int_or(item, "line", 0), column = (int)json_int_or(item, "column", 0);
        cli_say("  %d:%d: %s", line, column, json_string_or(item, "detail", "?"));
    }
}

int cli_reply_fail(struct cli_client *cl, const struct cli_reply *r, const char *what)
{
    const char *detail = json_string_or(r->json, "detail", NULL);
    const char *hint = json_string_or(r->json, "hint", NULL);

    if (r->status == 0) {
        if (r->e.code == ERR_LIMIT)
            return cli_fail(CLI_UNEXPECTED, NULL, "%s", r->e.msg);
        return cli_fail(CLI_UNREACHABLE,
                        cl->fixed ? "steerctl up   (here), or check --server and STEER_SERVER"
                                  : "steerctl up",
                        "%s", r->e.msg);
    }
    if (detail == NULL)
        detail = r->status == 404 ? "not found" : r->e.code != 0 ? r->e.msg : "no reason given";
    switch (r->status) {
    case 404:
        return cli_fail(CLI_NOT_FOUND, "steerctl ls", "%s: %s", what, detail);
    case 409:
        return cli_fail(CLI_CONFLICT, hint != NULL ? hint : "steerctl ls", "%s: %s", what, detail);
    case 401:
        return cli_fail(CLI_DENIED, "export STEER_TOKEN=KEY   (ask whoever runs the coordinator)",
                        "%s: %s", what, detail);
    case 403:
    case 421:
        return cli_fail(CLI_DENIED, "steerctl help", "%s: %s", what, detail);
    case 422:
        cli_fail(CLI_SPEC, NULL, "%s: %s", what, detail);
        errors_print(r->json);
        fprintf(stderr, "  try: steerctl help spec\n");
        return CLI_SPEC;
    case 507:
        return cli_fail(
            CLI_UNEXPECTED,
            "free some space in the coordinator's state directory, then the same command again",
            "%s: %s", what, detail);
    default:
        return cli_fail(CLI_UNEXPECTED, r->status >= 500 ? "the same command again" : NULL,
                        "%s: the coordinator answered %ld: %s", what, r->status, detail);
    }
}

int cli_get(struct cli_client *cl, const char *path, cJSON **out)
{
    struct cli_reply r;
    int rc = CLI_OK;

    *out = NULL;
    if (!cli_call(cl, "GET", path, NULL, NULL, 30000, &r) || r.status != 200 || r.json == NULL) {
        rc = cli_reply_fail(cl, &r, path);
    } else {
        *out = r.json;
        r.json = NULL;
    }
    cli_reply_free(&r);
    return rc;
}

/* Moves the items of a page behind those of the pages before it. */
static void page_join(cJSON *all, cJSON *page)
{
    cJSON *items = cJSON_GetObjectItemCaseSensitive(all, "items");
    cJSON *more = cJSON_GetObjectItemCaseSensitive(page, "items");
    cJSON *next = cJSON_DetachItemFromObjectCaseSensitive(page, "next_page_token");

    while (more != NULL && more->child != NULL)
        cJSON_AddItemToArray(items, cJSON_DetachItemFromArray(more, 0));
    cJSON_DeleteItemFromObjectCaseSensitive(all, "next_page_token");
    cJSON_AddItemToObject(all, "next_page_token", next != NULL ? next : cJSON_CreateNull());
}

int cli_get_all(struct cli_client *cl, const char *path, cJSON **out)
{
    const char *next;
    int rc = cli_get(cl, path, out);

    while (rc == CLI_OK && (next = json_string_or(*out, "next_page_token", ""))[0] != '\0') {
        char *page = mem_printf("%s&page_token=%s", path, next);
        cJSON *more;

        rc = cli_get(cl, page, &more);
        free(page);
        if (rc == CLI_OK)
            page_join(*out, more);
        cJSON_Delete(more);
    }
    if (rc != CLI_OK) {
        cJSON_Delete(*out);
        *out = NULL;
    }
    return rc;
}

int cli_reachable(struct cli_client *cl)
{
    struct cli_reply r;
    int rc = CLI_OK;

    if (!cli_call(cl, "GET", "/healthz", NULL, NULL, 5000, &r) || r.status != 200)
        rc = cli_reply_fail(cl, &r, "coordinator");
    cli_reply_free(&r);
    return rc;
}

/* ---- names to ids ---------------------------------------------------------------------------- */

static bool is_whole_id(const char *text)
{
    return strncmp(text, "job_", 4) == 0 && strlen(text) == 17;
}

static bool id_begins(const char *id, const char *text)
{
    return strncmp(id, text, strlen(text)) == 0 ||
           (strncmp(id, "job_", 4) == 0 && strncmp(id + 4, text, strlen(text)) == 0);
}

int cli_job_id(struct cli_client *cl, const char *text, char id[32])
{
    cJSON *list = NULL;
    const cJSON *item;
    char candidates[256] = "";
    int rc, hits = 0;

    if (is_whole_id(text)) {
        snprintf(id, 32, "%s", text);
        return CLI_OK;
    }
    if (text[0] == '\0')
        return cli_fail(CLI_USAGE, "steerctl ls", "an empty text names no job");
    rc = cli_get_all(cl, "/v1/jobs?limit=1000", &list);
    if (rc != CLI_OK)
        return rc;
    for (int pass = 0; pass < 2 && hits == 0;
         pass++) { /* a whole name goes before the begin of an id */
        cJSON_ArrayForEach(item, json_get(list, "items"))
        {
            const char *job = json_string_or(item, "id", ""),
                       *name = json_string_or(item, "name", "");
            size_t used = strlen(candidates);
            if (pass == 0 ? strcmp(name, text) != 0 : !id_begins(job, text))
                continue;
            hits++;
            snprintf(id, 32, "%s", job);
            if (used + strlen(job) + 2 < sizeof candidates)
                snprintf(candidates + used, sizeof candidates - used, " %s", job);
        }
    }
    cJSON_Delete(list);
    if (hits == 1)
        return CLI_OK;
    if (hits == 0)
        return cli_fail(CLI_NOT_FOUND, "steerctl ls", "no job has the name or id \"%.80s\"", text);
    return cli_fail(CLI_USAGE, "steerctl ls", "\"%.80s\" is %d jobs:%s", text, hits, candidates);
}
