/* The listening socket: an address from the configuration, checked, bound, and what to call it. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "coordinator/http_private.h"

struct listen_address {
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } sock;
    bool is_v6, is_loopback;
    char host[64];
};

static int address_parse(const char *text, struct listen_address *a, struct err *e)
{
    const char *colon = strrchr(text, ':');
    size_t n = colon != NULL ? (size_t)(colon - text) : 0;
    bool bracket = n > 2 && text[0] == '[' && text[n - 1] == ']';
    unsigned long port;
    size_t digits;

    memset(a, 0, sizeof *a);
    digits = colon != NULL ? strspn(colon + 1, "0123456789") : 0;
    port = digits > 0 && digits < 6 && colon[1 + digits] == '\0' ? strtoul(colon + 1, NULL, 10)
                                                                 : 65536;
    if (n == 0 || n >= sizeof a->host || port > 65535)
        return err_set(e, ERR_INVALID,
                       "http address \"%s\" is not ADDRESS:PORT, such as 127.0.0.1:7780 or [::1]:0",
                       text);
    memcpy(a->host, text + bracket, n - 2u * bracket);
    if (bracket && inet_pton(AF_INET6, a->host, &a->sock.v6.sin6_addr) == 1) {
        a->is_v6 = true;
        a->sock.v6.sin6_family = AF_INET6;
        a->sock.v6.sin6_port = htons((uint16_t)port);
        a->is_loopback = IN6_IS_ADDR_LOOPBACK(&a->sock.v6.sin6_addr);
        return 0;
    }
    if (!bracket && inet_pton(AF_INET, strcmp(a->host, "localhost") == 0 ? "127.0.0.1" : a->host,
                              &a->sock.v4.sin_addr) == 1) {
        a->sock.v4.sin_family = AF_INET;
        a->sock.v4.sin_port = htons((uint16_t)port);
        a->is_loopback = (ntohl(a->sock.v4.sin_addr.s_addr) >> 24) == 127;
        return 0;
    }
    return err_set(e, ERR_INVALID, "http address \"%s\": %s is not an IP address", text, a->host);
}

/* Our own socket, for SO_REUSEADDR (a restart gets its port back) and for an error that says what is wrong. */
static int socket_listen(const struct listen_address *a, int *out, struct err *e)
{
    int fd = socket(a->is_v6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    socklen_t len = a->is_v6 ? sizeof a->sock.v6 : sizeof a->sock.v4;
    int on = 1, rc = 0;

    if (fd < 0)
        return err_sys(e, "socket");
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, &a->sock.any, len) != 0 || listen(fd, 256) != 0)
        rc = errno == EADDRINUSE ? err_set(e, ERR_CONFLICT, "port %u of %s is in use",
                                           ntohs(a->sock.v4.sin_port), a->host)
                                 : err_sys(e, "listen on %s", a->host);
    if (rc != 0)
        close(fd);
    else
        *out = fd;
    return rc;
}

static void url_fill(struct http *h, const struct listen_address *a, int fd)
{
    struct listen_address now = *a;
    socklen_t len = sizeof now.sock;
    bool wild =
        a->is_v6 ? IN6_IS_ADDR_UNSPECIFIED(&a->sock.v6.sin6_addr) : a->sock.v4.sin_addr.s_addr == 0;

    CHECK(getsockname(fd, &now.sock.any, &len) == 0);
    h->port = ntohs(a->is_v6 ? now.sock.v6.sin6_port : now.sock.v4.sin_port);
    snprintf(h->listen_host, sizeof h->listen_host, "%s", a->host);
    snprintf(h->url, sizeof h->url, a->is_v6 ? "http://[%s]:%u" : "http://%s:%u",
             wild ? (a->is_v6 ? "::1" : "127.0.0.1") : a->host, h->port);
    if (gethostname(h->own_name, sizeof h->own_name - 1) != 0)
        h->own_name[0] = '\0';
}

int http_listen(struct http *h, int *fd, struct err *e)
{
    struct listen_address a;
    int rc = address_parse(h->config.listen, &a, e);

    if (rc == 0 && !a.is_loopback && h->config.token == NULL)
        rc = err_set(e, ERR_DENIED, "listening on %s, beyond loopback, needs a key (STEER_TOKEN)",
                     a.host);
    if (rc == 0)
        rc = socket_listen(&a, fd, e);
    if (rc == 0)
        url_fill(h, &a, *fd);
    return rc;
}
