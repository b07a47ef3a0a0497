/*
 * submit: check here, upload, post. The idempotency key is made before the first attempt and used for all, so a lost reply
 * costs a repetition and never a second job. Files go by digest: what the coordinator has is not sent again.
 */
#include <inttypes.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "artifact/artifact.h"
#include "base/clock.h"
#include "base/file.h"
#include "steerctl/cli.h"
#include "steerctl/cli_store.h"

#define UPLOAD_MS 600000
#define POST_MS 30000

struct progress {
    const char *name;
    uint64_t total, shown_ms;
    bool tty;
};

static void on_sent(void *self, uint64_t bytes)
{
    struct progress *p = self;
    char done[CLI_SHORT], all[CLI_SHORT];

    if (!p->tty || clock_ms() - p->shown_ms < 100)
        return;
    p->shown_ms = clock_ms();
    cli_format_bytes(bytes, done);
    cli_format_bytes(p->total, all);
    fprintf(stderr, "\r  uploading %s  %s of %s\033[K", p->name, done, all);
}

static uint64_t path_size(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && S_ISREG(st.st_mode) ? (uint64_t)st.st_size : 0;
}

int cli_publish(struct cli_store *store, const char *path, const char *name, struct digest *d)
{
    struct progress p = {.name = name, .total = path_size(path), .tty = cli_has_tty(STDERR_FILENO)};
    struct err e = {0};
    int rc = artifact_publish(store->client, path, UPLOAD_MS, d, on_sent, &p, &e);

    if (p.tty && p.shown_ms > 0)
        fprintf(stderr, "\r\033[K");
    if (rc == ERR_NO_SPACE)
        return cli_fail(CLI_UNEXPECTED, "free some space there, then the same command again", "%s",
                        e.msg);
    if (rc == ERR_UNREACHABLE)
        return cli_fail(CLI_UNREACHABLE, "steerctl up", "%s", e.msg);
    return rc != 0 ? cli_fail_err(&e, "check the file, then the same command again") : CLI_OK;
}

static int files_upload(const struct cli_spec *s, struct cli_store *store, cJSON *files)
{
    int code = CLI_OK;

    for (int i = 0; code == CLI_OK && i < s->files_n; i++) {
        char *path = cli_spec_path(s, s->file[i]);
        struct digest d = {{0}};
        code = cli_publish(store, path, s->file[i], &d);
        if (code == CLI_OK)
            CHECK(cJSON_AddStringToObject(files, s->file[i], d.hex) != NULL);
        free(path);
    }
    return code;
}

static char *body_make(const struct cli *c, const struct cli_spec *s, cJSON **files)
{
    cJSON *body = cJSON_CreateObject(), *sets = cJSON_CreateArray();
    struct buf text = BUF_INIT;

    CHECK(body != NULL && sets != NULL);
    for (int i = 0; i < c->sets_n; i++)
        cJSON_AddItemToArray(sets, cJSON_CreateString(c->sets[i]));
    cJSON_AddItemToObject(body, "spec", cJSON_CreateString(s->text.data));
    cJSON_AddItemToObject(body, "files", *files);
    *files = NULL;
    cJSON_AddItemToObject(body, "set", sets);
    json_canonical(body, &text);
    cJSON_Delete(body);
    return buf_take(&text);
}

static const char *key_of(const struct cli *c, char fresh[40])
{
    unsigned char raw[16];

    if (c->opt[OPT_KEY] != NULL)
        return c->opt[OPT_KEY];
    CHECK(sodium_init() >= 0);
    randombytes_buf(raw, sizeof raw);
    sodium_bin2hex(fresh, 40, raw, sizeof raw);
    return fresh;
}

/* Until a reply comes or the time is over; 503 (recovering) is no reply. */
static bool post(struct cli_client *cl, const char *body, const char *key, struct cli_reply *r)
{
    uint64_t start = clock_ms(), wait_ms = 200;

    for (;;) {
        bool answered = cli_call(cl, "POST", "/v1/jobs", body, key, POST_MS, r);
        if ((answered && r->status != 503) || cli_interrupted || clock_ms() - start > POST_MS)
            return answered;
        cli_reply_free(r);
        clock_sleep_ms(wait_ms);
        wait_ms = wait_ms * 2 < 2000 ? wait_ms * 2 : 2000;
        (void)cli_rediscover(cl);
    }
}

static int submitted(struct cli *c, struct cli_client *cl, const struct cli_reply *r,
                     int64_t timeout)
{
    const char *id = json_string_or(r->json, "id", NULL);
    char whole[32];

    if (id == NULL || strlen(id) >= sizeof whole)
        return cli_fail(CLI_UNEXPECTED, "steerctl ls", "the coordinator's answer has no job id");
    snprintf(whole, sizeof whole, "%s", id);
    if (c->json)
        cli_print_json(r->json);
    else
        printf("%s\n", whole);
    fflush(stdout);
    if (r->status == 200)
        cli_say("this job was submitted before (same idempotency key)");
    if (c->opt[OPT_FOLLOW] == NULL && c->opt[OPT_WAIT] == NULL) {
        if (!c->json && !c->names)
            fprintf(stderr,
                    "  follow:  steerctl watch %s\n  look:    steerctl status %s\n  stop:    "
                    "steerctl cancel %s\n",
                    whole, whole, whole);
        return CLI_OK;
    }
    return cli_watch(cl, whole, c->opt[OPT_FOLLOW] != NULL ? CLI_VIEW_LIVE : CLI_VIEW_QUIET,
                     timeout);
}

int verb_submit(struct cli *c)
{
    struct cli_spec s = {0};
    struct cli_client *cl = NULL;
    struct cli_store store = {0};
    struct cli_reply r = {0};
    cJSON *files = cJSON_CreateObject();
    char fresh[40], *body = NULL;
    const char *key;
    int64_t timeout;
    int code = cli_int(c, OPT_TIMEOUT, 0, 100000000, -1, &timeout);

    if (code == CLI_OK)
        code = cli_spec_read(c, c->pos[0], &s);
    if (code == CLI_OK && cli_spec_missing(&s, c->pos[0]) > 0)
        code = cli_fail(CLI_SPEC, "steerctl plan FILE   (shows what a spec names)",
                        "nothing was submitted");
    if (code == CLI_OK)
        code = cli_client_open(c, &cl);
    if (code == CLI_OK)
        code = cli_reachable(cl);
    if (code == CLI_OK)
        code = cli_store_open(cl, &store);
    if (code == CLI_OK)
        code = files_upload(&s, &store, files);
    if (code != CLI_OK)
        goto out;
    body = body_make(c, &s, &files);
    key = key_of(c, fresh);
    if (post(cl, body, key, &r) && (r.status == 200 || r.status == 201)) {
        code = submitted(c, cl, &r, timeout);
    } else {
        if (r.status == 0 || r.status >= 500)
            cli_say("whether the job was taken is not known; so that it is not made twice, submit it "
                    "again with --idempotency-key %s",
                    key);
        code = cli_reply_fail(cl, &r, c->pos[0]);
    }
out:
    cli_reply_free(&r);
    free(body);
    cJSON_Delete(files);
    cli_store_close(&store);
    cli_client_close(cl);
    cli_spec_free(&s);
    return code;
}
