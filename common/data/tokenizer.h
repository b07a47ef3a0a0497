/*
 * tokenizer: text to ids and back. Kinds: llama2.c tokenizer.bin; Hugging Face tokenizer.json of
 * the byte-level BPE kind (GPT-2, Llama-3, Qwen2, SmolLM2 patterns, recognised by exact text) and
 * of the byte-fallback BPE kind (what our writer makes of tokenizer.bin). Special parsing is off
 * unless asked for: added tokens in user text are encoded as ordinary text, so text can't inject a
 * label.
 */
#ifndef DATA_TOKENIZER_H
#define DATA_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

struct tokenizer;

/* path: tokenizer.json, llama2.c's *.bin, or a model directory that has tokenizer.json or
 * tokenizer.bin. "synthetic:V": benchmark vocabulary of V ids (V >= 258: <s>, </s>, the bytes, and
 * pieces that no text becomes). A loaded tokenizer may be used by many threads at once;
 * tokenizer_add() wants it alone. */
int tokenizer_load(const char *path, struct tokenizer **out, struct err *e);
void tokenizer_free(struct tokenizer *t);
int32_t tokenizer_vocab(const struct tokenizer *t); /* number of ids, added tokens included */
int32_t tokenizer_bos(const struct tokenizer *t);   /* -1 if there is none */
int32_t tokenizer_eos(const struct tokenizer *t);
/* Exact token text, added or not, as the bytes it stands for (" the", not "\u0120the"); -1 if
 * absent. */
int32_t tokenizer_id(const struct tokenizer *t, const char *token);
/* Text of an id as bytes (added tokens: their content). Borrowed until tokenizer_add(). */
const char *tokenizer_bytes(const struct tokenizer *t, int32_t id, uint32_t *len);
bool tokenizer_is_added(const struct tokenizer *t, int32_t id);

enum {
    TOKENIZE_SPECIAL = 1 /* added tokens in the text become their ids */,
    TOKENIZE_CONTINUE = 2 /* no dummy-prefix space */
};
/* Appends ids to *ids (a growing array owned by the caller: free()). No BOS/EOS is added.
 * ERR_INVALID for bad UTF-8. */
struct ids {
    int32_t *v;
    size_t n, cap;
};
int tokenizer_encode(const struct tokenizer *t, const char *text, size_t len, unsigned flags,
                     struct ids *out, struct err *e);
/* Appends bytes (may be partial UTF-8). Special tokens give nothing; the space that encoding puts
 * in front is left out right after a BOS at ids[0], and kept elsewhere. */
void tokenizer_decode(const struct tokenizer *t, const int32_t *ids, size_t n, struct buf *out);
void ids_push(struct ids *a, int32_t id);
void ids_free(struct ids *a);

/* New special tokens at the end of the vocabulary, in order; returns the id of the first.
 * ERR_CONFLICT if one exists. */
int tokenizer_add(struct tokenizer *t, const char *const *tokens, size_t n, int32_t *first,
                  struct err *e);
/* tokenizer.json that other implementations open and agree with (and tokenizer_config.json with
 * bos/eos). */
int tokenizer_write(const struct tokenizer *t, const char *dir, struct err *e);

#endif
