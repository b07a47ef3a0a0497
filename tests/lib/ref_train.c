/*
 * ref_train: a training run again, in one straight loop, without any of the distributed code: no
 * fold, no shard, no host, no session. From the manifest of a finished run (it names the examples,
 * the initial model, the seed, the shape of a step) and the spec (learning rate and the like) it
 * recomputes everything and prints the loss of every step ("step 7 2.31"), the manifest's SHA-256 and
 * that of the parameters, which must be equal to the run's. Shared with the run: the numerics of one unit (transformer_train), the
 * optimiser's formula (adamw_step), which samples a unit has (units_deal), the checkpoint's format.
 *
 * A wire of bf16 is rounding at fixed places, so it is done here too.
 *
 * usage: ref_train SPEC.yaml STAGE MANIFEST.json BLOBS_DIR     (STAGE "" for a spec that is no
 * pipeline)
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/file.h"
#include "data/examples.h"
#include "jobs/run_train.h"
#include "jobs/spec.h"
#include "model/gemm.h"
#include "modelfile/modeldir.h"
#include "ps/ckpt.h"
#include "ps/half.h"
#include "ps/units.h"
#include "store/blob.h"

struct ref {
    struct ckpt_manifest m;
    struct spec *spec; /* of the stage */
    struct model model;
    struct examples *examples;
    struct workspace *work;
    struct batch batch;
    bool half;   /* the wire was bf16: what is computed with, and every sum, is rounded */
    float *seen; /* the parameters that gradients are of */
    struct unit_sample *sample;
    float *mom, *vel, *grad[40]; /* one gradient a level of the recursion */
};

static void die(const char *what, const struct err *e)
{
    fprintf(stderr, "ref_train: %s: %s\n", what, e->msg);
    exit(1);
}

static uint32_t length_of(void *self, uint32_t example)
{
    return examples_length(self, example);
}

static void unit(struct ref *r, uint32_t u, float *grad, struct fold_sums *sums)
{
    const struct drop drop = {(float)r->spec->condition.drop_each,
                              (float)r->spec->condition.drop_all};
    struct loss_out out = {0, 0, 0};

    r->batch.rows = r->batch.seqs = r->batch.targets = 0;
    for (uint32_t j = 0; j < r->m.global_batch; j++)
        if (r->sample[j].unit == u)
            examples_append(r->examples, r->sample[j].example, r->m.seed, r->sample[j].draw, &drop,
                            &r->batch);
    memset(grad, 0, r->m.params * sizeof *grad);
    if (r->batch.targets > 0)
        transformer_train(&r->model.dims, r->seen, &r->batch, grad, NULL, r->work, &out);
    if (r->half)
        half_round(grad, r->m.params);
    *sums = (struct fold_sums){out.loss_sum, out.weight_sum, (uint64_t)r->batch.rows};
}

/* Leaves [begin, end) of the canonical tree below a node that spans 2^level: split in the middle of
 * the span. */
static void node(struct ref *r, uint32_t level, uint32_t begin, uint32_t end, float *grad,
                 struct fold_sums *sums)
{
    uint32_t middle = level == 0 ? end : begin + (1u << (level - 1));
    struct fold_sums right;

    if (level == 0) {
        unit(r, begin, grad, sums);
        return;
    }
    node(r, level - 1, begin, middle < end ? middle : end, grad, sums);
    if (middle >= end)
        return;
    if (r->grad[level] == NULL)
        r->grad[level] = mem_alloc(r->m.params * sizeof(float));
    node(r, level - 1, middle, end, r->grad[level], &right);
    for (size_t i = 0; i < r->m.params; i++)
        grad[i] += r->grad[level][i];
    if (r->half)
        half_round(grad, r->m.params);
    sums->loss += right.loss;
    sums->weight += right.weight;
    sums->tokens += right.tokens;
}

static double norm_tree(const double *x, uint32_t level, uint32_t begin, uint32_t end)
{
    uint32_t middle;

    if (level == 0)
        return x[begin];
    middle = begin + (1u << (level - 1));
    if (middle >= end)
        return norm_tree(x, level - 1, begin, end);
    return norm_tree(x, level - 1, begin, middle) + norm_tree(x, level - 1, middle, end);
}

static void step_run(struct ref *r, uint64_t step)
{
    const struct train_spec *t = &r->spec->train;
    float *grad = r->grad[0];
    double *sumsq = mem_alloc(r->m.chunks * sizeof *sumsq);
    struct fold_sums sums;
    double norm, weight;

    if (r->half)
        half_copy(r->seen, r->model.params, r->m.params);
    units_deal(r->m.seed, step, r->m.global_batch, r->m.units, examples_count(r->examples),
               length_of, r->examples, r->sample);
    node(r, tree_height(r->m.units), 0, r->m.units, grad, &sums);
    for (uint32_t c = 0; c < r->m.chunks; c++)
        sumsq[c] = sum_squares(grad + (size_t)c * r->m.chunk_elems, ckpt_chunk_len(&r->m, c));
    weight = sums.weight > 0 ? sums.weight : 1;
    norm = sqrt(norm_tree(sumsq, tree_height(r->m.chunks), 0, r->m.chunks)) / weight;
    adamw_step(&t->adamw, &r->model.layout, 0, r->m.params, r->model.params, r->mom, r->vel, grad,
               (float)(clip_scale(norm, t->grad_clip) / weight),
               (float)schedule_lr(&t->schedule, t->lr, step + 1, r->m.steps), step + 1);
    printf("step %" PRIu64 " %.9g\n", step + 1, sums.loss / weight);
    r->m.figures.tokens += sums.tokens;
    if (step >= r->m.steps - (r->m.steps + 9) / 10) {
        r->m.figures.tail_loss += sums.loss / weight;
        r->m.figures.tail_steps++;
    }
    free(sumsq);
}

static void open_all(struct ref *r, const char *spec_path, const char *stage, const char *manifest,
                     const char *blobs)
{
    struct spec_problems problems = {0};
    struct buf text = BUF_INIT;
    struct blob_store *store;
    char path[4096];
    char tree[] = "/tmp/ref_train.XXXXXX";
    struct train_task task;
    int32_t rows, seqs, targets;
    struct spec *whole;
    struct err e = {0};

    if (file_read(spec_path, SPEC_YAML_MAX, &text, &e) != 0 ||
        spec_parse(text.data, text.len, NULL, 0, NULL, NULL, &whole, &problems, &e) != 0)
        die(spec_path, &e);
    r->spec = whole;
    for (int i = 0; i < whole->stages_n; i++)
        if (strcmp(whole->stage[i]->name, stage) == 0)
            r->spec = whole->stage[i]->spec;
    buf_clear(&text);
    if (file_read(manifest, (size_t)1 << 24, &text, &e) != 0 ||
        ckpt_manifest_read(text.data, text.len, &r->m, &e) != 0)
        die(manifest, &e);
    buf_free(&text);
    if (blob_open(blobs, &store, &e) != 0 || mkdtemp(tree) == NULL ||
        blob_tree_checkout(store, r->m.init.hex, tree, &e) != 0 ||
        model_load(tree, MODEL_WEIGHTS, &r->model, &e) != 0)
        die("initial model", &e);
    file_remove_tree(tree, NULL);
    blob_path(store, r->m.examples.hex, path, sizeof path);
    if (examples_open(path, &r->examples, &e) != 0)
        die("examples", &e);
    task = (struct train_task){.dims = &r->model.dims,
                               .params = r->m.params,
                               .examples = r->examples,
                               .global_batch = r->m.global_batch,
                               .units = r->m.units,
                               .chunk_elems = r->m.chunk_elems};
    run_train_bounds(&task, &rows, &seqs, &targets);
    batch_init(&r->batch, rows, seqs, targets, targets * (r->model.dims.head_out + 1));
    r->work = workspace_new(&r->model.dims, rows, seqs, targets);
    r->m.bf16 = spec_trains_bf16(r->spec);
    workspace_set_gemm(r->work, r->m.bf16 ? GEMM_BF16 : GEMM_F32);
    r->sample = mem_zalloc(r->m.global_batch, sizeof *r->sample);
    r->mom = mem_zalloc(r->m.params, sizeof(float));
    r->vel = mem_zalloc(r->m.params, sizeof(float));
    r->grad[0] = mem_zalloc(r->m.params, sizeof(float));
    r->half = strcmp(r->spec->train.wire, "bf16") == 0;
    r->seen = r->half ? mem_zalloc(r->m.params, sizeof(float)) : r->model.params;
}

static void print_all(struct ref *r)
{
    struct buf text = BUF_INIT;
    struct digest digest;

    for (uint32_t c = 0; c < r->m.chunks; c++) {
        struct digest_state s;
        size_t at = (size_t)c * r->m.chunk_elems;
        size_t bytes = ckpt_chunk_len(&r->m, c) * sizeof(float);
        digest_init(&s);
        digest_add(&s, r->model.params + at, bytes);
        digest_add(&s, r->mom + at, bytes);
        digest_add(&s, r->vel + at, bytes);
        digest_end(&s, &r->m.chunk[c]);
    }
    ckpt_manifest_write(&r->m, &text);
    digest_bytes(text.data, text.len, &digest);
    printf("manifest %s\n", digest.hex);
    digest_bytes(r->model.params, r->m.params * sizeof(float), &digest);
    printf("params %s\n", digest.hex);
    printf("loss %.17g\n", r->m.figures.tail_loss / (double)r->m.figures.tail_steps);
}

int main(int argc, char **argv)
{
    static struct ref r;
    uint64_t steps;

    if (argc != 5) {
        fprintf(stderr, "usage: ref_train SPEC.yaml STAGE MANIFEST.json BLOBS_DIR\n");
        return 2;
    }
    model_blas_init();
    open_all(&r, argv[1], argv[2], argv[3], argv[4]);
    steps = r.m.step;
    r.m.figures = (struct host_figures){0};
    for (uint64_t step = 0; step < steps; step++)
        step_run(&r, step);
    print_all(&r);
    return 0;
}
