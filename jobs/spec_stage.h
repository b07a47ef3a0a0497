/* spec_stage: what spec.c and the stages of a pipeline ask of each other. */
#ifndef JOBS_SPEC_STAGE_H
#define JOBS_SPEC_STAGE_H

#include "jobs/spec_node.h"

/* Resolves spec:, like: and set: of every stage, on the nodes. */
void spec_stages_resolve(struct node *root, spec_read_file read_file, void *self,
                         struct spec_problems *p);
/* Reads kind, then all keys of a spec or a stage, into s, whose defaults and inherited parts are in place. */
void spec_read_body(struct spec *s, const struct node *root, const char *pointer,
                    struct spec_problems *p);
/* What no single key can tell: missing inputs, references, bounds between keys. root: for places. */
void spec_check(struct spec *s, const struct node *root, const char *pointer,
                struct spec_problems *p);

#endif
