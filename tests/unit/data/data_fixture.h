/* What the tests of this room share: schemas from JSON text, temporary files, conversations that were emitted. */
#ifndef TESTS_DATA_FIXTURE_H
#define TESTS_DATA_FIXTURE_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/file.h"
#include "data/dataset.h"
#include "data/read.h"
#include "data/schema.h"

#define SCHEMA_HELP                                                                                \
    "{\"labels\":[{\"name\":\"quality\",\"type\":\"scale\",\"min\":0,\"max\":4},"                  \
    "{\"name\":\"humor\",\"type\":\"scale\",\"min\":0,\"max\":4}],"                                \
    "\"attributes\":[{\"name\":\"quality\",\"type\":\"integer\",\"label\":\"quality\",\"min\":0,"  \
    "\"max\":4,"                                                                                   \
    "\"levels\":5,\"binned\":false,\"default\":4},{\"name\":\"humor\",\"type\":\"integer\","       \
    "\"label\":\"humor\","                                                                         \
    "\"min\":0,\"max\":4,\"levels\":5,\"binned\":false,\"default\":-1}]}"
#define SCHEMA_CHAT                                                                                \
    "{\"labels\":[{\"name\":\"mood\",\"type\":\"classes\",\"classes\":[\"Neutral\",\"Curious\","   \
    "\"Happy\"],"                                                                                  \
    "\"other\":-1,\"exact\":false},{\"name\":\"source\",\"type\":\"classes\",\"classes\":["        \
    "\"else\",\"Personal\"],"                                                                      \
    "\"other\":0,\"exact\":true}],"                                                                \
    "\"attributes\":[{\"name\":\"curious\",\"type\":\"categorical\",\"label\":\"mood\",\"class\":" \
    "1,\"min\":0,"                                                                                 \
    "\"max\":4,\"levels\":5,\"binned\":true,\"default\":-1},{\"name\":\"personal\",\"type\":"      \
    "\"categorical\","                                                                             \
    "\"label\":\"source\",\"class\":1,\"min\":0,\"max\":4,\"levels\":5,\"binned\":true,"           \
    "\"default\":-1},"                                                                             \
    "{\"name\":\"verbosity\",\"type\":\"computed\",\"measure\":\"words\",\"min\":0,\"max\":4,"     \
    "\"levels\":5,"                                                                                \
    "\"binned\":true,\"default\":-1}]}"

static inline struct schema schema_of(const char *text)
{
    struct schema s;
    struct err e = {0};
    cJSON *j = NULL;

    assert_int_equal(json_parse(text, strlen(text), JSON_LIMITS_LINE, &j, &e), 0);
    if (schema_from_json(j, &s, &e) != 0)
        fail_msg("%s", e.msg);
    cJSON_Delete(j);
    return s;
}

static inline char *temp_dir(void)
{
    char *dir = mem_strdup("/tmp/steer-test-XXXXXX");

    assert_non_null(mkdtemp(dir));
    return dir;
}

static inline void temp_free(char *dir)
{
    file_remove_tree(dir, NULL);
    free(dir);
}

static inline char *temp_file(const char *dir, const char *name, const void *bytes, size_t len)
{
    char *path = mem_printf("%s/%s", dir, name);
    FILE *f = fopen(path, "wb");

    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, len, f), len);
    assert_int_equal(fclose(f), 0);
    return path;
}

/* Everything is read into the training side, and any share of problems is tolerated. */
static inline struct read_config read_config_of(const struct schema *s,
                                                int (*emit)(void *self,
                                                            const struct conversation *c,
                                                            struct err *e))
{
    struct read_config c = {
        .schema = s, .held_out = 0.0, .seed = 1, .problems_max = 1.0, .limits = LINES_LIMITS};

    c.map.conversation = c.map.id = c.map.text = c.map.speaker = c.map.prompt = c.map.response = "";
    c.emit = emit;
    return c;
}

#endif
