/* json_file: one JSON value in a file, read and written whole. */
#ifndef JSON_JSON_FILE_H
#define JSON_JSON_FILE_H

#include "json/json.h"

/* Gives a cJSON tree; NULL after an error, of file_read() or json_parse(), which does not name the
 * file when its content is at fault. */
int json_file_read(const char *path, size_t bytes_max, struct json_limits limits, cJSON **out,
                   struct err *e);
/* dir/name, for people: with line breaks. Atomic and durable. Errors: file_write_atomic(). */
int json_file_write(const char *dir, const char *name, const cJSON *value, struct err *e);

#endif
