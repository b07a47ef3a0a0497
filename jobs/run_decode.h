/*
 * run_decode: prompts to texts with a loaded model: what generate, bootstrap and evaluate share.
 *
 * One thread, a fixed number of slots; the answer to a prompt depends on (seed, key, sample), the
 * prompt and the model alone. A reply ends where its template says (end token, next turn), at a
 * stop string, or when its length is used up; a plain model's text also at BOS (llama2.c's models
 * put it between texts). Control tokens of the template can't come out.
 */
#ifndef JOBS_RUN_DECODE_H
#define JOBS_RUN_DECODE_H

#include "jobs/run.h"
#include "model/decode.h"
#include "modelfile/modeldir.h"

struct run_prompt {
    uint64_t key;
    uint32_t sample;
    struct ids prompt, uncond; /* uncond.n == 0: no guidance whatever sampling says */
    struct sampling sampling;
};
struct run_reply {
    char *text; /* UTF-8, NUL-terminated, no blanks at the ends, no NUL inside; owned */
    size_t len;
    uint32_t tokens; /* drawn, without a stop token */
    double logprob;  /* sum over what was drawn, nats */
    enum decode_end end;
};
struct run_rates {
    uint64_t tokens, prompt_rows, shared_rows; /* shared: rows of prompts that were copied */
    uint64_t steps, slot_steps;                /* slot_steps: slots in use, summed over the steps */
    double wall_ms;
};

/* The weights that a spec asks for; texts differ between them, and with each are the same anywhere. */
enum decode_weights run_decode_weights(const struct decode_spec *d);
/* stop may be NULL. Replies are in the order of the prompts; out[n] is zeroed by the caller and
 * freed by run_replies_free(). done and total of env->progress are rows of prompts. ERR_CANCELLED;
 * ERR_NUMERIC if a logit is not finite; ERR_LIMIT if the cache would not fit RUN_DECODE_BYTES_MAX.
 */
#define RUN_DECODE_SLOTS 64 /* at most: fewer for few prompts, or where the cache would be large */
#define RUN_DECODE_BYTES ((size_t)2 << 30)      /* what more than 8 slots may take */
#define RUN_DECODE_BYTES_MAX ((size_t)16 << 30) /* what 8 may */
int run_decode(const struct model *m, enum decode_weights weights, const struct text_list *stop,
               uint64_t seed, const struct run_prompt *prompts, size_t n, const struct run_env *env,
               struct run_reply *out, struct run_rates *rates, struct err *e);
void run_prompts_free(struct run_prompt *p, size_t n); /* the array as well */
void run_replies_free(struct run_reply *r, size_t n);
/* Is it a whole reply, and not cut off? */
bool run_reply_is_whole(enum decode_end end);

#endif
