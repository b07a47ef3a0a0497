#include "tests/unit/jobs/jobs_fixture.h"

#include "data/measure.h"

/* An annotated data set by the real tasks, a policy, and the two attribute models as judge. */
static struct world *annotated_world(struct spec *s)
{
    struct world *w = world_new();
    struct spec *annotate = fixture_spec(KIND_ANNOTATE, "data model");
    char path[128];

    snprintf(path, sizeof(path), "%s/chat", w->dir);
    fixture_dataset(path, 60);
    world_input(w, "data", path);
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof(path), "%s/judge%d", w->dir, i);
        fixture_model(path, TEMPLATE_HEAD_CLASSES, 100 + (uint64_t)i);
        world_input(w, "model", path);
    }
    world_phase(w, annotate, "annotate.rows", FIXTURE_CONVERSATIONS, 16);
    world_phase(w, annotate, "annotate.reduce", 0, 0);
    cJSON_DeleteItemFromObjectCaseSensitive(w->inputs, "data");
    cJSON_AddItemToArray(
        cJSON_AddArrayToObject(w->inputs, "data"),
        cJSON_Duplicate(
            json_get(json_get(json_get(w->phases, "annotate.reduce"), "outputs"), "data"), true));
    cJSON_AddItemToObject(w->inputs, "judge",
                          cJSON_DetachItemFromObjectCaseSensitive(w->inputs, "model"));
    snprintf(path, sizeof(path), "%s/policy", w->dir);
    fixture_model(path, TEMPLATE_POLICY, 5);
    world_input(w, "model", path);
    spec_free(annotate);
    s->bootstrap.where_n = 1;
    s->bootstrap.where[0] = (struct attr_where){"curious", CMP_GE, 1};
    s->bootstrap.keep_n = 1;
    s->bootstrap.keep[0] = (struct attr_where){"verbosity", CMP_LE, 1};
    s->bootstrap.samples_per_prompt = 3;
    s->bootstrap.prompts = 30;
    s->bootstrap.dedupe = true;
    s->bootstrap.rows_per_task = 40;
    s->bootstrap.sampling = (struct sampling){0.9f, 0, 1.0f, 1.0f, 3.9f, 48};
    return w;
}

static void run_all(struct world *w, const struct spec *s)
{
    uint64_t rows;

    world_phase(w, s, "bootstrap.items", 0, 0);
    rows = (uint64_t)world_metric(w, "bootstrap.items", "rows");
    world_phase(w, s, "bootstrap.sample", rows, 40);
    world_phase(w, s, "bootstrap.score", rows, 40);
    world_phase(w, s, "bootstrap.reduce", 0, 0);
}

static void test_combinations_come_from_the_data_and_satisfy_where(void **state)
{
    struct spec *s = fixture_spec(KIND_BOOTSTRAP, "model judge data");
    struct world *w = annotated_world(s);
    struct dataset data;
    struct buf items = BUF_INIT;
    char *line, *rest;
    int n = 0, kinds[3][5][3] = {{{0}}};

    (void)state;
    world_output(w, "annotate.reduce", &data);
    world_phase(w, s, "bootstrap.items", 0, 0);
    assert_true(world_metric(w, "bootstrap.items", "rows") == 90);
    assert_int_equal(
        blob_read(w->store,
                  json_string_or(json_get(json_get(w->phases, "bootstrap.items"), "outputs"),
                                 "items", ""),
                  1u << 20, &items, NULL),
        0);
    for (line = strtok_r(items.data, "\n", &rest); line != NULL;
         line = strtok_r(NULL, "\n", &rest), n++) {
        cJSON *j = NULL;
        int8_t level[3];
        bool found = false;
        assert_int_equal(json_parse(line, strlen(line), JSON_LIMITS_LINE, &j, NULL), 0);
        for (int a = 0; a < 3; a++)
            level[a] = (int8_t)cJSON_GetArrayItem(json_get(j, "level"), a)->valueint;
        assert_true(level[0] >= 1);
        assert_int_equal(data.conversation[json_int_or(j, "c", 0)].split, SPLIT_TRAIN);
        for (size_t i = 0; i < data.responses && !found; i++) {
            size_t c;
            uint32_t k;
            dataset_response(&data, i, &c, &k);
            found = memcmp(data.conversation[c].turn[k].level, level, 3) == 0 &&
                    data.conversation[c].split == SPLIT_TRAIN;
        }
        assert_true(found);
        kinds[level[0]][level[1]][level[2]]++;
        cJSON_Delete(j);
    }
    assert_int_equal(n, 90);
    n = 0;
    for (int i = 0; i < 45; i++)
        n += (&kinds[0][0][0])[i] > 0;
    assert_int_equal(n, (int)world_metric(w, "bootstrap.items",
                                          "combinations")); /* 90 draws of few: each comes up */
    buf_free(&items);
    dataset_free(&data);
    spec_free(s);
    world_free(w);
}

static void test_what_is_kept_satisfies_keep_and_carries_predicted_levels(void **state)
{
    struct spec *s = fixture_spec(KIND_BOOTSTRAP, "model judge data");
    struct world *w = annotated_world(s);
    struct dataset out, data;
    double dropped = 0;
    static const char *const reasons[] = {"cut_off",   "empty", "too_long",
                                          "truncated", "keep",  "repeated"};

    (void)state;
    run_all(w, s);
    world_output(w, "bootstrap.reduce", &out);
    world_output(w, "annotate.reduce", &data);
    assert_true(out.conversations >= 5);
    assert_true(world_metric(w, "bootstrap.reduce", "rows") == (double)out.conversations);
    for (size_t i = 0; i < 6; i++) {
        char name[64];
        snprintf(name, sizeof(name), "dropped.%s", reasons[i]);
        dropped += world_metric(w, "bootstrap.reduce", name);
    }
    assert_true(dropped + (double)out.conversations == 90);
    assert_true(world_metric(w, "bootstrap.reduce", "requested.curious") >= 1.0);
    for (size_t i = 0; i < out.conversations; i++) {
        const struct conversation *c = &out.conversation[i];
        const struct turn *t = &c->turn[c->turns - 1];
        assert_int_equal(c->split, SPLIT_TRAIN);
        assert_true(t->respond && t->kept);
        assert_in_range(t->level[2], 0, 1);
        assert_true(t->value[2] == (float)measure_text(MEASURE_WORDS, t->text, t->text_len));
        for (int a = 0; a < 3; a++) { /* by the edges of the annotated data */
            assert_int_equal(t->level[a], schema_level(&data.schema.attr[a], (double)t->value[a]));
            assert_true(out.schema.attr[a].has_edges == data.schema.attr[a].has_edges);
        }
        for (size_t k = 0; k < i; k++)
            assert_string_not_equal(t->text,
                                    out.conversation[k].turn[out.conversation[k].turns - 1].text);
    }
    dataset_free(&out);
    dataset_free(&data);
    spec_free(s);
    world_free(w);
}

static void test_a_rerun_gives_the_same_data_set(void **state)
{
    struct spec *s = fixture_spec(KIND_BOOTSTRAP, "model judge data");
    struct world *w = annotated_world(s);
    char first[DIGEST_HEX + 1];

    (void)state;
    run_all(w, s);
    snprintf(
        first, sizeof(first), "%s",
        json_string_or(json_get(json_get(w->phases, "bootstrap.reduce"), "outputs"), "data", ""));
    run_all(w, s);
    assert_string_equal(
        first,
        json_string_or(json_get(json_get(w->phases, "bootstrap.reduce"), "outputs"), "data", "?"));
    spec_free(s);
    world_free(w);
}

/* Makes `where` ask for three levels that no training response has together. */
static void unseen_combination(struct world *w, struct spec *s)
{
    struct dataset data;
    bool seen[3][5][3] = {{{false}}};
    int at = 0;

    world_output(w, "annotate.reduce", &data);
    for (size_t i = 0; i < data.responses; i++) {
        size_t c;
        uint32_t k;
        const int8_t *level;
        dataset_response(&data, i, &c, &k);
        level = data.conversation[c].turn[k].level;
        seen[level[0]][level[1]][level[2]] = true;
    }
    while (at < 44 && (&seen[0][0][0])[at])
        at++;
    s->bootstrap.where_n = 3;
    s->bootstrap.where[0] = (struct attr_where){"curious", CMP_EQ, at / 15};
    s->bootstrap.where[1] = (struct attr_where){"quality", CMP_EQ, at / 3 % 5};
    s->bootstrap.where[2] = (struct attr_where){"verbosity", CMP_EQ, at % 3};
    dataset_free(&data);
}

static void test_refusals_name_what_is_wrong(void **state)
{
    struct spec *s = fixture_spec(KIND_BOOTSTRAP, "model judge data");
    struct world *w = annotated_world(s);
    char path[128];

    (void)state;
    unseen_combination(w, s);
    world_fails(w, s, "bootstrap.items", 0, 0, ERR_INVALID,
                "bootstrap.where: none of 96 kept training responses");
    s->bootstrap.where_n = 1;
    s->bootstrap.where[0] = s->bootstrap.where[2];
    snprintf(s->schema.attr[2].name, SCHEMA_NAME_MAX,
             "length"); /* the spec names what the data does not have */
    snprintf(s->bootstrap.where[0].attr, SCHEMA_NAME_MAX, "length");
    snprintf(s->bootstrap.keep[0].attr, SCHEMA_NAME_MAX, "length");
    world_fails(w, s, "bootstrap.items", 0, 0, ERR_INVALID, "the data has no attribute \"length\"");
    spec_free(s);
    s = fixture_spec(KIND_BOOTSTRAP, "model judge data");
    world_free(w);

    w = annotated_world(s);
    world_phase(w, s, "bootstrap.items", 0, 0);
    world_phase(w, s, "bootstrap.sample", 90, 40);
    world_fails(w, s, "bootstrap.score", 80, 130, ERR_INVALID, "items 80..130");
    world_phase(w, s, "bootstrap.score", 80, 40);
    world_fails(w, s, "bootstrap.reduce", 0, 0, ERR_CORRUPT, "80 scores for 90 items");
    world_phase(w, s, "bootstrap.score", 90, 40);
    s->bootstrap.keep[0] = (struct attr_where){"quality", CMP_EQ, 0};
    world_fails(w, s, "bootstrap.reduce", 0, 0, ERR_INVALID,
                "bootstrap.keep: none of 90 replies is left");
    snprintf(path, sizeof(path), "%s/chat", w->dir); /* not annotated */
    cJSON_DeleteItemFromObjectCaseSensitive(w->inputs, "data");
    world_input(w, "data", path);
    world_fails(w, s, "bootstrap.items", 0, 0, ERR_INVALID, "is the data annotated?");
    spec_free(s);
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_combinations_come_from_the_data_and_satisfy_where),
        cmocka_unit_test(test_what_is_kept_satisfies_keep_and_carries_predicted_levels),
        cmocka_unit_test(test_a_rerun_gives_the_same_data_set),
        cmocka_unit_test(test_refusals_name_what_is_wrong),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
