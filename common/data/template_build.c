/*
 * Sequences are laid out in three steps: the reply is encoded, then the turns before it from the last one back until the room is
 * full, then all of it is put down in order. A turn never shares a token with its neighbour: each is encoded by itself, so that
 * a prompt and the training example that it belongs to agree token by token.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "data/labels.h"
#include "data/template.h"

enum { PARTS_MAX = 30, CLASSES_TEXT_MAX = 88 };

struct build {
    const struct template_config *cfg;
    const struct tokenizer *tok;
    const struct conversation *c;
    uint32_t turn;
    struct sequence *out;
    struct buf text; /* scratch */
    struct err *e;
};

struct part { /* one earlier turn, in context.ids */
    uint32_t begin, end;
    uint32_t head_end; /* its mark and name end here; the label string belongs here too */
    uint32_t text;     /* where what is kept of its text begins: head_end, or later if it was cut */
    int32_t turn;      /* -1: has no label string */
};
struct context {
    struct ids ids;
    struct part part[PARTS_MAX]; /* the nearest first */
    int parts;
};

static bool is_nemo(const struct template_config *c)
{
    return c->name == TEMPLATE_NEMO || c->name == TEMPLATE_PAPER;
}

/* Is it the template of control tokens? An attribute model of that name reads plain text. */
static bool is_control(const struct template_config *c)
{
    return c->name == TEMPLATE_CONTROL && c->head == TEMPLATE_POLICY;
}

static int32_t length_max(const struct template_config *c)
{
    return c->max_length > 0 ? c->max_length : 1 << 24;
}

void sequence_clear(struct sequence *s)
{
    struct ids keep = s->ids;

    keep.n = 0;
    s->ids = keep;
    s->pieces = s->targets = 0;
    s->truncated = s->over_long = s->ended = false;
}

void sequence_free(struct sequence *s)
{
    ids_free(&s->ids);
    memset(s, 0, sizeof *s);
}

/* ---- text ------------------------------------------------------------------------------------ */

/* Appends text so that it can't be read as markup: "<attr" and NeMo's marks lose their shape, and no line begins like a turn. */
static void text_escape(const struct template_config *c, const char *text, size_t len,
                        struct buf *out)
{
    static const char *const plain[] = {
        "<attr", "</attr", "\nUser:", "\nAssistant:", "\nSystem:", NULL};
    static const char *const nemo[] = {"<extra_id_", NULL};
    const char *const *marks = is_nemo(c) ? nemo : plain;

    if (is_control(c)) {
        buf_add(out, text, len); /* its markup is tokens, which text never becomes */
        return;
    }
    for (size_t i = 0; i < len; i++) {
        buf_char(out, text[i]);
        for (int k = 0; marks[k] != NULL; k++) {
            size_t n = strlen(marks[k]);
            if (len - i >= n && memcmp(text + i, marks[k], n) == 0) {
                buf_char(out, ' ');
                break;
            }
        }
    }
}

static int encode(struct build *b, unsigned flags, struct ids *out)
{
    return tokenizer_encode(b->tok, b->text.data, b->text.len, flags, out, b->e);
}

static int encode_text(struct build *b, const char *text, struct ids *out)
{
    return tokenizer_encode(b->tok, text, strlen(text), TOKENIZE_CONTINUE, out, b->e);
}

/* Who the turn is, seen from the reply: among peers, whoever does not speak it is its user. */
static enum role role_of(const struct build *b, uint32_t i)
{
    const struct conversation *c = b->c;
    const struct turn *t = &c->turn[i];
    const struct turn *last = &c->turn[c->turns - 1];

    if (t->role != ROLE_ASSISTANT || t->speaker[0] == '\0')
        return t->role;
    if (b->turn < c->turns)
        return strcmp(t->speaker, c->turn[b->turn].speaker) == 0 ||
                       c->turn[b->turn].speaker[0] == '\0'
                   ? ROLE_ASSISTANT
                   : ROLE_USER;
    if (last->role != ROLE_ASSISTANT)
        return ROLE_ASSISTANT;
    return strcmp(t->speaker, last->speaker) == 0 ? ROLE_USER : ROLE_ASSISTANT;
}

/* ---- pieces ---------------------------------------------------------------------------------- */

/* Tokens from ids.v[begin] on, up to now, are worth `weight`; joins the piece before where it can. */
static void piece_close(struct sequence *s, uint32_t begin, float weight)
{
    struct piece *last = s->pieces > 0 ? &s->piece[s->pieces - 1] : NULL;
    uint32_t end = (uint32_t)s->ids.n;

    if (begin == end)
        return;
    if (last != NULL && last->kind == PIECE_TOKENS && last->weight == weight &&
        last->end == begin) {
        last->end = end;
        return;
    }
    CHECK(s->pieces < (int)(sizeof s->piece / sizeof s->piece[0]));
    s->piece[s->pieces++] =
        (struct piece){.kind = PIECE_TOKENS, .begin = begin, .end = end, .weight = weight};
}

static void piece_labels(struct sequence *s, const struct schema *schema, const int8_t *level)
{
    struct piece *p = &s->piece[s->pieces++];

    CHECK(s->pieces <= (int)(sizeof s->piece / sizeof s->piece[0]));
    memset(p, 0, sizeof *p);
    p->kind = PIECE_LABELS;
    memset(p->level, -1, sizeof p->level);
    memcpy(p->level, level, (size_t)schema->attrs);
}

static void copy_ids(struct sequence *s, const struct ids *from, uint32_t begin, uint32_t end)
{
    for (uint32_t i = begin; i < end; i++)
        ids_push(&s->ids, from->v[i]);
}

static int labels_say(struct build *b, const int8_t *level, struct ids *out, uint32_t *n)
{
    struct label_table table;
    int rc = label_table_build(b->cfg, b->tok, level, &table, b->e);

    if (rc != 0)
        return rc;
    *n = label_table_say(&table, level, out);
    label_table_free(&table);
    return 0;
}

/* ---- the turns before ------------------------------------------------------------------------ */

/* control: "message\nmessage\n", no names: the last tokens of it are what counts. */
static int turn_control(struct build *b, uint32_t i, struct context *x, bool nearest)
{
    const struct turn *t = &b->c->turn[i];
    int rc = tokenizer_encode(b->tok, t->text, t->text_len, 0, &x->ids, b->e);

    return rc != 0 || nearest ? rc : encode_text(b, "\n", &x->ids);
}

static int turn_plain(struct build *b, uint32_t i, struct context *x, struct part *p)
{
    static const char *const names[] = {"System:", "User:", "Assistant:"};
    const struct turn *t = &b->c->turn[i];
    int rc = encode_text(b, names[role_of(b, i)], &x->ids);

    p->head_end = (uint32_t)x->ids.n;
    if (rc != 0)
        return rc;
    buf_clear(&b->text);
    buf_char(&b->text, ' ');
    text_escape(b->cfg, t->text, t->text_len, &b->text);
    buf_char(&b->text, '\n');
    return encode(b, TOKENIZE_CONTINUE, &x->ids);
}

static void mark_push(struct build *b, const char *mark, struct ids *out)
{
    int32_t id = tokenizer_id(b->tok, mark);

    CHECK(id >= 0); /* template_prepare() added it */
    ids_push(out, id);
}

static const char *mark_of_user(const struct template_config *c)
{
    return c->name == TEMPLATE_PAPER ? "<extra_id_0>" : "<extra_id_1>";
}

static int turn_nemo(struct build *b, uint32_t i, struct context *x, struct part *p, bool labelled)
{
    const struct turn *t = &b->c->turn[i];
    enum role role = role_of(b, i);
    int rc;

    if (role == ROLE_SYSTEM)
        mark_push(b, "<extra_id_0>", &x->ids);
    else
        mark_push(b, role == ROLE_USER ? mark_of_user(b->cfg) : "<extra_id_1>", &x->ids);
    rc = encode_text(b,
                     role == ROLE_SYSTEM ? "System\n"
                     : role == ROLE_USER ? "User\n"
                                         : "Assistant\n",
                     &x->ids);
    if (rc != 0)
        return rc;
    p->head_end = (uint32_t)x->ids.n;
    if (role == ROLE_ASSISTANT && labelled && t->level != NULL)
        p->turn = (int32_t)i;
    buf_clear(&b->text);
    text_escape(b->cfg, t->text, t->text_len, &b->text);
    buf_char(&b->text, '\n');
    return encode(b, TOKENIZE_CONTINUE, &x->ids);
}

static int turn_read(struct build *b, uint32_t i, bool labelled, struct context *x, struct part *p,
                     uint32_t *tokens)
{
    uint32_t labels = 0;
    int rc;

    *p = (struct part){.begin = (uint32_t)x->ids.n, .head_end = (uint32_t)x->ids.n, .turn = -1};
    if (is_control(b->cfg))
        rc = turn_control(b, i, x, x->parts == 0);
    else if (is_nemo(b->cfg))
        rc = turn_nemo(b, i, x, p, labelled);
    else
        rc = turn_plain(b, i, x, p);
    if (rc == 0 && p->turn >= 0)
        rc = labels_say(b, b->c->turn[i].level, NULL, &labels);
    p->end = (uint32_t)x->ids.n;
    p->text = p->head_end;
    *tokens = p->end - p->begin + labels;
    return rc;
}

/* Leaves the head and the last tokens of the text: `room` in all. */
static void part_cut(struct part *p, uint32_t room)
{
    uint32_t head = p->head_end - p->begin, text = p->end - p->head_end;

    p->turn = -1; /* no label string for half a turn */
    if (head > room)
        p->head_end = p->begin + room;
    room -= head < room ? head : room;
    p->text = p->end - (room < text ? room : text);
}

/* Encodes turns from the one before the reply back, while they fit `room`; system turns of the text templates are not among them. The
 * nearest one is cut at its front if it alone is too long; of control's plain text, whichever comes last. */
static int context_read(struct build *b, uint32_t room, bool labelled, struct context *x)
{
    bool control = is_control(b->cfg);
    uint32_t used = 0;

    for (uint32_t i = b->turn; i-- > 0 && x->parts < PARTS_MAX && used < room;) {
        struct part *p = &x->part[x->parts];
        uint32_t n;
        int rc;
        if (!control && b->c->turn[i].role == ROLE_SYSTEM)
            continue;
        rc = turn_read(b, i, labelled, x, p, &n);
        if (rc != 0)
            return rc;
        if (used + n > room && !control && x->parts > 0)
            break; /* whole turns only */
        if (used + n > room) {
            part_cut(p, room - used);
            n = room - used;
            b->out->truncated = b->out->truncated || (!control && b->cfg->context_tokens == 0);
        }
        used += n;
        x->parts++;
    }
    return 0;
}

static void context_put(struct build *b, const struct context *x, float weight)
{
    struct sequence *s = b->out;

    for (int k = x->parts; k-- > 0;) {
        const struct part *p = &x->part[k];
        uint32_t begin = (uint32_t)s->ids.n;
        copy_ids(s, &x->ids, p->begin, p->head_end);
        piece_close(s, begin, weight);
        if (p->turn >= 0)
            piece_labels(s, &b->cfg->schema, b->c->turn[p->turn].level);
        begin = (uint32_t)s->ids.n;
        copy_ids(s, &x->ids, p->text, p->end);
        piece_close(s, begin, weight);
    }
}

/* System turn: NeMo's layout always has one, if empty; plain has the data's. Cut to half of the room. */
static int system_encode(struct build *b, uint32_t room, struct ids *out)
{
    const struct turn *t = NULL;
    int rc = 0;

    for (uint32_t i = 0; i < b->turn && i < b->c->turns && t == NULL; i++)
        if (b->c->turn[i].role == ROLE_SYSTEM)
            t = &b->c->turn[i];
    if (!is_nemo(b->cfg) && t == NULL)
        return 0;
    buf_clear(&b->text);
    if (!is_nemo(b->cfg)) {
        buf_str(&b->text, "System: ");
    } else {
        mark_push(b, "<extra_id_0>", out);
        buf_str(&b->text, "System\n");
    }
    if (t != NULL)
        text_escape(b->cfg, t->text, t->text_len, &b->text);
    buf_char(&b->text, '\n');
    rc = encode(b, TOKENIZE_CONTINUE, out);
    if (rc == 0 && out->n > room / 2) {
        out->n = room / 2;
        b->out->truncated = true;
    }
    return rc;
}

/* Everything up to the reply's own header. room: for all of it. */
static int before_put(struct build *b, uint32_t room, bool labelled, float weight)
{
    bool control = is_control(b->cfg);
    struct context *x = mem_zalloc(1, sizeof *x);
    struct ids system = {NULL, 0, 0};
    uint32_t begin;
    int rc = 0;

    if (!control)
        rc = system_encode(b, room, &system);
    room -= (uint32_t)system.n;
    if (b->cfg->context_tokens > 0 && (uint32_t)b->cfg->context_tokens < room)
        room = (uint32_t)b->cfg->context_tokens;
    if (rc == 0)
        rc = context_read(b, room, labelled, x);
    if (rc == 0) {
        begin = (uint32_t)b->out->ids.n;
        if (tokenizer_bos(b->tok) >= 0)
            ids_push(&b->out->ids, tokenizer_bos(b->tok));
        copy_ids(b->out, &system, 0, (uint32_t)system.n);
        piece_close(b->out, begin, weight);
        context_put(b, x, weight);
    }
    ids_free(&system);
    ids_free(&x->ids);
    free(x);
    return rc;
}

/* What stands between the context and the label string: nothing, "Assistant:", or <extra_id_1>Assistant. */
static int header_encode(struct build *b, struct ids *out)
{
    if (is_control(b->cfg))
        return 0;
    if (!is_nemo(b->cfg))
        return encode_text(b, "Assistant:", out);
    mark_push(b, "<extra_id_1>", out);
    return encode_text(b, "Assistant\n", out);
}

static int reply_encode(struct build *b, const char *reply, size_t len, struct ids *out)
{
    if (is_control(b->cfg))
        return tokenizer_encode(b->tok, reply, len, 0, out, b->e);
    buf_clear(&b->text);
    buf_str(&b->text, is_nemo(b->cfg) ? "" : " ");
    text_escape(b->cfg, reply, len, &b->text);
    if (is_nemo(b->cfg))
        buf_char(&b->text, '\n');
    return encode(b, TOKENIZE_CONTINUE, out);
}

static uint32_t room_left(const struct template_config *c, size_t used)
{
    size_t max = (size_t)length_max(c);

    return used < max ? (uint32_t)(max - used) : 0;
}

/* ---- policy ---------------------------------------------------------------------------------- */

/* False: the tokenizer has no end token; only models that were trained elsewhere are read with such a one. */
static bool end_push(struct build *b)
{
    if (is_nemo(b->cfg))
        mark_push(b, "<extra_id_1>", &b->out->ids);
    else if (tokenizer_eos(b->tok) >= 0)
        ids_push(&b->out->ids, tokenizer_eos(b->tok));
    else
        return false;
    return true;
}

/* reply NULL: a prompt, which leaves room for max_reply_tokens, or half of the length. */
static int policy_build(struct build *b, const int8_t *level, const struct ids *reply)
{
    const struct template_config *c = b->cfg;
    struct sequence *s = b->out;
    struct ids header = {NULL, 0, 0};
    float before = c->loss_on_all ? 1.0f : 0.0f;
    uint32_t labels = 0, begin, room, fixed;
    size_t n = 0;
    int rc = header_encode(b, &header);

    if (rc == 0)
        rc = labels_say(b, level, NULL, &labels);
    if (rc != 0)
        goto out;
    fixed = (uint32_t)header.n + labels + 2; /* BOS, and EOS or <extra_id_1> */
    room = room_left(c, fixed);
    if (reply != NULL)
        n = reply->n;
    else
        n = c->max_reply_tokens > 0 ? (size_t)c->max_reply_tokens : room / 2;
    if (n > room) {
        s->truncated = s->truncated || reply != NULL;
        n = room;
    }
    s->over_long =
        reply != NULL && c->max_reply_tokens > 0 && reply->n > (size_t)c->max_reply_tokens;
    rc = before_put(b, room - (uint32_t)n, true, before);
    if (rc != 0)
        goto out;
    begin = (uint32_t)s->ids.n;
    copy_ids(s, &header, 0, (uint32_t)header.n);
    piece_close(s, begin, before);
    piece_labels(s, &c->schema, level);
    if (reply == NULL)
        goto out;
    begin = (uint32_t)s->ids.n;
    copy_ids(s, reply, 0, (uint32_t)n);
    s->ended = n == reply->n && end_push(b); /* a cut reply does not end here */
    piece_close(s, begin, 1.0f);
out:
    ids_free(&header);
    return rc;
}

static struct build build_init(const struct template_config *t, const struct tokenizer *tok,
                               const struct conversation *c, uint32_t turn, struct sequence *out,
                               struct err *e)
{
    CHECK(turn <= c->turns);
    sequence_clear(out);
    return (struct build){.cfg = t, .tok = tok, .c = c, .turn = turn, .out = out, .e = e};
}

static int build_end(struct build *b, int rc)
{
    buf_free(&b->text);
    return rc != 0 ? err_wrap(b->e, "%s turn %u", b->c->source, b->turn) : 0;
}

int template_example(const struct template_config *t, const struct tokenizer *tok,
                     const struct conversation *c, uint32_t turn, const int8_t *level,
                     struct sequence *out, struct err *e)
{
    struct build b = build_init(t, tok, c, turn, out, e);
    struct ids reply = {NULL, 0, 0};
    int rc;

    CHECK(t->head == TEMPLATE_POLICY && turn < c->turns);
    rc = reply_encode(&b, c->turn[turn].text, c->turn[turn].text_len, &reply);
    if (rc == 0)
        rc = policy_build(&b, level != NULL ? level : c->turn[turn].level, &reply);
    ids_free(&reply);
    return build_end(&b, rc);
}

int template_prompt(const struct template_config *t, const struct tokenizer *tok,
                    const struct conversation *c, uint32_t turn, const int8_t *level,
                    struct ids *out, struct err *e)
{
    struct sequence *s = mem_zalloc(1, sizeof *s);
    struct build b = build_init(t, tok, c, turn, s, e);
    int8_t none[SCHEMA_ATTRS_MAX];
    uint32_t said;
    int rc;

    CHECK(t->head == TEMPLATE_POLICY);
    memset(none, -1, sizeof none);
    if (level == NULL)
        level = turn < c->turns ? c->turn[turn].level : none;
    rc = policy_build(&b, level, NULL);
    for (int i = 0; i < s->pieces && rc == 0; i++) {
        const struct piece *p = &s->piece[i];
        if (p->kind == PIECE_LABELS)
            rc = labels_say(&b, p->level, out, &said);
        for (uint32_t k = p->begin; p->kind == PIECE_TOKENS && k < p->end; k++)
            ids_push(out, s->ids.v[k]);
    }
    rc = build_end(&b, rc);
    sequence_free(s);
    free(s);
    return rc;
}

/* ---- attribute models ------------------------------------------------------------------------ */

static int32_t label_class(const struct label *l, float human)
{
    double v = (double)human;

    if (isnan(v))
        return -1;
    return (int32_t)(l->type == LABEL_CLASSES ? v : rint(v) - rint(l->min));
}

static int classes_build(struct build *b, const char *reply, size_t len, const float *human)
{
    const struct template_config *c = b->cfg;
    struct sequence *s = b->out;
    struct ids text = {NULL, 0, 0};
    uint32_t room = room_left(c, (size_t)c->schema.labels + 1), keep, front;
    int rc = tokenizer_encode(b->tok, reply, len, 0, &text, b->e);

    if (rc != 0)
        goto out;
    keep = room < CLASSES_TEXT_MAX ? room : CLASSES_TEXT_MAX;
    s->truncated = text.n > keep;
    if (tokenizer_bos(b->tok) >= 0)
        ids_push(&s->ids, tokenizer_bos(b->tok));
    front = s->truncated ? (keep + 1) / 2 : (uint32_t)text.n;
    copy_ids(s, &text, 0, front);
    if (s->truncated) /* the first and the last tokens: openings and question marks say most */
        copy_ids(s, &text, (uint32_t)text.n - (keep - front), (uint32_t)text.n);
    for (int i = 0; i < c->schema.labels; i++) {
        const struct label *l = &c->schema.label[i];
        struct template_target *t = &s->target[s->targets++];
        int32_t class = human != NULL ? label_class(l, human[i]) : -1;
        memset(t, 0, sizeof *t);
        t->row = (uint32_t)s->ids.n;
        t->lo = c->class_first[i];
        t->hi = t->lo + template_label_classes(l);
        t->id = class >= 0 ? t->lo + class : -1;
        ids_push(&s->ids, c->query_first + i);
    }
    piece_close(s, 0, 0.0f);
out:
    ids_free(&text);
    return rc;
}

static void score_target(struct build *b, const float *human)
{
    const struct schema *schema = &b->cfg->schema;
    struct template_target *t = &b->out->target[b->out->targets++];

    memset(t, 0, sizeof *t);
    t->row = (uint32_t)b->out->ids.n - 1;
    t->id = -1;
    for (int a = 0; a < SCHEMA_ATTRS_MAX; a++)
        t->score[a] = NAN;
    for (int a = 0; a < schema->attrs; a++) {
        t->score[a] = (float)schema_human_value(schema, a, human);
        if (!isnan(t->score[a]))
            t->id = 0;
    }
}

/* Appends what opens the label string to `prompt`, and the rest of the string to `tail`, if there is a label at all. room: tokens
 * that come behind the prompt; without a label as many as the longest string and its end, which is to be decoded there. */
static int label_split(struct build *b, const float *human, struct ids *prompt, struct ids *tail,
                       uint32_t *room)
{
    const struct schema *schema = &b->cfg->schema;
    struct label_table table;
    struct ids all = {NULL, 0, 0};
    int8_t level[SCHEMA_ATTRS_MAX];
    bool labelled = false;
    uint32_t open;
    int rc;

    for (int a = 0; a < schema->attrs; a++) {
        level[a] = (int8_t)schema_human_level(schema, a, human);
        labelled = labelled || level[a] >= 0;
    }
    rc = label_table_build(b->cfg, b->tok, labelled ? level : NULL, &table, b->e);
    if (rc != 0)
        return rc;
    label_table_say(&table, level, &all);
    open = table.open.end - table.open.begin;
    for (uint32_t i = 0; i < open; i++)
        ids_push(prompt, table.pool.v[table.open.begin + i]);
    for (size_t i = open; i < all.n; i++)
        ids_push(tail, all.v[i]);
    if (all.n > 0 && is_nemo(b->cfg))
        mark_push(b, "<extra_id_1>", tail);
    else if (all.n > 0)
        ids_push(tail, tokenizer_eos(b->tok));
    *room = labelled ? (uint32_t)tail->n : label_table_longest(&table) + 1;
    ids_free(&all);
    label_table_free(&table);
    return 0;
}

/* regression and lm: turns, "Assistant:" and the reply, then the position that is read or the label string. */
static int reader_build(struct build *b, const char *reply, size_t len, const float *human)
{
    const struct template_config *c = b->cfg;
    struct sequence *s = b->out;
    struct ids header = {NULL, 0, 0}, text = {NULL, 0, 0}, end = {NULL, 0, 0}, tail = {NULL, 0, 0};
    uint32_t room, begin = 0, labels = 0;
    size_t n;
    int rc = header_encode(b, &header);

    if (rc == 0)
        rc = reply_encode(b, reply, len, &text);
    if (rc == 0 && c->head == TEMPLATE_HEAD_LM)
        rc = label_split(b, human, &end, &tail, &labels);
    else if (rc == 0 && is_nemo(c))
        mark_push(b, "<extra_id_2>", &end);
    else if (rc == 0)
        ids_push(&end, tokenizer_eos(b->tok));
    if (rc != 0)
        goto out;
    room = room_left(c, header.n + end.n + labels + 1);
    n = text.n < room ? text.n : room;
    s->truncated = n < text.n;
    rc = before_put(b, room - (uint32_t)n, false, 0.0f);
    if (rc != 0)
        goto out;
    begin = (uint32_t)s->ids.n;
    copy_ids(s, &header, 0, (uint32_t)header.n);
    copy_ids(s, &text, 0, (uint32_t)n);
    copy_ids(s, &end, 0, (uint32_t)end.n);
    piece_close(s, begin, 0.0f);
    if (c->head == TEMPLATE_HEAD_REGRESSION) {
        score_target(b, human);
    } else {
        begin = (uint32_t)s->ids.n;
        copy_ids(s, &tail, 0, (uint32_t)tail.n);
        piece_close(s, begin, 1.0f);
    }
out:
    ids_free(&header);
    ids_free(&text);
    ids_free(&end);
    ids_free(&tail);
    return rc;
}

static int score_build(struct build *b, const char *reply, size_t len, const float *human)
{
    CHECK(b->cfg->head != TEMPLATE_POLICY);
    return build_end(b, b->cfg->head == TEMPLATE_HEAD_CLASSES ? classes_build(b, reply, len, human)
                                                              : reader_build(b, reply, len, human));
}

int template_score(const struct template_config *t, const struct tokenizer *tok,
                   const struct conversation *c, uint32_t turn, struct sequence *out, struct err *e)
{
    struct build b = build_init(t, tok, c, turn, out, e);

    CHECK(turn < c->turns);
    return score_build(&b, c->turn[turn].text, c->turn[turn].text_len, c->turn[turn].human);
}

int template_score_text(const struct template_config *t, const struct tokenizer *tok,
                        const struct conversation *c, uint32_t turn, const char *reply, size_t len,
                        struct sequence *out, struct err *e)
{
    struct build b = build_init(t, tok, c, turn, out, e);

    return score_build(&b, reply, len, NULL);
}
