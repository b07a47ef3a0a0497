/* plan --measured --link: how long a training step will take, and what bounds it (jobs/scale.h). */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "jobs/scale.h"
#include "json/json_file.h"
#include "steerctl/cli.h"

#define WORKERS_MAX 4096

static int measured_load(const char *path, struct scale_measured *out)
{
    cJSON *j = NULL;
    struct err e = {0};
    int rc = json_file_read(path, JSON_LIMITS_BODY.bytes_max, JSON_LIMITS_BODY, &j, &e);

    if (rc == 0)
        rc = scale_measured_read(j, out, &e);
    cJSON_Delete(j);
    return rc == 0
               ? CLI_OK
               : cli_fail(rc == ERR_NOT_FOUND ? CLI_NOT_FOUND : CLI_SPEC,
                          "steer-worker --measure SPEC --threads N >FILE", "%s: %s", path, e.msg);
}

static int link_read(const struct cli *c, struct scale_link *out)
{
    struct err e = {0};
    int rc = scale_rate_parse(c->opt[OPT_LINK], &out->bits_s, &e);

    out->latency_s = 1e-4;
    if (rc == 0 && c->opt[OPT_LATENCY] != NULL)
        rc = scale_time_parse(c->opt[OPT_LATENCY], &out->latency_s, &e);
    out->encrypted = c->opt[OPT_PLAIN] == NULL;
    return rc == 0 ? CLI_OK : cli_fail(CLI_USAGE, "steerctl help plan", "%s", e.msg);
}

/* The first that trains: the spec itself or a stage. */
static const struct spec *training_of(const struct spec *s)
{
    if (s->kind == KIND_SFT || s->kind == KIND_TRAIN_ATTRIBUTE_MODEL)
        return s;
    for (int i = 0; i < s->stages_n; i++)
        if (training_of(s->stage[i]->spec) != NULL)
            return s->stage[i]->spec;
    return NULL;
}

static void json_print(const struct scale_plan *p, const struct scale_step *step)
{
    cJSON *o = cJSON_CreateObject(), *parts = cJSON_AddObjectToObject(o, "parts_s");

    cJSON_AddNumberToObject(o, "workers", p->workers);
    cJSON_AddNumberToObject(o, "threads", p->threads);
    cJSON_AddNumberToObject(o, "hosts", step->hosts);
    cJSON_AddNumberToObject(o, "step_s", step->step_s);
    cJSON_AddNumberToObject(o, "efficiency", step->efficiency);
    cJSON_AddStringToObject(o, "bound", scale_bound_name(step->rules));
    for (int b = 0; b < SCALE_BOUNDS; b++)
        cJSON_AddNumberToObject(parts, scale_bound_name((enum scale_bound)b), step->part_s[b]);
    cJSON_AddNumberToObject(o, "push_bytes", step->push_bytes);
    cJSON_AddNumberToObject(o, "pull_bytes", step->pull_bytes);
    cli_print_json(o);
    cJSON_Delete(o);
}

static void text_print(const struct cli *c, const struct scale_plan *p,
                       const struct scale_step *step)
{
    struct cli_table t = {0};
    char seconds[CLI_SHORT], share[CLI_SHORT], bytes[2][CLI_SHORT];

    printf("%u workers x %u threads, %u of them host parameters, links of %s: a step of %d units "
           "takes %.3g s\n\n",
           p->workers, p->threads, step->hosts, c->opt[OPT_LINK], p->units, step->step_s);
    cli_table_add(&t, 3, "PART", "SECONDS", "SHARE");
    for (int b = 0; b < SCALE_BOUNDS; b++) {
        snprintf(seconds, sizeof seconds, "%.4f", step->part_s[b]);
        snprintf(share, sizeof share, "%.0f %%", 100 * step->part_s[b] / step->step_s);
        cli_table_add(&t, 3, scale_bound_name((enum scale_bound)b), seconds, share);
    }
    cli_table_print(&t, stdout);
    cli_format_bytes((uint64_t)step->push_bytes, bytes[0]);
    cli_format_bytes((uint64_t)step->pull_bytes, bytes[1]);
    printf("\nbound by %s; %.0f %% of what that many threads could do; %s up and %s down on the "
           "busiest link\n",
           scale_bound_name(step->rules), 100 * step->efficiency, bytes[0], bytes[1]);
}

int cli_scale(struct cli *c, const struct spec *spec)
{
    const struct spec *train = training_of(spec);
    struct scale_measured m;
    struct scale_link link;
    struct scale_step step;
    struct scale_plan p;
    int64_t workers, threads;
    int rc;

    if (c->opt[OPT_MEASURED] == NULL || c->opt[OPT_LINK] == NULL)
        return cli_fail(CLI_USAGE, "steerctl help plan",
                        "a prediction needs both --measured and --link");
    if (train == NULL)
        return cli_fail(CLI_SPEC, "steerctl help spec", "%s trains nothing", spec->name);
    rc = measured_load(c->opt[OPT_MEASURED], &m);
    if (rc == CLI_OK)
        rc = link_read(c, &link);
    if (rc == CLI_OK)
        rc = cli_int(c, OPT_WORKERS, 1, WORKERS_MAX, 1, &workers);
    if (rc == CLI_OK)
        rc = cli_int(c, OPT_THREADS, 1, WORKERS_MAX, m.threads, &threads);
    if (rc != CLI_OK)
        return rc;
    if ((uint32_t)threads != m.threads)
        cli_say("steerctl: a unit was measured on %u threads at once, not on %lld", m.threads,
                (long long)threads);
    p = (struct scale_plan){
        .workers = (uint32_t)workers,
        .threads = (uint32_t)threads,
        .units = (uint32_t)train->train.units,
        .unit_rows =
            (uint32_t)((train->train.global_batch + train->train.units - 1) / train->train.units),
        .chunk_elems = (uint32_t)train->train.chunk_elems,
        .half = strcmp(train->train.wire, "bf16") == 0,
        .replicate = true};
    scale_predict(&m, &p, &link, &step);
    if (c->json)
        json_print(&p, &step);
    else
        text_print(c, &p, &step);
    return CLI_OK;
}
