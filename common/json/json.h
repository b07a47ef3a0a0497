/*
 * json: cJSON behind one strict pre-scan. cJSON alone accepts invalid UTF-8, raw control bytes, duplicate keys,
 * trailing garbage, 1e999, and cuts strings at \u0000; none of these passes here.
 */
#ifndef JSON_JSON_H
#define JSON_JSON_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

struct json_limits {
    size_t bytes_max;  /* text length */
    size_t tokens_max; /* values and keys */
    int depth_max;
};
#define JSON_LIMITS_LINE ((struct json_limits){1u << 20, 200000, 32}) /* one row of a data file */
#define JSON_LIMITS_BODY                                                                           \
    ((struct json_limits){256u << 10, 40000, 32}) /* an HTTP body, a control text */
#define JSON_LIMITS_FILE                                                                           \
    ((struct json_limits){64u << 20, 8000000, 32}) /* manifests, configs, tokenizers */

/* Whole text must be one JSON value. Gives a cJSON tree (cJSON_Delete). ERR_INVALID "byte 17: ..." or ERR_LIMIT. */
int json_parse(const char *text, size_t len, struct json_limits limits, cJSON **out, struct err *e);

/* Members by exact (case-sensitive) name. get: NULL when absent. need: an error naming the key and the type. */
const cJSON *json_get(const cJSON *object, const char *key);
int json_need_string(const cJSON *object, const char *key, const char **out, struct err *e);
int json_need_int(const cJSON *object, const char *key, int64_t min, int64_t max, int64_t *out,
                  struct err *e);
int json_need_number(const cJSON *object, const char *key, double *out, struct err *e);
const char *json_string_or(const cJSON *object, const char *key, const char *fallback);
int64_t json_int_or(const cJSON *object, const char *key,
                    int64_t fallback); /* fallback too if it is no integer */
double json_number_or(const cJSON *object, const char *key, double fallback);
bool json_bool_or(const cJSON *object, const char *key, bool fallback);

/* Canonical text: keys sorted bytewise, no blanks, integers without point, other numbers %.17g shortest round trip,
 * non-finite numbers as null, UTF-8 kept, control bytes escaped. What digests of manifests and specs are taken of. */
void json_canonical(const cJSON *value, struct buf *out);
void json_quote(const char *text, size_t len,
                struct buf *out); /* "..." with escapes; invalid UTF-8 becomes U+FFFD */
bool json_utf8_valid(const char *text, size_t len);

#endif
