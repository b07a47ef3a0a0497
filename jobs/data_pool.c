#include "jobs/data_pool.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/rng.h"

static struct turn *turn_of(const struct pool_item *i)
{
    return &i->data->conversation[i->conversation].turn[i->turn];
}

static int reply_tokens(const struct tokenizer *t, const struct turn *turn, struct ids *scratch,
                        size_t *n, struct err *e)
{
    int rc;

    scratch->n = 0;
    rc = tokenizer_encode(t, turn->text, turn->text_len, 0, scratch, e);
    *n = scratch->n;
    return rc;
}

int data_pool_make(struct dataset *const *data, int n, const struct tokenizer *t,
                   int max_reply_tokens, struct data_pool *out, struct err *e)
{
    struct ids scratch = {NULL, 0, 0};
    size_t total = 0, tokens = 0;
    int rc = 0;

    memset(out, 0, sizeof *out);
    for (int k = 0; k < n; k++)
        total += data[k]->responses;
    out->item = mem_zalloc(total + 1, sizeof *out->item);
    for (int k = 0; k < n && rc == 0; k++) {
        for (size_t i = 0; i < data[k]->responses && rc == 0; i++) {
            struct pool_item item = {.data = data[k]};
            size_t c;
            dataset_response(data[k], i, &c, &item.turn);
            item.conversation = (uint32_t)c;
            if (data[k]->conversation[c].split != SPLIT_TRAIN)
                continue;
            if (!turn_of(&item)->kept) {
                out->unkept++;
                continue;
            }
            if (max_reply_tokens > 0)
                rc = reply_tokens(t, turn_of(&item), &scratch, &tokens, e);
            if (max_reply_tokens > 0 && tokens > (size_t)max_reply_tokens) {
                out->over_long++;
                continue;
            }
            out->item[out->n++] = item;
        }
    }
    ids_free(&scratch);
    if (rc != 0)
        data_pool_free(out);
    return rc;
}

void data_pool_free(struct data_pool *p)
{
    free(p->item);
    memset(p, 0, sizeof *p);
}

static void edges_find(const struct data_pool *p, struct schema *schema, int a)
{
    float *values = mem_zalloc(p->n + 1, sizeof *values);

    for (size_t i = 0; i < p->n; i++)
        values[i] = turn_of(&p->item[i])->value[a];
    schema_set_edges(&schema->attr[a], values, p->n);
    free(values);
}

static void levels_set(struct dataset *d, const struct schema *schema, const char *labels,
                       const bool *fresh_edges)
{
    bool human = strcmp(labels, "human") == 0, none = strcmp(labels, "none") == 0;

    for (size_t c = 0; c < d->conversations; c++) {
        for (uint32_t k = 0; k < d->conversation[c].turns; k++) {
            struct turn *t = &d->conversation[c].turn[k];
            for (int a = 0; a < schema->attrs; a++) {
                if (none)
                    t->level[a] = -1;
                else if (schema->attr[a].type == ATTR_COMPUTED && fresh_edges[a])
                    t->level[a] = (int8_t)schema_level(&schema->attr[a], (double)t->value[a]);
                else if (schema->attr[a].type != ATTR_COMPUTED && human)
                    t->level[a] = (int8_t)schema_human_level(schema, a, t->human);
            }
        }
    }
    d->schema = *schema;
}

int data_pool_levels(struct data_pool *p, struct dataset *const *data, int n, const char *labels,
                     struct schema *schema, struct err *e)
{
    bool fresh_edges[SCHEMA_ATTRS_MAX] = {false}, predicted = false, needs = false;

    for (int a = 0; a < schema->attrs; a++) {
        if (schema->attr[a].type != ATTR_COMPUTED) {
            needs = true;
            for (size_t i = 0; i < p->n && !predicted; i++)
                predicted = turn_of(&p->item[i])->level[a] >= 0;
        } else if (schema->attr[a].binned && !schema->attr[a].has_edges) {
            edges_find(p, schema, a);
            fresh_edges[a] = true;
        }
    }
    if (strcmp(labels, "predicted") == 0 && needs && !predicted)
        return err_set(e, ERR_INVALID,
                       "no response of %zu has a predicted level: annotate the data first, or set "
                       "condition.labels "
                       "to human or none",
                       p->n);
    for (int k = 0; k < n; k++)
        levels_set(data[k], schema, labels, fresh_edges);
    return 0;
}

void data_pool_shuffle(struct data_pool *p, uint64_t seed)
{
    size_t bytes = p->n > 0 ? (size_t)p->item[0].data->schema.attrs : 0;
    int8_t *all = mem_zalloc(p->n + 1, bytes + 1);

    CHECK(p->n <= UINT32_MAX);
    for (size_t i = 0; i < p->n; i++)
        memcpy(all + i * bytes, turn_of(&p->item[i])->level, bytes);
    for (size_t i = 0; i < p->n; i++) {
        size_t from = rng_permute(seed, RNG_SHUFFLE, 0, (uint32_t)p->n, (uint32_t)i);
        memcpy(turn_of(&p->item[i])->level, all + from * bytes, bytes);
    }
    free(all);
}
