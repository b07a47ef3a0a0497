#include "jobs/run_replies.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "jobs/run_common.h"

enum { ENDS = DECODE_NUMERIC + 1 };

struct taking {
    struct run_replies *out;
    uint64_t begin, end; /* of items that are wanted */
    uint64_t next;       /* item that the next line must be of */
};

static int end_find(const char *name, enum decode_end *out, struct err *e)
{
    for (int i = 0; i < ENDS; i++) {
        if (strcmp(decode_end_name((enum decode_end)i), name) == 0) {
            *out = (enum decode_end)i;
            return 0;
        }
    }
    return err_set(e, ERR_CORRUPT, "end \"%.40s\" is unknown", name);
}

static int reply_take(void *self, const cJSON *line, struct err *e)
{
    struct taking *x = self;
    struct run_reply *reply;
    const char *text, *end;
    enum decode_end how = DECODE_LENGTH;
    int64_t i, tokens;
    int rc;

    if ((rc = json_need_int(line, "i", 0, INT64_C(1) << 40, &i, e)) != 0 ||
        (rc = json_need_int(line, "n", 0, UINT32_MAX, &tokens, e)) != 0 ||
        (rc = json_need_string(line, "text", &text, e)) != 0 ||
        (rc = json_need_string(line, "end", &end, e)) != 0 || (rc = end_find(end, &how, e)) != 0)
        return rc;
    if ((uint64_t)i != x->next)
        return err_set(e, ERR_CORRUPT, "item %lld, %llu was expected", (long long)i,
                       (unsigned long long)x->next);
    x->next++;
    if ((uint64_t)i < x->begin || (uint64_t)i >= x->end)
        return 0;
    if (x->out->n == x->out->cap) {
        x->out->cap = 2 * x->out->cap + 256;
        x->out->v = mem_grow(x->out->v, x->out->cap, sizeof(*x->out->v));
    }
    reply = &x->out->v[x->out->n++];
    *reply = (struct run_reply){.text = mem_strdup(text),
                                .len = strlen(text),
                                .tokens = (uint32_t)tokens,
                                .logprob = json_number_or(line, "logprob", 0.0),
                                .end = how};
    return 0;
}

int run_replies_load(const struct run_task *t, const struct run_env *env, const char *phase,
                     size_t n, struct run_replies *out, struct err *e)
{
    struct taking x = {.out = out, .end = n};
    int rc;

    *out = (struct run_replies){0};
    rc = run_lines(t, env, phase, &x, reply_take, e);
    if (rc == 0 && x.next != n)
        rc = err_set(e, ERR_CORRUPT, "phase %s has %llu replies for %zu items", phase,
                     (unsigned long long)x.next, n);
    return rc;
}

int run_replies_load_range(const struct run_task *t, const struct run_env *env, const char *phase,
                           uint64_t rows_per_task, uint64_t begin, uint64_t end,
                           struct run_replies *out, struct err *e)
{
    struct taking x = {.out = out, .begin = begin, .end = end};
    uint64_t first = begin / rows_per_task, last = (end + rows_per_task - 1) / rows_per_task;
    int rc;

    *out = (struct run_replies){.first = begin};
    if (begin >= end || last > (uint64_t)run_phase_parts(t, phase))
        return err_set(e, ERR_INVALID, "items %llu..%llu of phase %s, which has %d parts of %llu",
                       (unsigned long long)begin, (unsigned long long)end, phase,
                       run_phase_parts(t, phase), (unsigned long long)rows_per_task);
    x.next = first * rows_per_task;
    rc = run_lines_of_parts(t, env, phase, (int)first, (int)last, &x, reply_take, e);
    if (rc == 0 && x.out->n != end - begin)
        rc = err_set(e, ERR_CORRUPT, "phase %s has %zu replies for %llu items", phase, x.out->n,
                     (unsigned long long)(end - begin));
    return rc;
}

void run_replies_free_all(struct run_replies *x)
{
    run_replies_free(x->v, x->n);
    *x = (struct run_replies){0};
}

size_t run_replies_empty(const struct run_replies *x)
{
    size_t n = 0;

    for (size_t i = 0; i < x->n; i++)
        n += x->v[i].len == 0;
    return n;
}

struct place {
    const char *text;
    size_t at;
};

static int place_compare(const void *a, const void *b)
{
    const struct place *x = a, *y = b;
    int order = strcmp(x->text, y->text);

    return order != 0 ? order : (x->at > y->at) - (x->at < y->at);
}

size_t run_replies_distinct(const struct run_replies *x, bool *is_first)
{
    struct place *place = mem_zalloc(x->n + 1, sizeof(*place));
    size_t distinct = 0;

    for (size_t i = 0; i < x->n; i++)
        place[i] = (struct place){x->v[i].text, i};
    qsort(place, x->n, sizeof(*place), place_compare);
    for (size_t i = 0; i < x->n; i++) {
        is_first[place[i].at] = i == 0 || strcmp(place[i].text, place[i - 1].text) != 0;
        distinct += is_first[place[i].at];
    }
    free(place);
    return distinct;
}

void run_replies_metrics(const struct run_replies *x, struct run_result *r)
{
    bool *is_first = mem_zalloc(x->n + 1, sizeof(*is_first));
    uint64_t tokens = 0, ends[ENDS] = {0};
    double logprob = 0.0;
    char name[64];

    for (size_t i = 0; i < x->n; i++) {
        tokens += x->v[i].tokens;
        logprob += x->v[i].logprob;
        ends[x->v[i].end]++;
    }
    run_metric(r, "replies", (double)x->n);
    run_metric(r, "tokens", (double)tokens);
    if (x->n > 0)
        run_metric(r, "tokens_per_reply", (double)tokens / (double)x->n);
    if (tokens > 0)
        run_metric(r, "logprob_per_token", logprob / (double)tokens);
    for (int i = 0; i < ENDS; i++) {
        (void)snprintf(name, sizeof(name), "end.%s", decode_end_name((enum decode_end)i));
        if (ends[i] > 0)
            run_metric(r, name, (double)ends[i]);
    }
    run_metric(r, "empty", (double)run_replies_empty(x));
    run_metric(r, "distinct", (double)run_replies_distinct(x, is_first));
    free(is_first);
}
