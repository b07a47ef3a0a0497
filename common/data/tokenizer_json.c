/*
 * Hugging Face tokenizer.json. Components that we run are recognised one by one; any other is
 * refused with its name and its place in the file, because skipping one would give other ids
 * without a word. Members of the two big tables are walked once, never looked up (cJSON's look-up
 * is linear).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "data/tokenizer_parts.h"

#define CONFIG_FILE_MAX (4u << 20)
#define SPACE_CHAR "\xe2\x96\x81"

struct reading {
    struct tokenizer *t;
    const char
        *path; /* of the component being read, for messages: "pre_tokenizer.pretokenizers[1]" */
    bool byte_level, metaspace, replaces_space, byte_fallback;
    const char **text; /* [n] text by id, as in the file */
    bool *is_added;
    size_t n;
};

static int refuse(struct reading *r, const char *what, const char *value, struct err *e)
{
    return err_set(e, ERR_UNSUPPORTED, "%s: %s \"%.100s\" is not supported", r->path, what, value);
}

static bool is_absent(const cJSON *j)
{
    return j == NULL || cJSON_IsNull(j);
}

static bool is_text(const cJSON *object, const char *key, const char *want)
{
    const cJSON *j = json_get(object, key);

    return cJSON_IsString(j) && strcmp(j->valuestring, want) == 0;
}

/* Calls one(component) for a component, or for each member of a Sequence, whose members must be
 * plain. */
static int components_walk(struct reading *r, const cJSON *c, const char *path, const char *members,
                           int (*one)(struct reading *, const cJSON *, const char *, struct err *),
                           struct err *e)
{
    int rc = 0, i = 0;
    const char *type;

    r->path = path;
    if (is_absent(c))
        return 0;
    if ((rc = json_need_string(c, "type", &type, e)) != 0)
        return err_wrap(e, "%s", path);
    if (strcmp(type, "Sequence") != 0)
        return one(r, c, type, e);
    if (!cJSON_IsArray(json_get(c, members)))
        return err_set(e, ERR_INVALID, "%s.%s is not an array", path, members);
    for (const cJSON *m = json_get(c, members)->child; rc == 0 && m != NULL; m = m->next, i++) {
        char *place = mem_printf("%s.%s[%d]", path, members, i);
        r->path = place;
        rc = json_need_string(m, "type", &type, e);
        rc = rc != 0 ? err_wrap(e, "%s", place) : one(r, m, type, e);
        r->path = path;
        free(place);
    }
    return rc;
}

static int on_normalizer(struct reading *r, const cJSON *c, const char *type, struct err *e)
{
    if (strcmp(type, "NFC") == 0) {
        r->t->nfc = true;
    } else if (strcmp(type, "Prepend") == 0) {
        if (!is_text(c, "prepend", SPACE_CHAR))
            return refuse(r, "prepend", json_string_or(c, "prepend", "?"), e);
        r->t->prefix = PREFIX_ALWAYS;
    } else if (strcmp(type, "Replace") == 0) {
        if (!is_text(json_get(c, "pattern"), "String", " ") || !is_text(c, "content", SPACE_CHAR))
            return refuse(r, "Replace to", json_string_or(c, "content", "?"), e);
        r->replaces_space = true;
    } else {
        return refuse(r, "normalizer", type, e);
    }
    return 0;
}

static int stage_push(struct reading *r, const struct tokenizer_pattern *p, struct err *e)
{
    if (r->t->stages == TOKENIZER_STAGES_MAX)
        return err_set(e, ERR_LIMIT, "%s: more than %d splitting steps", r->path,
                       TOKENIZER_STAGES_MAX);
    r->t->stage[r->t->stages++] = p;
    return 0;
}

static int on_split(struct reading *r, const cJSON *c, struct err *e)
{
    const char *regex = json_string_or(json_get(c, "pattern"), "Regex", NULL);

    if (regex == NULL || tokenizer_pattern_find(regex) == NULL)
        return refuse(r, "pattern", regex != NULL ? regex : "(no Regex)", e);
    if (!is_text(c, "behavior", "Isolated"))
        return refuse(r, "behavior", json_string_or(c, "behavior", "?"), e);
    if (json_bool_or(c, "invert", false))
        return refuse(r, "invert", "true", e);
    return stage_push(r, tokenizer_pattern_find(regex), e);
}

static int on_metaspace(struct reading *r, const cJSON *c, struct err *e)
{
    const char *scheme = json_string_or(
        c, "prepend_scheme", json_bool_or(c, "add_prefix_space", true) ? "always" : "never");

    if (!is_text(c, "replacement", SPACE_CHAR))
        return refuse(r, "replacement", json_string_or(c, "replacement", "?"), e);
    if (json_bool_or(c, "split", true))
        return refuse(r, "split", "true", e);
    if (strcmp(scheme, "always") == 0)
        r->t->prefix = PREFIX_UNLESS_SPACE;
    else if (strcmp(scheme, "first") == 0)
        r->t->prefix = PREFIX_FIRST;
    else if (strcmp(scheme, "never") != 0)
        return refuse(r, "prepend_scheme", scheme, e);
    r->metaspace = true;
    return 0;
}

static int on_pre_tokenizer(struct reading *r, const cJSON *c, const char *type, struct err *e)
{
    if (r->byte_level || r->metaspace)
        return refuse(r, "a step after ByteLevel or Metaspace:", type, e);
    if (strcmp(type, "Split") == 0)
        return on_split(r, c, e);
    if (strcmp(type, "Digits") == 0)
        return stage_push(r, tokenizer_pattern_digits(json_bool_or(c, "individual_digits", false)),
                          e);
    if (strcmp(type, "Metaspace") == 0)
        return on_metaspace(r, c, e);
    if (strcmp(type, "ByteLevel") != 0)
        return refuse(r, "pre_tokenizer", type, e);
    r->byte_level = true;
    if (json_bool_or(c, "add_prefix_space", true)) {
        if (r->t->stages > 0)
            return refuse(r, "add_prefix_space after a split:", "true", e);
        r->t->prefix = PREFIX_UNLESS_SPACE;
    }
    return json_bool_or(c, "use_regex", true) ? stage_push(r, tokenizer_pattern_gpt2(), e) : 0;
}

static int on_decoder(struct reading *r, const cJSON *c, const char *type, struct err *e)
{
    static const char *const known[] = {"ByteLevel", "Replace", "ByteFallback",
                                        "Fuse",      "Strip",   "Metaspace"};

    (void)c;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(type, known[i]) == 0)
            return 0;
    return refuse(r, "decoder", type, e);
}

/* These only add BOS, EOS or type ids, which is the template's business here. */
static int on_post_processor(struct reading *r, const cJSON *c, const char *type, struct err *e)
{
    (void)c;
    if (strcmp(type, "ByteLevel") == 0 || strcmp(type, "TemplateProcessing") == 0)
        return 0;
    return refuse(r, "post_processor", type, e);
}

static int id_take(struct reading *r, const char *place, const char *text, const cJSON *id,
                   bool added, struct err *e)
{
    double v = cJSON_IsNumber(id) ? id->valuedouble : -1;
    size_t i;

    if (!(v >= 0 && v < (double)r->n) || v != (double)(size_t)v)
        return err_set(e, ERR_INVALID,
                       "%s: token \"%.100s\" has id %g, must be an integer 0..%zu without holes",
                       place, text, v, r->n - 1);
    if (strlen(text) == 0 || strlen(text) > TOKENIZER_PIECE_BYTES_MAX)
        return err_set(e, ERR_LIMIT, "%s: token %g has %zu bytes, must be 1..%d", place, v,
                       strlen(text), TOKENIZER_PIECE_BYTES_MAX);
    i = (size_t)v;
    if (r->text[i] != NULL && (strcmp(r->text[i], text) != 0 || r->is_added[i]))
        return err_set(e, ERR_INVALID, "%s: tokens \"%.100s\" and \"%.100s\" share id %zu", place,
                       r->text[i], text, i);
    r->text[i] = text;
    r->is_added[i] = added;
    return 0;
}

static int ids_collect(struct reading *r, const cJSON *vocab, const cJSON *added, struct err *e)
{
    int rc = 0, i = 0;
    size_t most = (size_t)cJSON_GetArraySize(vocab) + (size_t)cJSON_GetArraySize(added);

    if (most == 0 || most > TOKENIZER_IDS_MAX)
        return err_set(e, ERR_LIMIT, "model.vocab and added_tokens hold %zu tokens, must be 1..%d",
                       most, TOKENIZER_IDS_MAX);
    r->n = most;
    r->text = mem_zalloc(most, sizeof *r->text);
    r->is_added = mem_zalloc(most, sizeof *r->is_added);
    for (const cJSON *m = vocab->child; rc == 0 && m != NULL; m = m->next)
        rc = id_take(r, "model.vocab", m->string, m, false, e);
    for (const cJSON *m = added != NULL ? added->child : NULL; rc == 0 && m != NULL;
         m = m->next, i++) {
        char place[48];
        const char *content;
        snprintf(place, sizeof place, "added_tokens[%d]", i);
        rc = json_need_string(m, "content", &content, e);
        rc = rc != 0 ? err_wrap(e, "%s", place)
                     : id_take(r, place, content, json_get(m, "id"), true, e);
        if (rc == 0 && json_bool_or(m, "single_word", false))
            rc = err_set(e, ERR_UNSUPPORTED, "%s: single_word \"true\" is not supported", place);
    }
    while (rc == 0 && r->n > 0 && r->text[r->n - 1] == NULL)
        r->n--; /* an added token may also be in the vocabulary: fewer ids than entries */
    for (size_t id = 0; rc == 0 && id < r->n; id++)
        if (r->text[id] == NULL)
            rc = err_set(e, ERR_INVALID, "no token has id %zu, of %zu ids", id, r->n);
    return rc;
}

static int hex_byte(const char *text)
{
    unsigned v;
    char back[8];

    if (strlen(text) != 6 || strncmp(text, "<0x", 3) != 0 || sscanf(text + 3, "%2X", &v) != 1)
        return -1;
    snprintf(back, sizeof back, "<0x%02X>", v);
    return strcmp(text, back) == 0 ? (int)v : -1;
}

/* Text of a file with U+2581 as a space. */
static void space_text(const char *text, struct buf *out)
{
    for (size_t i = 0, len = strlen(text); i < len;) {
        size_t n = tokenizer_fallback_space(text + i, len - i);
        buf_char(out, n != 0 ? ' ' : text[i]);
        i += n != 0 ? n : 1;
    }
}

static int pieces_fill(struct reading *r, struct err *e)
{
    struct tokenizer *t = r->t;
    struct buf bytes = BUF_INIT;

    for (size_t id = 0; id < r->n; id++) {
        const char *text = r->text[id];
        int byte = t->kind == TOKENIZER_BYTE_FALLBACK && !r->is_added[id] && r->byte_fallback
                       ? hex_byte(text)
                       : -1;
        uint8_t flags = 0;
        buf_clear(&bytes);
        if (byte >= 0) {
            buf_char(&bytes, (char)byte);
            flags = PIECE_BYTE | PIECE_UNTEXT;
            t->byte_id[byte] = (int32_t)id;
        } else if (r->is_added[id]) {
            buf_str(&bytes, text);
            flags = PIECE_ADDED | PIECE_UNTEXT;
        } else if (t->kind == TOKENIZER_BYTE_FALLBACK) {
            space_text(text, &bytes);
        } else if (!tokenizer_byte_text(text, strlen(text), &bytes)) {
            buf_clear(&bytes);
            buf_str(&bytes, text);
            flags = PIECE_UNTEXT;
        }
        tokenizer_pieces_add(&t->pieces, bytes.data, bytes.len, flags);
    }
    buf_free(&bytes);
    if (tokenizer_pieces_index(&t->pieces, e) != 0)
        return err_wrap(e, "model.vocab");
    for (int b = 0; t->kind == TOKENIZER_BYTE_LEVEL && b < 256; b++) {
        char byte = (char)b;
        t->byte_id[b] = tokenizer_pieces_find(&t->pieces, &byte, 1);
    }
    return 0;
}

static void added_flags(struct reading *r, const cJSON *added)
{
    for (const cJSON *m = added != NULL ? added->child : NULL; m != NULL; m = m->next) {
        int32_t id = (int32_t)json_get(m, "id")->valuedouble;
        uint8_t *flags = &r->t->pieces.v[id].flags;
        if (json_bool_or(m, "special", false))
            *flags |= PIECE_SPECIAL;
        if (json_bool_or(m, "lstrip", false))
            *flags |= PIECE_LSTRIP;
        if (json_bool_or(m, "rstrip", false))
            *flags |= PIECE_RSTRIP;
        tokenizer_added_push(r->t, id);
    }
}

static int merge_split(const cJSON *m, int i, const char *part[2], size_t len[2], struct err *e)
{
    if (cJSON_IsString(m)) {
        const char *space = strchr(m->valuestring, ' ');
        if (space == NULL || strchr(space + 1, ' ') != NULL)
            return err_set(e, ERR_INVALID, "model.merges[%d]: \"%.100s\" is not two tokens", i,
                           m->valuestring);
        part[0] = m->valuestring;
        len[0] = (size_t)(space - m->valuestring);
        part[1] = space + 1;
        len[1] = strlen(space + 1);
        return 0;
    }
    if (!cJSON_IsArray(m) || cJSON_GetArraySize(m) != 2 || !cJSON_IsString(m->child) ||
        !cJSON_IsString(m->child->next))
        return err_set(e, ERR_INVALID, "model.merges[%d] is neither \"a b\" nor [\"a\",\"b\"]", i);
    for (int k = 0; k < 2; k++) {
        part[k] = k == 0 ? m->child->valuestring : m->child->next->valuestring;
        len[k] = strlen(part[k]);
    }
    return 0;
}

static int merges_read(struct reading *r, const cJSON *merges, struct err *e)
{
    int rc = 0, i = 0;
    struct tokenizer_pieces names = {0}; /* the file's own spelling -> id */
    struct buf joined = BUF_INIT;

    for (size_t id = 0; id < r->n; id++)
        tokenizer_pieces_add(&names, r->text[id], strlen(r->text[id]), 0);
    rc = tokenizer_pieces_index(&names, e);
    tokenizer_pairs_init(&r->t->pairs, (size_t)cJSON_GetArraySize(merges));
    for (const cJSON *m = merges->child; rc == 0 && m != NULL; m = m->next, i++) {
        const char *part[2];
        size_t len[2];
        int32_t id[3];
        if ((rc = merge_split(m, i, part, len, e)) != 0)
            break;
        buf_clear(&joined);
        buf_add(&joined, part[0], len[0]);
        buf_add(&joined, part[1], len[1]);
        id[0] = tokenizer_pieces_find(&names, part[0], len[0]);
        id[1] = tokenizer_pieces_find(&names, part[1], len[1]);
        id[2] = tokenizer_pieces_find(&names, joined.data, joined.len);
        for (int k = 0; rc == 0 && k < 3; k++)
            if (id[k] < 0)
                rc = err_set(e, ERR_INVALID,
                             "model.merges[%d]: token \"%.*s\" is not in model.vocab", i,
                             (int)(k < 2 ? len[k] : joined.len), k < 2 ? part[k] : joined.data);
        if (rc == 0)
            tokenizer_pairs_put(&r->t->pairs, id[0], id[1], (uint32_t)i, id[2]);
    }
    buf_free(&joined);
    buf_free(&names.text);
    free(names.v);
    free(names.slot);
    return rc;
}

static int model_check(struct reading *r, const cJSON *model, struct err *e)
{
    static const char *const affixes[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    const cJSON *dropout = json_get(model, "dropout");

    r->path = "model";
    if (!cJSON_IsObject(model))
        return err_set(e, ERR_INVALID, "model is missing");
    if (json_get(model, "type") != NULL && !is_text(model, "type", "BPE"))
        return refuse(r, "type", json_string_or(model, "type", "?"), e);
    for (int i = 0; i < 2; i++)
        if (*json_string_or(model, affixes[i], "") != '\0')
            return refuse(r, affixes[i], json_string_or(model, affixes[i], ""), e);
    if (!is_absent(dropout) && dropout->valuedouble != 0)
        return refuse(r, "dropout", "other than null", e);
    if (!cJSON_IsObject(json_get(model, "vocab")) || !cJSON_IsArray(json_get(model, "merges")))
        return err_set(e, ERR_INVALID, "model.vocab must be an object and model.merges an array");
    r->byte_fallback = json_bool_or(model, "byte_fallback", false);
    r->t->ignore_merges = json_bool_or(model, "ignore_merges", false);
    r->t->fuse_unk = json_bool_or(model, "fuse_unk", false);
    return 0;
}

static int kind_decide(struct reading *r, struct err *e)
{
    struct tokenizer *t = r->t;

    if (r->byte_level) {
        if (r->replaces_space || r->byte_fallback || t->prefix == PREFIX_ALWAYS)
            return err_set(
                e, ERR_UNSUPPORTED,
                "ByteLevel together with Prepend, Replace or byte_fallback is not supported");
        t->kind = TOKENIZER_BYTE_LEVEL;
        return 0;
    }
    if (t->stages > 0 || (!r->replaces_space && !r->metaspace))
        return err_set(e, ERR_UNSUPPORTED,
                       "neither a ByteLevel nor a Metaspace (U+2581) tokenizer");
    if (t->ignore_merges)
        return err_set(e, ERR_UNSUPPORTED,
                       "model: ignore_merges without ByteLevel is not supported");
    t->kind = TOKENIZER_BYTE_FALLBACK;
    return 0;
}

static int whole_read(struct reading *r, const cJSON *root, struct err *e)
{
    const cJSON *model = json_get(root, "model"), *added = json_get(root, "added_tokens");
    const char *unk;
    int rc;

    if (!cJSON_IsObject(root))
        return err_set(e, ERR_INVALID, "not a JSON object");
    if (is_absent(added))
        added = NULL;
    else if (!cJSON_IsArray(added))
        return err_set(e, ERR_INVALID, "added_tokens is not an array");
    if ((rc = model_check(r, model, e)) != 0 ||
        (rc = components_walk(r, json_get(root, "normalizer"), "normalizer", "normalizers",
                              on_normalizer, e)) != 0 ||
        (rc = components_walk(r, json_get(root, "pre_tokenizer"), "pre_tokenizer", "pretokenizers",
                              on_pre_tokenizer, e)) != 0 ||
        (rc = components_walk(r, json_get(root, "decoder"), "decoder", "decoders", on_decoder,
                              e)) != 0 ||
        (rc = components_walk(r, json_get(root, "post_processor"), "post_processor", "processors",
                              on_post_processor, e)) != 0 ||
        (rc = kind_decide(r, e)) != 0 ||
        (rc = ids_collect(r, json_get(model, "vocab"), added, e)) != 0 ||
        (rc = pieces_fill(r, e)) != 0 || (rc = merges_read(r, json_get(model, "merges"), e)) != 0)
        return rc;
    added_flags(r, added);
    unk = json_string_or(model, "unk_token", NULL);
    if (unk != NULL && (r->t->unk = tokenizer_id(r->t, unk)) < 0)
        return err_set(e, ERR_INVALID, "model.unk_token \"%.100s\" is not in model.vocab", unk);
    return 0;
}

/* A token of tokenizer_config.json: a string, an object with "content", or null. */
static int32_t config_token(const struct tokenizer *t, const cJSON *config, const char *key)
{
    const cJSON *j = json_get(config, key);
    const char *text = cJSON_IsString(j) ? j->valuestring : json_string_or(j, "content", NULL);

    return text != NULL ? tokenizer_id(t, text) : -1;
}

static int ends_find(const char *path, struct tokenizer *t, struct err *e)
{
    static const char *const usual[][2] = {{"<s>", "</s>"},
                                           {"<|begin_of_text|>", "<|end_of_text|>"},
                                           {"<|endoftext|>", "<|endoftext|>"}};
    int rc = 0;
    const char *slash = strrchr(path, '/');
    char *beside =
        mem_printf("%.*stokenizer_config.json", slash != NULL ? (int)(slash + 1 - path) : 0, path);
    struct buf text = BUF_INIT;
    cJSON *config = NULL;

    if (file_exists(beside)) {
        rc = file_read(beside, CONFIG_FILE_MAX, &text, e);
        if (rc == 0)
            rc = json_parse(text.data, text.len, JSON_LIMITS_FILE, &config, e);
        if (rc != 0) {
            err_wrap(e, "%s", beside);
        } else {
            t->bos = config_token(t, config, "bos_token");
            t->eos = config_token(t, config, "eos_token");
            t->source_config = buf_take(&text);
        }
    }
    for (size_t i = 0; config == NULL && t->eos < 0 && i < sizeof usual / sizeof *usual; i++) {
        t->bos = tokenizer_id(t, usual[i][0]);
        t->eos = tokenizer_id(t, usual[i][1]);
    }
    cJSON_Delete(config);
    buf_free(&text);
    free(beside);
    return rc;
}

int tokenizer_json_read(const char *path, struct tokenizer *t, struct err *e)
{
    int rc;
    struct buf file = BUF_INIT;
    cJSON *root = NULL;
    struct reading r = {.t = t};

    t->prefix = PREFIX_NEVER;
    rc = file_read(path, TOKENIZER_FILE_MAX, &file, e);
    if (rc == 0)
        rc = json_parse(file.data, file.len, JSON_LIMITS_FILE, &root, e);
    if (rc == 0)
        rc = whole_read(&r, root, e);
    if (rc == 0)
        rc = ends_find(path, t, e);
    if (rc == 0)
        t->source = buf_take(&file);
    free(r.text);
    free(r.is_added);
    cJSON_Delete(root);
    buf_free(&file);
    return rc;
}
