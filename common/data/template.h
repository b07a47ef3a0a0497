/*
 * template: how conversations and attributes become tokens, and which tokens are learnt.
 *
 *   control  BOS, last context_tokens of the turns before, one control token per attribute (level or missing), reply, EOS
 *   plain    text only, no new tokens: "User: ...\nAssistant:" and a line <attr>quality:4,humor:0</attr> in front of the reply; a decoded
 *            reply begins with a blank
 *   nemo     NeMo-Aligner's <extra_id_*> layout (user and assistant turns <extra_id_1>, labels after <extra_id_2>, every turn labelled)
 *   paper    as nemo, but user turns open with <extra_id_0> as printed in arXiv 2310.05344, appendix A
 * Attribute models: head classes reads BOS, message (over 88 tokens: first 44 + last 44), one query token per label; head
 * regression reads the prompt and reply and a last position; head lm reads "... reply <labels>" in the paper's form, quality (attribute 0) first.
 * Text of users is encoded with special parsing off and markers escaped, so it can't inject a label.
 */
#ifndef DATA_TEMPLATE_H
#define DATA_TEMPLATE_H

#include <stddef.h>
#include <stdint.h>

#include "data/dataset.h"
#include "data/schema.h"
#include "data/tokenizer.h"

enum template_name { TEMPLATE_PLAIN, TEMPLATE_CONTROL, TEMPLATE_NEMO, TEMPLATE_PAPER };
enum template_head {
    TEMPLATE_POLICY,
    TEMPLATE_HEAD_LM,
    TEMPLATE_HEAD_CLASSES,
    TEMPLATE_HEAD_REGRESSION
};

struct template_config {
    enum template_name name;
    enum template_head head; /* POLICY: conditioned generation; else an attribute model's */
    struct schema schema;
    int32_t context_tokens;   /* 0 = all that fits */
    int32_t max_reply_tokens; /* 0 = no bound */
    int32_t max_length;       /* rows of one sequence */
    bool loss_on_all;         /* loss on every token but BOS (plain LM); else on responses only */
    int32_t
        control_first; /* control: id of token (attr 0, level 0); levels of attr 0, its missing, attr 1 ... */
    int32_t query_first;                    /* classes: query token of label 0, one per label */
    int32_t class_first[SCHEMA_LABELS_MAX]; /* classes: first class token of label i */
};

/* Adds the tokens that the template needs to t and fills their ids in c. The caller grows the model to tokenizer_vocab(). */
int template_prepare(struct template_config *c, struct tokenizer *t, struct err *e);
int32_t template_control_id(const struct template_config *c, int attr,
                            int level); /* level -1: the missing token */
/* All ids of t that must never be sampled (BOS, control, query, class tokens, marks), ascending; returns how many. Ranges
 * of a configuration that was read may overlap: cap TEMPLATE_BANNED_MAX is enough for any. */
enum {
    TEMPLATE_BANNED_MAX = 2 + SCHEMA_ATTRS_MAX * (SCHEMA_LEVELS_MAX + 1) + SCHEMA_LABELS_MAX +
                          SCHEMA_LABELS_MAX * (SCHEMA_CLASSES_MAX + 1) + 2
};
size_t template_banned(const struct template_config *c, const struct tokenizer *t, int32_t *ids,
                       size_t cap);

/* Ids that end a reply: the end token, and for nemo and paper <extra_id_1>, which opens the next turn; ascending; returns how many. */
size_t template_stops(const struct template_config *c, const struct tokenizer *t, int32_t *ids,
                      size_t cap);
/* Head classes: how many classes a label has: the named ones, or the whole numbers of its scale. */
int template_label_classes(const struct label *l);

/* One training sequence as pieces. Tokens with weight 0 are context; a LABELS piece is filled when assembled. */
enum piece_kind { PIECE_TOKENS, PIECE_LABELS };
struct piece {
    enum piece_kind kind;
    uint32_t begin, end;            /* PIECE_TOKENS: range of ids.v */
    float weight;                   /* loss weight of predicting these tokens */
    int8_t level[SCHEMA_ATTRS_MAX]; /* PIECE_LABELS */
};
struct
    template_target { /* attribute models: what should come out at a row (of the assembled sequence; no LABELS pieces then) */
    uint32_t row;
    int32_t id, lo, hi;            /* classes */
    float score[SCHEMA_ATTRS_MAX]; /* regression: attribute values, NaN missing */
};
struct sequence {
    struct ids ids;
    struct piece piece[64];
    int pieces;
    struct template_target target[SCHEMA_LABELS_MAX];
    int targets;
    bool truncated, over_long; /* cut; reply longer than max_reply_tokens (not used) */
    bool ended;                /* policy: the last token is the reply's end */
};
void sequence_clear(struct sequence *s);
void sequence_free(struct sequence *s);

/* Policy: learn the response at (c, turn) conditioned on level (NULL: the turn's own levels). */
int template_example(const struct template_config *t, const struct tokenizer *tok,
                     const struct conversation *c, uint32_t turn, const int8_t *level,
                     struct sequence *out, struct err *e);
/* Policy: tokens up to where the response at (c, turn) begins, conditioned on level; turn may be c->turns (a new reply). */
int template_prompt(const struct template_config *t, const struct tokenizer *tok,
                    const struct conversation *c, uint32_t turn, const int8_t *level,
                    struct ids *out, struct err *e);
/* Attribute model: the sequence that reads the response at (c, turn), with targets from the human labels where present
 * (all query rows are listed even when the label is missing: id -1 then). */
int template_score(const struct template_config *t, const struct tokenizer *tok,
                   const struct conversation *c, uint32_t turn, struct sequence *out,
                   struct err *e);
/* The same for a reply that stands nowhere yet (generated text). */
int template_score_text(const struct template_config *t, const struct tokenizer *tok,
                        const struct conversation *c, uint32_t turn, const char *reply, size_t len,
                        struct sequence *out, struct err *e);
/* Heads and what template_score() gives:
 *   classes     one target a label, at its query token; lo..hi are its class tokens
 *   regression  one target at the last row; score[attrs], and id 0, or -1 when no score is there; outputs = schema.attrs
 *   lm          no targets: piece 0 is the prompt up to where the label string begins, piece 1 the string to be learnt (absent
 *               when no label is there; then the prompt leaves room in max_length for the longest string and its end) */

/* Head lm: which ids may follow when the label string is decoded: "name:level" of every attribute that is no computed one, in the
 * schema's order, then the end. allowed() has the form of struct decode_grammar's function. Made once, read by all threads. */
struct template_grammar;
int template_grammar_new(const struct template_config *c, const struct tokenizer *t,
                         struct template_grammar **out, struct err *e);
void template_grammar_free(struct template_grammar *g);
size_t template_grammar_allowed(void *grammar, uint64_t key, const int32_t *generated, size_t n,
                                int32_t *ids, size_t cap);
/* Levels that a decoded string says (-1: not said, as it broke off). */
void template_grammar_levels(const struct template_grammar *g, const int32_t *generated, size_t n,
                             int8_t *level);
size_t
template_grammar_longest(const struct template_grammar *g); /* tokens of the longest string */

cJSON *template_to_json(const struct template_config *t);
int template_from_json(const cJSON *j, struct template_config *out, struct err *e);

#endif
