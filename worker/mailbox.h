/* mailbox: pointers from any thread to one, with a file descriptor to poll. What is put is owned by
 * the box until it is taken. */
#ifndef WORKER_MAILBOX_H
#define WORKER_MAILBOX_H

#include <stddef.h>

struct mailbox;
struct mailbox *mailbox_new(void);
void mailbox_free(struct mailbox *m); /* must be empty (CHECKed) */
void mailbox_put(struct mailbox *m, void *item);
void *mailbox_take(struct mailbox *m);   /* NULL: empty */
void *mailbox_wait(struct mailbox *m);   /* blocks */
int mailbox_fd(const struct mailbox *m); /* readable while something is in it */

#endif
