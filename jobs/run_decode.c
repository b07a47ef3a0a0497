#include "jobs/run_decode.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

enum { STOPS_MAX = 8 };

struct session {
    const struct model *model;
    const struct text_list *stop;
    const struct run_prompt *prompts;
    size_t n, next, done;
    const struct run_env *env;
    struct run_reply *out;
    size_t broken; /* replies that ended with a logit that is not finite */
    uint64_t broken_key;
    bool cancelled;
};

/* What decode.h wants to know of a tokenizer, in arrays. */
struct words {
    struct decode_vocab vocab;
    const char **bytes;
    uint32_t *bytes_len;
    int32_t *banned;
    int32_t stop_token[STOPS_MAX];
    const char *stop_string[SPEC_LIST_MAX];
};

bool run_reply_is_whole(enum decode_end end)
{
    return end == DECODE_STOP_TOKEN || end == DECODE_STOP_STRING || end == DECODE_GRAMMAR;
}

static bool is_stop(const struct words *w, int32_t id)
{
    for (size_t i = 0; i < w->vocab.stop_tokens_n; i++) {
        if (w->stop_token[i] == id)
            return true;
    }
    return false;
}

static void words_init(struct words *w, const struct model *m, const struct text_list *stop)
{
    const struct tokenizer *t = m->tokenizer;
    const struct template_config *c = &m->steer.template_config;
    size_t V = (size_t)tokenizer_vocab(t), n = 0;

    memset(w, 0, sizeof(*w));
    w->bytes = mem_zalloc((size_t)m->dims.vocab, sizeof(*w->bytes));
    w->bytes_len = mem_zalloc((size_t)m->dims.vocab, sizeof(*w->bytes_len));
    w->banned = mem_zalloc((size_t)m->dims.vocab + TEMPLATE_BANNED_MAX, sizeof(*w->banned));
    for (int32_t id = 0; id < m->dims.vocab; id++)
        w->bytes[id] = (size_t)id < V ? tokenizer_bytes(t, id, &w->bytes_len[id]) : "";
    if (m->steer.role == STEER_NONE) {
        const int32_t ends[] = {tokenizer_eos(t), tokenizer_bos(t)};
        for (size_t i = 0; i < 2; i++) {
            if (ends[i] >= 0)
                w->stop_token[w->vocab.stop_tokens_n++] = ends[i];
        }
    } else {
        w->vocab.stop_tokens_n = template_stops(c, t, w->stop_token, STOPS_MAX);
        n = template_banned(c, t, w->banned, TEMPLATE_BANNED_MAX);
    }
    for (size_t i = 0; i < n; i++) { /* what ends a reply may be drawn */
        if (!is_stop(w, w->banned[i]))
            w->banned[w->vocab.banned_n++] = w->banned[i];
    }
    for (int32_t id = (int32_t)V; id < m->dims.vocab;
         id++) /* rows of the embedding that stand for nothing */
        w->banned[w->vocab.banned_n++] = id;
    for (int i = 0; stop != NULL && i < stop->n; i++) {
        if (stop->v[i][0] != '\0')
            w->stop_string[w->vocab.stop_strings_n++] = stop->v[i];
    }
    w->vocab.bytes = w->bytes;
    w->vocab.bytes_len = w->bytes_len;
    w->vocab.stop_tokens = w->stop_token;
    w->vocab.banned = w->banned;
    w->vocab.stop_strings = w->stop_string;
}

static void words_fini(struct words *w)
{
    free(w->banned);
    free(w->bytes_len);
    free(w->bytes);
}

/* Length without a character at the end that was not finished. */
static size_t whole_characters(const char *text, size_t n)
{
    size_t back = 0, need;
    unsigned char lead;

    while (back < 3 && back < n && ((unsigned char)text[n - 1 - back] & 0xC0) == 0x80)
        back++;
    if (back == n)
        return n;
    lead = (unsigned char)text[n - 1 - back];
    need = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : lead >= 0xC0 ? 2 : 1;
    return need > back + 1 ? n - back - 1 : n;
}

/* Cuts at the earliest stop string, drops NUL bytes and blanks at the ends. */
static void text_tidy(struct buf *b, const struct text_list *stop, bool at_stop)
{
    size_t n = 0, begin = 0;

    for (size_t i = 0; i < b->len; i++) {
        if (b->data[i] != '\0')
            b->data[n++] = b->data[i];
    }
    for (int i = 0; at_stop && stop != NULL && i < stop->n; i++) {
        const char *hit =
            stop->v[i][0] == '\0' ? NULL : memmem(b->data, n, stop->v[i], strlen(stop->v[i]));
        if (hit != NULL)
            n = (size_t)(hit - b->data);
    }
    n = whole_characters(b->data, n);
    while (n > 0 && strchr(" \n\r\t", b->data[n - 1]) != NULL)
        n--;
    while (begin < n && strchr(" \n\r\t", b->data[begin]) != NULL)
        begin++;
    memmove(b->data, b->data + begin, n - begin);
    b->len = n - begin;
    b->data[b->len] = '\0';
}

/* Bytes that are no UTF-8 inside a text (byte tokens in a senseless order) become U+FFFD, as
 * everywhere. */
static void text_take(struct run_reply *r, struct buf *b)
{
    struct buf clean = BUF_INIT;

    if (!json_utf8_valid(b->data, b->len)) {
        for (size_t i = 0; i < b->len;) {
            size_t step = 1;
            while (step < 4 && i + step <= b->len && !json_utf8_valid(b->data + i, step))
                step++;
            if (step <= 4 && i + step <= b->len && json_utf8_valid(b->data + i, step)) {
                buf_add(&clean, b->data + i, step);
                i += step;
            } else {
                buf_str(&clean, "\xef\xbf\xbd");
                i++;
            }
        }
        buf_free(b);
        *b = clean;
    }
    r->len = b->len;
    r->text = buf_take(b);
}

static bool session_next(void *self, struct decode_request *out)
{
    struct session *s = self;
    const struct run_prompt *p;

    if (s->next >= s->n)
        return false;
    p = &s->prompts[s->next];
    *out = (struct decode_request){.key = p->key,
                                   .sample = p->sample,
                                   .prompt = p->prompt.v,
                                   .prompt_len = p->prompt.n,
                                   .uncond = p->uncond.n > 0 ? p->uncond.v : NULL,
                                   .uncond_len = p->uncond.n,
                                   .sampling = p->sampling,
                                   .tag = s->next};
    s->next++;
    return true;
}

static void session_done(void *self, const struct decode_result *r)
{
    struct session *s = self;
    struct run_reply *reply = &s->out[r->tag];
    struct buf text = BUF_INIT;
    size_t drawn = r->sampled - (r->end == DECODE_STOP_TOKEN);

    buf_str(&text, "");
    tokenizer_decode(s->model->tokenizer, r->tokens, drawn, &text);
    text_tidy(&text, s->stop, r->end == DECODE_STOP_STRING);
    text_take(reply, &text);
    reply->tokens = (uint32_t)drawn;
    reply->logprob = r->logprob_sum;
    reply->end = r->end;
    if (r->end == DECODE_NUMERIC && s->broken++ == 0)
        s->broken_key = r->key;
    s->done++;
    if (s->env->progress != NULL)
        s->env->progress(s->env->self, s->done, s->n);
}

static bool session_cancelled(void *self)
{
    struct session *s = self;

    if (!s->cancelled && s->env->cancelled != NULL)
        s->cancelled = s->env->cancelled(s->env->self);
    return s->cancelled;
}

static int32_t context_needed(const struct model *m, const struct run_prompt *prompts, size_t n)
{
    size_t most = 1;

    for (size_t i = 0; i < n; i++) {
        size_t longest =
            prompts[i].prompt.n > prompts[i].uncond.n ? prompts[i].prompt.n : prompts[i].uncond.n;
        int32_t more = prompts[i].sampling.max_new_tokens;
        longest += more > 0 ? (size_t)more : 0;
        if (longest > most)
            most = longest;
    }
    return most < (size_t)m->dims.context ? (int32_t)most : m->dims.context;
}

enum decode_weights run_decode_weights(const struct decode_spec *d)
{
    return strcmp(d->weights, "int8") == 0 ? DECODE_INT8 : DECODE_FP32;
}

/* Texts do not depend on it: enough for all prompts, as far as memory allows. */
static int32_t slots_needed(const struct model *m, enum decode_weights weights,
                            const struct run_prompt *prompts, size_t n, int32_t context)
{
    int32_t slots = 2;

    for (size_t i = 0; i < n && slots < RUN_DECODE_SLOTS; i++)
        slots += prompts[i].uncond.n > 0 ? 2 : 1;
    slots = slots > RUN_DECODE_SLOTS ? RUN_DECODE_SLOTS : slots;
    while (slots > 8 && decoder_bytes(&m->dims, slots, context, weights) > RUN_DECODE_BYTES)
        slots = slots / 2 > 8 ? slots / 2 : 8;
    return slots;
}

static void rates_add(struct run_rates *rates, const struct decode_stats *stats, uint64_t ms)
{
    rates->tokens += stats->tokens;
    rates->prompt_rows += stats->prompt_rows;
    rates->shared_rows += stats->shared_rows;
    rates->steps += stats->steps;
    rates->slot_steps += stats->slot_steps;
    rates->wall_ms += (double)ms;
}

static int session_end(const struct session *s, struct err *e)
{
    if (s->cancelled)
        return err_set(e, ERR_CANCELLED, "asked to stop after %zu of %zu replies", s->done, s->n);
    if (s->broken > 0)
        return err_set(e, ERR_NUMERIC,
                       "%zu of %zu replies met a logit that is not finite, first with key %llu: "
                       "the model is broken",
                       s->broken, s->n, (unsigned long long)s->broken_key);
    return 0;
}

int run_decode(const struct model *m, enum decode_weights weights, const struct text_list *stop,
               uint64_t seed, const struct run_prompt *prompts, size_t n, const struct run_env *env,
               struct run_reply *out, struct run_rates *rates, struct err *e)
{
    struct session s = {
        .model = m, .stop = stop, .prompts = prompts, .n = n, .env = env, .out = out};
    struct decode_source source = {&s, session_next, session_done, session_cancelled};
    int32_t context = context_needed(m, prompts, n);
    int32_t slots = slots_needed(m, weights, prompts, n, context);
    struct decode_stats stats = {0};
    struct decoder *decoder;
    struct words words;
    uint64_t start = clock_ms();

    if (m->dims.head != HEAD_LM)
        return err_set(e, ERR_INVALID, "the model has a regression head: it can't write text");
    if (decoder_bytes(&m->dims, slots, context, weights) > RUN_DECODE_BYTES_MAX)
        return err_set(e, ERR_LIMIT,
                       "decoding %d sequences of %d tokens needs %zu bytes, the bound is %zu",
                       (int)slots, (int)context, decoder_bytes(&m->dims, slots, context, weights),
                       RUN_DECODE_BYTES_MAX);
    words_init(&words, m, stop);
    decoder = decoder_new(&m->dims, slots, context, weights);
    decoder_set_progress(decoder, env->heartbeat);
    decode_run(decoder, m->params, &words.vocab, NULL, seed, &source, &stats);
    decoder_free(decoder);
    words_fini(&words);
    if (rates != NULL)
        rates_add(rates, &stats, clock_ms() - start);
    return session_end(&s, e);
}

void run_prompts_free(struct run_prompt *p, size_t n)
{
    for (size_t i = 0; p != NULL && i < n; i++) {
        ids_free(&p[i].prompt);
        ids_free(&p[i].uncond);
    }
    free(p);
}

void run_replies_free(struct run_reply *r, size_t n)
{
    for (size_t i = 0; r != NULL && i < n; i++)
        free(r[i].text);
    free(r);
}
