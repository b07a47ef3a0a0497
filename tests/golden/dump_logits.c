/* What our engine makes of a model directory, for check_hf.py to compare.
 *   dump_logits outputs MODEL          lines of ids on stdin -> log-probabilities (or scores) at
 * the last position, one line each dump_logits save MODEL DIR [grow=N] [regression=N]       a model
 * read, changed and written dump_logits random DIR V,C,L,H,G,D,F tied|untied          a random
 * model, without a tokenizer */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/transformer.h"
#include "modelfile/modeldir.h"

#define SEED 5
#define ROWS_MAX 4096

static void outputs_line(const struct model *m, struct workspace *w, struct batch *b,
                         const char *line)
{
    int32_t n = m->dims.head == HEAD_LM ? m->dims.vocab : m->dims.head_out;
    float *out = mem_zalloc((size_t)n, sizeof *out);

    b->rows = 0;
    for (char *end; b->rows < b->rows_cap && *line != '\0' && *line != '\n';
         line = end + strspn(end, " "))
        b->token[b->rows++] = (int32_t)strtol(line, &end, 10);
    b->seqs = b->targets = 1;
    b->seq_begin[0] = 0;
    b->seq_begin[1] = b->rows;
    b->target[0] =
        (struct batch_target){.row = b->rows - 1, .id = 0, .lo = 0, .hi = n, .weight = 1};
    transformer_outputs(&m->dims, m->params, b, out, (size_t)n, w);
    for (int32_t i = 0; i < n; i++)
        printf("%s%.9g", i == 0 ? "" : " ", (double)out[i]);
    putchar('\n');
    free(out);
}

static int outputs(const char *path, struct err *e)
{
    struct model m;
    struct batch b;
    struct workspace *w;
    char *line = NULL;
    size_t cap = 0;
    int rc = model_load(path, MODEL_WEIGHTS, &m, e);

    if (rc != 0)
        return rc;
    batch_init(&b, ROWS_MAX, 1, 1, m.dims.head_out);
    w = workspace_new(&m.dims, ROWS_MAX, 1, 1);
    while (getline(&line, &cap, stdin) > 0)
        outputs_line(&m, w, &b, line);
    free(line);
    workspace_free(w);
    batch_fini(&b);
    model_fini(&m);
    return 0;
}

static int save(int argc, char **argv, struct err *e)
{
    struct model m;
    int rc = model_load(argv[2], MODEL_ALL, &m, e);

    if (rc != 0)
        return rc;
    for (int i = 4; i < argc; i++) {
        if (strncmp(argv[i], "grow=", 5) == 0)
            model_grow_vocab(&m, atoi(argv[i] + 5), SEED);
        if (strncmp(argv[i], "regression=", 11) == 0)
            model_to_regression(&m, atoi(argv[i] + 11), SEED);
    }
    rc = model_save(&m, argv[3], e);
    model_fini(&m);
    return rc;
}

static int random_model(char **argv, struct err *e)
{
    struct dims d = {.context = 256, .norm_eps = 1e-5f, .rope_theta = 50000, .head = HEAD_LM};
    struct model m;
    int rc;

    if (sscanf(argv[3], "%d,%d,%d,%d,%d,%d,%d", &d.vocab, &d.width, &d.layers, &d.heads,
               &d.kv_heads, &d.head_dim, &d.ffn) != 7)
        return err_set(e, ERR_INVALID, "%s is not V,C,L,H,G,D,F", argv[3]);
    d.tied = strcmp(argv[4], "tied") == 0;
    if ((rc = dims_check(&d, e)) != 0)
        return rc;
    model_init_random(&m, &d, SEED);
    for (size_t i = 0; i < m.layout.count; i++)
        m.params[i] *= 8; /* logits far enough apart to tell a wrong head from a right one */
    rc = model_save(&m, argv[2], e);
    model_fini(&m);
    return rc;
}

int main(int argc, char **argv)
{
    struct err e = {0};
    int rc = 2;

    if (argc == 3 && strcmp(argv[1], "outputs") == 0)
        rc = outputs(argv[2], &e);
    else if (argc >= 4 && strcmp(argv[1], "save") == 0)
        rc = save(argc, argv, &e);
    else if (argc == 5 && strcmp(argv[1], "random") == 0)
        rc = random_model(argv, &e);
    if (rc != 0)
        fprintf(stderr, "%s\n", e.msg);
    return rc != 0;
}
