/*
 * Reading: the file is mapped, and everything in it is checked once when it is opened, so that assembling a batch needs no check. Assembling
 * copies tokens, says the label slots and lists the targets; it allocates nothing.
 */
#include "data/examples.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/rng.h"
#include "data/examples_format.h"
#include "data/labels.h"

struct examples {
    void *map;
    size_t bytes;
    const struct examples_header *head;
    const struct examples_entry *entry;
    const struct examples_piece *piece;
    const struct examples_target *target;
    const int32_t *ids;
    const float *score;
    const int8_t *level;
    struct label_table labels; /* pool borrowed from the map */
};

/* ---- opening --------------------------------------------------------------------------------- */

static int bad(struct err *e, const char *what, uint64_t at)
{
    return err_set(e, ERR_CORRUPT, "%s %llu is out of bounds", what, (unsigned long long)at);
}

static const void *section_at(const struct examples *x, enum examples_section s, size_t size,
                              int *rc, struct err *e)
{
    uint64_t offset = x->head->offset[s], count = x->head->count[s];

    if (offset % 16 != 0 || offset > x->bytes || count > UINT32_MAX ||
        count * size > x->bytes - offset) {
        *rc = bad(e, "section", (uint64_t)s);
        return NULL;
    }
    return (const char *)x->map + offset;
}

static bool span_check(struct examples_span s, uint64_t ids)
{
    return s.begin <= s.end && s.end <= ids;
}

static struct span span_of(struct examples_span s)
{
    return (struct span){s.begin, s.end};
}

static int labels_check(struct examples *x, struct err *e)
{
    const struct examples_header *h = x->head;
    struct label_table *l = &x->labels;
    uint64_t ids;
    bool good;

    if (h->attrs > SCHEMA_ATTRS_MAX || h->outputs > SCHEMA_ATTRS_MAX ||
        h->label_ids > h->count[SECTION_IDS])
        return bad(e, "attribute", h->attrs);
    ids = h->count[SECTION_IDS] - h->label_ids;
    good = span_check(h->open, ids) && span_check(h->close, ids) && span_check(h->comma, ids);
    l->attrs = (int)h->attrs;
    l->open = span_of(h->open);
    l->close = span_of(h->close);
    l->comma = span_of(h->comma);
    for (uint32_t a = 0; a < h->attrs && good; a++) {
        if (h->levels[a] > SCHEMA_LEVELS_MAX)
            return bad(e, "levels of attribute", a);
        l->levels[a] = (int)h->levels[a];
        good = span_check(h->key[a], ids) && span_check(h->missing[a], ids);
        l->key[a] = span_of(h->key[a]);
        l->missing[a] = span_of(h->missing[a]);
        for (uint32_t v = 0; v < h->levels[a] && good; v++) {
            good = span_check(h->value[a][v], ids);
            l->value[a][v] = span_of(h->value[a][v]);
        }
    }
    /* Only read: the cast drops const, nothing writes through it. */
    l->pool.v = (int32_t *)(uintptr_t)(x->ids + h->label_ids);
    l->pool.n = ids;
    return good ? 0 : bad(e, "label span", 0);
}

static int piece_check(const struct examples *x, const struct examples_piece *p, uint64_t *rows,
                       uint64_t *learnt, struct err *e)
{
    const struct examples_header *h = x->head;
    uint64_t n;

    if (p->labels == 1) {
        const int8_t *level = x->level + p->begin;
        if ((uint64_t)p->begin + h->attrs > h->count[SECTION_LEVELS])
            return bad(e, "label slot", p->begin);
        for (uint32_t a = 0; a < h->attrs; a++)
            if (level[a] < -1 || level[a] >= (int)h->levels[a])
                return bad(e, "level of attribute", a);
        *rows += label_table_write(&x->labels, level, NULL);
        return 0;
    }
    if (p->labels != 0 || p->begin > p->end || p->end > h->label_ids || !(p->weight >= 0.0f) ||
        !(p->weight <= 1e6f))
        return bad(e, "piece of tokens", p->begin);
    n = p->end - p->begin;
    if (p->weight > 0.0f)
        *learnt += n - (*rows == 0 && n > 0 ? 1 : 0);
    *rows += n;
    return 0;
}

static int entry_check(const struct examples *x, uint32_t i, struct err *e)
{
    const struct examples_header *h = x->head;
    const struct examples_entry *n = &x->entry[i];
    uint64_t rows = 0, learnt = n->targets;
    int rc = 0;

    if ((uint64_t)n->piece_begin + n->pieces > h->count[SECTION_PIECES] ||
        (uint64_t)n->target_begin + n->targets > h->count[SECTION_TARGETS])
        return bad(e, "example", i);
    for (uint32_t k = 0; k < n->pieces && rc == 0; k++)
        rc = piece_check(x, &x->piece[n->piece_begin + k], &rows, &learnt, e);
    if (rc != 0)
        return rc;
    if (rows != n->length || learnt != n->learnt || rows > h->length_max ||
        learnt > h->targets_max || learnt == 0)
        return bad(e, "length of example", i);
    for (uint32_t k = 0; k < n->targets; k++) {
        const struct examples_target *t = &x->target[n->target_begin + k];
        bool scored = h->outputs > 0;
        if (t->row >= rows || (k > 0 && t->row <= t[-1].row) ||
            (scored ? t->id != 0 || (uint64_t)t->score + h->outputs > h->count[SECTION_SCORES]
                    : t->lo < 0 || t->lo > t->id || t->id >= t->hi || (uint32_t)t->hi > h->vocab))
            return bad(e, "target of example", i);
    }
    return 0;
}

static int content_check(struct examples *x, struct err *e)
{
    const struct examples_header *h = x->head;
    uint64_t tokens = 0;
    int rc = 0;

    if (x->bytes < sizeof *h || memcmp(h->magic, EXAMPLES_MAGIC, sizeof h->magic) != 0)
        return err_set(e, ERR_CORRUPT, "is no examples file");
    if (h->version != EXAMPLES_VERSION)
        return err_set(e, ERR_UNSUPPORTED, "has version %u, must be %d", h->version,
                       EXAMPLES_VERSION);
    if (h->vocab > 1u << 20)
        return bad(e, "vocabulary", h->vocab);
    x->entry = section_at(x, SECTION_EXAMPLES, sizeof *x->entry, &rc, e);
    x->piece = section_at(x, SECTION_PIECES, sizeof *x->piece, &rc, e);
    x->target = section_at(x, SECTION_TARGETS, sizeof *x->target, &rc, e);
    x->ids = section_at(x, SECTION_IDS, sizeof *x->ids, &rc, e);
    x->score = section_at(x, SECTION_SCORES, sizeof *x->score, &rc, e);
    x->level = section_at(x, SECTION_LEVELS, 1, &rc, e);
    if (rc == 0)
        rc = labels_check(x, e);
    for (uint64_t i = 0; i < h->count[SECTION_IDS] && rc == 0; i++)
        if (x->ids[i] < 0 || (uint32_t)x->ids[i] >= h->vocab)
            rc = bad(e, "token", i);
    for (uint32_t i = 0; i < (uint32_t)h->count[SECTION_EXAMPLES] && rc == 0; i++) {
        rc = entry_check(x, i, e);
        tokens += x->entry[i].length;
    }
    if (rc == 0 && tokens != h->tokens)
        rc = bad(e, "number of tokens", h->tokens);
    return rc;
}

int examples_open(const char *path, struct examples **out, struct err *e)
{
    struct examples *x = mem_zalloc(1, sizeof *x);
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC), rc = 0;

    *out = NULL;
    x->map = MAP_FAILED;
    if (fd < 0 || fstat(fd, &st) != 0) {
        rc = err_sys(e, "open");
        goto out;
    }
    if (st.st_size < (off_t)sizeof(struct examples_header)) {
        rc = err_set(e, ERR_CORRUPT, "has %lld bytes, fewer than a header", (long long)st.st_size);
        goto out;
    }
    x->bytes = (size_t)st.st_size;
    x->map = mmap(NULL, x->bytes, PROT_READ, MAP_PRIVATE, fd, 0);
    if (x->map == MAP_FAILED) {
        rc = err_sys(e, "mmap");
        goto out;
    }
    x->head = x->map;
    rc = content_check(x, e);
out:
    if (fd >= 0)
        close(fd);
    if (rc != 0) {
        err_wrap(e, "examples %s", path);
        examples_close(x);
        return rc;
    }
    *out = x;
    return 0;
}

void examples_close(struct examples *x)
{
    if (x == NULL)
        return;
    if (x->map != MAP_FAILED)
        munmap(x->map, x->bytes);
    free(x);
}

uint32_t examples_count(const struct examples *x)
{
    return (uint32_t)x->head->count[SECTION_EXAMPLES];
}

uint64_t examples_tokens(const struct examples *x)
{
    return x->head->tokens;
}

uint32_t examples_length(const struct examples *x, uint32_t index)
{
    CHECK(index < examples_count(x));
    return x->entry[index].length;
}

uint32_t examples_length_max(const struct examples *x)
{
    return x->head->length_max;
}

uint32_t examples_targets_max(const struct examples *x)
{
    return x->head->targets_max;
}

int32_t examples_vocab(const struct examples *x)
{
    return (int32_t)x->head->vocab;
}

int32_t examples_outputs(const struct examples *x)
{
    return (int32_t)x->head->outputs;
}

/* ---- assembling ------------------------------------------------------------------------------ */

/* One decision for all label slots of the example: all attributes first, then each. */
static void drop_decide(const struct examples *x, uint64_t seed, uint64_t draw,
                        const struct drop *drop, bool dropped[SCHEMA_ATTRS_MAX])
{
    uint32_t hi = (uint32_t)(draw >> 32), lo = (uint32_t)draw;
    bool all;

    memset(dropped, 0, SCHEMA_ATTRS_MAX * sizeof *dropped);
    if (drop == NULL)
        return;
    all = rng_unit(seed, RNG_DROP, hi, lo, 0) < (double)drop->all;
    for (uint32_t a = 0; a < x->head->attrs; a++)
        dropped[a] = all || rng_unit(seed, RNG_DROP, hi, lo, a + 1) < (double)drop->each;
}

static void tokens_append(const struct examples *x, const struct examples_piece *p, int32_t begin,
                          struct batch *b)
{
    uint32_t n = p->end - p->begin;

    CHECK((uint32_t)(b->rows_cap - b->rows) >= n);
    memcpy(b->token + b->rows, x->ids + p->begin, n * sizeof *b->token);
    for (uint32_t k = 0; p->weight > 0.0f && k < n; k++) {
        int32_t row = b->rows + (int32_t)k;
        if (row == begin)
            continue; /* nothing stands before the first token */
        CHECK(b->targets < b->targets_cap);
        b->target[b->targets++] = (struct batch_target){.row = row - 1,
                                                        .id = b->token[row],
                                                        .lo = 0,
                                                        .hi = (int32_t)x->head->vocab,
                                                        .weight = p->weight};
    }
    b->rows += (int32_t)n;
}

static void labels_append(const struct examples *x, const struct examples_piece *p,
                          const bool *dropped, struct batch *b)
{
    int8_t level[SCHEMA_ATTRS_MAX];

    for (uint32_t a = 0; a < x->head->attrs; a++)
        level[a] = dropped[a] ? -1 : x->level[p->begin + a];
    CHECK((uint32_t)(b->rows_cap - b->rows) >= label_table_write(&x->labels, level, NULL));
    b->rows += (int32_t)label_table_write(&x->labels, level, b->token + b->rows);
}

static void target_append(const struct examples *x, const struct examples_target *t, int32_t begin,
                          struct batch *b)
{
    uint32_t outputs = x->head->outputs;
    struct batch_target *out;

    CHECK(b->targets < b->targets_cap);
    out = &b->target[b->targets];
    *out = (struct batch_target){
        .row = begin + (int32_t)t->row, .id = t->id, .lo = t->lo, .hi = t->hi, .weight = 1.0f};
    if (outputs > 0) { /* every target of the batch has a group of its own */
        out->id = b->targets;
        CHECK((uint64_t)(b->targets + 1) * outputs <= (uint64_t)b->scores_cap);
        memcpy(b->score + (size_t)b->targets * outputs, x->score + t->score,
               outputs * sizeof *b->score);
    }
    b->targets++;
}

void examples_append(const struct examples *x, uint32_t index, uint64_t seed, uint64_t draw,
                     const struct drop *drop, struct batch *b)
{
    const struct examples_entry *n;
    bool dropped[SCHEMA_ATTRS_MAX];
    int32_t begin = b->rows;

    CHECK(index < examples_count(x) && b->seqs < b->seqs_cap);
    n = &x->entry[index];
    drop_decide(x, seed, draw, drop, dropped);
    b->seq_begin[b->seqs] = begin;
    for (uint32_t i = 0; i < n->pieces; i++) {
        const struct examples_piece *p = &x->piece[n->piece_begin + i];
        if (p->labels == 1)
            labels_append(x, p, dropped, b);
        else
            tokens_append(x, p, begin, b);
    }
    for (uint32_t i = 0; i < n->targets; i++)
        target_append(x, &x->target[n->target_begin + i], begin, b);
    b->seq_begin[++b->seqs] = b->rows;
}
