#include "worker/mailbox.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/err.h"

struct item {
    struct item *next;
    void *what;
};

struct mailbox {
    pthread_mutex_t lock;
    struct item *first, **last;
    int fd; /* a semaphore: counts the items */
};

struct mailbox *mailbox_new(void)
{
    struct mailbox *m = mem_zalloc(1, sizeof *m);

    pthread_mutex_init(&m->lock, NULL);
    m->last = &m->first;
    m->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK | EFD_SEMAPHORE);
    CHECK(m->fd >= 0);
    return m;
}

void mailbox_free(struct mailbox *m)
{
    if (m == NULL)
        return;
    CHECK(m->first == NULL);
    close(m->fd);
    pthread_mutex_destroy(&m->lock);
    free(m);
}

void mailbox_put(struct mailbox *m, void *what)
{
    struct item *item = mem_alloc(sizeof *item);
    uint64_t one = 1;

    item->next = NULL;
    item->what = what;
    pthread_mutex_lock(&m->lock);
    *m->last = item;
    m->last = &item->next;
    CHECK(write(m->fd, &one, sizeof one) == sizeof one);
    pthread_mutex_unlock(&m->lock);
}

void *mailbox_take(struct mailbox *m)
{
    struct item *item;
    void *what = NULL;
    uint64_t one;

    pthread_mutex_lock(&m->lock);
    item = m->first;
    if (item != NULL) {
        m->first = item->next;
        if (m->first == NULL)
            m->last = &m->first;
        CHECK(read(m->fd, &one, sizeof one) == sizeof one);
        what = item->what;
    }
    pthread_mutex_unlock(&m->lock);
    free(item);
    return what;
}

void *mailbox_wait(struct mailbox *m)
{
    for (;;) {
        struct pollfd p = {m->fd, POLLIN, 0};
        void *what = mailbox_take(m);
        if (what != NULL)
            return what;
        CHECK(poll(&p, 1, -1) >= 0 || errno == EINTR);
    }
}

int mailbox_fd(const struct mailbox *m)
{
    return m->fd;
}
