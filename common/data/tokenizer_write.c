/*
 * Writing a tokenizer.json that other implementations open and agree with.
 *
 * A tokenizer that was read from a tokenizer.json is that file again, with the tokens added since
 * appended to added_tokens; everything else is kept. One that came from llama2.c or is synthetic is
 * written whole. llama2.c has scores, the file has merges in order: every way to cut a piece in two
 * becomes a merge, at the place of the piece's score. Where two pieces share a score llama2.c takes
 * the leftmost pair, which a list can't say: the lower id goes first then, and a line in the log
 * says so.
 */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "json/json_file.h"
#include "data/tokenizer_parts.h"

#define SPACE_CHAR "\xe2\x96\x81"

static void utf8_put(struct buf *b, uint32_t c)
{
    if (c < 0x80) {
        buf_char(b, (char)c);
    } else { /* stand-ins of bytes end at U+0143 */
        buf_char(b, (char)(0xc0 | c >> 6));
        buf_char(b, (char)(0x80 | (c & 0x3f)));
    }
}

/* Text of a piece as the file spells it. */
static void piece_spell(const struct tokenizer *t, int32_t id, struct buf *out)
{
    const struct tokenizer_piece *p = &t->pieces.v[id];
    const char *text = t->pieces.text.data + p->at;

    buf_clear(out);
    for (size_t i = 0; i < p->len; i++) {
        if ((p->flags & PIECE_ADDED) != 0)
            buf_char(out, text[i]);
        else if ((p->flags & PIECE_BYTE) != 0)
            buf_printf(out, "<0x%02X>", (unsigned)(uint8_t)text[i]);
        else if (t->kind == TOKENIZER_BYTE_LEVEL)
            utf8_put(out, tokenizer_byte_char((uint8_t)text[i]));
        else if (text[i] == ' ')
            buf_str(out, SPACE_CHAR);
        else
            buf_char(out, text[i]);
    }
}

static void quote_piece(const struct tokenizer *t, int32_t id, struct buf *scratch, struct buf *out)
{
    piece_spell(t, id, scratch);
    json_quote(scratch->data, scratch->len, out);
}

static int merge_order(const void *a, const void *b)
{
    const struct tokenizer_pair *x = a, *y = b;

    if (x->rank != y->rank)
        return x->rank < y->rank ? -1 : 1;
    if (x->id != y->id)
        return x->id < y->id ? -1 : 1;
    return x->left < y->left ? -1 : x->left > y->left; /* cuts of one piece: any fixed order */
}

static void merges_put(const struct tokenizer *t, struct buf *scratch, struct buf *out)
{
    struct tokenizer_pair *pair = mem_zalloc(t->pairs.n, sizeof *pair);
    size_t n = 0;
    struct buf line = BUF_INIT;

    for (size_t i = 0; i < t->pairs.slots; i++)
        if (t->pairs.slot[i].left >= 0)
            pair[n++] = t->pairs.slot[i];
    qsort(pair, n, sizeof *pair, merge_order);
    buf_str(out, "\"merges\":[");
    for (size_t i = 0; i < n; i++) { /* the "a b" form: older readers know no other */
        buf_clear(&line);
        piece_spell(t, pair[i].left, scratch);
        buf_add(&line, scratch->data, scratch->len);
        buf_char(&line, ' ');
        piece_spell(t, pair[i].right, scratch);
        buf_add(&line, scratch->data, scratch->len);
        buf_str(out, i == 0 ? "\n" : ",\n");
        json_quote(line.data, line.len, out);
    }
    buf_str(out, "]");
    buf_free(&line);
    free(pair);
}

static void added_put(const struct tokenizer *t, int32_t id, struct buf *scratch, struct buf *out)
{
    buf_printf(out, "{\"id\":%d,\"content\":", id);
    quote_piece(t, id, scratch, out);
    buf_printf(out,
               ",\"single_word\":false,\"lstrip\":false,\"rstrip\":false,\"normalized\":false,"
               "\"special\":%s}",
               (t->pieces.v[id].flags & PIECE_SPECIAL) != 0 ? "true" : "false");
}

static const char fallback_pipeline[] =
    "\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\",\"prepend\":"
    "\"" SPACE_CHAR "\"},"
    "{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"" SPACE_CHAR "\"}]},\n"
    "\"pre_tokenizer\":null,\n"
    "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<"
    "s>\",\"type_id\":0}},"
    "{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}],\"pair\":[{\"SpecialToken\":{\"id\":\"<s>\","
    "\"type_id\":0}},"
    "{\"Sequence\":{\"id\":\"A\",\"type_id\":0}},{\"SpecialToken\":{\"id\":\"<s>\",\"type_id\":1}},"
    "{\"Sequence\":{\"id\":\"B\",\"type_id\":1}}],\"special_tokens\":{\"<s>\":{\"id\":\"<s>\","
    "\"ids\":[1],"
    "\"tokens\":[\"<s>\"]}}},\n"
    "\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":{"
    "\"String\":\"" SPACE_CHAR "\"},"
    "\"content\":\" \"},{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"},"
    "{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}]},\n";
static const char byte_level_pipeline[] =
    "\"normalizer\":null,\n"
    "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,"
    "\"use_regex\":false},\n"
    "\"post_processor\":null,\n"
    "\"decoder\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_"
    "regex\":false},\n";

static bool in_vocab(const struct tokenizer *t, int32_t id)
{
    uint8_t flags = t->pieces.v[id].flags;

    return (flags & PIECE_ADDED) == 0 ||
           (flags & PIECE_UNTEXT) == 0; /* <unk>, <s>, </s> of llama2.c are in both */
}

static void whole_put(const struct tokenizer *t, struct buf *out)
{
    bool fallback = t->kind == TOKENIZER_BYTE_FALLBACK;
    struct buf scratch = BUF_INIT;

    buf_str(out, "{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,\n\"added_tokens\":[");
    for (size_t i = 0; i < t->added_n; i++) {
        buf_str(out, i == 0 ? "\n" : ",\n");
        added_put(t, t->added[i], &scratch, out);
    }
    buf_str(out, "],\n");
    buf_str(out, fallback ? fallback_pipeline : byte_level_pipeline);
    buf_printf(out,
               "\"model\":{\"type\":\"BPE\",\"dropout\":null,\"unk_token\":%s,\"continuing_subword_"
               "prefix\":null,"
               "\"end_of_word_suffix\":null,\"fuse_unk\":%s,\"byte_fallback\":%s,\"ignore_merges\":"
               "false,\n\"vocab\":{",
               fallback ? "\"<unk>\"" : "null", fallback ? "true" : "false",
               fallback ? "true" : "false");
    for (int32_t id = 0, n = 0; (size_t)id < t->pieces.n; id++) {
        if (!in_vocab(t, id))
            continue;
        buf_str(out, n++ == 0 ? "\n" : ",\n");
        quote_piece(t, id, &scratch, out);
        buf_printf(out, ":%d", id);
    }
    buf_str(out, "},\n");
    merges_put(t, &scratch, out);
    buf_str(out, "}}\n");
    buf_free(&scratch);
}

/* The file as it was read, with the tokens added since. */
static void source_put(const struct tokenizer *t, struct buf *out)
{
    struct err e = {0};
    cJSON *root = NULL, *list;
    struct buf scratch = BUF_INIT, one = BUF_INIT;
    char *text;
    size_t had;

    CHECK(json_parse(t->source, strlen(t->source), JSON_LIMITS_FILE, &root, &e) ==
          0); /* it was parsed before */
    list = cJSON_GetObjectItemCaseSensitive(root, "added_tokens");
    if (!cJSON_IsArray(list)) {
        cJSON_DeleteItemFromObjectCaseSensitive(root, "added_tokens");
        list = cJSON_AddArrayToObject(root, "added_tokens");
    }
    had = (size_t)cJSON_GetArraySize(list);
    for (size_t i = had; i < t->added_n; i++) {
        buf_clear(&one);
        added_put(t, t->added[i], &scratch, &one);
        cJSON_AddItemToArray(list, cJSON_ParseWithLength(one.data, one.len));
    }
    text = cJSON_PrintUnformatted(root);
    CHECK(text != NULL);
    buf_str(out, text);
    buf_char(out, '\n');
    cJSON_free(text);
    cJSON_Delete(root);
    buf_free(&scratch);
    buf_free(&one);
}

static void token_set(const struct tokenizer *t, cJSON *config, const char *key, int32_t id)
{
    char *text;

    if (id < 0 || json_get(config, key) != NULL)
        return;
    text = mem_strndup(t->pieces.text.data + t->pieces.v[id].at, t->pieces.v[id].len);
    cJSON_AddStringToObject(config, key, text);
    free(text);
}

static int config_write(const struct tokenizer *t, const char *dir, struct err *e)
{
    int rc;
    cJSON *config = NULL, *map = cJSON_CreateObject();

    if (t->source_config != NULL)
        CHECK(json_parse(t->source_config, strlen(t->source_config), JSON_LIMITS_FILE, &config,
                         e) == 0);
    else
        config = cJSON_CreateObject();
    if (json_get(config, "tokenizer_class") == NULL)
        cJSON_AddStringToObject(config, "tokenizer_class", "PreTrainedTokenizerFast");
    token_set(t, config, "bos_token", t->bos);
    token_set(t, config, "eos_token", t->eos);
    if (t->unk >= 0)
        token_set(t, config, "unk_token", t->unk);
    if (json_get(config, "clean_up_tokenization_spaces") == NULL)
        cJSON_AddFalseToObject(config, "clean_up_tokenization_spaces");
    token_set(t, map, "bos_token", t->bos);
    token_set(t, map, "eos_token", t->eos);
    token_set(t, map, "unk_token", t->unk);
    rc = json_file_write(dir, "tokenizer_config.json", config, e);
    if (rc == 0)
        rc = json_file_write(dir, "special_tokens_map.json", map, e);
    cJSON_Delete(config);
    cJSON_Delete(map);
    return rc;
}

int tokenizer_write(const struct tokenizer *t, const char *dir, struct err *e)
{
    int rc;
    char *path = mem_printf("%s/tokenizer.json", dir);
    struct buf out = BUF_INIT;

    if (t->source != NULL)
        source_put(t, &out);
    else
        whole_put(t, &out);
    if (t->tied_ranks)
        log_warn("tokenizer.equal_scores", "file=%s", path);
    rc = file_write_atomic(path, out.data, out.len, e);
    if (rc == 0)
        rc = config_write(t, dir, e);
    buf_free(&out);
    free(path);
    return rc;
}
