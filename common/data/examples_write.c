#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "data/examples.h"
#include "data/examples_format.h"
#include "data/labels.h"

struct examples_writer {
    struct examples_header head;
    struct label_table labels;
    struct buf section[SECTIONS];
};

static const size_t element_bytes[SECTIONS] = {sizeof(struct examples_entry),
                                               sizeof(struct examples_piece),
                                               sizeof(struct examples_target),
                                               sizeof(int32_t),
                                               sizeof(float),
                                               1};

static struct examples_span span_of(struct span s)
{
    return (struct examples_span){s.begin, s.end};
}

int examples_writer_new(const struct template_config *c, const struct tokenizer *t, int32_t vocab,
                        struct examples_writer **out, struct err *e)
{
    struct examples_writer *w = mem_zalloc(1, sizeof *w);
    int rc = 0;

    *out = NULL;
    if (c->head == TEMPLATE_POLICY)
        rc = label_table_build(c, t, NULL, &w->labels, e);
    if (rc != 0) {
        free(w);
        return rc;
    }
    memcpy(w->head.magic, EXAMPLES_MAGIC, sizeof w->head.magic);
    w->head.version = EXAMPLES_VERSION;
    w->head.vocab = (uint32_t)vocab;
    w->head.attrs = (uint32_t)w->labels.attrs;
    w->head.outputs = c->head == TEMPLATE_HEAD_REGRESSION ? (uint32_t)c->schema.attrs : 0;
    w->head.open = span_of(w->labels.open);
    w->head.close = span_of(w->labels.close);
    w->head.comma = span_of(w->labels.comma);
    for (int a = 0; a < w->labels.attrs; a++) {
        w->head.levels[a] = (uint32_t)w->labels.levels[a];
        w->head.key[a] = span_of(w->labels.key[a]);
        w->head.missing[a] = span_of(w->labels.missing[a]);
        for (int l = 0; l < w->labels.levels[a]; l++)
            w->head.value[a][l] = span_of(w->labels.value[a][l]);
    }
    *out = w;
    return 0;
}

static uint32_t elements(const struct examples_writer *w, enum examples_section s)
{
    return (uint32_t)(w->section[s].len / element_bytes[s]);
}

/* Rows and learnt tokens of the sequence with nothing dropped. A token that nothing stands before can't be learnt. */
static void entry_measure(const struct examples_writer *w, const struct sequence *s,
                          struct examples_entry *x)
{
    for (int i = 0; i < s->pieces; i++) {
        const struct piece *p = &s->piece[i];
        if (p->kind == PIECE_LABELS) {
            x->length += label_table_write(&w->labels, p->level, NULL);
            continue;
        }
        if (p->weight > 0.0f)
            x->learnt += p->end - p->begin - (x->length == 0 && p->end > p->begin ? 1 : 0);
        x->length += p->end - p->begin;
    }
}

static void piece_put(struct examples_writer *w, const struct sequence *s, const struct piece *p)
{
    struct examples_piece x = {.labels = p->kind == PIECE_LABELS, .weight = p->weight};

    if (p->kind == PIECE_LABELS) {
        x.begin = elements(w, SECTION_LEVELS);
        buf_add(&w->section[SECTION_LEVELS], p->level, w->head.attrs);
    } else {
        x.begin = elements(w, SECTION_IDS);
        buf_add(&w->section[SECTION_IDS], s->ids.v + p->begin,
                (p->end - p->begin) * sizeof(int32_t));
        x.end = elements(w, SECTION_IDS);
    }
    buf_add(&w->section[SECTION_PIECES], &x, sizeof x);
}

bool examples_write(struct examples_writer *w, const struct sequence *s)
{
    struct examples_entry entry = {.piece_begin = elements(w, SECTION_PIECES),
                                   .pieces = (uint32_t)s->pieces,
                                   .target_begin = elements(w, SECTION_TARGETS)};

    for (int i = 0; i < s->targets; i++)
        entry.targets += s->target[i].id >= 0;
    entry_measure(w, s, &entry);
    entry.learnt += entry.targets;
    if (entry.learnt == 0)
        return false;
    for (int i = 0; i < s->pieces; i++)
        piece_put(w, s, &s->piece[i]);
    for (int i = 0; i < s->targets; i++) {
        const struct template_target *t = &s->target[i];
        struct examples_target x = {t->row, t->id, t->lo, t->hi, elements(w, SECTION_SCORES)};
        if (t->id < 0)
            continue;
        buf_add(&w->section[SECTION_SCORES], t->score, w->head.outputs * sizeof(float));
        buf_add(&w->section[SECTION_TARGETS], &x, sizeof x);
    }
    buf_add(&w->section[SECTION_EXAMPLES], &entry, sizeof entry);
    w->head.tokens += entry.length;
    if (entry.length > w->head.length_max)
        w->head.length_max = entry.length;
    if (entry.learnt > w->head.targets_max)
        w->head.targets_max = entry.learnt;
    return true;
}

static int file_make(struct examples_writer *w, const char *path, struct err *e)
{
    struct buf file = BUF_INIT;
    int rc;

    w->head.label_ids = elements(w, SECTION_IDS);
    if (w->labels.pool.n > 0)
        buf_add(&w->section[SECTION_IDS], w->labels.pool.v, w->labels.pool.n * sizeof(int32_t));
    buf_add(&file, &w->head, sizeof w->head);
    for (int s = 0; s < SECTIONS; s++) {
        static const char zero[16];
        if (w->section[s].len / element_bytes[s] > UINT32_MAX) {
            buf_free(&file);
            return err_set(e, ERR_LIMIT, "examples: %zu elements in section %d, at most %u",
                           w->section[s].len, s, UINT32_MAX);
        }
        buf_add(&file, zero, (16 - file.len % 16) % 16);
        w->head.offset[s] = file.len;
        w->head.count[s] = w->section[s].len / element_bytes[s];
        buf_add(&file, w->section[s].data, w->section[s].len);
    }
    memcpy(file.data, &w->head, sizeof w->head);
    rc = file_write_atomic(path, file.data, file.len, e);
    buf_free(&file);
    return rc;
}

int examples_writer_end(struct examples_writer **writer, const char *path, struct err *e)
{
    struct examples_writer *w = *writer;
    int rc = 0;

    if (w == NULL)
        return 0;
    if (path != NULL)
        rc = file_make(w, path, e);
    for (int s = 0; s < SECTIONS; s++)
        buf_free(&w->section[s]);
    label_table_free(&w->labels);
    free(w);
    *writer = NULL;
    return rc;
}
