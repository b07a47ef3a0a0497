/*
 * How it works. A download goes straight into a blob writer, which hashes; when the connection breaks the next attempt asks
 * for the rest by Range and the writer goes on, so no byte is loaded or hashed twice; and while bytes come, the caller's
 * patience begins anew, so that size alone never ends a download. An upload puts the file into the local
 * cache first (that names it), asks HEAD whether the coordinator has it, and sends it if not; bytes that came there changed
 * go again if they are sound here, and are written here again if not. Curl handles are kept in a
 * small pool with their connections.
 *
 * What was verified is remembered by digest for the life of the process: hashing a data set again for every range of a job
 * would cost more than the range.
 */
#include "artifact/artifact.h"

#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/file.h"
#include "base/log.h"

#define POOL_MAX 8
#define PATH_BYTES 4608
#define BACKOFF_FIRST_MS 100
#define BACKOFF_MAX_MS 2000
#define MANIFEST_MAX (64u << 20)

struct digest_set {
    struct digest *v;
    size_t n, cap;
};

struct artifact_client {
    pthread_mutex_t lock;
    pthread_cond_t flight_done;
    char *base_url, *auth; /* auth: whole header line, or NULL */
    char *checkout_dir;
    struct blob_store *cache;
    CURL *pool[POOL_MAX];
    int pool_n;
    struct digest_set verified, flight;
    struct digest_set laid; /* trees, by this process: what an earlier one left may have rotted */
};

/* ---- sets of digests: a handful to some thousands, looked up once a task --------------------- */

static bool set_has(const struct digest_set *s, const char *hex)
{
    for (size_t i = 0; i < s->n; i++)
        if (strcmp(s->v[i].hex, hex) == 0)
            return true;
    return false;
}

static void set_add(struct digest_set *s, const char *hex)
{
    if (set_has(s, hex))
        return;
    if (s->n == s->cap) {
        s->cap = s->cap == 0 ? 16 : s->cap * 2;
        s->v = mem_grow(s->v, s->cap, sizeof *s->v);
    }
    snprintf(s->v[s->n++].hex, sizeof s->v->hex, "%s", hex);
}

static void set_remove(struct digest_set *s, const char *hex)
{
    for (size_t i = 0; i < s->n; i++)
        if (strcmp(s->v[i].hex, hex) == 0) {
            s->v[i] = s->v[--s->n];
            return;
        }
}

/* ---- client ---------------------------------------------------------------------------------- */

static void curl_begin(void)
{
    CHECK(curl_global_init(CURL_GLOBAL_DEFAULT) == 0);
}

int artifact_client_new(const char *base_url, struct blob_store *cache, const char *checkout_dir,
                        struct artifact_client **out, struct err *e)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    struct artifact_client *c;
    const char *token = getenv("STEER_TOKEN");
    int rc = file_make_dirs(checkout_dir, e);

    if (rc != 0)
        return rc;
    pthread_once(&once, curl_begin);
    c = mem_zalloc(1, sizeof *c);
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->flight_done, NULL);
    c->base_url = mem_strdup(base_url);
    c->cache = cache;
    c->checkout_dir = mem_strdup(checkout_dir);
    if (token != NULL && token[0] != '\0')
        artifact_client_set_token(c, token);
    *out = c;
    return 0;
}

void artifact_client_free(struct artifact_client *c)
{
    if (c == NULL)
        return;
    for (int i = 0; i < c->pool_n; i++)
        curl_easy_cleanup(c->pool[i]);
    pthread_cond_destroy(&c->flight_done);
    pthread_mutex_destroy(&c->lock);
    free(c->base_url);
    free(c->auth);
    free(c->checkout_dir);
    free(c->verified.v);
    free(c->flight.v);
    free(c->laid.v);
    free(c);
}

void artifact_client_set_url(struct artifact_client *c, const char *base_url)
{
    pthread_mutex_lock(&c->lock);
    free(c->base_url);
    c->base_url = mem_strdup(base_url);
    pthread_mutex_unlock(&c->lock);
}

void artifact_client_set_token(struct artifact_client *c, const char *token)
{
    pthread_mutex_lock(&c->lock);
    free(c->auth);
    c->auth = token != NULL ? mem_printf("Authorization: Bearer %s", token) : NULL;
    pthread_mutex_unlock(&c->lock);
}

/* ---- one HTTP exchange ----------------------------------------------------------------------- */

struct exchange {
    struct artifact_client *client;
    const char *digest;
    uint64_t deadline; /* clock_ms() */
    /* GET */
    struct blob_writer *writer;
    uint64_t got;
    bool started; /* this attempt's first bytes were looked at */
    CURL *curl;
    /* PUT */
    int fd;
    void (*sent)(void *self, uint64_t bytes);
    void *self;
    uint64_t sent_before;
    int local_rc; /* our disk failed in a callback; e says how */
    struct err *e;
    char detail[300]; /* begin of an error's body */
    size_t detail_len;
};

static CURL *handle_take(struct artifact_client *c)
{
    CURL *curl = NULL;

    pthread_mutex_lock(&c->lock);
    if (c->pool_n > 0)
        curl = c->pool[--c->pool_n];
    pthread_mutex_unlock(&c->lock);
    if (curl == NULL)
        curl = curl_easy_init();
    CHECK(curl != NULL);
    return curl;
}

static void handle_give(struct artifact_client *c, CURL *curl)
{
    curl_easy_reset(curl); /* keeps the connections */
    pthread_mutex_lock(&c->lock);
    if (c->pool_n < POOL_MAX) {
        c->pool[c->pool_n++] = curl;
        curl = NULL;
    }
    pthread_mutex_unlock(&c->lock);
    if (curl != NULL)
        curl_easy_cleanup(curl);
}

static size_t on_answer(char *bytes, size_t size, size_t n, void *self)
{
    struct exchange *x = self;
    size_t len = size * n;
    long status = 0;

    curl_easy_getinfo(x->curl, CURLINFO_RESPONSE_CODE, &status);
    if (x->writer == NULL || (status != 200 && status != 206)) {
        size_t room = sizeof x->detail - 1 - x->detail_len, take = len < room ? len : room;
        memcpy(x->detail + x->detail_len, bytes, take);
        x->detail_len += take;
        x->detail[x->detail_len] = '\0';
        return len;
    }
    if (!x->started && status == 200 &&
        x->got > 0) { /* the server does not do ranges: from the beginning */
        blob_write_abort(&x->writer);
        x->got = 0;
        x->local_rc = blob_write_begin(x->client->cache, &x->writer, x->e);
    }
    x->started = true;
    if (x->local_rc == 0)
        x->local_rc = blob_write(x->writer, bytes, len, x->e);
    if (x->local_rc != 0)
        return 0;
    x->got += len;
    fault_hit(FAULT_ARTIFACT_FETCH_MID);
    return len;
}

static size_t on_upload(char *out, size_t size, size_t n, void *self)
{
    struct exchange *x = self;
    ssize_t got;

    do
        got = read(x->fd, out, size * n);
    while (got < 0 && errno == EINTR);
    if (got < 0) {
        x->local_rc = err_sys(x->e, "read blob %s", x->digest);
        return CURL_READFUNC_ABORT;
    }
    fault_hit(FAULT_ARTIFACT_UPLOAD_MID);
    return (size_t)got;
}

static int on_seek(void *self, curl_off_t offset, int origin)
{
    struct exchange *x = self;

    return lseek(x->fd, offset, origin) < 0 ? CURL_SEEKFUNC_FAIL : CURL_SEEKFUNC_OK;
}

static int on_progress(void *self, curl_off_t dl_total, curl_off_t dl, curl_off_t ul_total,
                       curl_off_t ul)
{
    struct exchange *x = self;

    (void)dl_total;
    (void)dl;
    (void)ul_total;
    if (x->sent != NULL && x->fd >= 0)
        x->sent(x->self, x->sent_before + (uint64_t)ul);
    return 0;
}

static void options_set(CURL *curl, struct exchange *x, const char *url, uint64_t left_ms)
{
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_PROXY, "");
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS, 3000L);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, (long)(left_ms < 86400000 ? left_ms : 86400000));
    curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, 1024L);
    curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME, 15L);
    curl_easy_setopt(curl, CURLOPT_BUFFERSIZE, 512L << 10);
    curl_easy_setopt(curl, CURLOPT_UPLOAD_BUFFERSIZE, 512L << 10);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_answer);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, x);
}

/* One attempt. 0 when an HTTP status came (in *status), else ERR_UNREACHABLE or what our own disk said. */
static int exchange_once(struct exchange *x, const char *method, uint64_t size, long *status)
{
    struct artifact_client *c = x->client;
    CURL *curl = handle_take(c);
    struct curl_slist *headers = NULL;
    uint64_t now = clock_ms();
    char *url, range[32];
    CURLcode code;
    int rc = 0;

    pthread_mutex_lock(&c->lock);
    url = mem_printf("%s/v1/artifacts/%s", c->base_url, x->digest);
    if (c->auth != NULL)
        headers = curl_slist_append(headers, c->auth);
    pthread_mutex_unlock(&c->lock);
    options_set(curl, x, url, x->deadline > now ? x->deadline - now : 1);
    x->curl = curl;
    x->started = false;
    x->detail_len = 0;
    x->detail[0] = '\0';
    if (strcmp(method, "HEAD") == 0) {
        curl_easy_setopt(curl, CURLOPT_NOBODY, 1L);
    } else if (strcmp(method, "PUT") == 0) {
        curl_easy_setopt(curl, CURLOPT_UPLOAD, 1L);
        curl_easy_setopt(curl, CURLOPT_INFILESIZE_LARGE, (curl_off_t)size);
        curl_easy_setopt(curl, CURLOPT_READFUNCTION, on_upload);
        curl_easy_setopt(curl, CURLOPT_READDATA, x);
        curl_easy_setopt(curl, CURLOPT_SEEKFUNCTION, on_seek);
        curl_easy_setopt(curl, CURLOPT_SEEKDATA, x);
        curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
        curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, on_progress);
        curl_easy_setopt(curl, CURLOPT_XFERINFODATA, x);
    } else if (x->got > 0) {
        snprintf(range, sizeof range, "%" PRIu64 "-", x->got);
        curl_easy_setopt(curl, CURLOPT_RANGE, range);
    }
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    code = curl_easy_perform(curl);
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, status);
    if (x->local_rc != 0)
        rc = x->local_rc;
    else if (code != CURLE_OK && !(code == CURLE_SEND_ERROR && *status >= 400))
        rc = err_set(x->e, ERR_UNREACHABLE, "%s: %s", url, curl_easy_strerror(code));
    handle_give(c, curl);
    curl_slist_free_all(headers);
    free(url);
    return rc;
}

/* What a status that is no success means; ERR_UNREACHABLE is worth another attempt. */
static int status_to_err(const struct exchange *x, long status)
{
    char safe[sizeof x->detail];
    size_t n = 0;

    for (; x->detail[n] != '\0'; n++)
        safe[n] = x->detail[n] >= 0x20 && x->detail[n] < 0x7f ? x->detail[n] : '.';
    safe[n] = '\0';
    switch (status) {
    case 404:
        return err_set(x->e, ERR_NOT_FOUND, "the coordinator has no artefact %s", x->digest);
    case 401:
    case 403:
    case 421:
        return err_set(x->e, ERR_DENIED, "the coordinator refuses (%ld): %s", status, safe);
    case 413:
        return err_set(x->e, ERR_LIMIT, "artefact %s is too large for the coordinator: %s",
                       x->digest, safe);
    case 422:
        return err_set(x->e, ERR_CORRUPT, "artefact %s: %s", x->digest, safe);
    case 507:
        return err_set(x->e, ERR_NO_SPACE, "the coordinator's disk is full");
    default:
        if (status >= 400 && status < 500 && status != 408 && status != 429)
            return err_set(x->e, ERR_INVALID, "the coordinator answered %ld: %s", status, safe);
        return err_set(x->e, ERR_UNREACHABLE, "the coordinator answered %ld: %s", status, safe);
    }
}

/* False when the deadline leaves no room for another attempt. */
static bool backoff(uint64_t deadline, uint64_t *wait_ms)
{
    uint64_t now = clock_ms();

    if (now + *wait_ms >= deadline)
        return false;
    clock_sleep_ms(*wait_ms);
    *wait_ms = *wait_ms * 2 < BACKOFF_MAX_MS ? *wait_ms * 2 : BACKOFF_MAX_MS;
    return true;
}

/* ---- down ------------------------------------------------------------------------------------ */

static int blob_download(struct artifact_client *c, const char *digest, uint64_t patience_ms,
                         struct err *e)
{
    struct exchange x = {.client = c, .digest = digest, .fd = -1, .e = e};
    uint64_t wait_ms = BACKOFF_FIRST_MS, got_before;
    int rc, mismatches = 0;

    x.deadline = clock_ms() + patience_ms;
    for (;;) {
        long status = 0;
        rc = x.writer == NULL ? blob_write_begin(c->cache, &x.writer, e) : 0;
        if (rc != 0)
            break;
        got_before = x.got;
        rc = exchange_once(&x, "GET", 0, &status);
        if (rc == 0 && (status == 200 || status == 206)) {
            rc = blob_write_end(&x.writer, digest, NULL, e);
            x.got = 0;
            if (rc != ERR_CORRUPT || ++mismatches == 2)
                break;
            continue; /* once more from the beginning: the wire may have lied, the store should not */
        }
        if (rc == 0 && status == 416) { /* what we hold is longer than what is there */
            blob_write_abort(&x.writer);
            x.got = 0;
        }
        if (rc == 0)
            rc = status == 416
                     ? err_set(e, ERR_UNREACHABLE, "artefact %s ends before byte %" PRIu64, digest,
                               got_before)
                     : status_to_err(&x, status);
        if (x.got > got_before) { /* it moved: no refusal, but a slow or broken wire */
            wait_ms = BACKOFF_FIRST_MS;
            x.deadline = clock_ms() + patience_ms;
        }
        if (rc != ERR_UNREACHABLE || !backoff(x.deadline, &wait_ms))
            break;
        log_debug("artifact.retry", "digest=%s got=%" PRIu64 " why=\"%s\"", digest, x.got, e->msg);
    }
    blob_write_abort(&x.writer);
    return rc;
}

/* In the cache and verified in this process. */
static int blob_ensure(struct artifact_client *c, const char *digest, uint64_t patience_ms,
                       struct err *e)
{
    bool known;
    int rc = 0;

    pthread_mutex_lock(&c->lock);
    while (set_has(&c->flight, digest))
        pthread_cond_wait(&c->flight_done, &c->lock);
    known = set_has(&c->verified, digest) && blob_has(c->cache, digest);
    if (!known)
        set_add(&c->flight, digest);
    pthread_mutex_unlock(&c->lock);
    if (known)
        return 0;
    if (!blob_has(c->cache, digest) || blob_verify(c->cache, digest, e) != 0)
        rc = blob_download(c, digest, patience_ms, e);
    pthread_mutex_lock(&c->lock);
    set_remove(&c->flight, digest);
    if (rc == 0)
        set_add(&c->verified, digest);
    pthread_cond_broadcast(&c->flight_done);
    pthread_mutex_unlock(&c->lock);
    return rc;
}

/* Manifest text of a tree, or *is_tree false: a plain file. Only manifests begin so, and few files are read whole. */
static int manifest_read(struct artifact_client *c, const char *digest, struct buf *text,
                         bool *is_tree, struct err *e)
{
    static const char begin[] = "{\"files\":[";
    char path[PATH_BYTES], head[sizeof begin - 1];
    int fd, rc;
    ssize_t n;

    *is_tree = false;
    blob_path(c->cache, digest, path, sizeof path);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_sys(e, "open %s", path);
    n = read(fd, head, sizeof head);
    close(fd);
    if (n != (ssize_t)sizeof head || memcmp(head, begin, sizeof head) != 0)
        return 0;
    rc = file_read(path, MANIFEST_MAX, text, e);
    if (rc == ERR_LIMIT)
        return 0;
    if (rc == 0)
        *is_tree = blob_text_is_tree(text->data, text->len);
    return rc;
}

static int tree_ensure(struct artifact_client *c, const char *digest, const struct buf *text,
                       uint64_t patience_ms, const char *dir, struct err *e)
{
    struct tree_file *files = NULL;
    size_t n = 0;
    bool known;
    int rc = blob_tree_parse(text->data, text->len, &files, &n, e);

    for (size_t i = 0; rc == 0 && i < n; i++) {
        rc = blob_ensure(c, files[i].digest.hex, patience_ms, e);
        if (rc != 0)
            err_wrap(e, "%s", files[i].path);
    }
    free(files);
    if (rc != 0)
        return rc;
    pthread_mutex_lock(&c->lock);
    while (set_has(&c->flight, digest))
        pthread_cond_wait(&c->flight_done, &c->lock);
    known = set_has(&c->laid, digest) && file_is_dir(dir);
    if (!known)
        set_add(&c->flight, digest);
    pthread_mutex_unlock(&c->lock);
    if (known)
        return 0;
    rc = blob_tree_checkout(c->cache, digest, dir, e);
    pthread_mutex_lock(&c->lock);
    set_remove(&c->flight, digest);
    if (rc == 0)
        set_add(&c->laid, digest);
    pthread_cond_broadcast(&c->flight_done);
    pthread_mutex_unlock(&c->lock);
    return rc;
}

int artifact_fetch(struct artifact_client *c, const char *digest, uint64_t patience_ms, char *path,
                   size_t cap, struct err *e)
{
    struct buf text = BUF_INIT;
    bool is_tree = false;
    int n, rc;

    if (!digest_is_valid(digest))
        return err_set(e, ERR_INVALID,
                       "\"%.80s\" is not a sha256 digest: 64 lower-case hex digits are", digest);
    rc = blob_ensure(c, digest, patience_ms, e);
    if (rc == 0)
        rc = manifest_read(c, digest, &text, &is_tree, e);
    if (rc == 0 && is_tree) {
        n = snprintf(path, cap, "%s/%s", c->checkout_dir, digest);
        CHECK(n > 0 && (size_t)n < cap);
        rc = tree_ensure(c, digest, &text, patience_ms, path, e);
    } else if (rc == 0) {
        blob_path(c->cache, digest, path, cap);
    }
    buf_free(&text);
    if (rc != 0)
        err_wrap(e, "fetch %.12s", digest);
    return rc;
}

/* ---- up -------------------------------------------------------------------------------------- */

#define UPLOAD_BYTES_PER_MS 100 /* at least: an upload that is cut begins anew, and must end once */
#define UPLOAD_MISMATCHES_MAX 3 /* of sound bytes: a wire that always changes them is no wire */

struct upload {
    uint64_t patience_ms, done;
    bool rotten; /* what our cache held was no longer what it was named by */
    void (*sent)(void *self, uint64_t bytes);
    void *self;
};

/* HEAD, and PUT if the coordinator has it not. 0: it has it. */
static int upload_once(struct exchange *x, const char *path, uint64_t size, const struct upload *up)
{
    long status = 0;
    int rc = exchange_once(x, "HEAD", 0, &status);

    if (rc == 0 && status == 404) {
        x->fd = open(path, O_RDONLY | O_CLOEXEC);
        if (x->fd < 0)
            return err_sys(x->e, "open %s", path);
        x->sent = up->sent;
        x->self = up->self;
        x->sent_before = up->done;
        rc = exchange_once(x, "PUT", size, &status);
        close(x->fd);
        x->fd = -1;
    }
    if (rc != 0 || status == 200 || status == 201)
        return rc;
    return status_to_err(x, status);
}

/* Other bytes came there than were named. True: not from here, so the wire changed them. What is damaged here goes, and
 * the caller has it written again. */
static bool upload_is_sound(struct artifact_client *c, struct upload *up, const char *digest,
                            struct err *e)
{
    char path[PATH_BYTES];
    struct err here;
    int rc = blob_verify(c->cache, digest, &here);

    if (rc == 0)
        return true;
    *e = here;
    up->rotten = rc == ERR_CORRUPT;
    if (up->rotten) {
        blob_path(c->cache, digest, path, sizeof path);
        pthread_mutex_lock(&c->lock);
        set_remove(&c->verified, digest);
        unlink(path);
        pthread_mutex_unlock(&c->lock);
    }
    return false;
}

static int blob_upload(struct artifact_client *c, const char *digest, struct upload *up,
                       struct err *e)
{
    struct exchange x = {.client = c, .digest = digest, .fd = -1, .e = e};
    uint64_t wait_ms = BACKOFF_FIRST_MS, size = 0;
    char path[PATH_BYTES];
    int rc, mismatches = 0;

    blob_path(c->cache, digest, path, sizeof path);
    rc = file_size(path, &size, e);
    if (rc != 0)
        return rc;
    x.deadline = clock_ms() + up->patience_ms + size / UPLOAD_BYTES_PER_MS;
    while ((rc = upload_once(&x, path, size, up)) != 0) {
        if (rc == ERR_CORRUPT && !upload_is_sound(c, up, digest, e))
            return e->code;
        if (rc != ERR_UNREACHABLE && (rc != ERR_CORRUPT || ++mismatches == UPLOAD_MISMATCHES_MAX))
            return rc;
        if (!backoff(x.deadline, &wait_ms))
            return rc;
    }
    up->done += size;
    if (up->sent != NULL)
        up->sent(up->self, up->done);
    return 0;
}

static int tree_upload(struct artifact_client *c, const char *digest, struct upload *up,
                       struct err *e)
{
    struct buf text = BUF_INIT;
    struct tree_file *files = NULL;
    size_t n = 0;
    int rc = blob_read(c->cache, digest, MANIFEST_MAX, &text, e);

    if (rc == 0)
        rc = blob_tree_parse(text.data, text.len, &files, &n, e);
    for (size_t i = 0; rc == 0 && i < n; i++) {
        rc = blob_upload(c, files[i].digest.hex, up, e);
        if (rc != 0)
            err_wrap(e, "%s", files[i].path);
    }
    free(files);
    buf_free(&text);
    return rc != 0
               ? rc
               : blob_upload(c, digest, up, e); /* the manifest last: who sees it can have it all */
}

static int path_publish(struct artifact_client *c, const char *path, struct upload *up,
                        struct digest *out, struct err *e)
{
    bool is_dir = file_is_dir(path);
    int rc = is_dir ? blob_put_tree(c->cache, path, out, e) : blob_put_file(c->cache, path, out, e);

    if (rc != 0)
        return rc;
    return is_dir ? tree_upload(c, out->hex, up, e) : blob_upload(c, out->hex, up, e);
}

int artifact_publish(struct artifact_client *c, const char *path, uint64_t patience_ms,
                     struct digest *out, void (*sent)(void *self, uint64_t bytes), void *self,
                     struct err *e)
{
    const struct upload begin = {.patience_ms = patience_ms, .sent = sent, .self = self};
    struct upload up = begin;
    struct digest d;
    int rc = path_publish(c, path, &up, &d, e);

    if (up.rotten) { /* what it was made of is still there */
        up = begin;
        rc = path_publish(c, path, &up, &d, e);
    }
    if (rc != 0)
        return err_wrap(e, "publish %s", path);
    pthread_mutex_lock(&c->lock);
    set_add(&c->verified, d.hex);
    pthread_mutex_unlock(&c->lock);
    *out = d;
    return 0;
}

static int bytes_publish(struct artifact_client *c, const void *bytes, size_t len,
                         struct upload *up, struct digest *out, struct err *e)
{
    int rc = blob_put_bytes(c->cache, bytes, len, out, e);

    return rc == 0 ? blob_upload(c, out->hex, up, e) : rc;
}

int artifact_publish_bytes(struct artifact_client *c, const void *bytes, size_t len,
                           uint64_t patience_ms, struct digest *out, struct err *e)
{
    struct upload up = {.patience_ms = patience_ms};
    int rc = bytes_publish(c, bytes, len, &up, out, e);

    if (up.rotten) {
        up = (struct upload){.patience_ms = patience_ms};
        rc = bytes_publish(c, bytes, len, &up, out, e);
    }
    return rc == 0 ? 0 : err_wrap(e, "publish %zu bytes", len);
}

void artifact_forget(struct artifact_client *c, const char *digest)
{
    char path[PATH_BYTES];

    blob_path(c->cache, digest, path, sizeof path);
    pthread_mutex_lock(&c->lock);
    if (!set_has(&c->flight, digest)) { /* else somebody wants it just now */
        set_remove(&c->verified, digest);
        unlink(path);
    }
    pthread_mutex_unlock(&c->lock);
}
