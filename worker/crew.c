/*
 * One piece of work at a time. An item is a chunk, long enough that taking one under a lock costs
 * nothing beside it.
 */
#include "worker/crew.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

#include "base/buf.h"
#include "base/err.h"

struct crew {
    pthread_mutex_t lock;
    pthread_cond_t work, done;
    uint32_t n, left; /* items of the work, and of them those that are not finished; by lock */
    uint32_t next;    /* by lock: the next one to take */
    void (*item)(void *arg, uint32_t i);
    void *arg;
    bool stop;
    uint32_t helpers;
    pthread_t helper[];
};

/* Takes items while there are some. With the lock, before and after. */
static void take(struct crew *c)
{
    while (c->next < c->n) {
        uint32_t i = c->next++;
        void (*item)(void *, uint32_t) = c->item;
        void *arg = c->arg;

        pthread_mutex_unlock(&c->lock);
        item(arg, i);
        pthread_mutex_lock(&c->lock);
        if (--c->left == 0)
            pthread_cond_signal(&c->done);
    }
}

static void *helper_main(void *self)
{
    struct crew *c = self;

    pthread_setname_np(pthread_self(), "crew");
    pthread_mutex_lock(&c->lock);
    while (!c->stop) {
        take(c);
        if (!c->stop)
            pthread_cond_wait(&c->work, &c->lock);
    }
    pthread_mutex_unlock(&c->lock);
    return NULL;
}

static void crew_each(void *self, uint32_t n, void (*item)(void *arg, uint32_t i), void *arg)
{
    struct crew *c = self;

    pthread_mutex_lock(&c->lock);
    CHECK(c->left == 0);
    c->n = c->left = n;
    c->next = 0;
    c->item = item;
    c->arg = arg;
    if (c->helpers > 0)
        pthread_cond_broadcast(&c->work);
    take(c);
    while (c->left > 0)
        pthread_cond_wait(&c->done, &c->lock);
    c->n = c->next = 0;
    pthread_mutex_unlock(&c->lock);
}

struct crew *crew_new(uint32_t helpers)
{
    struct crew *c = mem_zalloc(1, sizeof *c + helpers * sizeof c->helper[0]);

    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->work, NULL);
    pthread_cond_init(&c->done, NULL);
    c->helpers = helpers;
    for (uint32_t i = 0; i < helpers; i++)
        CHECK(pthread_create(&c->helper[i], NULL, helper_main, c) == 0);
    return c;
}

void crew_free(struct crew *c)
{
    if (c == NULL)
        return;
    pthread_mutex_lock(&c->lock);
    c->stop = true;
    pthread_cond_broadcast(&c->work);
    pthread_mutex_unlock(&c->lock);
    for (uint32_t i = 0; i < c->helpers; i++)
        pthread_join(c->helper[i], NULL);
    pthread_cond_destroy(&c->work);
    pthread_cond_destroy(&c->done);
    pthread_mutex_destroy(&c->lock);
    free(c);
}

struct spread crew_spread(struct crew *c)
{
    return (struct spread){crew_each, c};
}
