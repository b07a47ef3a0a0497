/*
 * Each part runs for about SECONDS, and the time counts that a quarter of its repetitions did not need, since what others did
 * meanwhile is not the machine's speed: forward and backward of a unit on all threads at once; pushes into a host and its AdamW
 * as the host's one thread does them; encryption as libzmq's CURVE does it.
 */
#include "worker/measure.h"

#include <pthread.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/file.h"
#include "jobs/spec.h"
#include "json/json.h"
#include "model/gemm.h"
#include "model/transformer.h"
#include "modelfile/modeldir.h"
#include "ps/host.h"
#include "worker/executor.h"

#define SECONDS 2.0
#define RUNS_MIN 5
#define RUNS_MAX 400
#define CRYPT_BYTES ((size_t)1 << 20)

struct bench {
    struct model model;
    struct measure_args args;
    const struct spec *spec;
    int32_t row_tokens, rows; /* of a sequence; sequences of a unit */
    double unit_s, early, backward, later, forward, fold_bytes_s, apply_params_s, crypt_bytes_s;
};

int measure_args_parse(int argc, char **argv, struct measure_args *out, struct err *e)
{
    for (int i = 0; i < argc; i++) {
        uint32_t *to = strcmp(argv[i], "--threads") == 0      ? &out->threads
                       : strcmp(argv[i], "--row-tokens") == 0 ? &out->row_tokens
                                                              : NULL;
        long v;
        char *end;
        if (to == NULL && out->spec == NULL && argv[i][0] != '-') {
            out->spec = argv[i];
            continue;
        }
        if (to == NULL || i + 1 == argc)
            return err_set(e, ERR_INVALID,
                           "--measure SPEC [--threads N] [--row-tokens N]: \"%s\" is neither",
                           argv[i]);
        v = strtol(argv[++i], &end, 10);
        if (*end != '\0' || v < 1 || v > (to == &out->threads ? EXECUTOR_THREADS_MAX : 1 << 20))
            return err_set(e, ERR_INVALID, "%s is \"%s\", must be a whole number from 1",
                           argv[i - 1], argv[i]);
        *to = (uint32_t)v;
    }
    return out->spec != NULL ? 0 : err_set(e, ERR_INVALID, "--measure needs a spec");
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

static double quartile(double *v, int n)
{
    qsort(v, (size_t)n, sizeof *v, by_value);
    return v[n / 4];
}

/* ---- a unit ---------------------------------------------------------------------------------- */

struct hand {
    struct bench *b;
    pthread_t thread;
    pthread_barrier_t *gate;
    double took[RUNS_MAX];
    uint64_t begun, first; /* of the last unit, and when its first gradient was final */
    uint64_t needed;       /* when the last parameters were needed */
    size_t first_need;     /* elements that were needed before anything could start */
    size_t last_begin;     /* where the last final part but the embedding began */
    double backward, forward;
    int runs, *stop;
    bool lead; /* says when it is enough */
};

static void on_ready(void *self, size_t begin, size_t end)
{
    struct hand *h = self;

    (void)end;
    if (h->first == 0)
        h->first = clock_ns();
    if (begin > 0)
        h->last_begin = begin;
}

static bool on_need(void *self, size_t begin, size_t end)
{
    struct hand *h = self;

    if (begin == 0)
        h->first_need = end;
    h->needed = clock_ns();
    return true;
}

static void batch_make(const struct bench *b, struct batch *batch)
{
    int32_t rows = b->rows * b->row_tokens;

    batch_init(batch, rows, b->rows, rows, 0);
    batch->rows = rows;
    batch->seqs = b->rows;
    for (int32_t i = 0; i <= b->rows; i++)
        batch->seq_begin[i] = i * b->row_tokens;
    for (int32_t i = 0; i < rows; i++) {
        batch->token[i] = (int32_t)((uint32_t)i * 2654435761u % (uint32_t)b->model.dims.vocab);
        batch->target[batch->targets++] = (struct batch_target){
            i, (int32_t)((uint32_t)i * 40503u % (uint32_t)b->model.dims.vocab), 0,
            b->model.dims.vocab, 1.0f};
    }
}

static void *hand_main(void *arg)
{
    struct hand *h = arg;
    const struct bench *b = h->b;
    const struct grad_sink sink = {h, on_ready};
    const struct param_source source = {h, on_need};
    float *grad = mem_large(b->model.layout.count * sizeof *grad); /* as a job has them */
    float *sum = mem_large(b->model.layout.count * sizeof *sum);
    uint64_t from = clock_ns();
    struct workspace *w;
    struct batch batch;
    struct loss_out out;

    memset(sum, 0, b->model.layout.count * sizeof *sum);
    batch_make(b, &batch);
    w = (b->spec->train.recompute ? workspace_new_lean : workspace_new)(&b->model.dims, batch.rows,
                                                                        batch.seqs, batch.targets);
    workspace_set_gemm(w, strcmp(b->spec->numerics, "bf16") == 0 ? GEMM_BF16 : GEMM_F32);
    workspace_set_source(w, &source);
    for (h->runs = 0; h->runs < RUNS_MAX; h->runs++) {
        pthread_barrier_wait(h->gate); /* all threads compute at once, as in a step */
        if (*h->stop)
            break;
        h->first = 0;
        h->begun = clock_ns();
        memset(grad, 0, b->model.layout.count * sizeof *grad);
        transformer_train(&b->model.dims, b->model.params, &batch, grad, &sink, w, &out);
        for (size_t i = 0; i < b->model.layout.count; i++)
            sum[i] += grad[i]; /* a unit meets its sibling */
        h->took[h->runs] = (double)(clock_ns() - h->begun) * 1e-9;
        h->forward = (double)(h->needed - h->begun) * 1e-9 / h->took[h->runs];
        h->backward =
            h->first == 0 ? 0 : 1.0 - (double)(h->first - h->begun) * 1e-9 / h->took[h->runs];
        pthread_barrier_wait(h->gate);
        if (h->lead && (double)(clock_ns() - from) * 1e-9 > SECONDS && h->runs + 1 >= RUNS_MIN)
            __atomic_store_n(h->stop, 1, __ATOMIC_SEQ_CST);
    }
    workspace_free(w);
    batch_fini(&batch);
    free(grad);
    free(sum);
    return NULL;
}

static void unit_measure(struct bench *b)
{
    struct hand *hand = mem_zalloc(b->args.threads, sizeof *hand);
    pthread_barrier_t gate;
    double most = 0;
    int stop = 0;

    pthread_barrier_init(&gate, NULL, b->args.threads);
    for (uint32_t i = 0; i < b->args.threads; i++) {
        hand[i].b = b;
        hand[i].gate = &gate;
        hand[i].stop = &stop;
        hand[i].lead = i == 0;
        CHECK(pthread_create(&hand[i].thread, NULL, hand_main, &hand[i]) == 0);
    }
    for (uint32_t i = 0; i < b->args.threads; i++)
        pthread_join(hand[i].thread, NULL);
    for (uint32_t i = 0; i < b->args.threads; i++) {
        /* The first touches memory. */
        double took = quartile(hand[i].took + 1, hand[i].runs - 1);
        most = took > most ? took : most;
    }
    b->unit_s = most;
    b->backward = hand[0].backward;
    b->forward = hand[0].forward;
    b->later = 1.0 - (double)hand[0].first_need / (double)b->model.layout.count;
    b->early = 1.0 - (double)hand[0].last_begin / (double)b->model.layout.count;
    pthread_barrier_destroy(&gate);
    free(hand);
}

/* ---- a host ---------------------------------------------------------------------------------- */

/* Two units' gradients come, the second closes the step: AdamW is what the last chunk costs more. */
static void host_measure(struct bench *b)
{
    size_t params = b->model.layout.count, elems = (size_t)b->spec->train.chunk_elems;
    struct host_plan plan = {.layout = &b->model.layout,
                             .units = 2,
                             .chunks = (uint32_t)((params + elems - 1) / elems),
                             .chunk_elems = (uint32_t)elems,
                             .steps = RUNS_MAX + 1,
                             .lr = 1e-4,
                             .clip = 1,
                             .adamw = {0.9f, 0.98f, 1e-8f, 0.01f},
                             .schedule = {SCHEDULE_CONSTANT, 0, 0}};
    float *grad = mem_zalloc(params, sizeof *grad);
    double fold[RUNS_MAX], apply[RUNS_MAX];
    const struct fold_sums sums = {1, 1, 1};
    uint64_t from = clock_ns();
    struct host *host;
    int runs = 0;

    plan.chunk_end = plan.chunks;
    host = host_new(&plan, b->model.params, 0, NULL);
    for (size_t i = 0; i < params; i++)
        grad[i] = (float)(i % 1000) * 1e-6f;
    while (runs < RUNS_MAX &&
           (runs < RUNS_MIN + 1 || (double)(clock_ns() - from) * 1e-9 < SECONDS)) {
        uint64_t begun = clock_ns(), last = 0;
        uint64_t hashing = 0;
        for (uint32_t node = 0; node < 2; node++)
            for (uint32_t k = plan.chunks; k-- > 0;) {
                size_t at = k * elems, n = params - at < elems ? params - at : elems;
                uint64_t hash, before = clock_ns();
                enum host_verdict verdict;
                unsigned events = 0;
                struct err e;
                hash = fold_hash(grad + at, n, k == 0 ? &sums : NULL); /* the sender's */
                hashing += clock_ns() - before;
                last = clock_ns();
                CHECK(host_push(host, (uint64_t)runs, 1, (struct tree_node){0, node}, k, grad + at,
                                n, &sums, hash, &verdict, &events, &e) == 0);
            }
        apply[runs] = (double)(clock_ns() - last) * 1e-9;
        fold[runs] = (double)(last - begun - hashing) * 1e-9;
        runs++;
    }
    b->fold_bytes_s = 2.0 * (double)params * sizeof *grad / quartile(fold + 1, runs - 1);
    b->apply_params_s = (double)params / quartile(apply + 1, runs - 1);
    host_free(host);
    free(grad);
}

static void crypt_measure(struct bench *b)
{
    uint8_t *text = mem_zalloc(1, CRYPT_BYTES + crypto_secretbox_MACBYTES);
    uint8_t key[crypto_secretbox_KEYBYTES] = {1}, nonce[crypto_secretbox_NONCEBYTES] = {2};
    uint64_t from = clock_ns();
    double took[RUNS_MAX];
    int runs = 0;

    while (runs < RUNS_MAX && (double)(clock_ns() - from) * 1e-9 < SECONDS / 4) {
        uint64_t begun = clock_ns();
        CHECK(crypto_secretbox_easy(text, text, CRYPT_BYTES, nonce, key) == 0);
        took[runs++] = (double)(clock_ns() - begun) * 1e-9;
    }
    b->crypt_bytes_s = (double)CRYPT_BYTES / quartile(took, runs);
    free(text);
}

/* ---- the spec -------------------------------------------------------------------------------- */

static int model_make(struct bench *b, struct err *e)
{
    const struct input_ref *base = spec_input(b->spec, "base");
    char *slash, path[1024];

    if (b->spec->has_init) {
        struct dims d = b->spec->init;
        if (d.vocab == 0)
            return err_set(e, ERR_INVALID,
                           "base.init has no vocab, and its tokenizer is not read here");
        model_init_random(&b->model, &d, 1);
        return 0;
    }
    if (base == NULL || base->refs.n != 1 || strncmp(base->refs.v[0], "file:", 5) != 0)
        return err_set(e, ERR_INVALID,
                       "the spec's base must be init or a file: to be measured here");
    snprintf(path, sizeof path, "%s", b->args.spec);
    slash = strrchr(path, '/');
    if (base->refs.v[0][5] == '/' || slash == NULL)
        snprintf(path, sizeof path, "%s", base->refs.v[0] + 5);
    else
        snprintf(slash + 1, sizeof path - (size_t)(slash + 1 - path), "%s", base->refs.v[0] + 5);
    return model_load(path, MODEL_WEIGHTS, &b->model, e);
}

static void rows_find(struct bench *b)
{
    const struct train_spec *t = &b->spec->train;
    int32_t most = b->model.dims.context;

    if (t->max_length > 0 && t->max_length < most)
        most = t->max_length;
    for (int i = 0; i < b->spec->data_n; i++) {
        const struct data_spec *d = &b->spec->data[i];
        if (d->keep.max_reply_tokens > 0 &&
            d->keep.context_tokens + d->keep.max_reply_tokens < most)
            most = d->keep.context_tokens + d->keep.max_reply_tokens;
    }
    b->row_tokens = b->args.row_tokens == 0 || (int32_t)b->args.row_tokens > b->model.dims.context
                        ? most
                        : (int32_t)b->args.row_tokens;
    b->rows = (t->global_batch + t->units - 1) / t->units;
}

static void print(const struct bench *b)
{
    cJSON *o = cJSON_CreateObject();
    char *text;

    cJSON_AddStringToObject(o, "program", "steer-worker " STEER_VERSION);
    cJSON_AddStringToObject(o, "kernels", gemm_kernels());
    cJSON_AddNumberToObject(o, "params", (double)b->model.layout.count);
    cJSON_AddNumberToObject(o, "threads", b->args.threads);
    cJSON_AddNumberToObject(o, "unit_rows", b->rows);
    cJSON_AddNumberToObject(o, "row_tokens", b->row_tokens);
    cJSON_AddNumberToObject(o, "unit_s", b->unit_s);
    cJSON_AddNumberToObject(o, "backward", b->backward);
    cJSON_AddNumberToObject(o, "early", b->early);
    cJSON_AddNumberToObject(o, "forward", b->forward);
    cJSON_AddNumberToObject(o, "later", b->later);
    cJSON_AddNumberToObject(o, "fold_bytes_s", b->fold_bytes_s);
    cJSON_AddNumberToObject(o, "apply_params_s", b->apply_params_s);
    cJSON_AddNumberToObject(o, "crypt_bytes_s", b->crypt_bytes_s);
    text = cJSON_Print(o);
    puts(text);
    free(text);
    cJSON_Delete(o);
}

int measure_run(const struct measure_args *args, struct err *e)
{
    struct bench b = {.args = *args};
    struct spec_problems problems = {0};
    struct spec *spec = NULL;
    struct buf text = BUF_INIT;
    int rc = file_read(args->spec, SPEC_YAML_MAX, &text, e);

    if (rc == 0)
        rc = spec_parse(text.data, text.len, NULL, 0, NULL, NULL, &spec, &problems, e);
    if (rc == 0 && problems.n > 0)
        rc = err_set(e, ERR_INVALID, "%s:%d:%d: %s", args->spec, problems.v[0].line,
                     problems.v[0].column, problems.v[0].text);
    if (rc == 0 && spec->kind != KIND_SFT && spec->kind != KIND_TRAIN_ATTRIBUTE_MODEL)
        rc = err_set(e, ERR_INVALID, "%s is of kind %s, must be sft or train-attribute-model",
                     args->spec, job_kind_name(spec->kind));
    b.spec = spec;
    if (rc == 0)
        rc = model_make(&b, e);
    if (rc == 0) {
        if (b.args.threads == 0)
            b.args.threads = 1;
        model_blas_init();
        rows_find(&b);
        unit_measure(&b);
        host_measure(&b);
        crypt_measure(&b);
        print(&b);
        model_fini(&b.model);
    }
    spec_problems_free(&problems);
    if (spec != NULL)
        spec_free(spec);
    buf_free(&text);
    return rc;
}
