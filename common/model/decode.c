/*
 * A slot reads a prompt and then what its owner draws. A request with guidance owns one slot and
 * mirrors its draws in a second one, which reads the unconditioned prompt; the two may have
 * different lengths and are ready at different steps.
 *
 * Every step: admit requests while slots are free, give each slot its next rows (one for a running
 * sequence, a stretch of the prompt for a new one, until the step's rows are used up), compute them
 * all at once, then draw for each owner that is ready. So prompts are read beside running sequences
 * and nobody waits for a batch to end. Which rows share a step changes no bit (cached.h), so order
 * of admission, slots and neighbours may depend on anything.
 *
 * Every slot remembers the tokens whose keys and values it holds, also after its sequence has ended.
 * A new prompt looks for the slot with the longest common beginning: a free one is simply taken over,
 * of an occupied one the stretch is copied, as soon as it has been read there.
 */
#include "model/decode.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/err.h"
#include "model/cached.h"
#include "model/sampler.h"

#define PROMPT_ROWS                                                                                \
    192 /* rows of prompts in a step, beside one row for each slot: what the kernel needs to be    \
           busy */

enum slot_state { SLOT_FREE, SLOT_OWNER, SLOT_MIRROR };

struct slot {
    enum slot_state state;
    int32_t owner, mirror; /* itself or its owner; slot of the unconditioned prompt or -1 */
    const int32_t *prompt;
    size_t prompt_len, fed; /* fed: positions in the cache */
    int32_t *history;       /* [fed] their tokens; they outlive the sequence */
    int32_t donor;          /* slot that reads the first `share` tokens of the prompt, or -1 */
    size_t share;
    /* Of an owner: */
    struct decode_request request;
    int32_t *out;
    size_t out_len;
    struct buf text;
    double logprob_sum;
};

struct decoder {
    struct cached *net;
    int32_t slots, context_max, vocab, rows_max;
    struct slot *slot;
    struct cached_row *rows;
    int32_t *allowed;
    void *scratch; /* of the sampler */
    /* Of the run: */
    const struct decode_vocab *words;
    const struct decode_grammar *grammar;
    struct decode_source *source;
    struct decode_stats *stats;
    uint64_t seed;
    size_t stop_len_max;
};

const char *decode_end_name(enum decode_end end)
{
    static const char *const names[] = {"stop_token", "stop_string", "length",
                                        "context",    "grammar",     "numeric"};

    CHECK((size_t)end < sizeof(names) / sizeof(names[0]));
    return names[end];
}

static int32_t rows_of(int32_t slots)
{
    return slots + PROMPT_ROWS;
}

size_t decoder_bytes(const struct dims *d, int32_t slots, int32_t context_max,
                     enum decode_weights weights)
{
    size_t n = (size_t)slots;

    return cached_bytes(d, slots, context_max, rows_of(slots), weights == DECODE_INT8) +
           sizeof(struct decoder) +
           n * (sizeof(struct slot) + 2 * ((size_t)context_max + 1) * sizeof(int32_t)) +
           (size_t)rows_of(slots) * sizeof(struct cached_row) + (size_t)d->vocab * sizeof(int32_t) +
           sampler_work_bytes((size_t)d->vocab);
}

struct decoder *decoder_new(const struct dims *d, int32_t slots, int32_t context_max,
                            enum decode_weights weights)
{
    struct decoder *x = mem_zalloc(1, sizeof(*x));

    x->slots = slots;
    x->context_max = context_max;
    x->vocab = d->vocab;
    x->rows_max = rows_of(slots);
    x->net = cached_new(d, slots, context_max, x->rows_max, weights == DECODE_INT8);
    x->slot = mem_zalloc((size_t)slots, sizeof(*x->slot));
    for (int32_t i = 0; i < slots; i++) {
        x->slot[i].out = mem_zalloc((size_t)context_max + 1, sizeof(int32_t));
        x->slot[i].history = mem_zalloc((size_t)context_max + 1, sizeof(int32_t));
    }
    x->rows = mem_zalloc((size_t)x->rows_max, sizeof(*x->rows));
    x->allowed = mem_zalloc((size_t)d->vocab, sizeof(int32_t));
    x->scratch = mem_alloc(sampler_work_bytes((size_t)d->vocab));
    return x;
}

void decoder_free(struct decoder *x)
{
    if (x == NULL)
        return;
    for (int32_t i = 0; i < x->slots; i++) {
        free(x->slot[i].out);
        free(x->slot[i].history);
        buf_free(&x->slot[i].text);
    }
    free(x->scratch);
    free(x->allowed);
    free(x->rows);
    free(x->slot);
    cached_free(x->net);
    free(x);
}

void decoder_set_progress(struct decoder *x, uint64_t *counter)
{
    cached_set_progress(x->net, counter);
}

void decoder_set_team(struct decoder *x, struct team *team)
{
    cached_set_team(x->net, team);
}

size_t decoder_weight_bytes(const struct decoder *x)
{
    return cached_weight_bytes(x->net);
}

/* ---- admission
 * ------------------------------------------------------------------------------------------------
 */

static void request_done(const struct decoder *x, const struct slot *s, size_t len, size_t text_len,
                         enum decode_end end)
{
    struct decode_result r = {.key = s->request.key,
                              .sample = s->request.sample,
                              .tag = s->request.tag,
                              .tokens = s->out,
                              .len = len,
                              .text_len = text_len,
                              .sampled = s->out_len,
                              .logprob_sum = s->logprob_sum,
                              .end = end};

    if (end == DECODE_STOP_TOKEN)
        r.sampled++;
    x->source->done(x->source->self, &r);
}

static bool is_guided(const struct decode_request *q)
{
    return q->uncond != NULL && q->sampling.guidance != 1.0f;
}

/* True if there is nothing to compute: the answer was given. */
static bool request_is_over(const struct decoder *x, const struct decode_request *q)
{
    struct slot s = {.request = *q};
    size_t longest = is_guided(q) && q->uncond_len > q->prompt_len ? q->uncond_len : q->prompt_len;
    int32_t none = 0;

    CHECK(q->prompt_len >= 1 && (!is_guided(q) || q->uncond_len >= 1));
    s.out = &none;
    if (longest > (size_t)x->context_max) {
        request_done(x, &s, 0, 0, DECODE_CONTEXT);
        return true;
    }
    if (q->sampling.max_new_tokens <= 0) {
        request_done(x, &s, 0, 0, DECODE_LENGTH);
        return true;
    }
    return false;
}

/* Leading tokens of a prompt that slot s holds or will have read, the last one excepted: its row must
 * be computed, because its logits are wanted. */
static size_t prefix_length(const struct slot *s, const int32_t *prompt, size_t len)
{
    size_t known = s->state != SLOT_FREE && s->prompt_len > s->fed ? s->prompt_len : s->fed, n = 0;

    while (n + 1 < len && n < known && prompt[n] == (n < s->fed ? s->history[n] : s->prompt[n]))
        n++;
    return n;
}

/* The slot with the longest common beginning, a free one if there is a choice; -1 if none has any.
 */
static int32_t donor_find(const struct decoder *x, const int32_t *prompt, size_t len, size_t *share)
{
    int32_t best = -1;

    *share = 0;
    for (int32_t i = 0; i < x->slots; i++) {
        size_t n = prefix_length(&x->slot[i], prompt, len);
        if (n > *share || (n == *share && n > 0 && x->slot[i].state == SLOT_FREE &&
                           x->slot[best].state != SLOT_FREE)) {
            best = i;
            *share = n;
        }
    }
    return best;
}

/* Copies what slot i waits for, if it has been read by now. */
static void prefix_take(struct decoder *x, int32_t i)
{
    struct slot *s = &x->slot[i], *from = &x->slot[s->donor];

    if (from->fed < s->share)
        return;
    cached_copy(x->net, s->donor, i, (int32_t)s->share);
    memcpy(s->history, from->history, s->share * sizeof(*s->history));
    s->fed = s->share;
    s->donor = -1;
    x->stats->shared_rows += s->share;
}

static int32_t slot_choose(const struct decoder *x, int32_t donor)
{
    if (donor >= 0 && x->slot[donor].state == SLOT_FREE)
        return donor;
    for (int32_t i = 0; i < x->slots; i++)
        if (x->slot[i].state == SLOT_FREE)
            return i;
    CHECK(!"a slot is free");
}

static int32_t slot_take(struct decoder *x, enum slot_state state, const int32_t *prompt,
                         size_t len)
{
    size_t share;
    int32_t donor = donor_find(x, prompt, len, &share), i = slot_choose(x, donor);
    struct slot *s = &x->slot[i];

    s->state = state;
    s->owner = i;
    s->mirror = -1;
    s->prompt = prompt;
    s->prompt_len = len;
    s->fed = 0;
    s->out_len = 0;
    s->logprob_sum = 0.0;
    s->donor = -1;
    s->share = share;
    buf_clear(&s->text);
    if (donor == i) {
        s->fed = share;
        x->stats->shared_rows += share;
    } else if (donor >= 0) {
        s->donor = donor;
        prefix_take(x, i);
    }
    return i;
}

static int32_t slots_free(const struct decoder *x)
{
    int32_t n = 0;

    for (int32_t i = 0; i < x->slots; i++)
        n += x->slot[i].state == SLOT_FREE;
    return n;
}

/* ---- one step
 * -------------------------------------------------------------------------------------------------
 */

static size_t slot_length(const struct decoder *x, const struct slot *s)
{
    return s->prompt_len + x->slot[s->owner].out_len;
}

static size_t slot_rows(const struct decoder *x, int32_t i, size_t cap, struct cached_row *rows)
{
    struct slot *s = &x->slot[i];
    const int32_t *out = x->slot[s->owner].out;
    size_t n = 0, length = slot_length(x, s);

    for (; n < cap && s->fed < length; n++, s->fed++) {
        struct cached_row row = {
            .slot = i, .position = (int32_t)s->fed, .logits = s->fed + 1 == length ? i : -1};
        row.token = s->fed < s->prompt_len ? s->prompt[s->fed] : out[s->fed - s->prompt_len];
        s->history[s->fed] = row.token;
        rows[n] = row;
        x->stats->prompt_rows += s->fed < s->prompt_len;
    }
    x->stats->rows += n;
    return n;
}

/* Running sequences first, one row each; prompts share the rest in order of slots. */
static size_t rows_gather(struct decoder *x)
{
    size_t n = 0, cap = (size_t)x->rows_max;

    for (int32_t i = 0; i < x->slots; i++) {
        struct slot *s = &x->slot[i];
        if (s->state != SLOT_FREE && s->donor < 0 && slot_length(x, s) == s->fed + 1)
            n += slot_rows(x, i, cap - n, x->rows + n);
    }
    for (int32_t i = 0; i < x->slots && n < cap; i++) {
        if (x->slot[i].state != SLOT_FREE && x->slot[i].donor < 0)
            n += slot_rows(x, i, cap - n, x->rows + n);
    }
    return n;
}

static void prefixes_take(struct decoder *x)
{
    for (int32_t i = 0; i < x->slots; i++)
        if (x->slot[i].state != SLOT_FREE && x->slot[i].donor >= 0)
            prefix_take(x, i);
}

static bool is_ready(const struct decoder *x, const struct slot *s)
{
    return s->state == SLOT_OWNER && s->fed == slot_length(x, s) &&
           (s->mirror < 0 || x->slot[s->mirror].fed == slot_length(x, &x->slot[s->mirror]));
}

static struct sampler_draw slot_draw(struct decoder *x, int32_t i, bool *is_exhausted)
{
    struct slot *s = &x->slot[i];
    const struct sampling *how = &s->request.sampling;
    struct sampler_draw d = {SAMPLER_NONE, 0.0};
    real *logits = cached_logits(x->net, i);
    size_t V = (size_t)x->vocab;

    *is_exhausted = false;
    sampler_ban(logits, V, x->words->banned, x->words->banned_n);
    if (x->grammar != NULL) {
        size_t n = x->grammar->allowed(x->grammar->self, s->request.key, s->out, s->out_len,
                                       x->allowed, V);
        *is_exhausted = n == 0;
        if (n == 0)
            return d;
        if (n != SIZE_MAX)
            sampler_allow(logits, V, x->allowed, n);
    }
    if (s->mirror >= 0)
        sampler_guide(logits, cached_logits(x->net, s->mirror), V, how->guidance,
                      how->guidance_cut);
    return sampler_pick(logits, V, how, x->seed, s->request.key, s->request.sample,
                        (uint32_t)s->out_len, x->scratch);
}

static bool is_stop_token(const struct decode_vocab *words, int32_t id)
{
    for (size_t i = 0; i < words->stop_tokens_n; i++) {
        if (words->stop_tokens[i] == id)
            return true;
    }
    return false;
}

/* Where the earliest stop string begins in the text that grew from `old` bytes; SIZE_MAX if there
 * is none. */
static size_t stop_find(const struct decoder *x, const struct buf *text, size_t old)
{
    size_t from = old + 1 > x->stop_len_max ? old + 1 - x->stop_len_max : 0, best = SIZE_MAX;

    for (size_t i = 0; i < x->words->stop_strings_n; i++) {
        const char *stop = x->words->stop_strings[i];
        const char *hit = text->len > from
                              ? memmem(text->data + from, text->len - from, stop, strlen(stop))
                              : NULL;
        if (hit != NULL && (size_t)(hit - text->data) < best)
            best = (size_t)(hit - text->data);
    }
    return best;
}

static size_t tokens_within(const struct decoder *x, const struct slot *s, size_t bytes)
{
    size_t n = 0, used = 0;

    while (n < s->out_len && used + x->words->bytes_len[s->out[n]] <= bytes)
        used += x->words->bytes_len[s->out[n++]];
    return n;
}

/* Takes in one drawn token. True if the sequence ends, and was handed over. */
static bool token_take(struct decoder *x, struct slot *s, struct sampler_draw d)
{
    size_t old = s->text.len, cut, longest = s->prompt_len;

    if (s->mirror >= 0 && x->slot[s->mirror].prompt_len > longest)
        longest = x->slot[s->mirror].prompt_len;
    x->stats->tokens++;
    s->logprob_sum += d.logprob;
    if (is_stop_token(x->words, d.id)) {
        request_done(x, s, s->out_len, s->text.len, DECODE_STOP_TOKEN);
        return true;
    }
    s->out[s->out_len++] = d.id;
    if (x->words->bytes != NULL) {
        buf_add(&s->text, x->words->bytes[d.id], x->words->bytes_len[d.id]);
        cut = stop_find(x, &s->text, old);
        if (cut != SIZE_MAX) {
            request_done(x, s, tokens_within(x, s, cut), cut, DECODE_STOP_STRING);
            return true;
        }
    }
    if (s->out_len >= (size_t)s->request.sampling.max_new_tokens) {
        request_done(x, s, s->out_len, s->text.len, DECODE_LENGTH);
        return true;
    }
    if (longest + s->out_len > (size_t)x->context_max) {
        request_done(x, s, s->out_len, s->text.len, DECODE_CONTEXT);
        return true;
    }
    return false;
}

static void slot_release(struct decoder *x, struct slot *s)
{
    if (s->mirror >= 0)
        x->slot[s->mirror].state = SLOT_FREE;
    s->state = SLOT_FREE;
}

static bool is_banned(const struct decode_vocab *words, int32_t id)
{
    for (size_t i = 0; i < words->banned_n; i++)
        if (words->banned[i] == id)
            return true;
    return false;
}

/* Takes in what a grammar leaves no choice about. True if that ended the sequence: it was handed
 * over. A forced token has the log-probability 0. */
static bool forced_take(struct decoder *x, struct slot *s)
{
    while (x->grammar != NULL) {
        size_t n = x->grammar->allowed(x->grammar->self, s->request.key, s->out, s->out_len,
                                       x->allowed, (size_t)x->vocab);
        int32_t id = n == 1 ? x->allowed[0] : -1;
        if (n > 1)
            return false;
        if (n == 0 || id < 0 || id >= x->vocab || is_banned(x->words, id)) {
            request_done(x, s, s->out_len, s->text.len, DECODE_GRAMMAR);
            return true;
        }
        x->stats->forced++;
        if (token_take(x, s, (struct sampler_draw){id, 0.0}))
            return true;
    }
    return false;
}

static void slots_draw(struct decoder *x)
{
    for (int32_t i = 0; i < x->slots; i++) {
        struct slot *s = &x->slot[i];
        struct sampler_draw d;
        bool is_exhausted;
        if (!is_ready(x, s))
            continue;
        d = slot_draw(x, i, &is_exhausted);
        if (d.id < 0) {
            enum decode_end end = d.id == SAMPLER_NOT_FINITE ? DECODE_NUMERIC : DECODE_GRAMMAR;
            request_done(x, s, s->out_len, s->text.len, end);
            slot_release(x, s);
        } else if (token_take(x, s, d) || forced_take(x, s)) {
            slot_release(x, s);
        }
    }
}

/* Fills free slots; *waiting holds a request that needs two slots while one is free. */
static void requests_admit(struct decoder *x, struct decode_request *waiting, bool *has_waiting,
                           bool *ended)
{
    int32_t n_free = slots_free(x);

    while (n_free > 0) {
        int32_t need, at;
        if (!*has_waiting) {
            if (*ended || !x->source->next(x->source->self, waiting)) {
                *ended = true;
                return;
            }
            if (request_is_over(x, waiting))
                continue;
            *has_waiting = true;
        }
        need = is_guided(waiting) ? 2 : 1;
        CHECK(need <= x->slots);
        if (need > n_free)
            return;
        at = slot_take(x, SLOT_OWNER, waiting->prompt, waiting->prompt_len);
        x->slot[at].request = *waiting;
        if (need == 2) {
            int32_t mirror = slot_take(x, SLOT_MIRROR, waiting->uncond, waiting->uncond_len);
            x->slot[at].mirror = mirror;
            x->slot[mirror].owner = at;
        }
        *has_waiting = false;
        if (forced_take(x, &x->slot[at]))
            slot_release(x, &x->slot[at]);
        n_free = slots_free(x);
    }
}

/* ---- the run
 * --------------------------------------------------------------------------------------------------
 */

static void run_begin(struct decoder *x, const struct decode_vocab *vocab,
                      const struct decode_grammar *grammar, uint64_t seed,
                      struct decode_source *source, struct decode_stats *stats)
{
    x->words = vocab;
    x->grammar = grammar;
    x->source = source;
    x->stats = stats;
    x->seed = seed;
    x->stop_len_max = 0;
    CHECK(vocab->stop_strings_n == 0 || vocab->bytes != NULL);
    for (size_t i = 0; i < vocab->stop_strings_n; i++) {
        size_t len = strlen(vocab->stop_strings[i]);
        CHECK(len > 0);
        if (len > x->stop_len_max)
            x->stop_len_max = len;
    }
    for (int32_t i = 0; i < x->slots; i++)
        x->slot[i].state = SLOT_FREE;
}

/* What the slots remember was read with the weights of before. */
static void weights_load(struct decoder *x, const real *params)
{
    if (params == NULL)
        return;
    cached_load(x->net, params);
    for (int32_t i = 0; i < x->slots; i++)
        x->slot[i].fed = 0;
}

void decode_run(struct decoder *x, const real *params, const struct decode_vocab *vocab,
                const struct decode_grammar *grammar, uint64_t seed, struct decode_source *source,
                struct decode_stats *stats)
{
    struct decode_stats none;
    struct decode_request waiting;
    bool has_waiting = false, ended = false;

    if (stats == NULL)
        stats = &none;
    memset(stats, 0, sizeof(*stats));
    run_begin(x, vocab, grammar, seed, source, stats);
    weights_load(x, params);
    for (;;) {
        int32_t occupied;
        if (source->cancelled != NULL && source->cancelled(source->self))
            return;
        requests_admit(x, &waiting, &has_waiting, &ended);
        occupied = x->slots - slots_free(x);
        if (occupied == 0)
            return;
        cached_step(x->net, x->rows, rows_gather(x));
        prefixes_take(x);
        stats->steps++;
        stats->slot_steps += (uint64_t)occupied;
        slots_draw(x);
    }
}
