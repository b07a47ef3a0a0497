/*
 * submitter: clients that submit jobs under load, for tests that kill the coordinator meanwhile.
 *
 *   submitter HOST:PORT BODY-FILE PREFIX THREADS COUNT STOP-FILE [PACE-MS]
 *
 * Each thread submits under keys PREFIX-THREAD-N, each until it is answered with 200 or 201, COUNT
 * of them (0: until STOP-FILE is there; the key that is open then is still brought to its answer), with PACE-MS after each answer.
 * Prints "ack KEY ID" for each, and at the end one line "total acks=N ambiguous=N refused=N
 * replayed=N differ=N". Ambiguous: the connection broke after a request was on its way, so the
 * client cannot know whether it counted. At the end a share of the keys is sent once more; the
 * answer must name the same job.
 */
#include <curl/curl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define THREADS_MAX 64
#define REPLAYS_MAX 20
#define WAIT_S 60 /* without an answer to one key */

struct answer {
    char text[4096]; /* the beginning: the id is somewhere in it */
    size_t n;
    char id[32];
};

struct client {
    int index;
    CURL *curl;
    uint64_t acks, ambiguous, refused, replayed, differ;
    char first[REPLAYS_MAX][32];
    bool lost; /* gave up */
};

static char url[300];
static const char *prefix, *stop_file;
static char *body;
static long body_len;
static uint64_t count;
static long pace_ms;
static pthread_mutex_t out_lock = PTHREAD_MUTEX_INITIALIZER;

/* The id is the first "id":"job_ of a text that may come in pieces. */
static size_t on_bytes(char *data, size_t size, size_t n, void *self)
{
    struct answer *a = self;
    size_t len = size * n, keep = 0;
    const char *at = NULL;

    for (size_t done = 0; done < len && a->id[0] == '\0';) {
        size_t take =
            len - done < sizeof a->text - 1 - a->n ? len - done : sizeof a->text - 1 - a->n;

        memcpy(a->text + a->n, data + done, take);
        a->n += take;
        a->text[a->n] = '\0';
        done += take;
        at = strstr(a->text, "\"id\":\"job_");
        if (at != NULL && strlen(at) >= 6 + 17 + 1)
            snprintf(a->id, sizeof a->id, "%.17s", at + 6);
        keep = a->n < 64 ? a->n : 64;
        memmove(a->text, a->text + a->n - keep, keep);
        a->n = keep;
    }
    return len;
}

static void pause_ms(long ms)
{
    struct timespec t = {ms / 1000, ms % 1000 * 1000000};

    nanosleep(&t, NULL);
}

/* One request. Gives the status, 0: no answer. */
static long post(struct client *c, const char *key, struct answer *a)
{
    char header[200];
    struct curl_slist *headers = NULL;
    long status = 0;
    CURLcode rc;

    memset(a, 0, sizeof *a);
    snprintf(header, sizeof header, "Idempotency-Key: %s", key);
    headers = curl_slist_append(headers, header);
    headers = curl_slist_append(headers, "Content-Type: application/json");
    headers = curl_slist_append(headers, "Expect:");
    curl_easy_setopt(c->curl, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(c->curl, CURLOPT_WRITEDATA, a);
    rc = curl_easy_perform(c->curl);
    curl_slist_free_all(headers);
    if (rc == CURLE_OK)
        curl_easy_getinfo(c->curl, CURLINFO_RESPONSE_CODE, &status);
    else if (rc != CURLE_COULDNT_CONNECT)
        c->ambiguous++;
    return status;
}

static bool submit(struct client *c, const char *key, char id[32])
{
    time_t end = time(NULL) + WAIT_S;
    struct answer a;

    while (time(NULL) < end) {
        long status = post(c, key, &a);

        if ((status == 200 || status == 201) && a.id[0] != '\0') {
            snprintf(id, 32, "%s", a.id);
            return true;
        }
        c->refused += status != 0;
        pause_ms(status == 0 ? 5 : 50);
    }
    return false;
}

static void *client_run(void *arg)
{
    struct client *c = arg;
    char key[120], id[32];

    for (uint64_t n = 0; count > 0 ? n < count : access(stop_file, F_OK) != 0; n++) {
        snprintf(key, sizeof key, "%s-%d-%" PRIu64, prefix, c->index, n);
        if (!submit(c, key, id)) {
            c->lost = true;
            return NULL;
        }
        if (n < REPLAYS_MAX)
            snprintf(c->first[n], sizeof c->first[n], "%s", id);
        c->acks++;
        pthread_mutex_lock(&out_lock);
        printf("ack %s %s\n", key, id);
        fflush(stdout);
        pthread_mutex_unlock(&out_lock);
        pause_ms(pace_ms);
    }
    for (uint64_t n = 0; n < c->acks && n < REPLAYS_MAX; n++) {
        snprintf(key, sizeof key, "%s-%d-%" PRIu64, prefix, c->index, n);
        c->lost = c->lost || !submit(c, key, id);
        c->replayed++;
        c->differ += strcmp(id, c->first[n]) != 0;
    }
    return NULL;
}

static bool body_read(const char *path)
{
    FILE *f = fopen(path, "rb");
    bool good = f != NULL && fseek(f, 0, SEEK_END) == 0 && (body_len = ftell(f)) > 0;

    if (good) {
        body = malloc((size_t)body_len);
        rewind(f);
        good = body != NULL && fread(body, 1, (size_t)body_len, f) == (size_t)body_len;
    }
    if (f != NULL)
        fclose(f);
    return good;
}

int main(int argc, char **argv)
{
    static struct client client[THREADS_MAX];
    pthread_t thread[THREADS_MAX];
    struct client sum = {.acks = 0};
    int threads = argc == 7 || argc == 8 ? atoi(argv[4]) : 0;

    if (threads < 1 || threads > THREADS_MAX || !body_read(argv[2])) {
        fprintf(stderr,
                "submitter HOST:PORT BODY-FILE PREFIX THREADS(1..%d) COUNT STOP-FILE "
                "[PACE-MS]\n",
                THREADS_MAX);
        return 2;
    }
    snprintf(url, sizeof url, "http://%s/v1/jobs", argv[1]);
    prefix = argv[3];
    count = strtoull(argv[5], NULL, 10);
    stop_file = argv[6];
    pace_ms = argc == 8 ? atol(argv[7]) : 0;
    curl_global_init(CURL_GLOBAL_DEFAULT);
    for (int i = 0; i < threads; i++) {
        client[i].index = i;
        client[i].curl = curl_easy_init();
        curl_easy_setopt(client[i].curl, CURLOPT_URL, url);
        curl_easy_setopt(client[i].curl, CURLOPT_POSTFIELDS, body);
        curl_easy_setopt(client[i].curl, CURLOPT_POSTFIELDSIZE, body_len);
        curl_easy_setopt(client[i].curl, CURLOPT_WRITEFUNCTION, on_bytes);
        curl_easy_setopt(client[i].curl, CURLOPT_TIMEOUT_MS, 10000L);
        curl_easy_setopt(client[i].curl, CURLOPT_NOSIGNAL, 1L);
        curl_easy_setopt(client[i].curl, CURLOPT_NOPROXY, "*");
        pthread_create(&thread[i], NULL, client_run, &client[i]);
    }
    for (int i = 0; i < threads; i++) {
        pthread_join(thread[i], NULL);
        sum.acks += client[i].acks;
        sum.ambiguous += client[i].ambiguous;
        sum.refused += client[i].refused;
        sum.replayed += client[i].replayed;
        sum.differ += client[i].differ;
        sum.lost = sum.lost || client[i].lost;
        curl_easy_cleanup(client[i].curl);
    }
    printf("total acks=%" PRIu64 " ambiguous=%" PRIu64 " refused=%" PRIu64 " replayed=%" PRIu64
           " differ=%" PRIu64 "\n",
           sum.acks, sum.ambiguous, sum.refused, sum.replayed, sum.differ);
    free(body);
    return sum.lost ? 1 : 0;
}
