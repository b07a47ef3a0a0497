#include "sim_jobs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/digest.h"
#include "json/json.h"
#include "sim_disk.h"

static const char head[] =
    "apiVersion: steerlm/v1\n"
    "labels:\n"
    "  mood: {classes: [a, b], other: skip}\n"
    "attributes:\n"
    "  happy: {type: categorical, from: mood, class: b, bin: {quantiles: 5}}\n"
    "data:\n"
    "  chat:\n"
    "    files: [chat.jsonl]\n"
    "    map: {conversation: content, text: message, speaker: agent, labels: [mood]}\n";

static const char *const files[] = {"chat.jsonl", "base", "steer"};

static void train(struct buf *b, const char *indent, int steps, int units, int batch, int chunk,
                  int every)
{
    buf_printf(b,
               "%strain:\n%s  max_steps: %d\n%s  global_batch: %d\n%s  units: %d\n"
               "%s  chunk_elems: %d\n%s  checkpoint_every_steps: %d\n%s  wire: %s\n"
               "%s  optimizer: {name: adamw, lr: 1.0e-2, betas: [0.9, 0.95], weight_decay: 0.1, "
               "grad_clip: 1.0}\n%s  schedule: {name: linear, warmup_steps: 2, min_ratio: 0.1}\n",
               indent, indent, steps, indent, batch, indent, units, indent, chunk, indent, every,
               indent, steps % 2 == 0 ? "fp32" : "bf16", indent, indent);
}

static void sft(struct buf *b, int kind, int steps, int units, int every)
{
    buf_printf(b, "%skind: sft\nname: sft%d\nseed: %d\n", head, kind, 11 + kind);
    buf_str(b, "inputs: {base: \"file:base\", train: \"data:chat\"}\n"
               "condition: {template: control, labels: human, loss_on: response}\n");
    train(b, "", steps, units, units * 2, 256, every);
}

static void pipeline(struct buf *b, int kind, int steps, int units)
{
    buf_printf(b, "%skind: pipeline\nname: loop%d\nseed: %d\nstages:\n", head, kind, 11 + kind);
    buf_str(b, "  - name: attribute-model\n    kind: train-attribute-model\n"
               "    inputs: {base: \"file:base\", train: \"data:chat\"}\n    head: classes\n"
               "    cross_fit: 2\n");
    train(b, "    ", steps, units, units * 3, 256, 2);
    buf_str(b, "  - name: annotate\n    kind: annotate\n"
               "    inputs: {model: \"stage:attribute-model\", data: \"data:chat\"}\n"
               "    annotate: {rows_per_task: 12}\n"
               "  - name: steer\n    kind: sft\n"
               "    inputs: {base: \"file:base\", train: \"stage:annotate\"}\n"
               "    condition: {template: control, loss_on: response}\n");
    train(b, "    ", steps, units, units, 512, 0);
}

static void generate(struct buf *b, int kind, int rows)
{
    buf_printf(b, "%skind: generate\nname: replies%d\nseed: %d\n", head, kind, 11 + kind);
    buf_printf(b,
               "inputs: {model: \"file:steer\", prompts: \"data:chat\"}\n"
               "generate:\n  attributes: {happy: 2}\n  prompts: 20\n  n: 1\n"
               "  rows_per_task: %d\n"
               "  sampling: {temperature: 0.8, max_new_tokens: 8}\n",
               rows);
}

static void spec(struct buf *b, int kind)
{
    switch (kind) {
    case 0:
        sft(b, kind, 16, 8, 2);
        break;
    case 1:
        sft(b, kind, 6, 5, 3);
        break;
    case 2:
        sft(b, kind, 24, 4, 3);
        break;
    case 3:
        sft(b, kind, 5, 13, 0);
        break;
    case 4:
        sft(b, kind, 40, 3, 4);
        break;
    case 5:
        sft(b, kind, 3, 1, 1);
        break;
    case 6:
        pipeline(b, kind, 4, 6);
        break;
    case 7:
        pipeline(b, kind, 7, 3);
        break;
    case SIM_JOB_LIES_TRAIN:
        sft(b, kind, 12, 6, 3);
        buf_str(b, "audit: 1\n");
        break;
    case 9:
        generate(b, kind, 4);
        break;
    case 10:
        generate(b, kind, 15);
        break;
    default:
        generate(b, kind, 6);
        buf_str(b, "audit: 1\n");
        break;
    }
}

static void file_digest(const char *path, struct digest *out)
{
    char text[64];

    snprintf(text, sizeof text, "file %s", path);
    sim_disk_put(text, strlen(text), out);
}

void sim_jobs_files(void)
{
    struct digest d;

    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++)
        file_digest(files[i], &d);
}

const char *sim_jobs_body(int kind)
{
    static char *body[SIM_JOBS];

    if (body[kind] == NULL) {
        struct buf yaml = BUF_INIT;
        cJSON *o = cJSON_CreateObject(), *named = cJSON_AddObjectToObject(o, "files");

        spec(&yaml, kind);
        for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
            struct digest d;
            if (i == (kind >= 9 ? 1 : 2))
                continue; /* what the spec does not name */
            file_digest(files[i], &d);
            cJSON_AddStringToObject(named, files[i], d.hex);
        }
        cJSON_AddStringToObject(o, "spec", yaml.data);
        body[kind] = cJSON_PrintUnformatted(o);
        cJSON_Delete(o);
        buf_free(&yaml);
    }
    return body[kind];
}
