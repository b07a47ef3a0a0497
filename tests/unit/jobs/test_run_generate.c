#include "tests/unit/jobs/jobs_fixture.h"

static struct world *policy_world(bool plain)
{
    struct world *w = world_new();
    char path[128];

    snprintf(path, sizeof(path), "%s/chat", w->dir);
    fixture_dataset(path, 60);
    world_input(w, "prompts", path);
    if (plain) {
        world_input(w, "model", "models/stories260K");
        return w;
    }
    snprintf(path, sizeof(path), "%s/policy", w->dir);
    fixture_model(path, TEMPLATE_POLICY, 5);
    world_input(w, "model", path);
    return w;
}

static struct spec *sweep_spec(void)
{
    struct spec *s = fixture_spec(KIND_GENERATE, "model prompts");
    struct generate_spec *g = &s->generate;

    g->attributes_n = 1;
    snprintf(g->attributes[0].attr, SCHEMA_NAME_MAX, "verbosity");
    g->attributes[0].level = 1;
    g->sweep_n = 2;
    snprintf(g->sweep[0].attr, SCHEMA_NAME_MAX, "curious");
    g->sweep[0].levels = (struct int_list){.n = 2, .v = {0, 2}};
    snprintf(g->sweep[1].attr, SCHEMA_NAME_MAX, "quality");
    g->sweep[1].levels = (struct int_list){.n = 3, .v = {0, 2, 4}};
    g->sampling = (struct sampling){0.8f, 0, 1.0f, 1.5f, 3.9f, 24};
    g->n = 2;
    g->prompts = 4;
    snprintf(g->split, sizeof(g->split), "held_out");
    g->rows_per_task = 16;
    return s;
}

static void test_items_are_contexts_times_settings_times_samples(void **state)
{
    struct world *w = policy_world(false);
    struct spec *s = sweep_spec();
    struct buf items = BUF_INIT;
    char *line, *rest;
    int n = 0, seen[6] = {0};

    (void)state;
    world_phase(w, s, "generate.items", 0, 0);
    assert_true(world_metric(w, "generate.items", "rows") == 4 * 6 * 2);
    assert_int_equal(
        blob_read(
            w->store,
            json_string_or(json_get(json_get(w->phases, "generate.items"), "outputs"), "items", ""),
            1u << 20, &items, NULL),
        0);
    for (line = strtok_r(items.data, "\n", &rest); line != NULL;
         line = strtok_r(NULL, "\n", &rest), n++) {
        cJSON *j = NULL;
        const cJSON *level;
        assert_int_equal(json_parse(line, strlen(line), JSON_LIMITS_LINE, &j, NULL), 0);
        level = json_get(j, "level");
        assert_int_equal(json_int_or(j, "i", -1), n);
        assert_int_equal(json_int_or(j, "sample", -1), n % 2);
        assert_int_equal(json_int_or(j, "c", -1) % 5, 4); /* held out */
        assert_true(json_int_or(j, "turn", -1) >= 1);
        assert_int_equal(cJSON_GetArrayItem(level, 2)->valueint, 1);
        seen[cJSON_GetArrayItem(level, 0)->valueint / 2 * 3 +
             cJSON_GetArrayItem(level, 1)->valueint / 2]++;
        cJSON_Delete(j);
    }
    assert_int_equal(n, 48);
    for (int i = 0; i < 6; i++)
        assert_int_equal(seen[i], 8);
    buf_free(&items);
    spec_free(s);
    world_free(w);
}

static void test_texts_do_not_depend_on_the_ranges(void **state)
{
    struct world *w = policy_world(false);
    struct spec *s = sweep_spec();
    const cJSON *m;
    char *a, *b;
    bool adds_up = true;

    (void)state;
    world_phase(w, s, "generate.items", 0, 0);
    world_phase(w, s, "generate.rows", 48, 48);
    a = world_parts(w, "generate.rows");
    assert_true(world_metric(w, "generate.rows", "tokens") > 0.0);
    assert_true(world_metric(w, "generate.rows", "slot_steps") >=
                world_metric(w, "generate.rows", "steps"));
    cJSON_ArrayForEach(m, json_get(json_get(w->phases, "generate.rows"), "metrics")) adds_up =
        adds_up && strstr(m->string, "per") == NULL && strstr(m->string, "used") == NULL;
    assert_true(adds_up); /* figures of ranges are summed */
    world_phase(w, s, "generate.rows", 48, 5);
    b = world_parts(w, "generate.rows");
    assert_string_equal(a, b);
    free(a);
    free(b);
    spec_free(s);
    world_free(w);
}

static void test_int8_writes_its_own_texts_on_any_range(void **state)
{
    struct world *w = policy_world(false);
    struct spec *s = sweep_spec();
    char *full, *a, *b;

    (void)state;
    world_phase(w, s, "generate.items", 0, 0);
    world_phase(w, s, "generate.rows", 48, 48);
    full = world_parts(w, "generate.rows");
    assert_true(world_metric(w, "generate.rows", "prompt_tokens_shared") > 0.0);
    snprintf(s->generate.decode.weights, sizeof(s->generate.decode.weights), "int8");
    world_phase(w, s, "generate.rows", 48, 48);
    a = world_parts(w, "generate.rows");
    world_phase(w, s, "generate.rows", 48, 7);
    b = world_parts(w, "generate.rows");
    assert_string_equal(a, b);
    assert_string_not_equal(full, a);
    free(full);
    free(a);
    free(b);
    spec_free(s);
    world_free(w);
}

static void test_replies_become_conversations_with_the_levels_asked_for(void **state)
{
    struct world *w = policy_world(false);
    struct spec *s = sweep_spec();
    struct dataset out, in;
    char path[128];
    int other = 0;

    (void)state;
    world_phase(w, s, "generate.items", 0, 0);
    world_phase(w, s, "generate.rows", 48, 16);
    world_phase(w, s, "generate.reduce", 0, 0);
    world_output(w, "generate.reduce", &out);
    snprintf(path, sizeof(path), "%s/chat", w->dir);
    assert_int_equal(dataset_load(path, &in, NULL), 0);
    assert_true(world_metric(w, "generate.reduce", "rows") == (double)out.conversations);
    assert_true(world_metric(w, "generate.reduce", "replies") == 48);
    assert_true(out.conversations + (size_t)world_metric(w, "generate.reduce", "empty") == 48);
    for (size_t i = 0; i < out.conversations; i++) {
        const struct conversation *c = &out.conversation[i];
        const struct turn *reply = &c->turn[c->turns - 1];
        const struct conversation *from = NULL;
        for (size_t k = 0; k < in.conversations; k++) {
            size_t len = strlen(in.conversation[k].id);
            if (strncmp(in.conversation[k].id, c->id, len) == 0 && c->id[len] == '#')
                from = &in.conversation[k];
        }
        assert_non_null(from);
        assert_int_equal(c->split, SPLIT_HELD_OUT);
        assert_int_equal(c->fold, from->fold);
        for (uint32_t k = 0; k + 1 < c->turns; k++) {
            assert_string_equal(c->turn[k].text, from->turn[k].text);
            assert_false(c->turn[k].respond);
        }
        assert_true(reply->respond && reply->role == ROLE_ASSISTANT && reply->tokens > 0 &&
                    reply->tokens <= 24);
        assert_true(json_utf8_valid(reply->text, reply->text_len) &&
                    strstr(reply->text, "<|") == NULL);
        assert_int_equal(reply->level[2], 1);
        assert_true(reply->level[0] == 0 || reply->level[0] == 2);
        other += i > 0 && strcmp(reply->text,
                                 out.conversation[0].turn[out.conversation[0].turns - 1].text) != 0;
    }
    assert_true(other > 20);
    dataset_free(&in);
    dataset_free(&out);
    spec_free(s);
    world_free(w);
}

/* The chat with a schema of one attribute, whose levels end where the policy has none. */
static void foreign_dataset(const char *from, const char *dir)
{
    struct dataset in;
    struct dataset_writer *w;

    assert_int_equal(dataset_load(from, &in, NULL), 0);
    in.schema.attrs = 1;
    in.schema.attr[0].levels = SCHEMA_LEVELS_MAX;
    assert_int_equal(dataset_writer_new(dir, &in.schema, &w, NULL), 0);
    for (size_t i = 0; i < in.conversations; i++) {
        for (uint32_t k = 0; k < in.conversation[i].turns; k++)
            in.conversation[i].turn[k].level[0] = SCHEMA_LEVELS_MAX - 1;
        assert_int_equal(dataset_write(w, &in.conversation[i], NULL), 0);
    }
    assert_int_equal(dataset_writer_end(&w, NULL, NULL), 0);
    dataset_free(&in);
}

static void test_levels_of_another_schema_are_not_said(void **state)
{
    struct world *w = world_new();
    struct spec *s = sweep_spec();
    char from[128], path[128];

    (void)state;
    snprintf(from, sizeof(from), "%s/chat", w->dir);
    fixture_dataset(from, 60);
    snprintf(path, sizeof(path), "%s/foreign", w->dir);
    foreign_dataset(from, path);
    world_input(w, "prompts", path);
    snprintf(path, sizeof(path), "%s/policy", w->dir);
    fixture_model_named(path, TEMPLATE_NEMO, TEMPLATE_POLICY, 5);
    world_input(w, "model", path);
    s->generate.sampling.guidance = 1.0f;
    world_phase(w, s, "generate.items", 0, 0);
    world_phase(w, s, "generate.rows", 48, 16);
    world_phase(w, s, "generate.reduce", 0, 0);
    assert_true(world_metric(w, "generate.reduce", "replies") == 48);
    spec_free(s);
    world_free(w);
}

/* Puts `to` where `from` stands first in the items of a phase, as a worker that is broken would. */
static void items_change(struct world *w, const char *phase, const char *from, const char *to)
{
    cJSON *outputs = cJSON_GetObjectItemCaseSensitive(
        cJSON_GetObjectItemCaseSensitive(w->phases, phase), "outputs");
    struct buf text = BUF_INIT, out = BUF_INIT;
    struct digest d;
    char *hit;

    assert_int_equal(
        blob_read(w->store, json_string_or(outputs, "items", ""), 1u << 20, &text, NULL), 0);
    hit = strstr(text.data, from);
    assert_non_null(hit);
    buf_add(&out, text.data, (size_t)(hit - text.data));
    buf_str(&out, to);
    buf_str(&out, hit + strlen(from));
    assert_int_equal(blob_put_bytes(w->store, out.data, out.len, &d, NULL), 0);
    cJSON_ReplaceItemInObjectCaseSensitive(outputs, "items", cJSON_CreateString(d.hex));
    buf_free(&text);
    buf_free(&out);
}

static void test_levels_of_items_that_no_attribute_has_are_refused(void **state)
{
    struct world *w = world_new();
    struct spec *s = sweep_spec();
    char path[128];

    (void)state;
    snprintf(path, sizeof(path), "%s/chat", w->dir);
    fixture_dataset(path, 60);
    world_input(w, "prompts", path);
    snprintf(path, sizeof(path), "%s/policy", w->dir);
    fixture_model_named(path, TEMPLATE_NEMO, TEMPLATE_POLICY, 5);
    world_input(w, "model", path);
    world_phase(w, s, "generate.items", 0, 0);
    world_phase(w, s, "generate.rows", 48, 16);
    items_change(w, "generate.items", "\"level\":[0,0,1]", "\"level\":[0,9,1]");
    world_fails(w, s, "generate.rows", 0, 16, ERR_CORRUPT, "level[1] is 9, must be in -1..4");
    world_fails(w, s, "generate.reduce", 0, 0, ERR_CORRUPT, "level[1] is 9, must be in -1..4");
    items_change(w, "generate.items", "\"level\":[0,9,1]", "\"level\":[3,0,1]");
    world_fails(w, s, "generate.rows", 0, 16, ERR_CORRUPT, "level[0] is 3, must be in -1..2");
    items_change(w, "generate.items", "\"level\":[3,0,1]", "\"level\":[0,0,1,0]");
    world_fails(w, s, "generate.rows", 0, 16, ERR_CORRUPT, "4 levels for 3 attributes");
    spec_free(s);
    world_free(w);
}

/* A policy of `vocab` rows whose tokenizer has 300 tokens, and as many levels as there may be: 24 x 17 names. */
static void policy_small(const char *dir, int32_t vocab, int32_t control_first)
{
    struct model m = {0};
    struct dims d = {.vocab = vocab,
                     .width = 16,
                     .layers = 1,
                     .heads = 2,
                     .kv_heads = 2,
                     .head_dim = 8,
                     .ffn = 32,
                     .context = 128,
                     .norm_eps = 1e-5f,
                     .rope_theta = 10000.0f,
                     .tied = true};
    struct template_config *c = &m.steer.template_config;
    struct err e = {0};

    model_init_random(&m, &d, 1);
    assert_int_equal(tokenizer_load("synthetic:300", &m.tokenizer, &e), 0);
    m.steer.role = STEER_POLICY;
    *c = (struct template_config){.name = TEMPLATE_PLAIN,
                                  .head = TEMPLATE_POLICY,
                                  .context_tokens = 16,
                                  .max_length = 128,
                                  .control_first = control_first,
                                  .query_first = -1};
    c->schema = fixture_schema();
    for (int i = 0; i < SCHEMA_LABELS_MAX; i++)
        c->class_first[i] = -1;
    for (int a = 3; a < SCHEMA_ATTRS_MAX; a++) {
        c->schema.attr[a] = c->schema.attr[2];
        snprintf(c->schema.attr[a].name, sizeof(c->schema.attr[a].name), "words%d", a);
    }
    c->schema.attrs = SCHEMA_ATTRS_MAX;
    for (int a = 0; a < SCHEMA_ATTRS_MAX; a++) {
        c->schema.attr[a].levels = SCHEMA_LEVELS_MAX;
        c->schema.attr[a].max = SCHEMA_LEVELS_MAX - 1;
    }
    if (model_save(&m, dir, &e) != 0)
        fail_msg("%s", e.msg);
    model_fini(&m);
}

static struct world *small_world(int32_t vocab, int32_t control_first)
{
    struct world *w = world_new();
    char path[128];

    snprintf(path, sizeof(path), "%s/policy", w->dir);
    policy_small(path, vocab, control_first);
    world_input(w, "model", path);
    return w;
}

/* Control tokens of a configuration that was made elsewhere: more than the tokenizer has, or beyond it. */
static void test_control_tokens_that_the_tokenizer_does_not_have(void **state)
{
    struct spec *s = fixture_spec(KIND_GENERATE, "model");
    struct world *w = small_world(300, 0);

    (void)state;
    s->generate.from_nothing = 4;
    s->generate.n = 1;
    s->generate.rows_per_task = 4;
    s->generate.sampling = (struct sampling){1.0f, 0, 1.0f, 1.0f, 3.9f, 8};
    world_fails(w, s, "generate.items", 0, 0, ERR_INVALID, "beyond the vocabulary of 300");
    world_free(w);
    for (int32_t first = 0; first < 600; first += 290) {
        w = small_world(1000, first);
        world_phase(w, s, "generate.items", 0, 0);
        world_phase(w, s, "generate.rows", 4, 4);
        world_free(w);
    }
    spec_free(s);
}

static void test_a_plain_model_writes_from_nothing(void **state)
{
    struct world *w = policy_world(true);
    struct spec *s = fixture_spec(KIND_GENERATE, "model");
    struct dataset out;
    int held_out = 0, once = 0;

    (void)state;
    cJSON_DeleteItemFromObjectCaseSensitive(w->inputs, "prompts");
    s->generate.from_nothing = 60;
    s->generate.n = 1;
    s->generate.rows_per_task = 25;
    spec_text_add(&s->generate.stop, ". ");
    s->generate.sampling = (struct sampling){1.0f, 0, 1.0f, 1.0f, 3.9f, 40};
    world_phase(w, s, "generate.items", 0, 0);
    world_phase(w, s, "generate.rows", 60, 25);
    world_phase(w, s, "generate.reduce", 0, 0);
    world_output(w, "generate.reduce", &out);
    assert_true(out.conversations > 55);
    assert_int_equal(out.schema.attrs, 3); /* those of the spec: a plain model has none */
    for (size_t i = 0; i < out.conversations; i++) {
        const struct conversation *c = &out.conversation[i];
        assert_int_equal(c->turns, 1);
        held_out += c->split == SPLIT_HELD_OUT;
        once += strstr(c->turn[0].text, "nce upon a time") != NULL;
        assert_null(strstr(c->turn[0].text, ". "));
    }
    assert_in_range(held_out, 1, 15);
    assert_true(once > 20); /* how stories begin */
    dataset_free(&out);
    spec_free(s);
    world_free(w);
}

/* One question of so many short sentences. */
static void long_dataset(const char *dir, int sentences)
{
    struct schema s = fixture_schema();
    struct dataset_writer *w;
    struct arena a = ARENA_INIT;
    struct turn turn;
    struct buf text = BUF_INIT;

    for (int i = 0; i < sentences; i++)
        buf_str(&text, "Lily saw a big red ball. ");
    dataset_turn_init(&turn, &s, &a);
    turn.role = ROLE_USER;
    turn.speaker = "";
    turn.text = text.data;
    turn.text_len = (uint32_t)text.len;
    turn.kept = true;
    assert_int_equal(dataset_writer_new(dir, &s, &w, NULL), 0);
    assert_int_equal(
        dataset_write(
            w,
            &(struct conversation){
                .id = "long", .source = "x:1", .split = SPLIT_HELD_OUT, .turns = 1, .turn = &turn},
            NULL),
        0);
    assert_int_equal(dataset_writer_end(&w, NULL, NULL), 0);
    arena_free(&a);
    buf_free(&text);
}

/* Two replies of 24 tokens to a long question; how many tokens of it were read. NULL: the plain model. */
static double long_read(const char *policy, int sentences)
{
    struct world *w = world_new();
    struct spec *s = fixture_spec(KIND_GENERATE, "model prompts");
    char path[128];
    double tokens;

    snprintf(path, sizeof(path), "%s/long", w->dir);
    long_dataset(path, sentences);
    world_input(w, "prompts", path);
    world_input(w, "model", policy != NULL ? policy : "models/stories260K");
    s->generate.n = 2;
    s->generate.rows_per_task = 2;
    snprintf(s->generate.split, sizeof(s->generate.split), "held_out");
    s->generate.sampling = (struct sampling){1.0f, 0, 1.0f, 1.0f, 3.9f, 24};
    world_phase(w, s, "generate.items", 0, 0);
    world_phase(w, s, "generate.rows", 2, 2);
    tokens = (world_metric(w, "generate.rows", "prompt_tokens") +
              world_metric(w, "generate.rows", "prompt_tokens_shared")) /
             2;
    world_phase(w, s, "generate.reduce", 0, 0);
    assert_true(world_metric(w, "generate.reduce", "empty") == 0);
    assert_true(world_metric(w, "generate.reduce", "rows") == 2);
    spec_free(s);
    world_free(w);
    return tokens;
}

/* As much of it as leaves room for the longest reply that is asked for. */
static void test_a_plain_model_answers_a_prompt_longer_than_its_context(void **state)
{
    (void)state;
    assert_in_range(long_read(NULL, 30), 30 * 9, 30 * 10); /* all of it: more than half of 512 */
    assert_in_range(long_read(NULL, 600), 512 - 24 - 4, 512 - 24);
}

static void number_to_zero(struct buf *json, const char *key)
{
    char *at = strstr(json->data, key);

    assert_non_null(at);
    for (at += strcspn(at, "0123456789"); *at >= '0' && *at <= '9'; at++)
        *at = at[1] >= '0' && at[1] <= '9' ? ' ' : '0';
}

static void test_a_policy_that_names_no_length_has_the_models_context(void **state)
{
    struct buf text = BUF_INIT;
    char dir[] = "/tmp/steer-policy-XXXXXX", path[64];

    (void)state;
    assert_non_null(mkdtemp(dir));
    fixture_model(dir, TEMPLATE_POLICY, 5);
    snprintf(path, sizeof(path), "%s/steer_config.json", dir);
    assert_int_equal(file_read(path, 1u << 20, &text, NULL), 0);
    number_to_zero(&text, "\"max_length\"");
    number_to_zero(&text, "\"context_tokens\"");
    assert_int_equal(file_write_atomic(path, text.data, text.len, NULL), 0);
    assert_true(long_read(dir, 600) > 400);
    buf_free(&text);
    file_remove_tree(dir, NULL);
}

/* The tokenizer that the model began with, which has no marks. */
static void tokenizer_swap(const char *dir)
{
    struct buf text = BUF_INIT;
    char path[160];

    snprintf(path, sizeof(path), "%s/tokenizer.json", dir);
    assert_int_equal(unlink(path), 0);
    snprintf(path, sizeof(path), "%s/tokenizer.bin", dir);
    assert_int_equal(file_read("models/stories260K/tokenizer.bin", 1u << 20, &text, NULL), 0);
    assert_int_equal(file_write_atomic(path, text.data, text.len, NULL), 0);
    buf_free(&text);
}

static void test_refusals_name_what_is_wrong(void **state)
{
    struct world *w = policy_world(false);
    struct spec *s = sweep_spec();
    char path[128];

    (void)state;
    world_phase(w, s, "generate.items", 0, 0);
    world_fails(w, s, "generate.rows", 40, 60, ERR_INVALID, "items 40..60 of 48");
    world_phase(w, s, "generate.rows", 32, 16); /* a part is missing */
    world_fails(w, s, "generate.reduce", 0, 0, ERR_CORRUPT, "32 replies for 48 items");
    w->cancel = true;
    world_fails(w, s, "generate.rows", 0, 16, ERR_CANCELLED, "of 16 replies");
    w->cancel = false;
    s->generate.sweep[1].levels.v[1] = 7;
    s->schema.attr[1].max = 8; /* the spec's scale is longer than the model's */
    s->schema.attr[1].levels = 9;
    world_fails(w, s, "generate.items", 0, 0, ERR_INVALID,
                "level 7 of attribute \"quality\", must be in 0..4");
    s->generate.sweep[1].levels.v[1] = 2;
    snprintf(s->generate.split, sizeof(s->generate.split), "train");
    s->generate.n = 1000;
    s->generate.prompts = 0;
    world_phase(w, s, "generate.items", 0, 0); /* 72 contexts x 6 x 1000 */
    assert_true(world_metric(w, "generate.items", "rows") == 432000);
    world_free(w);

    w = policy_world(true);
    world_fails(w, s, "generate.items", 0, 0, ERR_INVALID,
                "the model has no attribute \"verbosity\"");
    world_free(w);

    w = world_new();
    snprintf(path, sizeof(path), "%s/judge", w->dir);
    fixture_model(path, TEMPLATE_HEAD_CLASSES, 5);
    world_input(w, "model", path);
    world_fails(w, s, "generate.items", 0, 0, ERR_INVALID, "is an attribute model");
    world_free(w);

    w = world_new();
    snprintf(path, sizeof(path), "%s/policy", w->dir);
    fixture_model_named(path, TEMPLATE_PAPER, TEMPLATE_POLICY, 5);
    tokenizer_swap(path);
    world_input(w, "model", path);
    world_fails(w, s, "generate.items", 0, 0, ERR_INVALID, "the tokenizer has no <extra_id_0>");
    world_free(w);
    spec_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_items_are_contexts_times_settings_times_samples),
        cmocka_unit_test(test_texts_do_not_depend_on_the_ranges),
        cmocka_unit_test(test_int8_writes_its_own_texts_on_any_range),
        cmocka_unit_test(test_replies_become_conversations_with_the_levels_asked_for),
        cmocka_unit_test(test_levels_of_another_schema_are_not_said),
        cmocka_unit_test(test_levels_of_items_that_no_attribute_has_are_refused),
        cmocka_unit_test(test_control_tokens_that_the_tokenizer_does_not_have),
        cmocka_unit_test(test_a_plain_model_writes_from_nothing),
        cmocka_unit_test(test_a_plain_model_answers_a_prompt_longer_than_its_context),
        cmocka_unit_test(test_a_policy_that_names_no_length_has_the_models_context),
        cmocka_unit_test(test_refusals_name_what_is_wrong),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
