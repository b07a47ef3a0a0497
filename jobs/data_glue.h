/*
 * data_glue: from what a spec says about data to what the data room does: shared by the tasks and by `steerctl data show|check`.
 */
#ifndef JOBS_DATA_GLUE_H
#define JOBS_DATA_GLUE_H

#include "data/dataset.h"
#include "data/read.h"
#include "data/template.h"
#include "jobs/spec.h"

/* Reads raw files by a data spec. paths[i] is where d->files.v[i] lies. Every conversation goes to emit. Errors as read_files(). */
int data_glue_read(const struct data_spec *d, const struct schema *s, const char *const *paths,
                   int n, void *self,
                   int (*emit)(void *self, const struct conversation *c, struct err *e),
                   bool (*cancelled)(void *self), struct problems *problems,
                   struct read_counts *counts, struct err *e);
/* The same into a data set directory; meta.json has problems, counts, clean and keep. */
int data_glue_prepare(const struct data_spec *d, const struct schema *s, const char *const *paths,
                      int n, const char *dir, void *self, bool (*cancelled)(void *self),
                      struct problems *problems, struct read_counts *counts, struct err *e);

/* The same into memory, by way of a temporary directory, for looking at: levels are those of the human labels, and of what is computed
 * with edges from this data. dataset_free() it. */
int data_glue_load(const struct data_spec *d, const struct schema *s, const char *const *paths,
                   int n, struct dataset *out, struct problems *problems,
                   struct read_counts *counts, struct err *e);

/* Template of an sft stage (kind KIND_SFT) or of an attribute model's. Ids of new tokens are not filled: template_prepare() does.
 * keep rules come from the data spec `data` (NULL: the spec's first, or none). */
int data_glue_template(const struct spec *s, const struct data_spec *data,
                       const struct schema *schema, struct template_config *out, struct err *e);

#endif
