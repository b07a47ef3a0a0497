/*
 * decode: sampling with a KV cache and continuous batching.
 *
 * decode_run() keeps a fixed number of slots; a finished sequence leaves its slot to the next
 * request at once, so that every step is a GEMM over all live sequences. A prefix that another
 * sequence has read, or is reading (samples of one prompt), is copied and not computed again. What
 * is generated depends on (seed, key, sample) and the model alone, not on slots, neighbours, shared
 * prefixes, threads or time: a rerun gives the same bytes on one numerics class. Attribute guidance: a request with guidance != 1 and
 * an unconditioned prompt runs two sequences side by side and decodes with logits = u + g (c - u);
 * tokens whose conditioned logit is more than guidance_cut below the best are dropped (g > 1).
 */
#ifndef MODEL_DECODE_H
#define MODEL_DECODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/team.h"
#include "model/dims.h"
#include "model/real.h"

/* How the linear layers keep their weights: as they are, or in blocks of 8 bits (panel_q8.h), which
 * is a quarter of the memory to read and a little less exact. Embedding, norms and the cache of keys
 * and values stay fp32 in both. */
enum decode_weights { DECODE_FP32, DECODE_INT8 };

struct sampling {
    float temperature;  /* 0 = greedy */
    int32_t top_k;      /* 0 = off */
    float top_p;        /* 1 = off */
    float guidance;     /* 1 = plain */
    float guidance_cut; /* nats; 3.9 by default */
    int32_t max_new_tokens;
};

/* Restricts what may come next: fills allowed ids (ascending) given what was generated so far;
 * returns how many, or SIZE_MAX for "anything". 0 ends the sequence. Where one id alone is allowed it
 * is taken without asking the model: a stretch of such ids is read at once, with the next step. Used
 * for the attribute string. Must be pure. */
struct decode_grammar {
    void *self;
    size_t (*allowed)(void *self, uint64_t key, const int32_t *generated, size_t n, int32_t *ids,
                      size_t cap);
};

struct decode_request {
    uint64_t key;          /* row */
    uint32_t sample;       /* n-th sample of the row */
    size_t tag;            /* the caller's own, given back; nothing depends on it */
    const int32_t *prompt; /* borrowed until done() of this request */
    size_t prompt_len;
    const int32_t *uncond; /* unconditioned prompt; NULL if guidance is 1 */
    size_t uncond_len;
    struct sampling sampling;
};

/* CONTEXT: the cache is full, or a prompt is longer than it (no token then). GRAMMAR: nothing more
 * is allowed. NUMERIC: a logit was not finite; the model is broken. */
enum decode_end {
    DECODE_STOP_TOKEN,
    DECODE_STOP_STRING,
    DECODE_LENGTH,
    DECODE_CONTEXT,
    DECODE_GRAMMAR,
    DECODE_NUMERIC
};
const char *decode_end_name(enum decode_end end); /* "stop_token", "length", ... */

struct decode_result {
    uint64_t key;
    uint32_t sample;
    size_t tag;
    const int32_t *tokens; /* all drawn but a stop token, those of a stop string too; valid during
                              done() only */
    size_t len; /* of tokens: those before a stop string, as far as whole tokens allow; text_len
                   says the rest */
    size_t text_len; /* bytes of the decoded text before a stop string (all bytes if none; 0 without
                        vocab.bytes) */
    size_t sampled;  /* tokens drawn: those of a stop string and a stop token are among them */
    double logprob_sum; /* of the drawn tokens, after restrictions and guidance, before temperature,
                           top-k and top-p */
    enum decode_end end;
};

struct decode_source {
    void *self;
    bool (*next)(void *self, struct decode_request *out);    /* false: no more */
    void (*done)(void *self, const struct decode_result *r); /* in order of completion */
    bool (*cancelled)(void *self);                           /* may be NULL */
};

struct decode_vocab {
    const char *const *bytes; /* text of each token id, for stop strings; NULL if there are none */
    const uint32_t *bytes_len;
    const int32_t *stop_tokens; /* EOS and the like */
    size_t stop_tokens_n;
    const int32_t *banned; /* never sampled (control tokens), ascending */
    size_t banned_n;
    const char *const *stop_strings;
    size_t stop_strings_n;
};

struct decode_stats {
    uint64_t tokens, steps, slot_steps; /* drawn tokens; steps; steps x slots occupied */
    uint64_t forced;                    /* of the tokens: the only ones that were allowed */
    uint64_t rows;                      /* computed */
    uint64_t prompt_rows, shared_rows;  /* of prompts (guidance: both): computed; copied instead */
};

struct decoder; /* KV cache and buffers for `slots` sequences of at most context_max tokens */
/* HEAD_LM only (CHECKed). Guidance takes two slots a request, so it needs slots >= 2. One thread
 * uses a decoder. */
struct decoder *decoder_new(const struct dims *d, int32_t slots, int32_t context_max,
                            enum decode_weights weights);
void decoder_free(struct decoder *x);
size_t decoder_bytes(const struct dims *d, int32_t slots, int32_t context_max,
                     enum decode_weights weights);
void decoder_set_progress(struct decoder *x, uint64_t *counter);
/* Threads that help with each step; borrowed, NULL: none. For few streams on an idle machine: one
 * waits for memory, which more threads read faster. The bytes that come out stay the same. */
void decoder_set_team(struct decoder *x, struct team *team);
size_t decoder_weight_bytes(const struct decoder *x); /* what each step reads */
/* Ends when next() has no more and all are done, or soon after cancelled(): done() is then not
 * called for what was under way. vocab is borrowed for the call, params until the next one that
 * brings some: NULL means those of the call before, whose prompts may still be in the cache.
 * Requests need prompt_len >= 1 and ids below the vocabulary (CHECKed). */
void decode_run(struct decoder *x, const real *params, const struct decode_vocab *vocab,
                const struct decode_grammar *grammar, uint64_t seed, struct decode_source *source,
                struct decode_stats *stats);

#endif
