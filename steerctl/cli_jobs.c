/* The verbs that ask about jobs and workers, or stop them. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "steerctl/cli.h"

/* ---- ls -------------------------------------------------------------------------------------- */

static void job_row(struct cli_table *t, const cJSON *job)
{
    const cJSON *p = json_get(job, "progress");
    double fraction = json_number_or(p, "fraction", -1.0), eta = json_number_or(p, "eta_s", -1.0);
    char done[CLI_SHORT] = "-", left[CLI_SHORT] = "-", age[CLI_SHORT];
    const char *reason = json_string_or(job, "reason", NULL);

    if (fraction >= 0.0)
        snprintf(done, sizeof done, "%.0f%%", fraction * 100.0);
    if (eta >= 0.0 && cli_state_exit(json_string_or(job, "state", "")) < 0)
        cli_format_seconds(eta, left);
    cli_format_ago(json_string_or(job, "created_at", NULL), age);
    cli_table_add(t, 8, json_string_or(job, "id", "-"), json_string_or(job, "name", "-"),
                  json_string_or(job, "kind", "-"), json_string_or(job, "state", "-"), done, left,
                  age, reason != NULL ? reason : "-");
}

int verb_ls(struct cli *c)
{
    struct cli_client *cl = NULL;
    cJSON *list = NULL;
    const cJSON *item;
    struct cli_table t = {0};
    char path[160];
    int64_t limit;
    const char *state = c->opt[OPT_STATE];
    int code = cli_int(c, OPT_LIMIT, 1, 1000, 100, &limit);

    if (code == CLI_OK && state != NULL &&
        (strlen(state) > 24 || strspn(state, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") != strlen(state)))
        code = cli_fail(CLI_USAGE, "steerctl ls --state RUNNING", "\"%.40s\" is no state of a job",
                        state);
    if (code == CLI_OK)
        code = cli_client_open(c, &cl);
    snprintf(path, sizeof path, "/v1/jobs?limit=%" PRId64 "%s%s", limit,
             state != NULL ? "&state=" : "", state != NULL ? state : "");
    if (code == CLI_OK)
        code = cli_get(cl, path, &list);
    if (code != CLI_OK)
        goto out;
    if (c->json) {
        cli_print_json(list);
        goto out;
    }
    if (!c->names)
        cli_table_add(&t, 8, "ID", "NAME", "KIND", "STATE", "DONE", "LEFT", "AGE", "REASON");
    cJSON_ArrayForEach(item, json_get(list, "items"))
    {
        if (c->names)
            printf("%s\n", json_string_or(item, "id", ""));
        else
            job_row(&t, item);
    }
    if (!c->names)
        cli_table_print(&t, stdout);
    if (cJSON_GetArraySize(json_get(list, "items")) == 0 && !c->names)
        cli_say("no jobs%s; start one with: steerctl submit FILE",
                state != NULL ? " in this state" : "");
    if (json_string_or(list, "next_page_token", NULL) != NULL)
        cli_say("there are older ones: steerctl ls -n N, N up to 1000");
out:
    cJSON_Delete(list);
    cli_client_close(cl);
    return code;
}

/* ---- status ---------------------------------------------------------------------------------- */

static void field_print(const char *name, const char *value)
{
    char safe[1024];

    if (value != NULL && value[0] != '\0')
        printf("%-10s %s\n", name, cli_safe(value, safe, sizeof safe));
}

static void stage_row(struct cli_table *t, const cJSON *stage)
{
    const cJSON *p = json_get(stage, "progress");
    double fraction = json_number_or(p, "fraction", -1.0), eta = json_number_or(p, "eta_s", -1.0);
    char done[CLI_SHORT] = "-", left[CLI_SHORT] = "-", took[CLI_SHORT];
    const char *state = json_string_or(stage, "state", "-");

    if (fraction >= 0.0)
        snprintf(done, sizeof done, "%.0f%%", fraction * 100.0);
    if (eta >= 0.0 && cli_state_exit(state) < 0)
        cli_format_seconds(eta, left);
    cli_format_between(json_string_or(stage, "started_at", NULL),
                       json_string_or(stage, "finished_at", NULL), took);
    cli_table_add(t, 8, json_string_or(stage, "name", "-"), json_string_or(stage, "kind", "-"),
                  state, json_string_or(stage, "phase", "-"), done, left, took,
                  json_bool_or(stage, "reused", false) ? "reused"
                                                       : json_string_or(stage, "reason", "-"));
}

static void outputs_print(const cJSON *job)
{
    const cJSON *stage, *out, *d;
    bool any = false;

    cJSON_ArrayForEach(stage, json_get(job, "stages"))
    {
        cJSON_ArrayForEach(out, json_get(stage, "outputs"))
        {
            int i = 0;
            if (!any)
                printf("\noutputs (steerctl artifact get %s/STAGE/NAME DIR):\n",
                       json_string_or(job, "id", ""));
            any = true;
            if (cJSON_IsString(out))
                printf("  %s/%s  %.12s\n", json_string_or(stage, "name", ""), out->string,
                       out->valuestring);
            else
                cJSON_ArrayForEach(d, out)
                {
                    char index[24] = "";
                    if (cJSON_GetArraySize(out) > 1)
                        snprintf(index, sizeof index, "/%d", i++);
                    printf("  %s/%s%s  %.12s\n", json_string_or(stage, "name", ""), out->string,
                           index, cJSON_IsString(d) ? d->valuestring : "-");
                }
        }
    }
}

static void status_print(const cJSON *job)
{
    const cJSON *failure = json_get(job, "failure"), *reason, *stage, *latest;
    struct cli_table t = {0};
    char age[CLI_SHORT];

    field_print("job", json_string_or(job, "id", NULL));
    field_print("name", json_string_or(job, "name", NULL));
    field_print("kind", json_string_or(job, "kind", NULL));
    field_print("state", json_string_or(job, "state", NULL));
    field_print("reason", json_string_or(job, "reason", NULL));
    cJSON_ArrayForEach(reason, json_get(job, "reasons")) field_print(
        "why", cJSON_IsString(reason)
                   ? reason->valuestring
                   : json_string_or(reason, "message", json_string_or(reason, "code", NULL)));
    cli_format_ago(json_string_or(job, "created_at", NULL), age);
    printf("%-10s %s ago\n", "submitted", age);
    if (json_get(job, "workers") != NULL)
        printf("%-10s %.0f\n", "workers", json_number_or(json_get(job, "workers"), "active", 0.0));
    cJSON_ArrayForEach(latest, json_get(job, "latest"))
        printf("%-10s %.6g (step %.0f)\n", latest->string, json_number_or(latest, "value", 0.0),
               json_number_or(latest, "step", 0.0));
    if (cJSON_IsObject(failure)) {
        field_print("failure", json_string_or(failure, "message", NULL));
        field_print("hint", json_string_or(failure, "hint", NULL));
    }
    printf("\n");
    cli_table_add(&t, 8, "STAGE", "KIND", "STATE", "PHASE", "DONE", "LEFT", "TOOK", "NOTE");
    for (int first = 1; first >= 0; first--) /* what prepares data comes before what uses it */
        cJSON_ArrayForEach(stage, json_get(job, "stages")) if (cli_is_prepare(stage) == first)
            stage_row(&t, stage);
    cli_table_print(&t, stdout);
    outputs_print(job);
}

/* Opens the client and finds the job of pos[0]. */
static int job_open(const struct cli *c, struct cli_client **cl, char id[32])
{
    int code = cli_client_open(c, cl);

    return code != CLI_OK ? code : cli_job_id(*cl, c->pos[0], id);
}

int verb_status(struct cli *c)
{
    struct cli_client *cl = NULL;
    cJSON *job = NULL;
    char id[32], path[64];
    int code = job_open(c, &cl, id);

    snprintf(path, sizeof path, "/v1/jobs/%s", code == CLI_OK ? id : "");
    if (code == CLI_OK)
        code = cli_get(cl, path, &job);
    if (code == CLI_OK && c->json)
        cli_print_json(job);
    else if (code == CLI_OK && c->names)
        printf("%s\n", json_string_or(job, "id", ""));
    else if (code == CLI_OK)
        status_print(job);
    cJSON_Delete(job);
    cli_client_close(cl);
    return code;
}

/* ---- wait, watch, cancel, pause, resume, retry ----------------------------------------------- */

static int watch(struct cli *c, enum cli_view view)
{
    struct cli_client *cl = NULL;
    char id[32];
    int64_t timeout;
    int code = cli_int(c, OPT_TIMEOUT, 0, 100000000, -1, &timeout);

    if (code == CLI_OK)
        code = job_open(c, &cl, id);
    if (code == CLI_OK)
        code = cli_watch(cl, id, view, timeout);
    cli_client_close(cl);
    return code;
}

int verb_wait(struct cli *c)
{
    return watch(c, CLI_VIEW_QUIET);
}

int verb_watch(struct cli *c)
{
    return watch(c, CLI_VIEW_LIVE);
}

/* One word to each job that is named; prints its state after it. */
static int tell_jobs(struct cli *c, const char *word, const char *body)
{
    struct cli_client *cl = NULL;
    int worst = cli_client_open(c, &cl);

    if (worst != CLI_OK)
        return worst;
    for (int i = 0; i < c->pos_n; i++) {
        char id[32], path[64];
        struct cli_reply r = {0};
        int code = cli_job_id(cl, c->pos[i], id);
        if (code == CLI_OK) {
            snprintf(path, sizeof path, "/v1/jobs/%s/%s", id, word);
            if (cli_call(cl, "POST", path, body, NULL, 30000, &r) &&
                (r.status == 202 || r.status == 200)) {
                if (c->json && r.json != NULL)
                    cli_print_json(r.json);
                else
                    printf("%s %s\n", id, json_string_or(r.json, "state", "?"));
            } else {
                code = cli_reply_fail(cl, &r, id);
            }
            cli_reply_free(&r);
        }
        worst = code > worst ? code : worst;
    }
    cli_client_close(cl);
    return worst;
}

int verb_cancel(struct cli *c)
{
    return tell_jobs(c, "cancel", "{}");
}

int verb_pause(struct cli *c)
{
    return tell_jobs(c, "pause", "{}");
}

int verb_resume(struct cli *c)
{
    return tell_jobs(c, "resume", "{}");
}

int verb_retry(struct cli *c)
{
    int64_t from = -1;
    int code = cli_int(c, OPT_FROM, 0, 1000000000000, -1, &from);
    cJSON *o;
    char *body;

    if (code == CLI_OK && c->opt[OPT_STAGE] != NULL && from < 0)
        code = cli_fail(CLI_USAGE, "steerctl retry ID --from VERSION --stage NAME",
                        "--stage says whose checkpoint --from is");
    if (code != CLI_OK)
        return code;
    o = cJSON_CreateObject();
    if (from >= 0)
        cJSON_AddNumberToObject(o, "from", (double)from);
    if (c->opt[OPT_STAGE] != NULL)
        cJSON_AddStringToObject(o, "stage", c->opt[OPT_STAGE]);
    body = cJSON_PrintUnformatted(o);
    CHECK(body != NULL);
    code = tell_jobs(c, "retry", body);
    cJSON_free(body);
    cJSON_Delete(o);
    return code;
}

/* ---- logs, events ---------------------------------------------------------------------------- */

/* Prints the lines of one page; moves *offset, in bytes, behind the last. Returns how many. */
static int logs_print(const struct cli *c, const cJSON *page, int64_t *offset)
{
    const cJSON *item;
    int n = 0;

    cJSON_ArrayForEach(item, json_get(page, "items"))
    {
        char when[40], worker[80], text[2048];
        n++;
        if (c->json) {
            char *line = cJSON_PrintUnformatted(item);
            CHECK(line != NULL);
            puts(line);
            cJSON_free(line);
            continue;
        }
        printf("%s %s %s\n", cli_safe(json_string_or(item, "time", "-"), when, sizeof when),
               cli_safe(json_string_or(item, "worker", "-"), worker, sizeof worker),
               cli_safe(json_string_or(item, "text", ""), text, sizeof text));
    }
    fflush(stdout);
    *offset = json_int_or(page, "next_offset", *offset);
    return n;
}

static bool job_has_ended(struct cli_client *cl, const char *id)
{
    struct cli_reply r;
    char path[64];
    bool ended;

    snprintf(path, sizeof path, "/v1/jobs/%s", id);
    ended = cli_call(cl, "GET", path, NULL, NULL, 10000, &r) && r.status == 200 &&
            cli_state_exit(json_string_or(r.json, "state", "")) >= 0;
    cli_reply_free(&r);
    return ended;
}

int verb_logs(struct cli *c)
{
    struct cli_client *cl = NULL;
    char id[32], path[128];
    bool follow = c->opt[OPT_FOLLOW] != NULL;
    int64_t offset = 0, left;
    int gone = 0;
    int code = cli_int(c, OPT_LIMIT, 1, INT32_MAX, INT32_MAX, &left);

    if (code == CLI_OK)
        code = job_open(c, &cl, id);
    if (code == CLI_OK && follow)
        cli_catch_interrupts();
    while (code == CLI_OK && left > 0) {
        struct cli_reply r;
        int n = 0;
        bool ended = follow && job_has_ended(cl, id); /* asked before the lines, so that none is lost */
        snprintf(path, sizeof path, "/v1/jobs/%s/logs?offset=%" PRId64 "&limit=%" PRId64, id,
                 offset, left < 1000 ? left : 1000);
        if (cli_interrupted) {
            code = CLI_DETACHED;
            break;
        }
        if (cli_call(cl, "GET", path, NULL, NULL, 30000, &r) && r.status == 200) {
            n = logs_print(c, r.json, &offset);
            gone = 0;
        } else if (!follow || (r.status != 0 && r.status != 503) || ++gone > 240) {
            code = cli_reply_fail(cl, &r, id);
        } else {
            (void)cli_rediscover(cl);
        }
        cli_reply_free(&r);
        if (n == 0 && (!follow || ended))
            break;
        if (n == 0)
            clock_sleep_ms(500);
        left -= n;
    }
    cli_client_close(cl);
    return code;
}

/* Time first, then whatever an event has, in its own order. */
static void events_print(const cJSON *list)
{
    const cJSON *item, *v;
    char safe[600];

    cJSON_ArrayForEach(item, json_get(list, "items"))
    {
        printf("%s", cli_safe(json_string_or(item, "time", json_string_or(item, "at", "-")), safe,
                              sizeof safe));
        cJSON_ArrayForEach(v, item)
        {
            if (strcmp(v->string, "time") == 0 || strcmp(v->string, "at") == 0)
                continue;
            if (cJSON_IsString(v) && v->valuestring[0] != '\0')
                printf(" %s=%s", v->string, cli_safe(v->valuestring, safe, sizeof safe));
            else if (cJSON_IsNumber(v))
                printf(" %s=%.10g", v->string, v->valuedouble);
        }
        printf("\n");
    }
}

int verb_events(struct cli *c)
{
    struct cli_client *cl = NULL;
    cJSON *list = NULL;
    char id[32], path[96];
    int64_t limit;
    int code = cli_int(c, OPT_LIMIT, 1, 1000, 0, &limit);

    if (code == CLI_OK)
        code = job_open(c, &cl, id);
    if (code == CLI_OK) {
        snprintf(path, sizeof path, "/v1/jobs/%s/events?limit=%" PRId64, id,
                 limit > 0 ? limit : 1000);
        code = limit > 0 ? cli_get(cl, path, &list) : cli_get_all(cl, path, &list);
    }
    if (code == CLI_OK && c->json)
        cli_print_json(list);
    else if (code == CLI_OK)
        events_print(list);
    cJSON_Delete(list);
    cli_client_close(cl);
    return code;
}

/* ---- workers, counters, version -------------------------------------------------------------- */

int verb_worker_ls(struct cli *c)
{
    struct cli_client *cl = NULL;
    cJSON *list = NULL;
    const cJSON *item;
    struct cli_table t = {0};
    int code = cli_client_open(c, &cl);

    if (code == CLI_OK)
        code = cli_get(cl, "/v1/workers", &list);
    if (code == CLI_OK && c->json)
        cli_print_json(list);
    if (code == CLI_OK && !c->json) {
        if (!c->names)
            cli_table_add(&t, 6, "NAME", "STATE", "THREADS", "MEMORY", "WORKS ON", "ID");
        cJSON_ArrayForEach(item, json_get(list, "items"))
        {
            char threads[CLI_SHORT], memory[CLI_SHORT], work[160] = "-";
            const char *job = json_string_or(item, "session_job", NULL);
            int64_t running = json_int_or(item, "running", 0);
            if (c->names) {
                printf("%s\n", json_string_or(item, "id", json_string_or(item, "name", "")));
                continue;
            }
            if (job != NULL)
                snprintf(work, sizeof work, "%s/%s", job,
                         json_string_or(item, "session_stage", "-"));
            else if (json_string_or(item, "reason", NULL) != NULL)
                cli_safe(json_string_or(item, "reason", ""), work, sizeof work);
            else if (running > 0)
                snprintf(work, sizeof work, "%" PRId64 " task%s", running, running == 1 ? "" : "s");
            snprintf(threads, sizeof threads, "%.0f", json_number_or(item, "threads", 0.0));
            cli_format_bytes((uint64_t)json_number_or(item, "memory_bytes", 0.0), memory);
            cli_table_add(&t, 6, json_string_or(item, "name", "-"),
                          json_string_or(item, "state", "-"), threads, memory, work,
                          json_string_or(item, "id", "-"));
        }
        if (!c->names)
            cli_table_print(&t, stdout);
        if (cJSON_GetArraySize(json_get(list, "items")) == 0 && !c->names)
            cli_say("no workers; start some with: steerctl up --workers 2");
    }
    cJSON_Delete(list);
    cli_client_close(cl);
    return code;
}

/* The id of a worker in quarantine that is called so; NULL: none. */
static const char *quarantined_id(const cJSON *list, const char *word)
{
    const cJSON *item;

    cJSON_ArrayForEach(item, json_get(list, "items"))
    {
        const char *id = json_string_or(item, "id", "");
        if (strcmp(json_string_or(item, "state", ""), "QUARANTINED") == 0 &&
            (strcmp(id, word) == 0 || strcmp(json_string_or(item, "name", ""), word) == 0))
            return id;
    }
    return NULL;
}

int verb_worker_release(struct cli *c)
{
    struct cli_client *cl = NULL;
    struct cli_reply r = {0};
    cJSON *list = NULL;
    const char *id = NULL;
    char path[128];
    int code = cli_client_open(c, &cl);

    if (code == CLI_OK)
        code = cli_get(cl, "/v1/workers", &list);
    if (code == CLI_OK && (id = quarantined_id(list, c->pos[0])) == NULL)
        code = cli_fail(CLI_NOT_FOUND, "steerctl worker ls", "worker %s is not in quarantine",
                        c->pos[0]);
    if (code == CLI_OK) {
        snprintf(path, sizeof path, "/v1/workers/%.80s/release", id);
        if (cli_call(cl, "POST", path, "{}", NULL, 10000, &r) && r.status == 200)
            cli_say("%s may work again; start it if it has stopped", id);
        else
            code = cli_reply_fail(cl, &r, id);
        cli_reply_free(&r);
    }
    cJSON_Delete(list);
    cli_client_close(cl);
    return code;
}

int verb_counters(struct cli *c)
{
    struct cli_client *cl = NULL;
    cJSON *info = NULL;
    const cJSON *item;
    struct cli_table t = {0};
    int code = cli_client_open(c, &cl);

    if (code == CLI_OK)
        code = cli_get(cl, "/v1/info", &info);
    if (code == CLI_OK && c->json)
        cli_print_json(json_get(info, "counters"));
    if (code == CLI_OK && !c->json) {
        cJSON_ArrayForEach(item, json_get(info, "counters"))
        {
            char text[CLI_SHORT];
            snprintf(text, sizeof text, "%.0f", item->valuedouble);
            cli_table_add(&t, 2, item->string, text);
        }
        cli_table_print(&t, stdout);
    }
    cJSON_Delete(info);
    cli_client_close(cl);
    return code;
}

int verb_version(struct cli *c)
{
    printf(c->json ? "{\"version\":\"%s\"}\n" : "steerctl %s\n", STEER_VERSION);
    return CLI_OK;
}
