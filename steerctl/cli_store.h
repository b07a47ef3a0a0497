/* cli_store: artefacts from the command line's side: the local cache and its client. */
#ifndef STEERCTL_CLI_STORE_H
#define STEERCTL_CLI_STORE_H

#include "artifact/artifact.h"
#include "steerctl/cli.h"

struct cli_store {
    struct blob_store *cache; /* $XDG_CACHE_HOME/steer/blobs */
    struct artifact_client *client;
};
int cli_store_open(struct cli_client *cl, struct cli_store *out); /* exit code; has said why */
void cli_store_close(struct cli_store *s);
/* Uploads a file or directory with a progress line; exit code. */
int cli_publish(struct cli_store *store, const char *path, const char *name, struct digest *d);

#endif
