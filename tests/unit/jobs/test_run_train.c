/*
 * The step loop of compute threads over an environment of arrays: any number of threads, changed
 * assignments and a thread that dies give the bits of a straight recursion over the tree.
 */
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>

#include "../data/data_fixture.h" /* cmocka and its headers, too */

#include "base/rng.h"
#include "jobs/run_train.h"
#include "model/bf16.h"
#include "model/gemm.h"
#include "model/optim.h"
#include "ps/units.h"

#define STEPS 6
#define EXAMPLES 23
#define CHUNK 500
#define THREADS_MAX 5

static struct {
    struct tokenizer *tok;
    char *dir, *path;
    struct examples *x;
    struct dims dims;
    struct layout layout;
    struct arena arena;
    enum gemm_kind arithmetic;
} f;

static const struct adamw adamw = {0.9f, 0.99f, 1e-8f, 0.01f};

/* Sentences of different lengths, to be learnt whole. */
static int fixture_open(void **state)
{
    static const char *const words[] = {"the", "cat",    "was", "big", "and",
                                        "a",   "little", "dog", "ran"};
    struct template_config cfg = {
        .name = TEMPLATE_PLAIN, .head = TEMPLATE_POLICY, .max_length = 60, .loss_on_all = true};
    struct examples_writer *w = NULL;
    struct sequence *s = mem_zalloc(1, sizeof *s);
    struct err e = {0};

    (void)state;
    model_blas_init();
    assert_int_equal(tokenizer_load("models/stories260K", &f.tok, &e), 0);
    cfg.schema = schema_of("{\"attributes\":[],\"labels\":[]}");
    assert_int_equal(template_prepare(&cfg, f.tok, &e), 0);
    f.dims = (struct dims){.vocab = tokenizer_vocab(f.tok),
                           .width = 16,
                           .layers = 2,
                           .heads = 2,
                           .kv_heads = 1,
                           .head_dim = 8,
                           .ffn = 24,
                           .context = 64,
                           .norm_eps = 1e-5f,
                           .rope_theta = 10000,
                           .tied = true,
                           .head = HEAD_LM};
    layout_init(&f.layout, &f.dims);
    f.dir = temp_dir();
    f.path = mem_printf("%s/examples", f.dir);
    assert_int_equal(examples_writer_new(&cfg, f.tok, f.dims.vocab, &w, &e), 0);
    for (uint32_t i = 0; i < EXAMPLES; i++) {
        struct turn turn[2] = {{.role = ROLE_USER, .speaker = "u", .text = "go", .text_len = 2},
                               {.role = ROLE_ASSISTANT, .speaker = "a"}};
        struct conversation c = {.id = "c", .source = "t:1", .turns = 2, .turn = turn};
        struct buf text = BUF_INIT;
        for (uint32_t k = 0; k <= i % 11; k++)
            buf_printf(&text, "%s%s", k > 0 ? " " : "", words[(i * 7 + k * 5) % 9]);
        turn[1].text = text.data;
        turn[1].text_len = (uint32_t)text.len;
        turn[1].respond = turn[1].kept = true;
        if (template_example(&cfg, f.tok, &c, 1, NULL, s, &e) != 0)
            fail_msg("%s", e.msg);
        assert_true(examples_write(w, s));
        buf_free(&text);
    }
    assert_int_equal(examples_writer_end(&w, f.path, &e), 0);
    assert_int_equal(examples_open(f.path, &f.x, &e), 0);
    sequence_free(s);
    free(s);
    return 0;
}

static int fixture_close(void **state)
{
    (void)state;
    examples_close(f.x);
    tokenizer_free(f.tok);
    layout_fini(&f.layout);
    free(f.path);
    temp_free(f.dir);
    return 0;
}

static struct train_task task_of(uint32_t units)
{
    return (struct train_task){.dims = &f.dims,
                               .params = f.layout.count,
                               .examples = f.x,
                               .seed = 5,
                               .steps = STEPS,
                               .global_batch = 12,
                               .units = units,
                               .chunk_elems = CHUNK,
                               .arithmetic = f.arithmetic};
}

static void initial(float *params)
{
    for (size_t i = 0; i < f.layout.count; i++)
        params[i] = (float)rng_normal(3, RNG_TEST, 0, 0, (uint32_t)i) * 0.1f;
}

/* ---- the straight recursion ------------------------------------------------------------------ */

struct straight {
    struct train_task task;
    float *params;
    struct unit_sample sample[12];
    struct batch batch;
    struct workspace *work;
};

static void straight_node(struct straight *r, struct tree_node node, float *grad,
                          struct fold_sums *sums)
{
    size_t n = f.layout.count;
    struct fold_sums more;
    float *right;

    if (node.level == 0) {
        struct loss_out out = {0, 0, 0};
        memset(grad, 0, n * sizeof *grad);
        r->batch.rows = r->batch.seqs = r->batch.targets = 0;
        for (int j = 0; j < 12; j++)
            if (r->sample[j].unit == node.index)
                examples_append(f.x, r->sample[j].example, 5, r->sample[j].draw, &r->task.drop,
                                &r->batch);
        if (r->batch.targets > 0)
            transformer_train(&f.dims, r->params, &r->batch, grad, NULL, r->work, &out);
        *sums = (struct fold_sums){out.loss_sum, out.weight_sum, (uint64_t)r->batch.rows};
        return;
    }
    straight_node(r, (struct tree_node){node.level - 1, 2 * node.index}, grad, sums);
    if (!tree_has_right(r->task.units, node))
        return;
    right = mem_alloc(n * sizeof *right);
    straight_node(r, (struct tree_node){node.level - 1, 2 * node.index + 1}, right, &more);
    for (size_t i = 0; i < n; i++)
        grad[i] += right[i];
    *sums = (struct fold_sums){sums->loss + more.loss, sums->weight + more.weight,
                               sums->tokens + more.tokens};
    free(right);
}

static uint32_t length_of(void *self, uint32_t example)
{
    return examples_length(self, example);
}

static void update(float *p, float *m, float *v, const float *grad, const struct fold_sums *sums,
                   uint64_t step)
{
    adamw_step(&adamw, &f.layout, 0, f.layout.count, p, m, v, grad, (float)(1 / sums->weight),
               1e-2f, step + 1);
}

/* Parameters after STEPS steps, and the loss of each. */
static float *straight_run(uint32_t units, double *loss)
{
    struct straight r = {.task = task_of(units)};
    float *m = mem_zalloc(f.layout.count, sizeof *m);
    float *v = mem_zalloc(f.layout.count, sizeof *v);
    float *grad = mem_zalloc(f.layout.count, sizeof *grad);
    int32_t rows, seqs, targets;

    r.params = mem_alloc(f.layout.count * sizeof(float));
    initial(r.params);
    run_train_bounds(&r.task, &rows, &seqs, &targets);
    assert_true(targets <= 2 * rows); /* the head has memory for so many */
    batch_init(&r.batch, rows, seqs, targets, 0);
    r.work = workspace_new(&f.dims, rows, seqs, targets);
    workspace_set_gemm(r.work, f.arithmetic);
    for (uint64_t step = 0; step < STEPS; step++) {
        struct fold_sums sums;
        units_deal(5, step, 12, units, EXAMPLES, length_of, f.x, r.sample);
        straight_node(&r, (struct tree_node){tree_height(units), 0}, grad, &sums);
        update(r.params, m, v, grad, &sums, step);
        loss[step] = sums.loss / sums.weight;
    }
    workspace_free(r.work);
    batch_fini(&r.batch);
    free(m);
    free(v);
    free(grad);
    return r.params;
}

/* ---- an environment of arrays ---------------------------------------------------------------- */

struct world {
    int team; /* threads that share the numerics of each compute thread; 0: none */
    struct train_task task;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    uint64_t version;
    float *p, *m, *v;
    struct fold *fold;
    double loss[STEPS];
    int threads, dead;  /* dead: index of the thread that left, -1 */
    uint64_t dies_at;   /* step before whose push thread 0 leaves; UINT64_MAX never */
    uint64_t shifts;    /* assignments so far: spans are rotated by it */
    uint64_t shift_at;  /* a new assignment in the middle of this step */
    uint64_t poison_at; /* parameters turn to NaN with this version */
    uint64_t extra_at;  /* units [2, 4) of this step are asked for once more */
    uint64_t said[2];   /* hashes of them, chunk 0: the first time and the second */
    int asked, saids;
    atomic_int pushes;
};

struct compute {
    struct world *w;
    int index;
    uint64_t seen;
    pthread_t id;
    float *params; /* as they were when it asked last */
    int rc;
    struct err e;
};

static void root_take(struct world *w)
{
    struct fold_sums sums = {0, 0, 0};
    float *grad = mem_alloc(f.layout.count * sizeof *grad);

    for (uint32_t c = 0; c < fold_chunks(w->fold); c++) {
        const float *root = fold_root(w->fold, c, c == 0 ? &sums : NULL);
        if (root == NULL) {
            free(grad);
            return;
        }
        memcpy(grad + (size_t)c * CHUNK, root, fold_chunk_len(w->fold, c) * sizeof *grad);
    }
    update(w->p, w->m, w->v, grad, &sums, w->version);
    w->loss[w->version++] = sums.loss / sums.weight;
    if (w->version == w->poison_at)
        for (size_t i = 0; i < f.layout.count; i++)
            w->p[i] = NAN;
    fold_reset(w->fold);
    pthread_cond_broadcast(&w->changed);
    free(grad);
}

static int world_push(void *self, uint64_t step, struct tree_node node, uint32_t begin,
                      uint32_t end, float *grad, const struct fold_sums *sums, struct err *e)
{
    struct compute *c = self;
    struct world *w = c->w;
    bool over;

    assert_true((begin == 0) == (sums != NULL));
    pthread_mutex_lock(&w->lock);
    w->pushes++;
    if (c->index == 0 && step == w->dies_at) { /* in the middle of its node */
        w->dead = 0;
        w->shifts++;
        pthread_cond_broadcast(&w->changed);
        pthread_mutex_unlock(&w->lock);
        return err_set(e, ERR_CANCELLED, "died");
    }
    if (step == w->shift_at && w->shifts == 0) {
        w->shifts++;
        pthread_cond_broadcast(&w->changed);
    }
    for (uint32_t k = begin; step == w->version && k < end; k++) {
        const float *values = grad + (size_t)k * CHUNK;
        uint64_t hash = fold_hash(values, fold_chunk_len(w->fold, k), k == 0 ? sums : NULL);
        assert_int_not_equal(fold_add(w->fold, k, node, values, k == 0 ? sums : NULL, hash),
                             FOLD_CONFLICT);
    }
    if (step == w->extra_at && node.level == 1 && node.index == 1 && begin == 0)
        w->said[w->saids++ % 2] = fold_hash(grad, fold_chunk_len(w->fold, 0), sums);
    pthread_cond_broadcast(&w->changed);
    over = step < w->version && step != w->extra_at;
    if (step == w->version)
        root_take(w);
    pthread_mutex_unlock(&w->lock);
    return over ? TRAIN_OVER : 0;
}

static struct tree_span world_span(void *self)
{
    struct compute *c = self;
    struct world *w = c->w;
    struct tree_span span = {0, w->task.units};
    int parts = w->threads;
    int part = c->index;

    pthread_mutex_lock(&w->lock);
    c->seen = w->shifts;
    if (w->dead >= 0) { /* the others share what the dead one had */
        parts--;
        part--;
    } else {
        part = (int)((uint64_t)part + w->shifts) % parts;
    }
    pthread_mutex_unlock(&w->lock);
    return part < 0 ? (struct tree_span){0, 0}
                    : run_train_part(span, (uint32_t)part, (uint32_t)parts);
}

static bool world_extra(void *self, uint64_t step, struct tree_span *span)
{
    struct compute *c = self;
    struct world *w = c->w;
    bool is;

    pthread_mutex_lock(&w->lock);
    is = step == w->extra_at && c->index == 0 && w->asked == 0;
    while (is && w->saids == 0) /* whose units they are pushes them first: both are to be heard */
        pthread_cond_wait(&w->changed, &w->lock);
    w->asked += is;
    pthread_mutex_unlock(&w->lock);
    *span = (struct tree_span){2, 4};
    return is;
}

static int world_wait(void *self, uint64_t at_least, const float **params, uint64_t *version,
                      struct err *e)
{
    struct compute *c = self;
    struct world *w = c->w;
    int rc = 0;

    (void)e;
    pthread_mutex_lock(&w->lock);
    while (w->version < at_least && w->shifts == c->seen)
        pthread_cond_wait(&w->changed, &w->lock);
    if (w->version < at_least) {
        rc = TRAIN_REASSIGNED;
    } else {
        if (c->params == NULL)
            c->params = mem_alloc(f.layout.count * sizeof *c->params);
        memcpy(c->params, w->p, f.layout.count * sizeof *c->params);
        *params = c->params;
        *version = w->version;
    }
    pthread_mutex_unlock(&w->lock);
    return rc;
}

static bool world_cancelled(void *self)
{
    (void)self;
    return false;
}

static void *compute_main(void *self)
{
    struct compute *c = self;
    struct team *team = c->w->team > 1 ? team_new(c->w->team) : NULL;
    const struct train_env env = {.self = c,
                                  .team = team,
                                  .params_wait = world_wait,
                                  .span = world_span,
                                  .extra = world_extra,
                                  .grads_push = world_push,
                                  .cancelled = world_cancelled};

    c->rc = run_train(&c->w->task, 0, &env, &c->e);
    team_free(team);
    free(c->params);
    c->params = NULL;
    return NULL;
}

static void world_open(struct world *w, uint32_t units, int threads)
{
    memset(w, 0, sizeof *w);
    w->task = task_of(units);
    w->threads = threads;
    w->dead = -1;
    w->dies_at = w->shift_at = w->poison_at = w->extra_at = UINT64_MAX;
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->changed, NULL);
    w->p = mem_zalloc(f.layout.count, sizeof *w->p);
    w->m = mem_zalloc(f.layout.count, sizeof *w->m);
    w->v = mem_zalloc(f.layout.count, sizeof *w->v);
    w->fold = fold_new(units, f.layout.count, CHUNK);
    initial(w->p);
}

static void world_run(struct world *w, struct compute *c)
{
    for (int i = 0; i < w->threads; i++) {
        c[i] = (struct compute){.w = w, .index = i};
        assert_int_equal(pthread_create(&c[i].id, NULL, compute_main, &c[i]), 0);
    }
    for (int i = 0; i < w->threads; i++)
        pthread_join(c[i].id, NULL);
}

static void world_close(struct world *w)
{
    fold_free(w->fold);
    free(w->p);
    free(w->m);
    free(w->v);
}

static void world_check(struct world *w)
{
    double loss[STEPS];
    float *want = straight_run(w->task.units, loss);

    assert_int_equal(w->version, STEPS);
    assert_memory_equal(w->loss, loss, sizeof loss);
    assert_memory_equal(w->p, want, f.layout.count * sizeof *want);
    assert_true(loss[STEPS - 1] < loss[0]);
    free(want);
}

/* ---- tests ----------------------------------------------------------------------------------- */

static void test_any_number_of_threads_gives_the_bits_of_the_recursion(void **state)
{
    static const uint32_t units[] = {1, 2, 5, 7, 8, 16};

    (void)state;
    for (size_t u = 0; u < sizeof units / sizeof units[0]; u++) {
        for (int threads = 1; threads <= THREADS_MAX; threads++) {
            struct world w;
            struct compute c[THREADS_MAX];
            world_open(&w, units[u], threads);
            world_run(&w, c);
            for (int i = 0; i < threads; i++)
                assert_int_equal(c[i].rc, 0);
            world_check(&w);
            world_close(&w);
        }
    }
}

static void joined_case(uint32_t units, uint32_t join, int threads, int team)
{
    struct compute c[THREADS_MAX];
    struct world w;

    world_open(&w, units, threads);
    w.task.join = join;
    w.team = team;
    world_run(&w, c);
    for (int i = 0; i < threads; i++)
        assert_int_equal(c[i].rc, 0);
    world_check(&w);
    world_close(&w);
}

static void test_units_computed_together_by_a_team_give_the_same_bits(void **state)
{
    static const uint32_t units[] = {1, 2, 5, 7, 8, 16};

    (void)state;
    for (int bf16 = 0; bf16 <= (bf16_how() != BF16_NONE); bf16++) {
        f.arithmetic = bf16 ? GEMM_BF16 : GEMM_F32;
        for (size_t u = 0; u < sizeof units / sizeof units[0]; u++)
            for (uint32_t join = 1; join <= PARTS_MAX; join *= 2)
                joined_case(units[u], join, 1 + (int)(u % 2), 1 + (int)(u + join) % 3);
    }
    f.arithmetic = GEMM_F32;
}

/* One thread, then several, the last of them without the instruction: one set of bits, near those of fp32. */
static void test_bf16_has_bits_of_its_own(void **state)
{
    struct compute c[THREADS_MAX];
    double fp32[STEPS], worst = 0;
    float *params;
    struct world w;

    (void)state;
    if (bf16_how() == BF16_NONE) {
        print_message("skipped: this machine multiplies no bfloat16 (it has no AVX2 and FMA)\n");
        skip();
    }
    params = straight_run(7, fp32);
    f.arithmetic = GEMM_BF16;
    for (int threads = 1; threads <= THREADS_MAX; threads++) {
        if (threads == THREADS_MAX)
            bf16_limit(BF16_SOFTWARE);
        world_open(&w, 7, threads);
        world_run(&w, c);
        bf16_limit(BF16_CPU);
        world_check(&w);
        assert_memory_not_equal(w.p, params, f.layout.count * sizeof *params);
        for (int i = 0; i < STEPS; i++)
            worst = fmax(worst, fabs(w.loss[i] - fp32[i]) / fp32[i]);
        world_close(&w);
    }
    print_message("loss of bf16 beside fp32's: %.5f apart at most\n", worst);
    assert_true(worst < 0.001);
    f.arithmetic = GEMM_F32;
    free(params);
}

static void test_a_new_assignment_in_a_step_changes_nothing(void **state)
{
    (void)state;
    for (int threads = 2; threads <= THREADS_MAX; threads++) {
        struct world w;
        struct compute c[THREADS_MAX];
        world_open(&w, 7, threads);
        w.shift_at = 2;
        world_run(&w, c);
        world_check(&w);
        world_close(&w);
    }
}

static void test_units_of_a_dead_thread_are_done_by_the_others(void **state)
{
    (void)state;
    for (int threads = 2; threads <= THREADS_MAX; threads++) {
        struct world w;
        struct compute c[THREADS_MAX];
        world_open(&w, 8, threads);
        w.dies_at = 3;
        world_run(&w, c);
        assert_int_equal(c[0].rc, ERR_CANCELLED);
        world_check(&w);
        world_close(&w);
    }
}

static void test_what_is_not_finite_is_named_and_never_pushed(void **state)
{
    (void)state;
    for (int team = 0; team <= 3; team += 3) {
        struct world w;
        struct compute c[1];
        int pushes;

        world_open(&w, 4, 1);
        w.team = team;
        w.poison_at = 2;
        world_run(&w, c);
        pushes = w.pushes;
        assert_int_equal(c[0].rc, ERR_NUMERIC);
        assert_non_null(strstr(c[0].e.msg, "step 3"));
        assert_int_equal(w.version, 2);
        assert_true(pushes > 0);
        assert_null(fold_root(w.fold, 0, NULL));
        world_close(&w);
    }
}

static void test_what_is_asked_for_once_more_is_computed_whole_and_equal(void **state)
{
    struct world w;
    struct compute c[2];

    (void)state;
    world_open(&w, 4, 2); /* two threads: [0, 2) and [2, 4), so that the node itself is pushed */
    w.extra_at = 2;
    world_run(&w, c);
    world_check(&w);
    assert_int_equal(w.asked, 1);
    assert_int_equal(w.saids, 2);
    assert_true(w.said[0] != 0 && w.said[0] == w.said[1]);
    world_close(&w);
}

static void test_parts_of_a_span_are_contiguous_and_even(void **state)
{
    (void)state;
    for (uint32_t n = 0; n < 20; n++) {
        for (uint32_t parts = 1; parts < 9; parts++) {
            uint32_t at = 3;
            for (uint32_t i = 0; i < parts; i++) {
                struct tree_span s = run_train_part((struct tree_span){3, 3 + n}, i, parts);
                assert_int_equal(s.begin, at);
                assert_true(s.end - s.begin >= n / parts && s.end - s.begin <= n / parts + 1);
                at = s.end;
            }
            assert_int_equal(at, 3 + n);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_any_number_of_threads_gives_the_bits_of_the_recursion),
        cmocka_unit_test(test_units_computed_together_by_a_team_give_the_same_bits),
        cmocka_unit_test(test_bf16_has_bits_of_its_own),
        cmocka_unit_test(test_a_new_assignment_in_a_step_changes_nothing),
        cmocka_unit_test(test_units_of_a_dead_thread_are_done_by_the_others),
        cmocka_unit_test(test_what_is_not_finite_is_named_and_never_pushed),
        cmocka_unit_test(test_what_is_asked_for_once_more_is_computed_whole_and_equal),
        cmocka_unit_test(test_parts_of_a_span_are_contiguous_and_even),
    };
    return cmocka_run_group_tests(tests, fixture_open, fixture_close);
}
