/*
 * keys: CURVE on every tcp socket of the process, from one shared secret.
 *
 * Everybody who has the secret (the cluster's token) may take part; everybody else is refused in
 * the handshake, before a message of theirs is read. Two key pairs are derived from the secret, one
 * for sockets that bind and one for those that connect, so each side proves to the other that it
 * knows it. A ZAP thread admits the connecting pair's public key alone; ZeroMQ is told to admit
 * nobody when that thread is not there (by default it would admit everybody). What travels is
 * encrypted and authenticated. inproc sockets stay as they are.
 */
#ifndef NET_KEYS_H
#define NET_KEYS_H

#include <stdbool.h>

#include "base/err.h"

#define KEYS_SECRET_MIN 16 /* characters */

/* Once, before the first socket is opened. ERR_INVALID: the secret is shorter than KEYS_SECRET_MIN.
 */
int keys_use(const char *secret, struct err *e);
bool keys_in_use(void);
void keys_stop(void); /* ends the ZAP thread; link_context_term() calls it */
bool keys_address_is_loopback(const char *address); /* tcp://127.x.y.z:P, tcp://[::1]:P,
                                                       tcp://localhost:P, or not tcp at all */

/* For link.c: sets the options of a socket that will bind (server) or connect. */
void keys_apply(void *socket, bool server);

#endif
