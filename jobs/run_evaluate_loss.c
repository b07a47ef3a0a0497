/* Losses of replies: what a model would have paid, token by token, for a text that stands there. */
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "jobs/run_evaluate.h"
#include "model/transformer.h"

#define LOSS_ROWS 3072
#define LOSS_SEQS 256

struct template_config evaluate_reading(const struct model *m, int context_tokens)
{
    struct template_config c = m->steer.template_config;

    if (m->steer.role !=
        STEER_POLICY) { /* the control layout without attributes is: BOS, context, reply, end */
        memset(&c, 0, sizeof c);
        c.name = TEMPLATE_CONTROL;
        c.head = TEMPLATE_POLICY;
        c.context_tokens = context_tokens;
    }
    c.max_reply_tokens = 0; /* what a model wrote is scored, however long */
    c.loss_on_all = false;
    if (c.max_length <= 0 || c.max_length > m->dims.context)
        c.max_length = m->dims.context;
    return c;
}

/* What nothing stands before can't be predicted: it is read only. */
static void tail_stand(struct evaluate_tail *t)
{
    if (t->prompt.n > 0 || t->tail.n == 0)
        return;
    ids_push(&t->prompt, t->tail.v[0]);
    memmove(t->tail.v, t->tail.v + 1, --t->tail.n * sizeof *t->tail.v);
}

int evaluate_tail_of(const struct template_config *cfg, const struct tokenizer *tok,
                     const struct conversation *c, uint32_t turn, const char *text, size_t len,
                     bool whole, const int8_t *level, struct evaluate_tail *out, struct err *e)
{
    struct sequence *s = mem_zalloc(1, sizeof *s);
    struct turn *turns = mem_zalloc((size_t)turn + 1, sizeof *turns);
    struct conversation copy = *c;
    int rc = template_prompt(cfg, tok, c, turn, level, &out->prompt, e);

    for (uint32_t i = 0; i <= turn && i < c->turns; i++)
        turns[i] = c->turn[i];
    if (text != NULL) { /* the reply takes the place of the one that stands there */
        if (turn >= c->turns)
            turns[turn] =
                (struct turn){.role = ROLE_ASSISTANT, .speaker = "", .respond = true, .kept = true};
        turns[turn].text = text;
        turns[turn].text_len = (uint32_t)len;
    }
    copy.turn = turns;
    copy.turns = turn + 1;
    if (rc == 0)
        rc = template_example(cfg, tok, &copy, turn, level, s, e);
    for (int i = 0; rc == 0 && i < s->pieces; i++) {
        const struct piece *p = &s->piece[i];
        if (p->kind != PIECE_TOKENS || !(p->weight > 0.0f))
            continue;
        for (uint32_t k = p->begin; k < p->end; k++)
            ids_push(&out->tail, s->ids.v[k]);
    }
    if (rc == 0 && !whole && s->ended && out->tail.n > 0)
        out->tail.n--; /* it was cut off: that it does not end is not its fault */
    if (rc == 0)
        tail_stand(out);
    sequence_free(s);
    free(s);
    free(turns);
    return rc;
}

size_t evaluate_tail_room(const struct evaluate_tail *t, size_t context)
{
    size_t room = t->prompt.n > 0 && t->prompt.n < context
                      ? context - t->prompt.n + 1
                      : 0; /* the last token is predicted, not read */

    return t->tail.n < room ? t->tail.n : room;
}

void evaluate_tails_free(struct evaluate_tail *tail, size_t n)
{
    for (size_t i = 0; tail != NULL && i < n; i++) {
        ids_free(&tail[i].prompt);
        ids_free(&tail[i].tail);
    }
    free(tail);
}

struct packer {
    const struct model *m;
    struct batch batch;
    struct workspace *work;
    real *loss;
    struct evaluate_tail *tail; /* [first, next) are in the batch */
    size_t first, next;
};

static void packer_flush(struct packer *p)
{
    size_t at = 0;

    if (p->batch.targets > 0)
        transformer_losses(&p->m->dims, p->m->params, &p->batch, p->loss, p->work);
    for (size_t i = p->first; i < p->next; i++) {
        p->tail[i].nll = 0.0;
        for (size_t k = 0; k < p->tail[i].scored; k++)
            p->tail[i].nll += (double)p->loss[at++];
    }
    p->batch.rows = p->batch.seqs = p->batch.targets = 0;
    p->first = p->next;
}

static void packer_add(struct packer *p, struct evaluate_tail *t)
{
    struct batch *b = &p->batch;
    size_t context = (size_t)(p->m->dims.context < b->rows_cap ? p->m->dims.context : b->rows_cap);
    int32_t rows;

    t->scored = evaluate_tail_room(t, context);
    rows = (int32_t)(t->scored > 0 ? t->prompt.n + t->scored - 1 : 0);
    if (b->rows + rows > b->rows_cap || b->seqs == b->seqs_cap)
        packer_flush(p);
    p->next++;
    if (rows == 0)
        return;
    for (int32_t i = 0; i < rows; i++)
        b->token[b->rows + i] =
            (size_t)i < t->prompt.n ? t->prompt.v[i] : t->tail.v[(size_t)i - t->prompt.n];
    for (size_t k = 0; k < t->scored; k++)
        b->target[b->targets++] =
            (struct batch_target){.row = b->rows + (int32_t)(t->prompt.n - 1 + k),
                                  .id = t->tail.v[k],
                                  .lo = 0,
                                  .hi = p->m->dims.vocab,
                                  .weight = 1.0f};
    b->rows += rows;
    b->seq_begin[++b->seqs] = b->rows;
}

void evaluate_losses(const struct model *m, struct evaluate_tail *tail, size_t n,
                     uint64_t *heartbeat)
{
    size_t rows = LOSS_ROWS;
    struct packer p = {.m = m, .tail = tail};

    for (size_t i = 0; i < n;
         i++) { /* the longest sequence fits, unless the model's context is shorter */
        size_t need = tail[i].prompt.n + tail[i].tail.n;
        size_t most = need < (size_t)m->dims.context ? need : (size_t)m->dims.context;
        rows = most > rows ? most : rows;
    }
    batch_init(&p.batch, (int32_t)rows, LOSS_SEQS, (int32_t)rows, 0);
    p.batch.seq_begin[0] = 0;
    p.work = workspace_new_lean(&m->dims, (int32_t)rows, LOSS_SEQS, (int32_t)rows);
    workspace_set_progress(p.work, heartbeat);
    p.loss = mem_zalloc(rows, sizeof *p.loss);
    for (size_t i = 0; i < n; i++)
        packer_add(&p, &tail[i]);
    packer_flush(&p);
    free(p.loss);
    workspace_free(p.work);
    batch_fini(&p.batch);
}
