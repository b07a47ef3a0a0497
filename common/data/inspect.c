#include "data/inspect.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "data/labels.h"
#include "data/read_row.h" /* hash sets */

enum { LISTED_MAX = 20, ODD_LISTED_MAX = 5 };
#define GREEN "\x1b[32m"
#define BLUE "\x1b[34m"
#define PLAIN "\x1b[0m"

/* ---- rows as tokens -------------------------------------------------------------------------- */

/* A token's text with what a terminal can't show made visible: line ends, control bytes, halves of characters. */
static void token_print(const struct tokenizer *tok, int32_t id, FILE *out)
{
    uint32_t len;
    const char *text = tokenizer_bytes(tok, id, &len);

    if (!json_utf8_valid(text, len)) {
        for (uint32_t i = 0; i < len; i++)
            fprintf(out, "<0x%02X>", (unsigned char)text[i]);
        return;
    }
    for (uint32_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c == '\n')
            fputs("\\n", out);
        else if (c < 0x20 || c == 0x7F)
            fprintf(out, "<0x%02X>", c);
        else
            fputc(c, out);
    }
}

static void tokens_print(const struct tokenizer *tok, const int32_t *ids, size_t n, bool learnt,
                         bool slot, const struct inspect_show *what, FILE *out)
{
    const char *colour = learnt ? GREEN : slot ? BLUE : "";

    if (what->colour)
        fputs(colour, out);
    for (size_t i = 0; i < n; i++) {
        fputs(learnt ? "[" : slot ? "{" : "|", out);
        token_print(tok, ids[i], out);
        if (learnt || slot)
            fputs(learnt ? "]" : "}", out);
    }
    if (what->colour && colour[0] != '\0')
        fputs(PLAIN, out);
}

static int sequence_print(const struct template_config *t, const struct tokenizer *tok,
                          const struct sequence *s, const struct inspect_show *what, FILE *out,
                          struct err *e)
{
    struct label_table table = {0};
    struct ids said = {NULL, 0, 0};
    int rc = 0;

    if (t->head == TEMPLATE_POLICY)
        rc = label_table_build(t, tok, NULL, &table, e);
    for (int i = 0; i < s->pieces && rc == 0; i++) {
        const struct piece *p = &s->piece[i];
        said.n = 0;
        if (p->kind == PIECE_LABELS) {
            label_table_say(&table, p->level, &said);
            tokens_print(tok, said.v, said.n, false, true, what, out);
        } else {
            tokens_print(tok, s->ids.v + p->begin, p->end - p->begin, p->weight > 0.0f, false, what,
                         out);
        }
    }
    fputc('\n', out);
    ids_free(&said);
    label_table_free(&table);
    return rc;
}

static void targets_print(const struct template_config *t, const struct sequence *s, FILE *out)
{
    for (int i = 0; i < s->targets; i++) {
        const struct template_target *x = &s->target[i];
        if (t->head == TEMPLATE_HEAD_REGRESSION) {
            fprintf(out, "  read at token %u:", x->row);
            for (int a = 0; a < t->schema.attrs; a++)
                if (!isnan(x->score[a]))
                    fprintf(out, " %s %g", t->schema.attr[a].name, (double)x->score[a]);
            fputs(x->id < 0 ? " nothing, no label\n" : "\n", out);
            continue;
        }
        fprintf(out, "  read at token %u: %s ", x->row, t->schema.label[i].name);
        if (x->id < 0)
            fputs("has no label\n", out);
        else if (t->schema.label[i].type == LABEL_CLASSES)
            fprintf(out, "is \"%s\" (class %d)\n", t->schema.label[i].class_name[x->id - x->lo],
                    x->id - x->lo);
        else
            fprintf(out, "is %g\n", rint(t->schema.label[i].min) + x->id - x->lo);
    }
}

static int response_layout(const struct template_config *t, const struct tokenizer *tok,
                           const struct conversation *c, uint32_t turn, struct sequence *s,
                           struct err *e)
{
    return t->head == TEMPLATE_POLICY ? template_example(t, tok, c, turn, NULL, s, e)
                                      : template_score(t, tok, c, turn, s, e);
}

int inspect_show(const struct dataset *d, const struct template_config *t,
                 const struct tokenizer *tok, const struct inspect_show *what, FILE *out,
                 struct err *e)
{
    struct sequence *s = mem_zalloc(1, sizeof *s);
    size_t shown = 0, seen = 0;
    int rc = 0;

    for (size_t i = 0; i < d->responses && shown < what->count && rc == 0; i++) {
        const struct conversation *c;
        size_t index;
        uint32_t turn;
        dataset_response(d, i, &index, &turn);
        c = &d->conversation[index];
        if ((c->split == SPLIT_HELD_OUT) != what->held_out || seen++ < what->first)
            continue;
        rc = response_layout(t, tok, c, turn, s, e);
        if (rc != 0)
            break;
        fprintf(out, "%s turn %u, %s%s%s\n", c->source, turn,
                c->split == SPLIT_TRAIN ? "train" : "held out", s->truncated ? ", cut" : "",
                s->over_long ? ", reply too long: not used" : "");
        rc = sequence_print(t, tok, s, what, out, e);
        targets_print(t, s, out);
        shown++;
    }
    sequence_free(s);
    free(s);
    return rc;
}

/* ---- the check ------------------------------------------------------------------------------- */

static void problems_print(const struct problems *p, const struct read_counts *c, FILE *out)
{
    fprintf(out, "rows: %" PRIu64 ", bad: %" PRIu64 ", problems: %zu\n", c->rows, c->rows_bad,
            p->total);
    for (size_t i = 0; i < p->n && i < LISTED_MAX; i++)
        fprintf(out, "  %s:%" PRIu64 ": %s%s%s\n", p->v[i].file, p->v[i].line, p->v[i].path,
                p->v[i].path[0] != '\0' ? ": " : "", p->v[i].text);
    if (p->total > LISTED_MAX)
        fprintf(out, "  ... and %zu more\n", p->total - (p->n < LISTED_MAX ? p->n : LISTED_MAX));
    fprintf(out,
            "train: %" PRIu64 " conversations, %" PRIu64 " responses; held out: %" PRIu64
            " and %" PRIu64 "\n",
            c->conversations[SPLIT_TRAIN], c->responses[SPLIT_TRAIN],
            c->conversations[SPLIT_HELD_OUT], c->responses[SPLIT_HELD_OUT]);
    if (c->turns_empty > 0)
        fprintf(out, "turns without text: %" PRIu64 " (kept as context, no responses)\n",
                c->turns_empty);
    if (c->threads_short + c->threads_repeated > 0)
        fprintf(out,
                "threads without a reply: %" PRIu64 "; with no reply of their own: %" PRIu64 "\n",
                c->threads_short, c->threads_repeated);
}

static void classes_print(const struct dataset *d, int label, FILE *out)
{
    const struct label *l = &d->schema.label[label];
    size_t count[SCHEMA_CLASSES_MAX + 1] = {0}, total = 0;

    for (size_t i = 0; i < d->responses; i++) {
        size_t c;
        uint32_t t;
        float v;
        dataset_response(d, i, &c, &t);
        v = d->conversation[c].turn[t].human[label];
        count[isnan(v) ? l->classes : (int)v]++;
        total++;
    }
    fprintf(out, "label %s:", l->name);
    for (int k = 0; k <= l->classes; k++)
        fprintf(out, "%s %s %zu (%.1f %%)", k > 0 ? "," : "",
                k < l->classes ? l->class_name[k] : "missing", count[k],
                total > 0 ? 100.0 * (double)count[k] / (double)total : 0.0);
    fputc('\n', out);
}

static void scale_print(const struct dataset *d, int label, FILE *out)
{
    const struct label *l = &d->schema.label[label];
    size_t n = 0, missing = 0;
    double sum = 0.0, squares = 0.0;

    for (size_t i = 0; i < d->responses; i++) {
        size_t c;
        uint32_t t;
        double v;
        dataset_response(d, i, &c, &t);
        v = (double)d->conversation[c].turn[t].human[label];
        if (isnan(v)) {
            missing++;
            continue;
        }
        n++;
        sum += v;
        squares += v * v;
    }
    fprintf(out, "label %s: %zu of %g..%g", l->name, n, l->min, l->max);
    if (n > 0) {
        double mean = sum / (double)n, variance = squares / (double)n - mean * mean;
        fprintf(out, ", mean %.3g, sd %.3g", mean, sqrt(variance > 0.0 ? variance : 0.0));
    }
    fprintf(out, ", missing %zu\n", missing);
}

/* Replies that say the same after the same turn before. */
static bool is_duplicate(struct hash_set *seen, const struct conversation *c, uint32_t turn,
                         struct buf *scratch)
{
    buf_clear(scratch);
    buf_str(scratch, turn > 0 ? c->turn[turn - 1].text : "");
    buf_char(scratch, '\n');
    buf_str(scratch, c->turn[turn].text);
    return !hash_set_add(seen, text_hash(scratch->data));
}

/* Is there a position that would be learnt? */
static bool has_loss(const struct sequence *s)
{
    for (int i = 0; i < s->targets; i++)
        if (s->target[i].id >= 0)
            return true;
    for (int i = 0; i < s->pieces; i++)
        if (s->piece[i].kind == PIECE_TOKENS && s->piece[i].weight > 0.0f)
            return true;
    return false;
}

static void odd_print(const struct conversation *c, uint32_t turn, const char *what, size_t listed,
                      FILE *out)
{
    if (listed <= ODD_LISTED_MAX)
        fprintf(out, "  %s turn %u: %s\n", c->source, turn, what);
}

static size_t rows_of(const struct label_table *labels, const struct sequence *s)
{
    size_t n = s->ids.n;

    for (int i = 0; i < s->pieces; i++)
        if (s->piece[i].kind == PIECE_LABELS)
            n += label_table_write(labels, s->piece[i].level, NULL);
    return n;
}

static void layout_judge(const struct conversation *c, uint32_t turn, const struct sequence *s,
                         const struct label_table *labels, struct inspect_summary *sum, FILE *out)
{
    if (s->over_long) {
        odd_print(c, turn, "reply too long", ++sum->over_long, out);
    } else if (!has_loss(s)) {
        odd_print(c, turn, "nothing in it is learnt", ++sum->nothing_learnt, out);
    } else if (c->split == SPLIT_TRAIN) {
        sum->usable++;
        sum->tokens += rows_of(labels, s);
    }
    if (s->truncated)
        odd_print(c, turn, "does not fit, cut", ++sum->cut, out);
}

int inspect_check(const struct dataset *d, const struct problems *problems,
                  const struct read_counts *counts, const struct template_config *t,
                  const struct tokenizer *tok, FILE *out, struct inspect_summary *sum,
                  struct err *e)
{
    struct sequence *s = mem_zalloc(1, sizeof *s);
    struct hash_set seen = {0};
    struct buf scratch = BUF_INIT;
    struct label_table labels = {0};
    int rc = 0;

    memset(sum, 0, sizeof *sum);
    sum->problems = problems->total;
    problems_print(problems, counts, out);
    if (t != NULL && t->head == TEMPLATE_POLICY)
        rc = label_table_build(t, tok, NULL, &labels, e);
    for (size_t i = 0; i < d->responses && rc == 0; i++) {
        size_t index;
        uint32_t turn;
        const struct conversation *c;
        dataset_response(d, i, &index, &turn);
        c = &d->conversation[index];
        if (is_duplicate(&seen, c, turn, &scratch))
            odd_print(c, turn, "says the same after the same turn as an earlier one",
                      ++sum->duplicates, out);
        if (t == NULL)
            continue;
        rc = response_layout(t, tok, c, turn, s, e);
        if (rc == 0)
            layout_judge(c, turn, s, &labels, sum, out);
    }
    for (int l = 0; l < d->schema.labels; l++) {
        if (d->schema.label[l].type == LABEL_CLASSES)
            classes_print(d, l, out);
        else
            scale_print(d, l, out);
    }
    fprintf(out, "duplicates: %zu\n", sum->duplicates);
    if (t != NULL && rc == 0)
        fprintf(out,
                "too long: %zu, cut: %zu, nothing to learn: %zu, usable for training: %zu (%zu "
                "tokens)\n",
                sum->over_long, sum->cut, sum->nothing_learnt, sum->usable, sum->tokens);
    label_table_free(&labels);
    free(seen.slot);
    buf_free(&scratch);
    sequence_free(s);
    free(s);
    return rc;
}
