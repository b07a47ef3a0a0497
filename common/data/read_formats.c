/*
 * One function a format: a JSON row in, turns of the draft out. They check types as they go; the path in a problem is the way from the
 * row to the member, with slashes.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/read_row.h"

static bool text_of(struct reader *r, const cJSON *object, const char *key, const char *prefix,
                    const char **out)
{
    const cJSON *item = json_get(object, key);
    char path[160];

    if (cJSON_IsString(item)) {
        *out = item->valuestring;
        return true;
    }
    snprintf(path, sizeof path, "%s%s%s", prefix, prefix[0] != '\0' ? "/" : "", key);
    return row_bad(r, path, item == NULL ? "is missing" : "must be text");
}

/* An id that the row itself carries: text or a number. */
static void draft_id(struct reader *r, const cJSON *row, const char *key)
{
    const cJSON *item = json_get(row, key);
    char text[40];

    if (r->draft.id != NULL || item == NULL)
        return;
    if (cJSON_IsString(item) && item->valuestring[0] != '\0') {
        r->draft.id = arena_text(&r->draft.arena, item->valuestring, strlen(item->valuestring));
    } else if (cJSON_IsNumber(item)) {
        snprintf(text, sizeof text, "%.17g", item->valuedouble);
        r->draft.id = arena_text(&r->draft.arena, text, strlen(text));
    }
}

static const cJSON *list_of(struct reader *r, const cJSON *row, const char *key)
{
    const cJSON *list = json_get(row, key);

    if (cJSON_IsArray(list))
        return list;
    row_bad(r, key, list == NULL ? "is missing" : "must be a list");
    return NULL;
}

/* Does text at p open a turn, as "<extra_id_1>User\n" does? Gives the role and the bytes of the mark. */
static size_t mark_at(const char *p, enum role *role)
{
    static const struct {
        const char *text;
        enum role role;
    } marks[] = {{"<extra_id_0>System\n", ROLE_SYSTEM},
                 {"<extra_id_0>User\n", ROLE_USER}, /* as printed in the paper */
                 {"<extra_id_1>User\n", ROLE_USER},
                 {"<extra_id_1>Assistant\n", ROLE_ASSISTANT}};

    for (size_t i = 0; i < sizeof marks / sizeof marks[0]; i++) {
        if (strncmp(p, marks[i].text, strlen(marks[i].text)) == 0) {
            *role = marks[i].role;
            return strlen(marks[i].text);
        }
    }
    return 0;
}

/* Text that may hold several turns, divided by NeMo's marks; what stands before the first mark is `first`'s. */
static void turns_split(struct reader *r, const char *text, enum role first)
{
    enum role role = first, next = first;
    const char *begin = text, *p = text;
    struct buf part = BUF_INIT;

    while (true) {
        const char *mark = strstr(p, "<extra_id_");
        size_t skip = mark != NULL ? mark_at(mark, &next) : 0, len;
        if (mark != NULL && skip == 0) {
            p = mark + 1;
            continue;
        }
        len = mark != NULL ? (size_t)(mark - begin) : strlen(begin);
        if (len > 0 && begin[len - 1] == '\n')
            len--;
        if (len > 0 || begin != text) {
            buf_clear(&part);
            buf_add(&part, begin, len);
            draft_turn(r, role, "", part.data, false);
        }
        if (mark == NULL)
            break;
        role = next;
        begin = p = mark + skip;
    }
    buf_free(&part);
}

/* prompt, response and one label a column. HelpSteer2's prompts may hold earlier turns behind <extra_id_1> marks. The split goes by the
 * prompt, so that the two responses to one prompt stay on one side. */
static bool pair_read(struct reader *r, const cJSON *row, const char *prompt_key,
                      const char *response_key)
{
    const char *prompt, *response;
    struct turn *t;

    if (!text_of(r, row, prompt_key, "", &prompt) || !text_of(r, row, response_key, "", &response))
        return false;
    r->draft.split_key = arena_text(&r->draft.arena, prompt, strlen(prompt));
    turns_split(r, prompt, ROLE_USER);
    t = draft_turn(r, ROLE_ASSISTANT, "", response, true);
    return draft_labels(r, t, row, "") && draft_end(r);
}

static bool row_helpsteer(struct reader *r, const cJSON *row)
{
    return pair_read(r, row, "prompt",
                     json_get(row, "completion") != NULL ? "completion" : "response");
}

/* OpenAI content: text, or a list of {"type": "text", "text": ...}, joined. */
static bool content_read(struct reader *r, const cJSON *content, const char *path, struct buf *out)
{
    const cJSON *part;

    buf_clear(out);
    buf_str(out, "");
    if (cJSON_IsString(content)) {
        buf_str(out, content->valuestring);
        return true;
    }
    if (!cJSON_IsArray(content))
        return row_bad(r, path, "must be text or a list of text parts");
    cJSON_ArrayForEach(part, content)
    {
        const cJSON *text = json_get(part, "text");
        if (strcmp(json_string_or(part, "type", "text"), "text") != 0 || !cJSON_IsString(text))
            return row_bad(r, path, "has a part that is no text");
        buf_str(out, text->valuestring);
    }
    return true;
}

static bool message_read(struct reader *r, const cJSON *m, int i, struct buf *text)
{
    static const struct {
        const char *name;
        enum role role;
    } roles[] = {{"system", ROLE_SYSTEM}, {"developer", ROLE_SYSTEM},
                 {"user", ROLE_USER},     {"tool", ROLE_USER},
                 {"function", ROLE_USER}, {"assistant", ROLE_ASSISTANT}};
    const size_t n = sizeof roles / sizeof roles[0];
    const char *role;
    const cJSON *attributes = json_get(m, "attributes");
    struct turn *t;
    size_t k;
    char path[64], inner[80];

    snprintf(path, sizeof path, "messages/%d", i);
    if (!text_of(r, m, "role", path, &role))
        return false;
    for (k = 0; k < n && strcmp(roles[k].name, role) != 0; k++)
        ;
    if (k == n)
        return row_bad(r, path, "role \"%.60s\" is unknown", role);
    snprintf(inner, sizeof inner, "%s/content", path);
    if (!content_read(r, json_get(m, "content"), inner, text))
        return false;
    t = draft_turn(r, roles[k].role, "", text->data, roles[k].role == ROLE_ASSISTANT);
    if (attributes == NULL || cJSON_IsNull(attributes))
        return true;
    snprintf(inner, sizeof inner, "%s/attributes", path);
    if (!cJSON_IsObject(attributes))
        return row_bad(r, inner, "must be an object");
    return draft_labels(r, t, attributes, inner);
}

/* {"messages": [{"role", "content", "attributes"?}]}. */
static bool row_messages(struct reader *r, const cJSON *row)
{
    const cJSON *list = list_of(r, row, "messages"), *item;
    struct buf text = BUF_INIT;
    bool good = list != NULL;
    int i = 0;

    draft_id(r, row, "id");
    draft_id(r, row, "conversation_id");
    draft_id(r, row, "prompt_id");
    cJSON_ArrayForEach(item, list)
    {
        good = good && message_read(r, item, i++, &text);
    }
    buf_free(&text);
    return good && draft_end(r);
}

/* {"conversations": [{"from": "human" | "gpt" | "system" ..., "value"}]}. */
static bool row_sharegpt(struct reader *r, const cJSON *row)
{
    static const char *const user[] = {"human", "user", "User", "prompter", "tool", NULL};
    static const char *const assistant[] = {"gpt",     "assistant", "Assistant", "bot",
                                            "chatgpt", "model",     NULL};
    const cJSON *list = list_of(r, row, "conversations"), *item;
    int i = 0;

    if (list == NULL)
        return false;
    draft_id(r, row, "id");
    cJSON_ArrayForEach(item, list)
    {
        enum role role = ROLE_SYSTEM;
        const char *from, *value;
        bool known = false;
        char path[64];
        snprintf(path, sizeof path, "conversations/%d", i++);
        if (!text_of(r, item, "from", path, &from) || !text_of(r, item, "value", path, &value))
            return false;
        for (int k = 0; user[k] != NULL; k++)
            if (strcmp(user[k], from) == 0)
                role = ROLE_USER;
        for (int k = 0; assistant[k] != NULL; k++)
            if (strcmp(assistant[k], from) == 0)
                role = ROLE_ASSISTANT;
        known = role != ROLE_SYSTEM || strcmp(from, "system") == 0;
        if (!known)
            return row_bad(r, path, "from \"%.60s\" is unknown", from);
        draft_turn(r, role, "", value, role == ROLE_ASSISTANT);
    }
    return draft_end(r);
}

/* "quality:4,toxicity:0": names that the schema does not have are not used; -100 is missing; twice the same name is an error. */
static bool label_string_read(struct reader *r, struct turn *t, const char *text, const char *path)
{
    const struct schema *s = r->config->schema;
    char seen[16][SCHEMA_NAME_MAX];
    int n = 0;

    while (*text != '\0') {
        size_t len = strcspn(text, ",\n"), name_len = strcspn(text, ":");
        char name[SCHEMA_NAME_MAX], number[32], *end;
        cJSON value = {.type = cJSON_Number};
        if (name_len >= len || name_len == 0 || name_len >= sizeof name || n == 16 ||
            len - name_len - 1 >= sizeof number)
            return row_bad(r, path, "\"%.80s\" is not name:number", text);
        snprintf(name, sizeof name, "%.*s", (int)name_len, text);
        snprintf(number, sizeof number, "%.*s", (int)(len - name_len - 1), text + name_len + 1);
        value.valuedouble = strtod(number, &end);
        if (end == number || *end != '\0')
            return row_bad(r, path, "\"%s:%s\" is not name:number", name, number);
        for (int i = 0; i < n; i++)
            if (strcmp(seen[i], name) == 0)
                return row_bad(r, path, "\"%s\" stands twice", name);
        memcpy(seen[n++], name, sizeof name);
        if (schema_find_label(s, name) >= 0 &&
            !draft_label(r, t, schema_find_label(s, name), &value, path))
            return false;
        text += len + (text[len] != '\0');
    }
    return true;
}

/* NeMo-Aligner's chat form: {"system", "mask": "User", "type", "conversations": [{"from", "value", "label": null or "quality:4,..."}]}.
 * Turns of the role in `mask` are learnt from by nobody. The labels are read whatever `type` says. */
static bool row_nemo_chat(struct reader *r, const cJSON *row)
{
    const cJSON *list = list_of(r, row, "conversations"), *item;
    const char *mask = json_string_or(row, "mask", "User"),
               *system = json_string_or(row, "system", "");
    int i = 0;

    if (list == NULL)
        return false;
    draft_id(r, row, "id");
    if (system[0] != '\0')
        draft_turn(r, ROLE_SYSTEM, "", system, false);
    cJSON_ArrayForEach(item, list)
    {
        const cJSON *label = json_get(item, "label");
        const char *from, *value;
        struct turn *t;
        bool user;
        char path[64];
        snprintf(path, sizeof path, "conversations/%d", i++);
        if (!text_of(r, item, "from", path, &from) || !text_of(r, item, "value", path, &value))
            return false;
        user = strcmp(from, mask) == 0;
        t = draft_turn(r, user ? ROLE_USER : ROLE_ASSISTANT, "", value, !user);
        snprintf(path, sizeof path, "conversations/%d/label", i - 1);
        if (label == NULL || cJSON_IsNull(label))
            continue;
        if (!cJSON_IsString(label))
            return row_bad(r, path, "must be text or null");
        if (!label_string_read(r, t, label->valuestring, path))
            return false;
    }
    return draft_end(r);
}

/* NeMo-Aligner's regression form: {"text": "<extra_id_0>System\n...<extra_id_2>", "label": [9 numbers]}, -100 = missing. */
static bool row_nemo_regression(struct reader *r, const cJSON *row)
{
    static const char *const order[] = {"quality",    "toxicity",    "humor",
                                        "creativity", "helpfulness", "correctness",
                                        "coherence",  "complexity",  "verbosity"};
    const cJSON *label = list_of(r, row, "label");
    const char *text;
    char *copy;
    size_t len;
    struct turn *t;

    if (label == NULL || !text_of(r, row, "text", "", &text))
        return false;
    if (cJSON_GetArraySize(label) != 9)
        return row_bad(r, "label", "has %d numbers, must have 9", cJSON_GetArraySize(label));
    len = strlen(text);
    while (len > 0 && text[len - 1] == '\n')
        len--;
    if (len < 12 || memcmp(text + len - 12, "<extra_id_2>", 12) != 0)
        return row_bad(r, "text", "must end with <extra_id_2>");
    copy = arena_text(&r->draft.arena, text, len - 12);
    turns_split(r, copy, ROLE_USER);
    if (r->draft.turns == 0 || r->draft.turn[r->draft.turns - 1].role != ROLE_ASSISTANT)
        return row_bad(r, "text", "the last turn must be <extra_id_1>Assistant");
    t = &r->draft.turn[r->draft.turns - 1];
    t->respond = true;
    for (int i = 0; i < 9; i++) {
        int k = schema_find_label(r->config->schema, order[i]);
        if (k >= 0 && !draft_label(r, t, k, cJSON_GetArrayItem(label, i), "label"))
            return false;
    }
    return draft_end(r);
}

/* {"text"}: plain text, all of it learnt. */
static bool row_text(struct reader *r, const cJSON *row)
{
    const char *text;

    if (!text_of(r, row, "text", "", &text))
        return false;
    draft_id(r, row, "id");
    return draft_labels(r, draft_turn(r, ROLE_ASSISTANT, "", text, true), row, "") && draft_end(r);
}

static bool is_response(const struct read_map *m, const char *speaker)
{
    for (int i = 0; i < m->respond_n; i++)
        if (strcmp(m->respond[i], speaker) == 0)
            return true;
    return m->respond_n == 0;
}

/* Members named by the spec. Without `respond` the speakers are peers: every turn is a response to those before it. */
static bool row_map(struct reader *r, const cJSON *row)
{
    const struct read_map *m = &r->config->map;
    const char *text_key = m->text[0] != '\0' ? m->text : "text";
    const cJSON *list, *item;
    int i = 0;

    if (m->id[0] != '\0') {
        draft_id(r, row, m->id);
        if (r->draft.id == NULL)
            return row_bad(r, m->id, "must be text or a number");
    }
    if (m->conversation[0] == '\0')
        return pair_read(r, row, m->prompt[0] != '\0' ? m->prompt : "prompt",
                         m->response[0] != '\0' ? m->response : "response");
    list = list_of(r, row, m->conversation);
    if (list == NULL)
        return false;
    if (m->id[0] == '\0') {
        draft_id(r, row, "conversation_id");
        draft_id(r, row, "id");
    }
    cJSON_ArrayForEach(item, list)
    {
        const char *text, *speaker = "";
        struct turn *t;
        bool respond;
        char path[96];
        snprintf(path, sizeof path, "%s/%d", m->conversation, i++);
        if (!text_of(r, item, text_key, path, &text))
            return false;
        if (m->speaker[0] != '\0' && !text_of(r, item, m->speaker, path, &speaker))
            return false;
        respond = is_response(m, speaker);
        t = draft_turn(r, respond ? ROLE_ASSISTANT : ROLE_USER, speaker, text, respond);
        if (!draft_labels(r, t, item, path))
            return false;
    }
    return draft_end(r);
}

bool row_read(struct reader *r, enum read_format format, const cJSON *row)
{
    static bool (*const rows[READ_FORMAT_COUNT])(struct reader *, const cJSON *) = {
        [READ_MAP] = row_map,
        [READ_HELPSTEER] = row_helpsteer,
        [READ_OASST] = oasst_row,
        [READ_MESSAGES] = row_messages,
        [READ_SHAREGPT] = row_sharegpt,
        [READ_NEMO_CHAT] = row_nemo_chat,
        [READ_NEMO_REGRESSION] = row_nemo_regression,
        [READ_TEXT] = row_text,
    };

    CHECK(rows[format] != NULL);
    return rows[format](r, row);
}

enum read_format row_detect(const cJSON *row)
{
    const cJSON *list = json_get(row, "conversations");

    if ((json_get(row, "message_tree_id") != NULL && cJSON_IsObject(json_get(row, "prompt"))) ||
        cJSON_IsArray(json_get(row, "thread")) ||
        (json_get(row, "message_id") != NULL && json_get(row, "text") != NULL))
        return READ_OASST;
    if (cJSON_IsArray(json_get(row, "messages")))
        return READ_MESSAGES;
    if (cJSON_IsArray(list)) {
        const cJSON *first = cJSON_GetArrayItem(list, 0);
        return json_get(row, "mask") != NULL || json_get(first, "label") != NULL ? READ_NEMO_CHAT
                                                                                 : READ_SHAREGPT;
    }
    if (cJSON_IsString(json_get(row, "text")) && cJSON_IsArray(json_get(row, "label")))
        return READ_NEMO_REGRESSION;
    if (cJSON_IsString(json_get(row, "prompt")) &&
        (cJSON_IsString(json_get(row, "response")) || cJSON_IsString(json_get(row, "completion"))))
        return READ_HELPSTEER;
    if (cJSON_IsString(json_get(row, "text")))
        return READ_TEXT;
    return READ_AUTO;
}
