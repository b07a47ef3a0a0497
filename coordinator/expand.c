/*
 * Two passes: first every stage gets its place and name, so that references can point forward; then
 * the inputs are resolved and each reference to a stage adds a need. Data stages are added when
 * first named, so unused data costs nothing.
 */
#include "coordinator/expand.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "jobs/kind.h"

struct build {
    const struct spec *top;
    const cJSON *resolved;
    struct expansion *x;
};

int expand_find(const struct expansion *x, const char *name)
{
    for (int i = 0; i < x->stages_n; i++) {
        if (strcmp(x->stage[i].name, name) == 0)
            return i;
    }
    return -1;
}

void expand_free(struct expansion *x)
{
    if (x == NULL)
        return;
    for (int i = 0; i < x->stages_n; i++) {
        for (int k = 0; k < x->stage[i].inputs_n; k++)
            free(x->stage[i].input[k].ref);
        free(x->stage[i].input);
        spec_free(x->stage[i].owned);
    }
    free(x);
}

static void need_add(struct expand_stage *s, int need)
{
    for (int i = 0; i < s->needs_n; i++) {
        if (s->needs[i] == need)
            return;
    }
    CHECK(s->needs_n < EXPAND_STAGES_MAX);
    s->needs[s->needs_n++] = need;
}

static struct expand_input *input_add(struct expand_stage *s, const char *key)
{
    struct expand_input *in;

    if (s->inputs_n == s->inputs_cap) {
        s->inputs_cap = s->inputs_cap * 2 + 4;
        s->input = mem_grow(s->input, (size_t)s->inputs_cap, sizeof *s->input);
    }
    in = &s->input[s->inputs_n++];
    *in = (struct expand_input){.refs_n = 0};
    snprintf(in->key, sizeof in->key, "%s", key);
    return in;
}

static struct expand_ref *ref_add(struct expand_input *in)
{
    if (in->refs_n == in->refs_cap) {
        in->refs_cap = in->refs_cap * 2 + 4;
        in->ref = mem_grow(in->ref, (size_t)in->refs_cap, sizeof *in->ref);
    }
    in->ref[in->refs_n] = (struct expand_ref){.stage = -1};
    return &in->ref[in->refs_n++];
}

static int digests_add(struct expand_input *in, const cJSON *value, const char *ref, struct err *e)
{
    const cJSON *item = NULL;
    struct expand_ref *r;

    if (cJSON_IsArray(value)) {
        cJSON_ArrayForEach(item, value)
        {
            int rc = digests_add(in, item, ref, e);

            if (rc != 0)
                return rc;
        }
        return 0;
    }
    if (!cJSON_IsString(value) || !digest_is_valid(value->valuestring))
        return err_set(e, ERR_INVALID, "%s: not resolved to a SHA-256 digest", ref);
    r = ref_add(in);
    snprintf(r->digest.hex, sizeof r->digest.hex, "%s", value->valuestring);
    return 0;
}

static int data_stage(struct build *b, const struct spec *user, const char *name, int *index,
                      struct err *e);

/* "NAME" or "NAME/outputs.OUT": cuts the name, gives the output or "". */
static const char *output_split(const char *text, char *name, size_t cap)
{
    const char *slash = strstr(text, "/outputs.");
    size_t len = slash != NULL ? (size_t)(slash - text) : strlen(text);

    snprintf(name, cap, "%.*s", (int)len, text);
    return slash != NULL ? slash + strlen("/outputs.") : "";
}

static int stage_ref(struct build *b, struct expand_stage *s, struct expand_input *in,
                     const char *ref, struct err *e)
{
    char name[SPEC_TEXT_MAX];
    const char *output = output_split(ref + strlen("stage:"), name, sizeof name);
    int index = expand_find(b->x, name);
    struct expand_ref *r;

    if (index < 0)
        return err_set(e, ERR_INVALID, "%s: there is no stage \"%s\"", ref, name);
    if (*output == '\0')
        output = kind_default_output(b->x->stage[index].spec->kind);
    r = ref_add(in);
    r->stage = index;
    snprintf(r->output, sizeof r->output, "%s", output);
    need_add(s, index);
    return 0;
}

static int data_ref(struct build *b, int stage, struct expand_input *in, const char *ref,
                    struct err *e)
{
    struct expand_stage *s = &b->x->stage[stage];
    int index = -1;
    int rc = data_stage(b, s->spec, ref + strlen("data:"), &index, e);
    struct expand_ref *r;

    if (rc != 0)
        return rc;
    r = ref_add(in);
    r->stage = index;
    snprintf(r->output, sizeof r->output, "%s", kind_default_output(KIND_PREPARE));
    need_add(s, index);
    return 0;
}

static int ref_resolve(struct build *b, int stage, struct expand_input *in, const char *ref,
                       struct err *e)
{
    const cJSON *value = NULL;
    char rows[SPEC_TEXT_MAX + 8];
    int rc = 0;

    if (strncmp(ref, "stage:", 6) == 0)
        return stage_ref(b, &b->x->stage[stage], in, ref, e);
    if (strncmp(ref, "data:", 5) == 0)
        return data_ref(b, stage, in, ref, e);
    if (strncmp(ref, "sha256:", 7) == 0) {
        struct expand_ref *r;

        if (!digest_is_valid(ref + 7))
            return err_set(e, ERR_INVALID, "%s: not 64 lower-case hexadecimal digits", ref);
        r = ref_add(in);
        snprintf(r->digest.hex, sizeof r->digest.hex, "%s", ref + 7);
        return 0;
    }
    if (strncmp(ref, "file:", 5) == 0) {
        value = json_get(b->resolved, ref + 5);
        if (value == NULL)
            return err_set(e, ERR_INVALID, "%s: not among the uploaded files", ref);
        return digests_add(in, value, ref, e);
    }
    if (strncmp(ref, "job:", 4) == 0) {
        value = json_get(b->resolved, ref);
        if (value == NULL)
            return err_set(e, ERR_INVALID, "%s: no such finished job or output", ref);
        snprintf(rows, sizeof rows, "%s#rows", ref);
        rc = digests_add(in, value, ref, e);
        if (rc == 0 && in->refs_n > 0)
            in->ref[in->refs_n - 1].rows = json_int_or(b->resolved, rows, 0);
        return rc;
    }
    return err_set(e, ERR_INVALID,
                   "%s: a reference is file:PATH, data:NAME, stage:NAME, job:ID or sha256:HEX",
                   ref);
}

static struct spec *data_spec_of(const struct build *b, const struct spec *user,
                                 const struct data_spec *data)
{
    struct spec *s = spec_new();

    s->kind = KIND_PREPARE;
    snprintf(s->name, sizeof s->name, "%s", data->name);
    snprintf(s->project, sizeof s->project, "%s", b->top->project);
    s->seed = user->seed;
    s->schema = user->schema;
    spec_data_copy(spec_data_add(s), data);
    return s;
}

/* Would preparing for this user give other rows? Its seed has no part in them. */
static bool data_differs(const struct build *b, const struct expand_stage *made,
                         const struct spec *user, const struct data_spec *data)
{
    struct spec *mine = data_spec_of(b, user, data);
    cJSON *x, *y;
    bool differs;

    mine->seed = made->spec->seed;
    x = spec_to_json(mine);
    y = spec_to_json(made->spec);
    differs = !cJSON_Compare(x, y, true);
    cJSON_Delete(x);
    cJSON_Delete(y);
    spec_free(mine);
    return differs;
}

static int data_stage(struct build *b, const struct spec *user, const char *name, int *index,
                      struct err *e)
{
    const struct data_spec *data = spec_data(user, name);
    char full[EXPAND_NAME_MAX];
    struct expand_stage *s;
    struct expand_input *in;

    if (data == NULL)
        data = spec_data(b->top, name);
    if (data == NULL)
        return err_set(e, ERR_INVALID, "data:%s: there is no data set of this name", name);
    snprintf(full, sizeof full, "data/%s", name);
    *index = expand_find(b->x, full);
    if (*index >= 0)
        return data_differs(b, &b->x->stage[*index], user, data)
                   ? err_set(e, ERR_INVALID,
                             "data:%s: two stages define it differently; give one another name",
                             name)
                   : 0;
    if (b->x->stages_n == EXPAND_STAGES_MAX)
        return err_set(e, ERR_LIMIT, "%d stages and data sets, more than %d", b->x->stages_n + 1,
                       EXPAND_STAGES_MAX);
    *index = b->x->stages_n++;
    s = &b->x->stage[*index];
    snprintf(s->name, sizeof s->name, "%s", full);
    s->owned = data_spec_of(b, user, data);
    s->spec = s->owned;
    in = input_add(s, "files");
    for (int i = 0; i < data->files.n; i++) {
        char ref[SPEC_TEXT_MAX + 8];
        int rc = 0;

        snprintf(ref, sizeof ref, "%s%s",
                 strncmp(data->files.v[i], "sha256:", 7) == 0 ? "" : "file:", data->files.v[i]);
        rc = ref_resolve(b, *index, in, ref, e);
        if (rc != 0)
            return err_wrap(e, "data %s", name);
    }
    return 0;
}

static int inputs_resolve(struct build *b, int stage, struct err *e)
{
    struct expand_stage *s = &b->x->stage[stage];
    const struct spec *spec = s->spec;
    int rc = 0;

    for (int i = 0; i < spec->inputs_n; i++) {
        struct expand_input *in = input_add(s, spec->input[i].key);

        for (int k = 0; k < spec->input[i].refs.n; k++) {
            rc = ref_resolve(b, stage, in, spec->input[i].refs.v[k], e);
            if (rc != 0)
                return err_wrap(e, "stage %s: inputs.%s", s->name, spec->input[i].key);
        }
    }
    if (spec->kind == KIND_EVALUATE) {
        for (int i = 0; i < spec->evaluate.models_n; i++) {
            char key[EXPAND_NAME_MAX];

            snprintf(key, sizeof key, "model.%s", spec->evaluate.model[i].label);
            rc = ref_resolve(b, stage, input_add(s, key), spec->evaluate.model[i].ref, e);
            if (rc != 0)
                return err_wrap(e, "stage %s: evaluate.models.%s", s->name,
                                spec->evaluate.model[i].label);
        }
    }
    if (strncmp(spec->tokenizer, "file:", 5) == 0) {
        rc = ref_resolve(b, stage, input_add(s, "tokenizer"), spec->tokenizer, e);
        if (rc != 0)
            return err_wrap(e, "stage %s: tokenizer", s->name);
    }
    return 0;
}

static int needs_resolve(struct build *b, int stage, struct err *e)
{
    struct expand_stage *s = &b->x->stage[stage];

    for (int i = 0; s->source != NULL && i < s->source->needs.n; i++) {
        int need = expand_find(b->x, s->source->needs.v[i]);

        if (need < 0)
            return err_set(e, ERR_INVALID, "stage %s needs \"%s\", which is no stage", s->name,
                           s->source->needs.v[i]);
        need_add(s, need);
    }
    return 0;
}

/* Kahn: whatever cannot be taken off is on a circle. */
static int order_check(const struct expansion *x, struct err *e)
{
    bool taken[EXPAND_STAGES_MAX] = {false};
    int left = x->stages_n;

    for (bool moved = true; moved && left > 0;) {
        moved = false;
        for (int i = 0; i < x->stages_n; i++) {
            bool ready = !taken[i];

            for (int k = 0; ready && k < x->stage[i].needs_n; k++)
                ready = taken[x->stage[i].needs[k]];
            if (ready) {
                taken[i] = moved = true;
                left--;
            }
        }
    }
    for (int i = 0; i < x->stages_n; i++) {
        if (!taken[i])
            return err_set(e, ERR_INVALID, "stage %s waits for itself through its needs",
                           x->stage[i].name);
    }
    return 0;
}

/* Data sets come first in the list: people read it from the top, and ties are served in this order.
 */
static void data_first(struct expansion *x, int authored)
{
    struct expansion *sorted = mem_zalloc(1, sizeof *sorted);
    int data = x->stages_n - authored;

    sorted->stages_n = x->stages_n;
    for (int i = 0; i < x->stages_n; i++) {
        struct expand_stage *s = &sorted->stage[i < authored ? i + data : i - authored];

        *s = x->stage[i];
        for (int k = 0; k < s->needs_n; k++)
            s->needs[k] = s->needs[k] < authored ? s->needs[k] + data : s->needs[k] - authored;
        for (int k = 0; k < s->inputs_n; k++) {
            for (int n = 0; n < s->input[k].refs_n; n++) {
                int *stage = &s->input[k].ref[n].stage;

                if (*stage >= 0)
                    *stage = *stage < authored ? *stage + data : *stage - authored;
            }
        }
    }
    *x = *sorted;
    free(sorted);
}

int expand_spec(const struct spec *spec, const cJSON *resolved, struct expansion **out,
                struct err *e)
{
    struct build b = {spec, resolved, mem_zalloc(1, sizeof *b.x)};
    int authored = spec->kind == KIND_PIPELINE ? spec->stages_n : 1;
    int rc = 0;

    CHECK(authored <= SPEC_STAGES_MAX);
    for (int i = 0; i < authored; i++) {
        struct expand_stage *s = &b.x->stage[b.x->stages_n++];

        if (spec->kind == KIND_PIPELINE) {
            s->source = spec->stage[i];
            s->spec = s->source->spec;
            snprintf(s->name, sizeof s->name, "%s", s->source->name);
        } else {
            s->spec = spec;
            snprintf(s->name, sizeof s->name, "%s", job_kind_name(spec->kind));
        }
    }
    for (int i = 0; i < authored && rc == 0; i++) {
        rc = inputs_resolve(&b, i, e);
        if (rc == 0)
            rc = needs_resolve(&b, i, e);
    }
    if (rc == 0)
        rc = order_check(b.x, e);
    if (rc != 0) {
        expand_free(b.x);
        return rc;
    }
    data_first(b.x, authored);
    *out = b.x;
    return 0;
}

static void each_of(const struct spec *s, void (*fn)(void *self, const char *ref), void *self)
{
    for (int i = 0; i < s->inputs_n; i++) {
        for (int k = 0; k < s->input[i].refs.n; k++)
            fn(self, s->input[i].refs.v[k]);
    }
    for (int i = 0; i < s->evaluate.models_n; i++)
        fn(self, s->evaluate.model[i].ref);
    for (int i = 0; i < s->data_n; i++) {
        for (int k = 0; k < s->data[i].files.n; k++) {
            char ref[SPEC_TEXT_MAX + 8];

            snprintf(ref, sizeof ref, "file:%s", s->data[i].files.v[k]);
            fn(self, ref);
        }
    }
    if (strncmp(s->tokenizer, "file:", 5) == 0)
        fn(self, s->tokenizer);
}

void expand_each_ref(const struct spec *spec, void (*fn)(void *self, const char *ref), void *self)
{
    each_of(spec, fn, self);
    for (int i = 0; i < spec->stages_n; i++)
        each_of(spec->stage[i]->spec, fn, self);
}
