#include "worker/ps_view.h"

#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "base/buf.h"

#define WAIT_MS 20

struct ps_view {
    struct ps_client *client; /* of whoever pumps */
    struct region *region;
    float *params;
    atomic_bool near[WIRE_HOSTS_MAX];
    pthread_mutex_t lock;
    pthread_cond_t pumped;
    bool pumping;
    uint32_t needs;  /* threads that lack a part of a version... */
    uint64_t needed; /* ... and of which: it is asked for before any later one */
};

int ps_view_new(const struct ps_client_plan *plan, struct ps_view **out, struct err *e)
{
    struct ps_view *v = mem_zalloc(1, sizeof *v);
    struct ps_client_plan mine = *plan;
    int rc;

    for (uint32_t i = 0; i < WIRE_HOSTS_MAX; i++)
        atomic_init(&v->near[i], false);
    mine.near = v->near;
    rc = ps_client_new(&mine, &v->client, e);
    if (rc != 0) {
        free(v);
        return rc;
    }
    v->region = plan->view;
    region_hold(v->region);
    v->params = region_data(v->region);
    pthread_mutex_init(&v->lock, NULL);
    pthread_cond_init(&v->pumped, NULL);
    *out = v;
    return 0;
}

void ps_view_free(struct ps_view *v)
{
    if (v == NULL)
        return;
    ps_client_free(v->client);
    region_release(v->region);
    pthread_mutex_destroy(&v->lock);
    pthread_cond_destroy(&v->pumped);
    free(v);
}

atomic_bool *ps_view_near(struct ps_view *v)
{
    return v->near;
}

const float *ps_view_params(const struct ps_view *v)
{
    return v->params;
}

/* Pulls for at most timeout_ms, or waits for somebody else who does. */
static int pump(struct ps_view *v, uint64_t at_least, int timeout_ms, struct err *e)
{
    int rc = 0;

    pthread_mutex_lock(&v->lock);
    if (v->needs > 0 && at_least > v->needed)
        at_least = v->needed;
    if (v->pumping) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += (long)timeout_ms * 1000000;
        if (until.tv_nsec >= 1000000000) {
            until.tv_nsec -= 1000000000;
            until.tv_sec++;
        }
        if (timeout_ms > 0)
            pthread_cond_timedwait(&v->pumped, &v->lock, &until);
        pthread_mutex_unlock(&v->lock);
        return 0;
    }
    v->pumping = true;
    pthread_mutex_unlock(&v->lock);
    rc = ps_client_pump(v->client, at_least, v->params, timeout_ms, e);
    pthread_mutex_lock(&v->lock);
    v->pumping = false;
    pthread_cond_broadcast(&v->pumped);
    pthread_mutex_unlock(&v->lock);
    return rc;
}

int ps_view_wait(struct ps_view *v, uint64_t at_least, uint64_t *version, struct ps_client *pushes,
                 const struct ps_client_check *check, struct err *e)
{
    for (;;) {
        uint64_t newest = ps_client_newest(v->client);
        size_t open = 0;
        int rc = 0;

        if (newest != UINT64_MAX && newest >= at_least) {
            *version = newest;
            ps_client_forget(pushes);
            return 0;
        }
        rc = ps_client_tend(pushes, 0, check, &open, e);
        if (rc == 0)
            rc = pump(v, at_least, WAIT_MS, e);
        newest = ps_client_newest(v->client);
        if (rc == 0 && (newest == UINT64_MAX || newest < at_least))
            rc = check->ask(check->self, true, e);
        if (rc != 0)
            return rc;
    }
}

static void needs_add(struct ps_view *v, uint64_t version, bool more)
{
    pthread_mutex_lock(&v->lock);
    if (more && (v->needs == 0 || version < v->needed))
        v->needed = version;
    v->needs = more ? v->needs + 1 : v->needs - 1;
    pthread_mutex_unlock(&v->lock);
}

int ps_view_need(struct ps_view *v, uint64_t version, size_t begin, size_t end, bool *over,
                 const struct ps_client_check *check, struct err *e)
{
    int rc = 0;

    if (ps_client_has(v->client, version, begin, end, over) || *over)
        return 0;
    needs_add(v, version, true);
    while (rc == 0 && !ps_client_has(v->client, version, begin, end, over) && !*over) {
        rc = pump(v, version, WAIT_MS, e);
        if (rc == 0)
            rc = check->ask(check->self, false, e);
    }
    needs_add(v, version, false);
    return rc;
}

bool ps_view_still(const struct ps_view *v, uint64_t version)
{
    return ps_client_still(v->client, version);
}
